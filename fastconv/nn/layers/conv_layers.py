"""Convolution and transposed convolution with learned filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.conv2d import conv2d, conv2d_weight_grad
from fastconv.api.conv2d_backward import Gradient, bias_gradient, conv2d_backward
from fastconv.api.conv_transpose2d import conv_transpose2d, reached, spanned
from fastconv.core.arguments import Array, as_batch_shape
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import IntPair, Padding, PaddingPairs, as_int, as_pair, resolve_padding
from fastconv.nn.init import default_parameters
from fastconv.nn.layer_arguments import RngLike, as_given_padding, as_images
from fastconv.nn.layers.padding_modes import PaddingMode, check_padding_mode, pad, pad_grad
from fastconv.nn.module import Module
from fastconv.select.choice import choose


class _Convolution(Module):
    """What convolution and transposed convolution have in common."""

    transposed = False
    padding_mode: PaddingMode = "zeros"
    shown = ("kernel_size", "stride")
    shown_if_changed: ClassVar[dict[str, Any]] = {
        "padding": (0, 0),
        "dilation": (1, 1),
        "output_padding": (0, 0),
        "groups": 1,
    }
    output_padding = 0, 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair,
        padding: Padding,
        dilation: IntPair,
        groups: int,
        bias: bool,
        rng: RngLike,
    ) -> None:
        self.in_channels = as_int("in_channels", in_channels, 1)
        self.out_channels = as_int("out_channels", out_channels, 1)
        self.kernel_size = as_pair("kernel_size", kernel_size, 1)
        self.stride = as_pair("stride", stride, 1)
        self.dilation = as_pair("dilation", dilation, 1)
        self.groups = as_int("groups", groups, 1)
        given = as_given_padding(padding)
        self.padding: Padding = (given, given) if isinstance(given, int) else given
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, got groups={groups} with "
                f"in_channels={in_channels} and out_channels={out_channels}"
            )
        outer, inner = self.out_channels, self.in_channels
        if self.transposed:
            outer, inner = inner, outer
        self.weight_shape = (outer, inner // self.groups, *self.kernel_size)
        self.weight, self.bias = default_parameters(self.weight_shape, self.out_channels, bias, rng)
        self.input_grad = True

    @property
    def _bias(self) -> Array | None:
        return None if self.bias is None else self.bias.value

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        text = f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"

    def images(self, x: ArrayLike) -> Array:
        """Return `x` as images, or one image, that this layer accepts."""
        return as_images(self, x, self.in_channels, self.weight.dtype)


class Conv2d(_Convolution):
    """Convolution of images with learned filters.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or (int, int)
        For height and width.
    padding : int, (int, int), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        Pixels around the images; see `fastconv.conv2d`.
    groups : int
        An output channel sees only the input channels of its group.
    bias : bool
        Whether to add a learned number to each output channel.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        Values of those pixels: zeros, the image mirrored without its edge, its edge, or the image
        repeated. All but zeros are copied before the convolution, which takes time.
    rng : numpy.random.Generator or int, optional
        Draws the initial weights: uniform within ±1 / sqrt(fan_in), as in PyTorch.

    Attributes
    ----------
    weight : Parameter, (out_channels, in_channels / groups, R, S)
    bias : Parameter, (out_channels,), or None
    input_grad : bool
        Whether `backward` returns the input's gradient. False, for the first layer of a model,
        makes it faster: it then returns None.

    Examples
    --------
    >>> layer = Conv2d(3, 8, 3, padding=1, rng=0)
    >>> y = layer(np.ones((2, 3, 5, 5), np.float32))
    >>> y.shape
    (2, 8, 5, 5)
    >>> layer.backward(np.ones_like(y)).shape, layer.weight.grad.shape
    ((2, 3, 5, 5), (8, 3, 3, 3))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        rng: RngLike = None,
    ) -> None:
        check_padding_mode(padding_mode)
        self.padding_mode: PaddingMode = padding_mode
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, rng)
        )
        self.plans: dict[Any, Any] = {}  # managed by fusion.py

    def padded(self, x: ArrayLike) -> tuple[Array, PaddingPairs | None]:
        """Return `x`, padded unless by zeros, and that padding, which is None for zeros."""
        images = self.images(x)
        if self.padding_mode == "zeros":
            return images, None
        sides = self.padding_of(images.shape)
        return pad(images, sides, self.padding_mode), sides

    def padding_of(self, shape: tuple[int, ...]) -> PaddingPairs:
        """Return the padding of images of that shape in pixels."""
        check_padding_mode(self.padding_mode)
        sizes = (shape[-2], shape[-1]), self.kernel_size, self.stride, self.dilation
        return resolve_padding(self.padding, *sizes)

    @property
    def geometry(self) -> tuple[IntPair, Padding, IntPair, int]:
        """(stride, padding, dilation, groups) for `fastconv.conv2d` of what `padded` returns."""
        padding = self.padding if self.padding_mode == "zeros" else 0
        return self.stride, padding, self.dilation, self.groups

    def forward(self, x: ArrayLike) -> Array:
        """Return the convolution of `x`, (N, in_channels, H, W) or (in_channels, H, W)."""
        images, sides = self.padded(x)
        y = conv2d(images, self.weight.value, self._bias, *self.geometry)
        self.keep(y, None, images, sides)
        return y

    def forward_relu(self, x: ArrayLike) -> Array:
        """Return ``relu(forward(x))`` from one kernel; `backward` is then that of both."""
        images, sides = self.padded(x)
        y = conv2d(images, self.weight.value, self._bias, *self.geometry, activation="relu")
        self.keep_output(y, images, sides)
        return y

    def backward(self, grad: Array) -> Array | None:
        """Add to the gradients of weight and bias; return the input's."""
        grad, y, images, sides = self.recall(grad)
        need: list[Gradient] = ["weight"]
        if self.bias is not None:
            need.append("bias")
        if self.input_grad:
            need.append("input")
        found = conv2d_backward(
            images, self.weight.value, grad, *self.geometry, need=need, relu_output=y
        )
        for parameter, gradient in ((self.weight, found.weight), (self.bias, found.bias)):
            if parameter is not None and gradient is not None:
                parameter.accumulate(gradient)
        if sides is None or found.input is None:
            return found.input
        return pad_grad(found.input, sides, self.padding_mode)

    def forget(self) -> None:
        """Forget the plans made for evaluation."""
        self.plans.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: no plans."""
        return {**super().__getstate__(), "plans": {}}

    def problem(self, input_shape: tuple[int, ...]) -> Conv2dProblem:
        """Return what is computed for inputs of that shape."""
        (N, C, H, W), _ = as_batch_shape("input_shape", input_shape)
        if self.padding_mode != "zeros":
            (top, bottom), (left, right) = self.padding_of((H, W))
            H, W = top + H + bottom, left + W + right
        dtype = self.weight.dtype.name
        return Conv2dProblem.from_shapes((N, C, H, W), self.weight.shape, *self.geometry, dtype)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return two for each multiplication and addition."""
        return self.problem(input_shape).flops

    def algorithm(self, input_shape: tuple[int, ...]) -> str:
        """Return the name of the algorithm that runs."""
        return choose(self.problem(input_shape), "forward").name


