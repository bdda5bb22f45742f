"""Machine code that is called with a row of numbers: one loop in parallel serves all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.kernels.calls import call
from fastconv.kernels.jit import range_kernel

#: How many numbers such code takes, after the range of items that it is to handle.
COUNT = 12


@range_kernel
def _run_items(start: int, stop: int, code: int, numbers: Any) -> None:
    """Call the machine code `code` for the items `start` to `stop`."""
    n = numbers
    call(
        code,
        (start, stop, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]),
    )


def run_items(items: int, code: int, arrays: Sequence[Any], sizes: Sequence[int]) -> None:
    """Call machine code for ranges of items with the addresses of arrays, then sizes.

    None instead of an array is the address 0. The arrays are held until the work is done.
    """
    addresses = [0 if array is None else array.ctypes.data for array in arrays]
    numbers = np.array((*addresses, *sizes), np.int64)
    assert len(numbers) == COUNT
    _run_items(items, code, numbers)
