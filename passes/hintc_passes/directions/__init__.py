"""Pairs of recurrences that read one sequence in both directions."""
