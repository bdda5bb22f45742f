"""What is wrong with data."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be what it should be: names the file, what it was, what would be right."""
