"""Loss functions, and their gradients with respect to the predictions."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.nn.layer_arguments import as_floats, as_number

#: How the losses of samples make one.
Reduction: TypeAlias = Literal["mean", "sum"]


class Loss:
    """Base class of losses: call one with predictions and targets, then `backward`.

    Attributes
    ----------
    classification : bool
        Whether predictions hold a score for each class. Then `fit` reports the accuracy too.
    total_weight : float or None
        Divisor of the last mean, from which the mean of several batches follows; None for the
        number of samples.

    Examples
    --------
    >>> from fastconv import nn
    >>> class AbsoluteLoss(nn.Loss):
    ...     def forward(self, pred, target):
    ...         self.signs = np.sign(pred - target)
    ...         return float(np.abs(pred - target).mean())
    ...
    ...     def backward(self):
    ...         return self.signs / self.signs.size
    >>> loss = AbsoluteLoss("mean")
    >>> loss(np.array([1.0, 3.0]), np.array([0.0, 5.0]))
    1.5
    >>> loss.backward()
    array([ 0.5, -0.5])
    """

    classification: bool = False
    total_weight: float | None = None

    def __init__(self, reduction: Reduction) -> None:
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction
        self._grad: Array | None = None

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the loss."""
        raise NotImplementedError

    def backward(self) -> Array:
        """Return the gradient with respect to the predictions of the last call, of their shape."""
        if self._grad is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs a call of the loss before it, one for each: "
                "loss(model(x), target), then model.backward(loss.backward())"
            )
        grad, self._grad = self._grad, None
        return grad

    def __call__(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the loss."""
        return self.forward(pred, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class CrossEntropyLoss(Loss):
    """Negative logarithm of the probability that the softmax of the logits gives the right class.

    Parameters
    ----------
    weight : array-like, (C,), optional
        Weight of each class.
    reduction : {"mean", "sum"}
        The mean over samples is weighted by the weights of their classes, as in PyTorch.
    label_smoothing : float
        From 0 to 1: the part of a target that is spread evenly over all classes.

    Notes
    -----
    ``forward(pred, target)`` takes logits (N, C) or (N, C, ...) and classes (N,) or (N, ...) as
    integers, or probabilities (one-hot rows are such) of the logits' shape. The largest logit is
    subtracted first, so nothing overflows.

    Examples
    --------
    >>> loss = CrossEntropyLoss()
    >>> round(loss(np.array([[0.0, 0.0]]), [1]), 4)
    0.6931
    >>> loss.backward()
    array([[ 0.5, -0.5]])
    """

    classification = True

    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else as_numbers("weight", weight).astype(float)
        if self.weight is not None and (
            self.weight.ndim != 1 or not (np.isfinite(self.weight) & (self.weight >= 0)).all()
        ):
            raise ValueError(f"weight must be a list of numbers of at least 0, got {weight!r}")
        self.label_smoothing = as_number("label_smoothing", label_smoothing, 0, 1)

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the loss of logits `pred`, (N, C, ...)."""
        logits, wanted = as_floats(self, pred, argument="pred"), as_numbers("target", target)
        if logits.ndim < 2 or 0 in logits.shape:
            raise ValueError(f"pred must have shape (N, C) or (N, C, ...), got {logits.shape}")
        # Classes last: one row for each sample, or pixel.
        rows = logits if logits.ndim == 2 else np.moveaxis(logits, 1, -1)
        shifted = rows - rows.max(axis=-1, keepdims=True)
        softmax = np.exp(shifted)
        sums = softmax.sum(axis=-1, keepdims=True)
        softmax /= sums
        mass, self.total_weight = self._mass(logits, wanted)
        # Where no sample has a weight, the loss is 0.
        divisor = 1.0 if self.reduction == "sum" else self.total_weight or 1.0
        total = mass.sum(axis=-1, keepdims=True)
        # log softmax = shifted - log(sums); 0 * -infinity of an impossible class is 0 here.
        products = np.multiply(mass, shifted, out=np.zeros_like(mass), where=mass != 0)
        loss = float(np.sum(total * np.log(sums), dtype=float) - np.sum(products, dtype=float))
        softmax *= total
        softmax -= mass
        softmax /= divisor
        back = softmax if softmax.ndim == 2 else np.moveaxis(softmax, -1, 1)
        self._grad = np.ascontiguousarray(back)
        return loss / divisor

    def _mass(self, logits: Array, target: Array) -> tuple[Array, float]:
        """Return the weight of each class in each sample, and the sum of the samples' weights."""
        dtype, classes = logits.dtype, logits.shape[1]
        if self.weight is not None and len(self.weight) != classes:
            raise ValueError(
                f"weight must have one number for each of the {classes} classes, "
                f"got {len(self.weight)}"
            )
        samples = (logits.shape[0], *logits.shape[2:])
        if target.shape == logits.shape:
            mass = np.moveaxis(target, 1, -1).astype(dtype)
            total = float(np.prod(samples))
        elif target.shape == samples and target.dtype.kind in "iu":
            if target.min() < 0 or target.max() >= classes:
                raise ValueError(
                    f"target must hold classes from 0 to {classes - 1}, got "
                    f"{target.min()} .. {target.max()}: give the model more outputs, or number the "
                    "classes by np.unique(target, return_inverse=True)[1]"
                )
            mass = np.zeros((*samples, classes), dtype)
            mass.reshape(-1, classes)[np.arange(target.size), target.reshape(-1)] = 1
            total = float(target.size if self.weight is None else self.weight[target].sum())
        else:
            right = "" if target.dtype.kind in "iu" else ".astype(int)"
            right += "" if target.shape == samples else f".reshape({samples})"
            hint = f": target{right}" if target.size == math.prod(samples) else ""
            raise ValueError(
                f"target must be integers of shape {samples}, or probabilities of shape "
                f"{logits.shape} as pred has, got {target.dtype} of shape {target.shape}{hint}"
            )
        if self.label_smoothing:
            mass *= 1 - self.label_smoothing
            mass += self.label_smoothing / classes
        if self.weight is not None:
            mass *= self.weight.astype(dtype)
        return mass, total


class MSELoss(Loss):
    """The mean of the squared differences.

    Parameters
    ----------
    reduction : {"mean", "sum"}

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> loss = MSELoss()
    >>> loss(np.array([1.0, 3.0]), [0.0, 0.0])
    5.0
    >>> loss.backward()
    array([1., 3.])
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return the loss of `pred`, of any shape."""
        predicted, wanted = as_floats(self, pred, argument="pred"), as_numbers("target", target)
        if wanted.shape != predicted.shape:
            fits = wanted.size == predicted.size
            hint = f": target.reshape({predicted.shape})" if fits else ""
            raise ValueError(
                f"target must have the shape of pred, {predicted.shape}, got {wanted.shape}{hint}"
            )
        difference = predicted - wanted.astype(predicted.dtype)
        divisor = 1 if self.reduction == "sum" else max(1, difference.size)
        self._grad = difference * difference.dtype.type(2 / divisor)
        return float(np.sum(np.square(difference), dtype=float)) / divisor
