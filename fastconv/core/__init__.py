"""Values and arithmetic that every room may read: problems, geometry, arguments, activations."""
