"""Scratch memory that is kept from call to call, one set a thread."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
_idle = threading.local()


class scratch:
    """Lend uninitialized memory for the `with` block: bytes, or an array of a shape and dtype.

    The memory is taken out of the thread's store meanwhile: a signal handler that interrupts the
    block and convolves something itself gets other memory.
    """

    __slots__ = ("_buffer", "_dtype", "_name", "_shape")

    def __init__(self, name: str, shape: int | tuple[int, ...], dtype: str | None = None) -> None:
        self._name, self._shape, self._dtype = name, shape, dtype

    def __enter__(self) -> NDArray[Any]:
        shape, dtype = self._shape, self._dtype
        wanted = shape if isinstance(shape, int) else math.prod(shape) * np.dtype(dtype).itemsize
        buffer = _idle.__dict__.pop(self._name, None)
        if buffer is None or len(buffer) < wanted:
            buffer = None  # not both at a time
            raw = np.empty(wanted + _ALIGNMENT, np.uint8)
            start = -raw.ctypes.data % _ALIGNMENT
            buffer = raw[start : start + wanted]
        self._buffer = buffer
        lent: NDArray[Any] = buffer[:wanted]
        return lent if dtype is None else lent.view(dtype).reshape(shape)

    def __exit__(self, *error: object) -> None:
        setattr(_idle, self._name, self._buffer)
