"""Fully connected layers: products of matrices."""
