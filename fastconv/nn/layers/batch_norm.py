"""Batch normalization."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_computed, as_flag, as_numbers
from fastconv.core.geometry import as_int
from fastconv.kernels.channel_loops import CHANNEL, normalize, normalize_grad
from fastconv.nn.layer_arguments import (
    LARGEST,
    as_floats,
    as_images,
    as_number,
    check_parameter,
)
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.runtime import output_memory


class _BatchNorm(Module):
    """Batch normalization of arrays (N, num_features, ...)."""

    buffer_names: ClassVar[tuple[str, ...]] = (
        "running_mean",
        "running_var",
        "num_batches_tracked",
    )
    flops_per_output: ClassVar[int] = 2
    shown = ("eps", "momentum")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        self.num_features = as_int("num_features", num_features, 1)
        self.eps = as_number("eps", eps, 0)
        self.momentum = None if momentum is None else as_number("momentum", momentum, -LARGEST)
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        learned = as_flag("affine", affine)
        self.weight = Parameter(ones) if learned else None
        self.bias = Parameter(zeros) if learned else None
        self.running_mean: Array = zeros.copy()
        self.running_var: Array = ones.copy()
        self.num_batches_tracked: Array = np.zeros((), np.int64)

    def scale_and_shift(self) -> tuple[Array, Array]:
        """Return the scale and shift of each channel in evaluation, in float64."""
        scale = self._factors / np.sqrt(self._exact("running_var") + self.eps)
        return scale, self._offsets - self._exact("running_mean") * scale

    @property
    def _factors(self) -> Array:
        return np.ones(self.num_features) if self.weight is None else self._exact("weight")

    @property
    def _offsets(self) -> Array:
        return np.zeros(self.num_features) if self.bias is None else self._exact("bias")

    def _exact(self, name: str) -> Array:
        """Return an attribute, with one number a channel, in float64."""
        given = getattr(self, name)
        check_parameter(self, name, given, (self.num_features,))
        return np.asarray(given.value if isinstance(given, Parameter) else given).astype(float)

    def _checked(self, x: ArrayLike, dtype: np.dtype[Any]) -> Array:
        """Return `x` as an array of a shape that this layer accepts."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        """Return `x` normalized."""
        return self._normalized(x, relu=False)

    def forward_relu(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))`` from one kernel; `backward` is then that of both."""
        return self._normalized(x, relu=True)

    def _normalized(self, x: ArrayLike, relu: bool) -> Array:
        dtype = self.running_mean.dtype
        images = as_computed(self._checked(x, dtype), dtype)
        if self.training:
            count = images.size // self.num_features
            if count < 2:
                raise ValueError(
                    "x must have more than one value a channel in training, whose variance is "
                    f"needed, got {count}: use a larger batch, or eval()"
                )
        channels = np.zeros(self.num_features, CHANNEL)
        channels["weight"], channels["bias"] = self._factors, self._offsets
        if not self.training:
            channels["mean"] = self._exact("running_mean")
            channels["variance"] = self._exact("running_var")
        y = output_memory.empty(images.shape, images.dtype)
        low = images.dtype.type(0 if relu else -np.inf)
        numbers = channels, math.prod(images.shape[2:]), self.eps, self.training, low
        normalize.small(images.size, self.num_features, images.reshape(-1), y.reshape(-1), *numbers)
        if self.training:
            count = images.size // self.num_features
            self._track(channels["mean"], channels["variance"], count)
        kept = images, channels, self.training
        if relu:
            self.keep_output(y, *kept)
        else:
            self.keep(y, None, *kept)
        return y

    def _track(self, mean: Array, variance: Array, count: int) -> None:
        """Update the running averages by a batch's mean and variance."""
        self.num_batches_tracked += 1
        factor = self.momentum
        if factor is None:
            factor = 1 / float(self.num_batches_tracked)
        unbiased = variance * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running *= 1 - factor
            running += (factor * new).astype(running.dtype)

    def backward(self, grad: Array) -> Array:
        """Add to the gradients of weight and bias; return the input's."""
        grad, y, x, channels, of_batch = self.recall(grad)
        out = output_memory.empty(x.shape, x.dtype)
        grad = as_computed(grad, x.dtype)
        output = grad if y is None else as_computed(y, x.dtype)
        flat = (array.reshape(-1) for array in (grad, x, output, out))
        channels["weight"] = self._factors
        numbers = channels, math.prod(x.shape[2:]), of_batch, y is not None
        normalize_grad.small(x.size, self.num_features, *flat, *numbers)
        if self.weight is not None:
            self.weight.accumulate(channels["weight_grad"].astype(x.dtype))
        if self.bias is not None:
            self.bias.accumulate(channels["bias_grad"].astype(x.dtype))
        return out

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        learned = f"affine={self.weight is not None}, bias={self.bias is not None}"
        return f"{self.num_features}, {super().extra_repr()}, {learned}, track_running_stats=True"


class BatchNorm2d(_BatchNorm):
    """Normalize every channel to mean 0 and variance 1, then scale and shift it by learned numbers.

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
        Weight of a new batch in the running averages, usually from 0 to 1; None averages all
        batches alike.
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
    ValueError
        When training on one value a channel, whose variance is 0.

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

    def _checked(self, x: ArrayLike, dtype: np.dtype[Any]) -> Array:
        return as_images(self, as_numbers("x", x, 4), self.num_features, dtype)


class BatchNorm1d(_BatchNorm):
    """Normalize every feature to mean 0 and variance 1, then scale and shift it by learned numbers.

    This is `BatchNorm2d` for rows of features (N, num_features), as they come from `Linear`, or for
    signals (N, num_features, L).

    Parameters
    ----------
    num_features : int
        Features, or channels.
    eps, momentum, affine
        As in `BatchNorm2d`.

    Attributes
    ----------
    weight, bias, running_mean, running_var, num_batches_tracked
        As in `BatchNorm2d`.

    Examples
    --------
    >>> BatchNorm1d(2)(np.array([[1, 10], [3, 30]], np.float32)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    def _checked(self, x: ArrayLike, dtype: np.dtype[Any]) -> Array:
        array, count = as_floats(self, x, dtype), self.num_features
        if array.ndim not in (2, 3) or array.shape[1] != count:
            raise ValueError(
                f"x must have shape (N, {count}) or (N, {count}, L) for this BatchNorm1d, "
                f"got {array.shape}"
            )
        return array
