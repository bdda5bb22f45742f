"""Losses and accuracies: of every epoch, and the running ones of an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv.core.arguments import Array
from fastconv.nn.training.losses import Loss

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
    >>> History.from_dict(history.to_dict()).accuracy
    [0.75]
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


class RunningMetrics:
    """Sums from which mean loss and accuracy follow, whatever the batch sizes.

    `correct`, the number of correct predictions, is NaN unless the loss is one of classification.

    >>> from fastconv import nn
    >>> metrics, loss = RunningMetrics(), nn.CrossEntropyLoss()
    >>> logits, classes = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 0])
    >>> metrics.add(loss, loss(logits, classes), logits, classes)
    >>> round(metrics.loss, 2), metrics.accuracy
    (0.81, 0.5)
    """

    def __init__(self) -> None:
        self.samples = 0
        self.total = self.weight = self.correct = 0.0

    def add(self, loss: Loss, value: float, pred: Array, targets: Array) -> None:
        """Add a batch, whose loss is `value`."""
        count, weight = len(pred), float(len(pred))
        if loss.reduction == "mean":
            weight = weight if loss.total_weight is None else float(loss.total_weight)
            value *= weight
        self.samples += count
        self.total += float(value)
        self.weight += weight
        self.correct += _correct(pred, targets) if loss.classification else math.nan

    @property
    def loss(self) -> float:
        """The mean loss; 0 where no sample has a weight."""
        return self.total / (self.weight or 1.0)

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions, or NaN."""
        return self.correct / self.samples


def _correct(pred: Array, targets: Array) -> float:
    """Return the number of correct predictions; NaN where there are no classes."""
    if pred.ndim < 2 or pred.shape[1] == 1:
        return math.nan
    if targets.shape == pred.shape:
        targets = targets.argmax(axis=1)
    elif targets.dtype.kind not in "iu" or targets.shape != (len(pred), *pred.shape[2:]):
        return math.nan
    return float(np.mean(pred.argmax(axis=1) == targets)) * len(pred)
