"""Layers as nodes: a small function each, all but poolings, interpolation and compositions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Value
from fastconv.nn.layers.activation_layers import (
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    PReLU,
    ReLU,
)
from fastconv.nn.layers.batch_norm import BatchNorm1d, BatchNorm2d
from fastconv.nn.layers.conv_layers import Conv2d, ConvTranspose2d
from fastconv.nn.layers.dropout_layers import Dropout
from fastconv.nn.layers.group_norm import GroupNorm, LayerNorm
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.layers.padding_modes import check_sides
from fastconv.nn.layers.pooling_layers import Flatten, MaxUnpool2d
from fastconv.nn.layers.rearranging_layers import (
    ChannelShuffle,
    Identity,
    PixelShuffle,
    PixelUnshuffle,
    ZeroPad2d,
)
from fastconv.nn.layers.smooth_activations import ELU, GELU, Sigmoid, SiLU, Softmax, Tanh
from fastconv.nn.lowered_graph import Lowering, Rule, pads_of, shape_of
from fastconv.nn.module import Module

# Convolutions and dense layers ---------------------------------------------------------------

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _conv(to: Lowering, layer: Conv2d, x: Value) -> Value:
    shape = to.images(x, layer.in_channels)
    sides = layer.padding_of(shape)
    if layer.padding_mode != "zeros":
        try:
            check_sides(*shape[2:], sides, layer.padding_mode)
        except ValueError as error:
            raise to.refused(str(error)) from None
        x, sides = to.pad(x, sides, _PAD_MODES[layer.padding_mode]), ((0, 0), (0, 0))
    return _convolved(to, "Conv", layer, x, pads_of(sides))


def _conv_transpose(to: Lowering, layer: ConvTranspose2d, x: Value) -> Value:
    to.images(x, layer.in_channels)
    extra = {"output_padding": layer.output_padding} if any(layer.output_padding) else {}
    return _convolved(to, "ConvTranspose", layer, x, (*layer.sides, *layer.sides), **extra)


def _convolved(
    to: Lowering, operator: str, layer: Any, x: Value, pads: Sequence[int], **attributes: Any
) -> Value:
    return to.add(
        operator,
        x,
        to.state("weight"),
        *filter(None, [to.state("bias")]),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=tuple(pads),
        dilations=layer.dilation,
        group=layer.groups,
        **attributes,
    )


def _linear(to: Lowering, layer: Linear, x: Value) -> Value:
    shape, bias = shape_of(x), to.state("bias")
    weight = to.state("weight", (layer.out_features, layer.in_features))
    if shape[-1:] != (layer.in_features,):
        raise to.refused(f"it takes arrays (..., {layer.in_features}), got {shape}")
    if len(shape) == 2:
        return to.add("Gemm", x, weight, *filter(None, [bias]), transB=1)
    y = to.add("MatMul", x, to.add("Transpose", weight, perm=(1, 0)))
    return y if bias is None else to.add("Add", y, bias)


# Normalization -------------------------------------------------------------------------------


def _batch_norm(to: Lowering, layer: BatchNorm1d | BatchNorm2d, x: Value) -> Value:
    if isinstance(layer, BatchNorm2d):
        to.images(x)
    to.batch(x, layer.num_features)
    each = (layer.num_features,)
    statistics = to.state("running_mean", each), to.state("running_var", each)
    numbers = *to.scale_and_shift(each, x.dtype), *statistics
    return to.add("BatchNormalization", x, *numbers, epsilon=layer.eps)


def _precision(x: Value) -> dict[str, int]:
    """Return the attribute that has statistics computed in the input's type, if not in float32."""
    return {"stash_type": 11} if x.dtype == np.float64 else {}


def _group_norm(to: Lowering, layer: GroupNorm, x: Value) -> Value:
    to.batch(x, layer.num_channels)
    numbers = to.scale_and_shift((layer.num_channels,), x.dtype)
    options = {"epsilon": layer.eps, "num_groups": layer.num_groups, **_precision(x)}
    return to.add("GroupNormalization", x, *numbers, **options)


def _layer_norm(to: Lowering, layer: LayerNorm, x: Value) -> Value:
    sizes = layer.normalized_shape
    if shape_of(x)[-len(sizes) :] != sizes:
        raise to.refused(f"it takes a shape that ends in {sizes}, got {x.shape}")
    numbers = to.scale_and_shift(sizes, x.dtype)
    options = {"axis": -len(sizes), "epsilon": layer.eps, **_precision(x)}
    return to.add("LayerNormalization", x, *numbers, **options)


# Activations ---------------------------------------------------------------------------------


def _silu(to: Lowering, layer: Module, x: Value) -> Value:
    return to.add("Mul", x, to.add("Sigmoid", x))


