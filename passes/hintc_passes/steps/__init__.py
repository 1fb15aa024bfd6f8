"""Recurrent cells that are called once: how they are found, and how one becomes a Scan."""
