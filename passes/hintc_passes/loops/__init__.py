"""What raises loops: variables and their roles, trip counts, rows."""
