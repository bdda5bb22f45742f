"""Normalization of channels over the batch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.geometry import as_int
from fastconv.nn.inputs import as_images, as_number
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.nn.pieces import ranges
from fastconv.threads import run_tasks

Array = NDArray[Any]


class BatchNorm2d(Module):
    """Bring every channel to mean 0 and variance 1, then scale and shift it by learned numbers.

    In training the statistics are those of the batch, and running averages of them are kept; in
    evaluation the running averages are used, so the layer is a fixed scale and shift, which
    `Sequential` folds into a convolution before it.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        How much of a new batch goes into the running averages; None averages all batches.
    affine : bool
        Whether there are `weight` and `bias`.

    Attributes
    ----------
    weight, bias : Parameter, (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : ndarray, (num_features,)
        The running variance is unbiased: it divides by count - 1, as in PyTorch.
    num_batches_tracked : ndarray of int64, ()

    Raises
    ------
    TypeError, ValueError
        Naming the argument; also when training on one value a channel, whose variance is 0.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization", arXiv:1502.03167.

    Examples
    --------
    >>> layer = BatchNorm2d(1)
    >>> layer(np.array([[[[1, 3]]]], np.float32)).round(3)
    array([[[[-1.,  1.]]]], dtype=float32)
    >>> layer.running_mean, layer.running_var  # a tenth of the mean 2 and the variance 2
    (array([0.2], dtype=float32), array([1.1], dtype=float32))
    """

    buffer_names: ClassVar[tuple[str, ...]] = (
        "running_mean",
        "running_var",
        "num_batches_tracked",
    )
    flops_per_output: ClassVar[int] = 2

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        self.num_features = as_int("num_features", num_features, 1)
        self.eps = as_number("eps", eps, 0)
        self.momentum = None if momentum is None else as_number("momentum", momentum, 0, 1)
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.weight = Parameter(ones) if affine else None
        self.bias = Parameter(zeros) if affine else None
        self.running_mean: Array = zeros.copy()
        self.running_var: Array = ones.copy()
        self.num_batches_tracked: Array = np.zeros((), np.int64)

    def scale_and_shift(self) -> tuple[Array, Array]:
        """Return what evaluation multiplies by and adds, in float64."""
        return self._scale_and_shift(
            self.running_mean.astype(float), 1 / np.sqrt(self.running_var.astype(float) + self.eps)
        )

    def _scale_and_shift(self, mean: Array, inverse: Array) -> tuple[Array, Array]:
        scale = inverse if self.weight is None else inverse * self.weight.value
        shift = -mean * scale
        return scale, shift if self.bias is None else shift + self.bias.value

    def forward(self, x: ArrayLike) -> Array:
        """Return `x`, (N, num_features, H, W), normalized."""
        images = as_images(self, x, self.num_features, self.running_mean.dtype)
        if self.training:
            mean, variance = self._track(images)
        else:
            mean, variance = self.running_mean.astype(float), self.running_var.astype(float)
        inverse = 1 / np.sqrt(variance + self.eps)
        # Subtracting the mean first costs a pass, but no digits where it is large.
        scale = inverse if self.weight is None else inverse * self.weight.value
        centre, factor = _planes(images, mean), _planes(images, scale)
        offset = None if self.bias is None else _planes(images, self.bias.value)
        y = np.empty(images.shape, images.dtype)

        def normalize(rows: slice) -> None:
            out = np.subtract(images[rows], centre, out=y[rows])
            out *= factor
            if offset is not None:
                out += offset

        _over_images(normalize, images)
        self.keep(y, images, mean, inverse, self.training)
        return y

    def _track(self, images: Array) -> tuple[Array, Array]:
        """Return the batch's mean and variance, having put them into the running averages."""
        count = images.size // self.num_features
        if count < 2:
            raise ValueError(
                "x must have more than one value a channel in training, whose variance is "
                f"needed, got {count}: use a larger batch, or eval()"
            )
        mean, variance = _statistics(images)
        self.num_batches_tracked += 1
        factor = self.momentum
        if factor is None:
            factor = 1 / float(self.num_batches_tracked)
        unbiased = variance * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running *= 1 - factor
            running += (factor * new).astype(running.dtype)
        return mean, variance

    def backward(self, grad: Array) -> Array:
        """Add to the gradients of weight and bias; return the input's.

        The batch's mean and variance depend on the input too: their gradients take away from
        that of the normalized values n its mean and its part along n,
        ``scale * (grad - mean(grad) - n * mean(grad * n))``.
        """
        grad, x, mean, inverse, batch_statistics = self.recall(grad)
        dtype = x.dtype
        centre = _planes(x, mean)

        def sums(rows: slice) -> tuple[Array, Array]:
            g = grad[rows]
            return _sum(g), _sum_of_products(g, x[rows] - centre)

        total, along = (sum(part) for part in zip(*_over_images(sums, x), strict=True))
        along = along * inverse  # sum of grad * n
        if self.weight is not None:
            self.weight.accumulate(along.astype(dtype))
        if self.bias is not None:
            self.bias.accumulate(total.astype(dtype))
        scale = inverse if self.weight is None else inverse * self.weight.value
        factor = _planes(x, scale)
        out = np.empty(x.shape, dtype)
        if not batch_statistics:
            return np.multiply(grad, factor, out=out)
        count = x.size // self.num_features
        average, slope = _planes(x, total / count), _planes(x, along * inverse / count)

        def spread(rows: slice) -> None:
            part = np.subtract(x[rows], centre, out=out[rows])
            part *= slope
            np.subtract(grad[rows], part, out=part)
            part -= average
            part *= factor

        _over_images(spread, x)
        return out

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.weight is not None}, bias={self.bias is not None}, "
            "track_running_stats=True"
        )


def _statistics(x: Array) -> tuple[Array, Array]:
    """Return every channel's mean and variance, in float64."""
    count = max(1, x.size // x.shape[1])
    mean = sum(_over_images(lambda rows: _sum(x[rows]), x)) / count
    centre = _planes(x, mean)

    def squares(rows: slice) -> Array:
        apart = x[rows] - centre
        return _sum_of_products(apart, apart)

    return mean, sum(_over_images(squares, x)) / count


def _sum(x: Array) -> Array:
    """Return the sum of every channel: of a plane in its own type, of planes in float64."""
    return np.asarray(x.sum(axis=(2, 3)).sum(axis=0, dtype=float))


def _sum_of_products(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("nchw,nchw->nc", a, b).sum(axis=0, dtype=float))


def _planes(x: Array, numbers: Array) -> Array:
    """Return one number a channel, ready to be broadcast over images."""
    return numbers.astype(x.dtype).reshape(-1, 1, 1)


def _over_images(function: Any, x: Array) -> list[Any]:
    """Return ``function(slice of images)`` for cache-sized slices of the batch, in order."""
    parts = ranges(len(x), x[0].size if len(x) else 1) or [(0, 0)]
    if len(parts) == 1:
        return [function(slice(*parts[0]))]
    results: list[Any] = [None] * len(parts)

    def one(number: int) -> None:
        results[number] = function(slice(*parts[number]))

    run_tasks(one, range(len(parts)))
    return results