class ConvTranspose2d(_Convolution):
    """Transposed convolution, which enlarges images by learned filters.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding, groups, dilation
        As in `fastconv.conv_transpose2d`.
    bias, rng
        As in `Conv2d`.
    padding_mode : "zeros"
        The only mode of transposed convolution, as in PyTorch.

    Attributes
    ----------
    weight : Parameter, (in_channels, out_channels / groups, R, S)
    bias, input_grad
        As in `Conv2d`.

    Examples
    --------
    >>> layer = ConvTranspose2d(4, 2, 2, stride=2, rng=0)
    >>> layer(np.ones((1, 4, 5, 5), np.float32)).shape
    (1, 2, 10, 10)
    >>> layer(np.ones((1, 4, 5, 5), np.float32), output_size=(11, 10)).shape
    (1, 2, 11, 10)
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
        padding_mode: Literal["zeros"] = "zeros",
        *,
        rng: RngLike = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f"padding_mode must be 'zeros' for ConvTranspose2d, got {padding_mode!r}"
            )
        self.output_padding = as_pair("output_padding", output_padding, 0)
        self.sides = as_pair("padding", padding, 0)
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, rng)
        )

    def __call__(self, x: ArrayLike, output_size: Sequence[int] | None = None) -> Array:
        """Return the output for `x`, of that size if one is given."""
        return self.forward(x) if output_size is None else self.forward(x, output_size)

    def forward(self, x: ArrayLike, output_size: Sequence[int] | None = None) -> Array:
        """Return the transposed convolution of `x`, (N, in_channels, H, W) or one image.

        With `output_size`, (height, width) or a whole shape, it has that height and width, and
        the layer's `output_padding` is not used.
        """
        images = self.images(x)
        y = conv_transpose2d(
            images,
            self.weight.value,
            self._bias,
            self.stride,
            self.sides,
            self.output_padding if output_size is None else 0,
            self.groups,
            self.dilation,
            output_size=output_size,
        )
        self.keep(y, images)
        return y

    def backward(self, grad: Array) -> Array | None:
        """Add to the gradients of weight and bias; return the input's.

        Transposed convolution is the input gradient of a convolution from the large images to the
        small ones; so this layer's gradients are that convolution and its weight gradient.
        """
        grad, x = self.recall(grad)
        if self.bias is not None:
            self.bias.accumulate(bias_gradient(grad))
        # Rows of output padding that no tap reaches do not contribute.
        height, width = grad.shape[-2:]
        top, left = self.sides
        spans = spanned(x.shape[-2:], self.kernel_size, self.stride, self.dilation)
        extra = height + 2 * top - spans[0], width + 2 * left - spans[1]
        cut = (top, top), (left, left)
        (rows, columns), sides = reached((height, width), extra, cut)
        if not (rows and columns):
            self.weight.accumulate(np.zeros(self.weight_shape, x.dtype))
            return np.zeros_like(x) if self.input_grad else None
        part = grad[..., :rows, :columns]
        geometry: Any = (self.stride, sides, self.dilation, self.groups)
        self.weight.accumulate(conv2d_weight_grad(part, self.weight_shape, x, *geometry))
        return conv2d(part, self.weight.value, None, *geometry) if self.input_grad else None

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return two for each multiplication and addition."""
        return 2 * math.prod(input_shape) // self.in_channels * self.weight.size
