"""Hints in a graph: the protocol, collected calls that are sequences, stubs."""
