"""Running loss and accuracy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.nn.training.losses import Loss

Array = NDArray[Any]


class RunningMetrics:
    """Sums from which mean loss and accuracy follow, whatever the batch sizes.

    Attributes
    ----------
    samples : int
    total, weight : float
        Sum of the losses, and its divisor.
    correct : float
        Number of correct predictions; NaN unless the loss is one of classification.

    Examples
    --------
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
