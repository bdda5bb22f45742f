"""Scratch memory that is kept from call to call, one set a thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
_idle = threading.local()


@contextmanager
def scratch(name: str, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """Lend an uninitialized array for the `with` block.

    The memory is taken out of the thread's store meanwhile: a signal handler that interrupts the
    block and convolves something itself gets other memory.
    """
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = _idle.__dict__.pop(name, None)
    if buffer is None or buffer.nbytes < wanted:
        raw = np.empty(wanted + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        buffer = raw[start : start + wanted]
    try:
        yield buffer[:wanted].view(dtype).reshape(shape)
    finally:
        setattr(_idle, name, buffer)
