"""Loss and accuracy of the samples so far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.nn.training.losses import Loss

Array = NDArray[Any]


class Tally:
    """Sums from which the means over batches follow, whatever the batches' sizes.

    Attributes
    ----------
    samples : int
    total, weight : float
        Sum of the losses, and what to divide it by.
    right : float
        How many predictions were right; NaN where the loss knows no classes.

    Examples
    --------
    >>> from fastconv import nn
    >>> tally, loss = Tally(), nn.CrossEntropyLoss()
    >>> logits, classes = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 0])
    >>> tally.add(loss, loss(logits, classes), logits, classes)
    >>> round(tally.loss, 2), tally.accuracy
    (0.81, 0.5)
    """

    def __init__(self) -> None:
        self.samples = 0
        self.total = self.weight = self.right = 0.0

    def add(self, loss: Loss, value: float, pred: Array, targets: Array) -> None:
        """Add a batch, whose loss is `value`."""
        count, weight = len(pred), float(len(pred))
        if loss.reduction == "mean":
            weight = weight if loss.total_weight is None else float(loss.total_weight)
            value *= weight
        self.samples += count
        self.total += float(value)
        self.weight += weight
        self.right += _right(pred, targets) if loss.classification else math.nan

    @property
    def loss(self) -> float:
        """The mean loss; 0 where no sample has a weight."""
        return self.total / (self.weight or 1.0)

    @property
    def accuracy(self) -> float:
        """Which part of the predictions is right, or NaN."""
        return self.right / self.samples


def _right(pred: Array, targets: Array) -> float:
    """Return how many predictions are right; NaN where there are no classes to choose from."""
    if pred.ndim < 2 or pred.shape[1] == 1:
        return math.nan
    if targets.shape == pred.shape:
        targets = targets.argmax(axis=1)
    elif targets.dtype.kind not in "iu" or targets.shape != (len(pred), *pred.shape[2:]):
        return math.nan
    return float(np.mean(pred.argmax(axis=1) == targets)) * len(pred)
