"""What a saved state must look like: written down as a value, the form, and checked in one place.

What was read from a file is checked as a whole before anything uses a part of it. A form is one of

- None, a type, or a union of types: an instance of it; `True` is no number, ``object`` is anything
- a range: an integer in it
- a text: this text
- an array: one of the same dtype and shape
- ``[form]``: a list of any length; ``(form, form)``: a list of these items
- ``{"name": form}``: a dict with these keys and no others, unless ``...`` is one of the form's;
  ``{str: form}``: a dict with any keys of that type
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from types import UnionType
from typing import Any

import numpy as np

#: Integers that counts of anything stay below.
COUNT = range(2**63)


def check(value: Any, form: Any, where: str) -> None:
    """Raise unless `value` has a form.

    Parameters
    ----------
    value : object
        For example from a file that anybody may have written.
    form : type, union, None, range, str, ndarray, list, tuple or dict
        As the module describes it.
    where : str
        What the value is called, for the message.

    Raises
    ------
    ValueError
        Naming the part that differs, what it must be, and what it is.

    Examples
    --------
    >>> check({"steps": 3, "losses": [0.5]}, {"steps": COUNT, "losses": [float]}, "state")
    >>> check({"steps": 3, "losses": [None]}, {"steps": COUNT, "losses": [float]}, "state")
    Traceback (most recent call last):
    ...
    ValueError: state.losses[0] must be of type float, got None
    """
    if isinstance(form, dict):
        _check_dict(value, form, where)
    elif isinstance(form, list | tuple):
        _check_list(value, form, where)
    elif not _fits(value, form):
        raise ValueError(f"{where} must be {_words(form)}, got {_shown(value)}")


def check_plain(value: Any, where: str) -> None:
    """Raise ValueError unless `value` is made of dicts with texts as keys, lists, numbers, texts.

    >>> check_plain({"seed": 0, "betas": [0.9, None]}, "state")
    """
    if isinstance(value, dict):
        check(value, {str: object}, where)
        for key, item in value.items():
            check_plain(item, f"{where}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            check_plain(item, f"{where}[{i}]")
    elif not (value is None or type(value) in (bool, int, float, str)):
        raise ValueError(f"{where} must hold numbers, text, lists and dicts, got {_shown(value)}")


def _check_dict(value: Any, form: Mapping[Any, Any], where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a dict, got {_shown(value)}")
    kind = next((key for key in form if isinstance(key, type)), None)
    if kind is not None:
        for key, item in value.items():
            check(key, kind, f"a key of {where}")
            check(item, form[kind], f"{where}.{key}")
        return
    names = [key for key in form if key is not ...]
    missing = [name for name in names if name not in value]
    unknown = [] if ... in form else [key for key in value if key not in form]
    if missing or unknown:
        lacks = f"lacks {_shown(missing)}" if missing else ""
        has = f"has an unknown {_shown(unknown)}" if unknown else ""
        faults = ", ".join(filter(None, (lacks, has)))
        raise ValueError(f"{where} must have the right keys, but {faults}")
    for name in names:
        check(value[name], form[name], f"{where}.{name}")


def _check_list(value: Any, form: list[Any] | tuple[Any, ...], where: str) -> None:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} must be a list, got {_shown(value)}")
    if isinstance(form, tuple) and len(value) != len(form):
        raise ValueError(f"{where} must have {len(form)} items, got {len(value)}")
    for i, item in enumerate(value):
        check(item, form[i] if isinstance(form, tuple) else form[0], f"{where}[{i}]")


def _fits(value: Any, form: Any) -> bool:
    if form is object or form is None:
        return form is object or value is None
    if isinstance(form, range):
        number = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return number and int(value) in form
    if isinstance(form, str):
        return isinstance(value, str) and value == form
    if isinstance(form, np.ndarray):
        same = isinstance(value, np.ndarray) and value.dtype == form.dtype
        return same and value.shape == form.shape
    kinds = form.__args__ if isinstance(form, UnionType) else (form,)
    return isinstance(value, form) and (bool in kinds or not isinstance(value, bool))


def _words(form: Any) -> str:
    if isinstance(form, range):
        most = f"from {form.start} to {form.stop - 1}"
        return f"an integer {most if form.stop < COUNT.stop else f'of at least {form.start}'}"
    if isinstance(form, str):
        return repr(form)
    if isinstance(form, np.ndarray):
        return f"an array of {form.dtype} of shape {form.shape}"
    return "None" if form is None else f"of type {getattr(form, '__name__', form)}"


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return reprlib.repr(value)
