"""The fully connected layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_computed
from fastconv.core.geometry import as_int
from fastconv.dense.dense_product import dense, product_of
from fastconv.nn.init import default_parameters
from fastconv.nn.layer_arguments import RngLike, as_floats, check_parameter
from fastconv.nn.module import Module


class Linear(Module):
    """Fully connected layer: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rng : numpy.random.Generator or int, optional
        Draws the initial weights: uniform within ±1 / sqrt(in_features), as in PyTorch.

    Attributes
    ----------
    weight : Parameter, (out_features, in_features)
    bias : Parameter, (out_features,), or None
    input_grad : bool
        As in `Conv2d`.

    Examples
    --------
    >>> layer = Linear(3, 2, rng=0)
    >>> layer.weight.data[...], layer.bias.data[...] = 1, [0, 10]
    >>> layer(np.ones((1, 3), np.float32))
    array([[ 3., 13.]], dtype=float32)
    >>> layer.backward(np.ones((1, 2)))
    array([[2., 2., 2.]], dtype=float32)
    """

    shown = ("in_features", "out_features")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: RngLike = None
    ) -> None:
        self.in_features = as_int("in_features", in_features, 1)
        self.out_features = as_int("out_features", out_features, 1)
        shape = self.out_features, self.in_features
        self.weight, self.bias = default_parameters(shape, self.out_features, bias, rng)
        self.input_grad = True

    def forward(self, x: ArrayLike) -> Array:
        """Return the outputs for `x`, (..., in_features)."""
        array = as_floats(self, x, self.weight.dtype)
        if array.ndim < 1 or array.shape[-1] != self.in_features:
            hint = ": put Flatten() before" if array.ndim > 2 else ""
            raise ValueError(
                f"x must have shape (..., {self.in_features}) for this Linear, "
                f"got {array.shape}{hint}"
            )
        check_parameter(self, "weight", self.weight, (self.out_features, self.in_features))
        if self.bias is not None:
            check_parameter(self, "bias", self.bias, (self.out_features,))
        rows = as_computed(array.reshape(-1, self.in_features), array.dtype)
        bias = None if self.bias is None else self.bias.value
        sums = dense(rows, as_computed(self.weight.value, rows.dtype), bias)
        y = sums.reshape(*array.shape[:-1], self.out_features)
        self.keep(y, array)
        return y

    def backward(self, grad: Array) -> Array | None:
        """Add to the gradients of weight and bias; return the input's."""
        grad, x = self.recall(grad)
        outputs = as_computed(grad.reshape(-1, self.out_features), x.dtype)
        rows = as_computed(x.reshape(-1, self.in_features), x.dtype)
        self.weight.accumulate(product_of(outputs, rows, transposed=(True, False)))
        if self.bias is not None:
            self.bias.accumulate(outputs.sum(axis=0))
        if not self.input_grad:
            return None
        return product_of(outputs, as_computed(self.weight.value, x.dtype)).reshape(x.shape)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return two for each multiplication and addition."""
        return 2 * self.in_features * int(np.prod(output_shape))

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"
