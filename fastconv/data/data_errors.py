"""The error of damaged data."""

from __future__ import annotations


class DataError(ValueError):
    """Invalid data; the message names the file, what is wrong, and what would be right."""
