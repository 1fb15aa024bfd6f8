"""What is known of values: constants, dimensions, which are equal."""
