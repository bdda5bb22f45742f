"""What a training's state must look like, and which errors tell that a checkpoint's does not.

All of it that this package writes is checked before any of it is used. What callbacks, optimizers
and schedules remember only they know: whatever they raise becomes the same error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.module import Module
from fastconv.nn.training.history import History
from fastconv.nn.training.state_schema import COUNT, check, check_plain

_NUMBERS = {
    "position": {"steps": COUNT, "batch": COUNT, "seconds": float, "rate": float},
    "tally": {"samples": COUNT, "total": float, "weight": float, "right": float},
}
_FORM = {
    **_NUMBERS,
    "training": dict,
    "stop": bool,
    "history": {name: [float] for name in History().to_dict()},
    "model": {str: np.ndarray},
    "frozen": [str],
    "optimizer": {"state": {int: dict}, "param_groups": [{str: object}], ...: object},
    "schedule": dict | None,
    "generators": [dict],
    "callbacks": [dict],
}
# Wider than any number in the state of a generator.
_BITS = range(2**256)


def check_state(state: Any) -> None:
    """Raise ValueError unless `state` is one that some training has saved."""
    check(state, _FORM, "state")
    check_plain(state["training"], "state.training")
    lengths = {len(column) for column in state["history"].values()}
    if len(lengths) > 1:
        raise ValueError(f"state.history must have lists of one length, got {sorted(lengths)}")


def check_parts(
    state: Any, model: Module, batches: int, schedule: object, generators: list[Any], callbacks: int
) -> None:
    """Raise ValueError unless the parts of `state` fit those of the training that it is for.

    Parameters
    ----------
    state : dict
        That `check_state` accepts.
    model : Module
    batches : int
        How many an epoch has; 0 if nobody knows.
    schedule : Schedule or None
    generators : list of numpy.random.Generator
        Of the layers.
    callbacks : int
        How many there are.
    """
    parts = {
        "model": dict(model.state_dict()),
        "schedule": None if schedule is None else dict,
        "generators": tuple(_like(rng.bit_generator.state) for rng in generators),
        "callbacks": (dict,) * callbacks,
        "position": {"batch": range(batches + 1) if batches else COUNT, ...: object},
    }
    check(state, {**parts, ...: object}, "state")


def _like(state: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a generator's state."""
    # A position is one in the array beside it: NumPy would read beyond the end.
    sizes = [value.size for value in state.values() if isinstance(value, np.ndarray)]
    form: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            form[name] = _like(value)
        elif isinstance(value, int):
            form[name] = range(max(sizes) + 1) if name.endswith("pos") and sizes else _BITS
        else:
            form[name] = value
    return form


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Turn any error that the content of a checkpoint causes into one that names it."""
    try:
        yield
    except (MemoryError, OSError):  # which say nothing of the content
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"checkpoint {str(folder)!r} holds no state that this training can go on from: "
            f"{kind}{error}. Remove that folder to go on from the one before it; resume=False "
            "begins anew"
        ) from error
