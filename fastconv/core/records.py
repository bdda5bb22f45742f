"""Records of 64-bit integers: what kernels read by name instead of taking it as an argument."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def record_type(*fields: str) -> np.dtype[Any]:
    """Return the type of records with these fields."""
    return np.dtype((np.record, [(name, np.int64) for name in fields]))


def record_of(layout: np.dtype[Any], *sources: Any, **values: Any) -> NDArray[Any]:
    """Return a read-only array of one record: `values`, and attributes of `sources` for the rest.

    An array as a value stands for its address; whoever keeps the record must keep the array.
    """
    row = []
    for name in layout.names or ():
        value = values.pop(name) if name in values else _attribute(sources, name)
        row.append(value.ctypes.data if isinstance(value, np.ndarray) else value)
    assert not values, f"a record has no fields {list(values)}"
    record = np.array([tuple(row)], layout)
    freeze(record)
    return record


def _attribute(sources: tuple[Any, ...], name: str) -> Any:
    """Return an attribute of the first source that has it."""
    return getattr(next(source for source in sources if hasattr(source, name)), name)


def with_addresses(record: NDArray[Any], **arrays: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a record in which fields are the addresses of arrays, made in no time."""
    copied = record.copy()
    for name, array in arrays.items():
        copied[name] = array.__array_interface__["data"][0]
    return copied


def freeze(*arrays: NDArray[Any]) -> None:
    """Make arrays read-only."""
    for array in arrays:
        array.flags.writeable = False
