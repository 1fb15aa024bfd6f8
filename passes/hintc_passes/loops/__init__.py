"""What the recurrence passes share: loops as variables, trip counts, step functions."""
