"""Machine code with its fixed arguments: one parallel loop serves all such code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.jit.compiler import range_kernel
from fastconv.jit.pointers import address, call

#: The number of integer arguments, after the range of items and two arrays.
COUNT = 10
_NONE = np.empty(0, np.uint8)


@range_kernel
def _run_items(
    start: int, stop: int, code: int, source: Any, target: Any, third: Any, numbers: Any
) -> None:
    """Call the machine code `code` for the items `start` to `stop`."""
    n = numbers
    first = address(third) if third.size else n[0]
    arrays = address(source), address(target)
    call(code, (start, stop, *arrays, first, n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9]))


@range_kernel
def run_code(
    start: int, stop: int, code: int, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any
) -> None:
    """Call the machine code `code` for the items `start` to `stop` with the addresses of arrays.

    That of `d` is 0 if it is empty.
    """
    fourth = address(d) if d.size else 0
    some, others = (address(a), address(b), address(c)), (address(e), address(f), address(g))
    call(code, (start, stop, *some, fourth, *others))


class Launch:
    """Machine code for ranges of items, ready to be called with the arrays of one call.

    Its arguments are the addresses of two or three such arrays, the addresses of `tables`, which
    are the same in every call, and then `sizes`.
    """

    def __init__(self, code: int, tables: Sequence[Any], sizes: Sequence[int]) -> None:
        self._code, self._tables = code, tables  # keeps the tables alive
        fixed = [*(table.ctypes.data for table in tables), *sizes]
        # Code for three arrays has one number less; where the third is None, it gets 0.
        self._numbers = np.array([0] * (COUNT - len(fixed)) + fixed, np.int64)

    def __call__(
        self, items: int, source: Any, target: Any, third: Any = None, work: int = 0
    ) -> None:
        """Run over ``range(items)``; `work` in elements, by default those of the larger array."""
        arrays = source, target, _NONE if third is None else third
        work = work or max(source.size, target.size)
        _run_items.small(work, items, self._code, *arrays, self._numbers)
