"""Control flow v1: where each node runs, and how loops, conditions and arrays become functional."""
