"""Passes for hintc. Each module here is looked through for them."""
