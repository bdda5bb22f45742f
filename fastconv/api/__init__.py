"""The public functions: they check what a user passes, and return arrays."""
