"""Losses, accuracies and other figures of every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds", "learning_rate")


class History:
    """One entry an epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        Means over the samples of the epoch, as the model was at each batch. Where a loss weighs
        its samples, so does the mean; the sums of ``reduction="sum"`` are divided by the number of
        samples. Accuracy is NaN unless the loss is one of classification.
    val_loss, val_accuracy : list of float
        Of the validation data after the epoch, NaN without any.
    seconds : list of float
    learning_rate : list of float
        Of the optimizer's first group, in the epoch's last batch.
    interrupted : bool
        Whether Ctrl-C ended the training.

    Examples
    --------
    >>> history = History()
    >>> history.append(loss=0.5, accuracy=0.75, seconds=1.0, learning_rate=0.1)
    >>> len(history), history.last["loss"]
    (1, 0.5)
    """

    loss: list[float]
    accuracy: list[float]
    val_loss: list[float]
    val_accuracy: list[float]
    seconds: list[float]
    learning_rate: list[float]

    def __init__(self) -> None:
        for name in _COLUMNS:
            setattr(self, name, [])
        self.interrupted = False

    def append(self, **values: float) -> None:
        """Add an epoch; what is not given is NaN."""
        for name in _COLUMNS:
            getattr(self, name).append(float(values.get(name, math.nan)))

    @property
    def last(self) -> dict[str, float]:
        """The last epoch: a dict of numbers, empty before the first."""
        return {name: getattr(self, name)[-1] for name in _COLUMNS} if len(self) else {}

    def to_dict(self) -> dict[str, list[float]]:
        """Return copies of all lists by name."""
        return {name: list(getattr(self, name)) for name in _COLUMNS}

    @classmethod
    def from_dict(cls, lists: Mapping[str, Any]) -> History:
        """Return a history from the lists that `to_dict` returned."""
        history = cls()
        for name in _COLUMNS:
            setattr(history, name, [float(value) for value in lists[name]])
        return history

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        state = ", interrupted" if self.interrupted else ""
        return f"History({len(self)} epochs{state}: {describe(self.last)})"


def describe(values: Mapping[str, float]) -> str:
    """Return an epoch as a short line.

    >>> describe({"loss": 0.12345, "val_loss": float("nan"), "seconds": 1.5})
    'loss 0.1235, 1.5 s'
    """
    known = (name for name in _COLUMNS[:4] if not math.isnan(values.get(name, math.nan)))
    parts = [f"{name} {values[name]:.4f}" for name in known]
    if "seconds" in values:
        parts.append(f"{values['seconds']:.1f} s")
    return ", ".join(parts)
