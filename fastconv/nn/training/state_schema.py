"""Checks of saved states against a schema: a value that says what a state must look like.

What was read from a file is checked as a whole before any part of it is used. A schema is one of

- None, a type, or a union of types: an instance of it; `True` is no number, ``object`` is anything
- a range: an integer in it
- an array: one of the same dtype and shape
- ``[schema]``: a list of any length; ``(schema, schema)``: a list of these items
- ``{"name": schema}``: a dict with these keys and no others, unless ``...`` is among them;
  ``{str: schema}``: a dict with any keys of that type
- any other value: this value
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from types import UnionType
from typing import Any

import numpy as np

#: Integers below which counts stay.
COUNT = range(2**63)


def check(value: Any, schema: Any, where: str) -> None:
    """Raise ValueError unless `value`, called `where` in the message, fits a schema.

    >>> check({"steps": 3, "losses": [0.5]}, {"steps": COUNT, "losses": [float]}, "state")
    >>> check({"steps": 3, "losses": [None]}, {"steps": COUNT, "losses": [float]}, "state")
    Traceback (most recent call last):
    ...
    ValueError: state.losses[0] must be of type float, got None
    """
    if isinstance(schema, dict):
        _check_dict(value, schema, where)
    elif isinstance(schema, list | tuple):
        _check_list(value, schema, where)
    elif not _fits(value, schema):
        raise ValueError(f"{where} must be {_meaning(schema)}, got {_shown(value)}")


def _check_dict(value: Any, schema: Mapping[Any, Any], where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a dict, got {_shown(value)}")
    kind = next((key for key in schema if isinstance(key, type)), None)
    if kind is not None:
        for key, item in value.items():
            check(key, kind, f"a key of {where}")
            check(item, schema[kind], f"{where}.{key}")
        return
    names = [key for key in schema if key is not ...]
    missing = [name for name in names if name not in value]
    unknown = [] if ... in schema else [key for key in value if key not in schema]
    if missing or unknown:
        lacks = f"lacks {_shown(missing)}" if missing else ""
        has = f"has an unknown {_shown(unknown)}" if unknown else ""
        faults = ", ".join(filter(None, (lacks, has)))
        raise ValueError(f"{where} must have the right keys, but {faults}")
    for name in names:
        check(value[name], schema[name], f"{where}.{name}")


def _check_list(value: Any, schema: list[Any] | tuple[Any, ...], where: str) -> None:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} must be a list, got {_shown(value)}")
    if isinstance(schema, tuple) and len(value) != len(schema):
        raise ValueError(f"{where} must have {len(schema)} items, got {len(value)}")
    for i, item in enumerate(value):
        check(item, schema[i] if isinstance(schema, tuple) else schema[0], f"{where}[{i}]")


def _fits(value: Any, schema: Any) -> bool:
    if isinstance(schema, range):
        number = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return number and int(value) in schema
    if isinstance(schema, np.ndarray):
        same = isinstance(value, np.ndarray) and value.dtype == schema.dtype
        return same and value.shape == schema.shape
    if not isinstance(schema, type | UnionType):
        return type(value) is type(schema) and bool(value == schema)
    kinds = schema.__args__ if isinstance(schema, UnionType) else (schema,)
    boolean = isinstance(value, bool) and not {bool, object} & {*kinds}
    return isinstance(value, schema) and not boolean


def _meaning(schema: Any) -> str:
    if isinstance(schema, range):
        most = f"from {schema.start} to {schema.stop - 1}"
        return f"an integer {most if schema.stop < COUNT.stop else f'of at least {schema.start}'}"
    if isinstance(schema, type | UnionType):
        return f"of type {getattr(schema, '__name__', schema)}"
    return _shown(schema)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return reprlib.repr(value)
