"""Which loops a program will need that are not compiled yet, found without running any.

Inside `collecting`, loops do nothing but note the types that they are called with. So a step of
training or a forward pass takes milliseconds, and computes nothing of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MissingKernel:
    """A loop and the types of its arguments, as text: another process can compile it.

    Attributes
    ----------
    module, function : str
        Where the `RangeKernel` is.
    types : tuple
        Of its arguments: ``(dtype, dimensions, whether it can be written to)`` of an array, the
        name of a Python type or of a NumPy scalar.
    """

    module: str
    function: str
    types: tuple[Any, ...]


#: Is called with each missing loop; None where loops run.
note_missing: ContextVar[Callable[[MissingKernel], None] | None]
note_missing = ContextVar("note_missing", default=None)


@contextmanager
def collecting(note: Callable[[MissingKernel], None]) -> Iterator[None]:
    """Call `note` for the loops that are called in the block, instead of running them."""
    token = note_missing.set(note)
    try:
        yield
    finally:
        note_missing.reset(token)


def is_collecting() -> bool:
    """Return whether loops are noted here instead of being run."""
    return note_missing.get() is not None


def described(arguments: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return the types of arguments as text, None where that cannot be done.

    >>> described((1, 0.5, np.zeros((2, 3), np.float32)))
    ('int', 'float', ('<f4', 2, True))
    """
    types: list[Any] = []
    for value in arguments:
        if isinstance(value, np.ndarray):
            if not value.flags.c_contiguous:
                return None
            form = value.dtype.str if value.dtype.names is None else tuple(value.dtype.descr)
            types.append((form, value.ndim, value.flags.writeable))
        elif isinstance(value, bool | int | float):
            types.append(type(value).__name__)
        elif isinstance(value, np.generic):
            types.append(value.dtype.str)
        else:
            return None
    return tuple(types)


def examples(types: Sequence[Any]) -> list[Any]:
    """Return arguments of the types that `described` wrote, even if JSON made lists of tuples.

    >>> examples(["int", ["<f4", 2, False]])
    [0, array([], shape=(0, 0), dtype=float32)]
    """
    plain: dict[str, Any] = {"bool": False, "int": 0, "float": 0.0}
    values: list[Any] = []
    for entry in types:
        if isinstance(entry, str):
            values.append(plain[entry] if entry in plain else np.dtype(entry).type(0))
            continue
        form, dimensions, writable = entry
        dtype = np.dtype(form if isinstance(form, str) else [tuple(field) for field in form])
        array = np.empty((0,) * dimensions, dtype)
        array.flags.writeable = writable
        values.append(array)
    return values
