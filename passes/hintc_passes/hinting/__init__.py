"""What the passes on hints share: where a hinted call lies, and how it becomes one node."""
