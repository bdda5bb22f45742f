"""Machine code with the numbers that it is called with: one loop in parallel serves all of it."""

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


class Launch:
    """Machine code for ranges of items, ready to be called with the arrays of one call.

    It takes the addresses of these arrays, of `tables`, which are the same in every call, and then
    `sizes`: `COUNT` numbers in all.
    """

    def __init__(self, code: int, tables: Sequence[Any], sizes: Sequence[int]) -> None:
        self._code, self._tables = code, tables  # addresses hold nothing alive
        fixed = [*(table.ctypes.data for table in tables), *sizes]
        self._numbers = np.array([0] * (COUNT - len(fixed)) + fixed, np.int64)
        self._changing = COUNT - len(fixed)

    def __call__(self, items: int, *arrays: Any) -> None:
        """Run over ``range(items)``; the address of None is 0. The largest array is the work."""
        assert len(arrays) == self._changing
        numbers = self._numbers.copy()
        for number, array in enumerate(arrays):
            if array is not None:
                numbers[number] = array.ctypes.data
        work = max(array.size for array in arrays if array is not None)
        _run_items.small(work, items, self._code, numbers)
