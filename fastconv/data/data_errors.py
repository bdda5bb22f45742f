"""The error of damaged data."""

from __future__ import annotations


class DataError(ValueError):
    """Invalid data; the message names the file, what is wrong, and what would be right.

    Examples
    --------
    >>> from fastconv import data
    >>> data.read_idx(".")
    Traceback (most recent call last):
    fastconv.data.data_errors.DataError: .: must be a file, got a folder or a device
    """
