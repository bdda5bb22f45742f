"""Resuming: what must be the same when training goes on, and what its state must look like.

A training is described by texts, which are compared. Whatever this package writes into a state is
checked before any of it is used. What callbacks, optimizers and schedules remember only they can
check: whatever they raise becomes one kind of error.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.core.arguments import Array
from fastconv.nn.module import Module
from fastconv.nn.training.history import History
from fastconv.nn.training.losses import Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.optimizer_base import Optimizer, settings_of
from fastconv.nn.training.state_schema import COUNT, check

# Bytes of an array that its digest covers, in about a tenth of a second.
_DIGESTED = 2**26
# More than any number in the state of a generator.
_BITS = range(2**256)

_SCHEMA = {
    "training": {str: str},
    "position": {"steps": COUNT, "batch": COUNT, "seconds": float, "rate": float},
    "metrics": {"samples": COUNT, "total": float, "weight": float, "correct": float},
    "stop": bool,
    "history": {name: [float] for name in History().to_dict()},
    "model": {str: np.ndarray},
    "frozen": [str],
    "optimizer": {"state": {int: dict}, "param_groups": [{str: object}], ...: object},
    "schedule": dict | None,
    "generators": [dict],
    "callbacks": [dict],
}


# Identity --------------------------------------------------------------------------------


def fingerprint(array: Array) -> str:
    """Return dtype, shape, and a digest of an array's content.

    Beyond 64 MiB the digest is that of evenly spaced rows. Other data, another order or another
    scaling changes most rows and is noticed; a change of a few rows may not be.

    >>> fingerprint(np.zeros((2, 3)))
    'float64 of shape (2, 3) with digest 01c88af0015f7556'
    """
    rows = array
    if array.nbytes > _DIGESTED:
        count = max(2, _DIGESTED // (array.nbytes // len(array)))
        rows = array[np.linspace(0, len(array) - 1, count).astype(int)]
    if rows.dtype.itemsize > 8:  # long doubles contain padding bytes
        rows = rows.astype(float)
    digest = hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=8).hexdigest()
    return f"{array.dtype} of shape {array.shape} with digest {digest}"


def constructed(thing: object) -> dict[str, Any]:
    """Return an object's type, and the constructor arguments that it keeps under their names.

    >>> from fastconv import nn
    >>> constructed(nn.CrossEntropyLoss([1, 2]))["weight"]
    array([1., 2.])
    """
    kept = {name: value for name, value in vars(thing).items() if name != "optimizer"}
    names = [name for name in inspect.signature(type(thing)).parameters if name in kept]
    return {"": type(thing).__name__, **{name: kept[name] for name in names}}


def group_settings(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of an optimizer's groups; of a single one without its number."""
    each = {str(i): settings_of(group) for i, group in enumerate(groups)}
    return each["0"] if len(each) == 1 else each


def describe_optimizer(
    optimizer: Optimizer, schedule: Schedule | None, model: Module
) -> dict[str, Any]:
    """Return optimizer and schedule, with the settings from before the schedule changed any."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    learned = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    first = optimizer.param_groups if schedule is None else schedule.first_settings
    described: Any = None
    if schedule is not None:
        described = {**constructed(schedule), "per_batch": bool(schedule.per_batch)}
    settings = {"": type(optimizer).__name__, **group_settings(first), "params": learned}
    return {"optimizer": settings, "schedule": described}


def frozen(model: Module) -> list[str]:
    """Return the names of the layers that are frozen."""
    return [name for name, module in model.named_modules() if name and module.frozen]


def as_texts(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the leaves of a tree as texts, by their paths.

    >>> as_texts({"loss": {"": "MSELoss", "weight": [1.0, 0.5]}, "seed": None})
    {'loss': 'MSELoss', 'loss.weight': '[1, 0.5]', 'seed': 'None'}
    """
    texts: dict[str, str] = {}
    for name, value in tree.items():
        path = f"{prefix}.{name}".strip(".")
        if isinstance(value, Loss):
            value = constructed(value)
        if isinstance(value, Mapping):
            texts.update(as_texts({str(key): item for key, item in value.items()}, path))
        else:
            texts[path] = str(_plain(value))
    return texts


def _plain(value: Any) -> Any:
    """Return numbers, text and lists as they are, equal numbers as equal ones, else a name."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.size <= 16 else fingerprint(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else type(value).__name__


def differences(
    was: Mapping[str, str], now: Mapping[str, str], left: Mapping[str, str]
) -> list[str]:
    """Return a line for every text that differs between two descriptions.

    Texts may also be as they were `left` at the checkpoint: an optimizer that goes on in the same
    process has what its schedule and callbacks set.
    """
    wrong: dict[str, str] = {}
    for name in sorted(was.keys() | now.keys()):
        a, b = was.get(name, "nothing"), now.get(name, "nothing")
        # If the type differs, its arguments need not be told.
        if a != b and left.get(name, a) != b and name.partition(".")[0] not in wrong:
            wrong[name] = f"{name} was {a}, is {b}"
    return list(wrong.values())


# State -----------------------------------------------------------------------------------


def check_state(state: Any) -> None:
    """Raise ValueError unless `state` is one that some training has saved."""
    check(state, _SCHEMA, "state")
    lengths = {len(column) for column in state["history"].values()}
    if len(lengths) > 1:
        raise ValueError(f"state.history must have lists of one length, got {sorted(lengths)}")


def check_parts(
    state: Any, model: Module, batches: int, schedule: object, generators: list[Any], callbacks: int
) -> None:
    """Raise ValueError unless a checked state fits these parts of a training.

    `batches` is the number of batches in an epoch, 0 if unknown.
    """
    parts = {
        "model": dict(model.state_dict()),
        "schedule": None if schedule is None else dict,
        "generators": tuple(_generator_schema(rng.bit_generator.state) for rng in generators),
        "callbacks": (dict,) * callbacks,
        "position": {"batch": range(batches + 1) if batches else COUNT, ...: object},
    }
    check(state, {**parts, ...: object}, "state")


def _generator_schema(state: dict[str, Any]) -> dict[str, Any]:
    # A position is an index into the array beside it, which NumPy does not check.
    sizes = [value.size for value in state.values() if isinstance(value, np.ndarray)]
    schema: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            schema[name] = _generator_schema(value)
        elif isinstance(value, int):
            schema[name] = range(max(sizes) + 1) if name.endswith("pos") and sizes else _BITS
        else:
            schema[name] = value
    return schema


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Turn any error that the content of a checkpoint causes into one that names it."""
    try:
        yield
    except (MemoryError, OSError):  # not caused by the content
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"checkpoint {str(folder)!r} holds no state that this training can go on from: "
            f"{kind}{error}. Remove that folder to go on from the one before it; resume=False "
            "begins anew"
        ) from error
