"""Finding the loops that a program needs and that are not compiled yet, without running them.

Inside `collecting`, loops only record their argument types. So a training step or a forward pass
takes milliseconds, and its results are meaningless.
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
    """A loop and its argument types as text, so that another process can compile it.

    Attributes
    ----------
    module, function : str
        Where to import the `RangeKernel` from.
    types : tuple
        The argument types: ``(dtype, ndim, writeable)`` of an array, or the name of a Python type
        or NumPy scalar.
    """

    module: str
    function: str
    types: tuple[Any, ...]


#: Called with each missing loop; None if loops run.
note_missing: ContextVar[Callable[[MissingKernel], None] | None]
note_missing = ContextVar("note_missing", default=None)


@contextmanager
def collecting(note: Callable[[MissingKernel], None]) -> Iterator[None]:
    """Call `note` for each missing loop that is called in the block, instead of running loops."""
    token = note_missing.set(note)
    try:
        yield
    finally:
        note_missing.reset(token)


def is_collecting() -> bool:
    """Return whether loops are recorded instead of run."""
    return note_missing.get() is not None


def described(arguments: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return the types of arguments as text, None if that is impossible.

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
    """Return arguments of the types from `described`, which may have passed through JSON.

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
