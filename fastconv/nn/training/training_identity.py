"""What a training is: which things must be the same when it goes on, and which of them differ."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.nn.module import Module
from fastconv.nn.training.losses import Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.optimizer_base import Optimizer, settings_of

Array = NDArray[Any]

# So much of an array is read for its digest, in about a tenth of a second.
_READ = 2**26


def fingerprint(array: Array) -> str:
    """Return what an array is: dtype, shape, and a digest of what is in it.

    Beyond 64 MiB the digest is one of evenly spaced rows. Other data, another order or another
    scaling changes most rows and is noticed; a change of a few rows may not be.

    >>> fingerprint(np.zeros((2, 3)))
    'float64 of shape (2, 3) with digest 01c88af0015f7556'
    """
    rows = array
    if array.nbytes > _READ:
        count = max(2, _READ // (array.nbytes // len(array)))
        rows = array[np.linspace(0, len(array) - 1, count).astype(int)]
    if rows.dtype.itemsize > 8:  # long doubles have bytes that mean nothing
        rows = rows.astype(float)
    digest = hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=8).hexdigest()
    return f"{array.dtype} of shape {array.shape} with digest {digest}"


def made_of(thing: object) -> dict[str, Any]:
    """Return an object's type, and what its constructor was told and it keeps by the same name.

    >>> from fastconv import nn
    >>> made_of(nn.CrossEntropyLoss([1, 2]))["weight"]
    [1.0, 2.0]
    """
    kept = {name: value for name, value in vars(thing).items() if name != "optimizer"}
    names = [name for name in inspect.signature(type(thing)).parameters if name in kept]
    return {"": type(thing).__name__, **{name: _plain(kept[name]) for name in names}}


def optimizer_of(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of an optimizer's groups; those of a single one without its number."""
    each = {str(i): _plain(settings_of(group)) for i, group in enumerate(groups)}
    return each["0"] if len(each) == 1 else each


def describe_steps(
    optimizer: Optimizer, schedule: Schedule | None, model: Module
) -> dict[str, Any]:
    """Return what optimizer and schedule are, whatever the schedule has made of the rates since."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    learned = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    first = optimizer.param_groups if schedule is None else schedule.first_settings
    steps: dict[str, Any] = {"schedule": None}
    steps["optimizer"] = {"": type(optimizer).__name__, **optimizer_of(first), "params": learned}
    if schedule is not None:
        steps["schedule"] = {**made_of(schedule), "per_batch": bool(schedule.per_batch)}
    return steps


def frozen(model: Module) -> list[str]:
    """Return the names of the layers that are frozen."""
    return [name for name, module in model.named_modules() if name and module.frozen]


def differences(
    was: Mapping[str, Any], now: Mapping[str, Any], left: Mapping[str, Any]
) -> list[str]:
    """Return a line for everything that differs.

    Parameters
    ----------
    was, now : mapping
        Descriptions of a training, as it began and as it is to go on.
    left : mapping
        Parts of a description as they were at the checkpoint. They may be so now: an optimizer
        that goes on in the same process is as its schedule and callbacks left it.
    """
    old, new, since = _flat(was), _flat(now), _flat(left)
    wrong: dict[str, str] = {}
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, "nothing"), new.get(name, "nothing")
        # Of something else altogether the details say nothing.
        if a != b and since.get(name, a) != b and name.partition(".")[0] not in wrong:
            wrong[name] = f"{name} was {a}, is {b}"
    return list(wrong.values())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}.{name}".strip(".")
        flat.update(_flat(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def _plain(value: Any) -> Any:
    """Return a value as numbers, text and lists that can be written, compared and shown."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.size <= 16 else fingerprint(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return "nan"  # which is equal to itself
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return made_of(value) if isinstance(value, Loss) else type(value).__name__
