"""What changes Scans: their step functions, states, sequences and outputs."""
