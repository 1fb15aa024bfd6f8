"""What re-rolls unrolled recurrences: sequences, steps in lockstep, what others read of them."""
