"""What only training, or checking, needs, kind by kind; for remove-training-nodes."""
