"""Scratch memory that is kept from call to call, one set a thread."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return an uninitialized array, valid until this thread asks for the same name again."""
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.nbytes < wanted:
        raw = np.empty(wanted + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        buffer = raw[start : start + wanted]
        setattr(_buffers, name, buffer)
    return buffer[:wanted].view(dtype).reshape(shape)