def _hardtanh(to: Lowering, layer: Hardtanh, x: Value) -> Value:
    bounds = (("min", layer.min_val), ("max", layer.max_val))
    return to.add("Clip", x, *(to.constant(number, word, x.dtype) for word, number in bounds))


def _prelu(to: Lowering, layer: PReLU, x: Value) -> Value:
    weight = to.state("weight", (layer.num_parameters,))
    if layer.num_parameters > 1:
        axes = range(1, len(to.batch(x, layer.num_parameters)) - 1)
        if axes:
            weight = to.add("Unsqueeze", weight, to.constant(axes, "axes"))
    return to.add("PRelu", x, weight)


def _softmax(to: Lowering, layer: Softmax, x: Value) -> Value:
    if not -len(shape_of(x)) <= layer.dim < len(shape_of(x)):
        raise to.refused(f"dim must be an axis of x, got {layer.dim} with shape {x.shape}")
    return to.add("Softmax", x, axis=layer.dim)


# Shapes --------------------------------------------------------------------------------------


def _flatten(to: Lowering, layer: Flatten, x: Value) -> Value:
    shape = shape_of(x)
    first, last = (d + len(shape) if d < 0 else d for d in (layer.start_dim, layer.end_dim))
    if not 0 <= first <= last < len(shape):
        raise to.refused(f"start_dim and end_dim must be axes of x in this order, got {shape}")
    if (first, last) == (1, len(shape) - 1):
        return to.add("Flatten", x, axis=1)
    return to.reshape(x, *(0,) * first, -1, *shape[last + 1 :])


def _pixel_shuffle(to: Lowering, layer: PixelShuffle, x: Value) -> Value:
    (_, C, _, _), r = to.images(x), layer.upscale_factor
    if C % r**2:
        raise to.refused(f"upscale_factor={r} needs a multiple of {r**2} channels, got {x.shape}")
    return to.add("DepthToSpace", x, blocksize=r, mode="CRD")


def _pixel_unshuffle(to: Lowering, layer: PixelUnshuffle, x: Value) -> Value:
    (_, C, H, W), r = to.images(x), layer.downscale_factor
    if H % r or W % r:
        raise to.refused(f"downscale_factor={r} must divide height and width, got {x.shape}")
    squares = to.reshape(x, 0, C, H // r, r, W // r, r)
    squares = to.add("Transpose", squares, perm=(0, 1, 3, 5, 2, 4))
    return to.reshape(squares, 0, C * r * r, H // r, W // r)


def _channel_shuffle(to: Lowering, layer: ChannelShuffle, x: Value) -> Value:
    (_, C, H, W), groups = to.images(x), layer.groups
    if C % groups:
        raise to.refused(f"groups={groups} must divide the channels, got {x.shape}")
    parts = to.reshape(x, 0, groups, C // groups, H, W)
    return to.reshape(to.add("Transpose", parts, perm=(0, 2, 1, 3, 4)), 0, C, H, W)


def _zero_pad(to: Lowering, layer: ZeroPad2d, x: Value) -> Value:
    to.images(x)
    left, right, top, bottom = layer.padding
    return to.pad(x, ((top, bottom), (left, right)))


def _unpool(to: Lowering, layer: Module, x: Value) -> Value:
    raise TypeError(f"{to.label} cannot be in a graph of one input: it takes indices as well")


def _plain(operator: str, **names: str) -> Rule:
    """Return the rule of one node; attributes have the layer's values of these names."""

    def rule(to: Lowering, layer: Module, x: Value) -> Value:
        return to.add(operator, x, **{key: getattr(layer, name) for key, name in names.items()})

    return rule


def _same(to: Lowering, layer: Module, x: Value) -> Value:
    return x


#: The rules of layers by their classes.
LAYERS: dict[type, Rule] = {
    Conv2d: _conv,
    ConvTranspose2d: _conv_transpose,
    Linear: _linear,
    BatchNorm1d: _batch_norm,
    BatchNorm2d: _batch_norm,
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    Dropout: _same,
    Identity: _same,
    ReLU: _plain("Relu"),
    LeakyReLU: _plain("LeakyRelu", alpha="negative_slope"),
    PReLU: _prelu,
    Hardtanh: _hardtanh,
    Hardsigmoid: lambda to, _, x: to.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    Hardswish: _plain("HardSwish"),
    ELU: _plain("Elu", alpha="alpha"),
    Sigmoid: _plain("Sigmoid"),
    Tanh: _plain("Tanh"),
    SiLU: _silu,
    GELU: _plain("Gelu", approximate="approximate"),
    Softmax: _softmax,
    Flatten: _flatten,
    PixelShuffle: _pixel_shuffle,
    PixelUnshuffle: _pixel_unshuffle,
    ChannelShuffle: _channel_shuffle,
    ZeroPad2d: _zero_pad,
    MaxUnpool2d: _unpool,
}
