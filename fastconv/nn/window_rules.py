"""Layers that read windows of pixels as nodes: poolings, and interpolation.

What `ceil_mode` adds is padding at the end. Padding that a mean counts, where there is more that it
does not, and padding as wide as a kernel, which runtimes refuse, are nodes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.core.geometry import PaddingPairs, extent
from fastconv.core.pool_axis import adaptive_axis
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.graph.ir import Array, Value
from fastconv.nn.layers.pooling_layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    MaxPool2d,
)
from fastconv.nn.layers.upsampling_layer import Upsample
from fastconv.nn.lowered_graph import Lowering, Rule, pads_of

# Windows of one size -------------------------------------------------------------------------


def _max_pool(to: Lowering, layer: MaxPool2d, x: Value) -> Value:
    """Add the maximum of every window."""
    _require_one_result(to, layer)
    problem = _problem(to, layer, x)
    sides = _sum(problem.padding, _beyond(problem))
    empty = any(axis.some_empty for axis in problem.maximum_axes)  # whose maximum is 0
    if _is_wide(problem, sides) and not empty:
        x, sides = to.pad(x, sides, value=-np.inf), ((0, 0), (0, 0))
    return to.add("MaxPool", x, **_window(problem, sides))


def _avg_pool(to: Lowering, layer: AvgPool2d, x: Value) -> Value:
    """Add the mean of every window."""
    problem = _problem(to, layer, x)
    sides, beyond = problem.padding, _beyond(problem)
    counted, divisor = layer.count_include_pad, layer.divisor_override
    if divisor is not None:
        x, sides = to.pad(x, _sum(sides, beyond)), ((0, 0), (0, 0))
    elif counted and (np.any(beyond) or _is_wide(problem, sides)):
        x, sides, counted = to.pad(x, sides), beyond, False
    else:
        sides = _sum(sides, beyond)
    attributes = _window(problem, sides)
    if problem.dilation == (1, 1):  # known since version 19 only
        del attributes["dilations"]
    y = to.add("AveragePool", x, **attributes, count_include_pad=int(counted))
    if divisor is None:
        return y
    return to.add("Mul", y, to.constant(problem.R * problem.S / divisor, "factor", x.dtype))


def _problem(to: Lowering, layer: MaxPool2d | AvgPool2d, x: Value) -> Pool2dProblem:
    geometry = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    shape = to.images(x)
    try:
        return Pool2dProblem.from_shapes(shape, *geometry, wide_padding=layer.wide_padding)
    except ValueError as error:
        raise to.refused(str(error)) from None


def _window(problem: Pool2dProblem, sides: PaddingPairs) -> dict[str, Any]:
    return {
        "kernel_shape": (problem.R, problem.S),
        "strides": problem.stride,
        "pads": pads_of(sides),
        "dilations": problem.dilation,
    }


def _beyond(problem: Pool2dProblem) -> PaddingPairs:
    """Return how far the last windows reach beyond images and padding: by `ceil_mode`."""
    p = problem
    axes = zip(
        *((p.H, p.W), (p.OH, p.OW), (p.R, p.S), p.stride, p.dilation, p.padding), strict=True
    )
    (rows, columns) = (
        max(0, (outputs - 1) * stride + extent(taps, dilation) - size - sum(sides))
        for size, outputs, taps, stride, dilation, sides in axes
    )
    return (0, rows), (0, columns)


def _sum(one: PaddingPairs, other: PaddingPairs) -> PaddingPairs:
    (top, bottom), (left, right) = (np.array(one) + other).tolist()
    return (top, bottom), (left, right)


def _is_wide(problem: Pool2dProblem, sides: PaddingPairs) -> bool:
    return max(sides[0]) >= problem.R or max(sides[1]) >= problem.S


def _require_one_result(to: Lowering, layer: MaxPool2d | AdaptiveMaxPool2d) -> None:
    if layer.return_indices:
        raise to.refused("it returns indices as well, which no layer takes: set return_indices")


# Windows that divide the images --------------------------------------------------------------


def _adaptive_avg_pool(to: Lowering, layer: AdaptiveAvgPool2d, x: Value) -> Value:
    """Add means; where windows differ in size, by a matrix for the rows and one for columns."""
    (_, _, H, W), (OH, OW) = to.images(x), _output_size(layer, x)
    if (OH, OW) in ((1, 1), (H, W)) or not (H % OH or W % OW):
        return _divided(to, "Average", x, OH, OW)
    rows, columns = (np.zeros(shape) for shape in ((OH, H), (OW, W)))
    for matrix in (rows, columns):
        axis = adaptive_axis(matrix.shape[1], len(matrix))
        for i, row in enumerate(matrix):
            row[axis.window(i)] = 1 / axis.divisor[i]
    y = to.add("MatMul", to.constant(rows, "rows", x.dtype), x)
    return to.add("MatMul", y, to.constant(columns.T, "columns", x.dtype))


def _adaptive_max_pool(to: Lowering, layer: AdaptiveMaxPool2d, x: Value) -> Value:
    """Add maxima; where windows differ in size, a pixel of the smaller ones is repeated."""
    _require_one_result(to, layer)
    (_, _, H, W), (OH, OW) = to.images(x), _output_size(layer, x)
    if H % OH or W % OW:
        for axis, (size, outputs) in enumerate(((H, OH), (W, OW)), 2):
            windows = adaptive_axis(size, outputs)
            taps = np.arange((windows.stop - windows.start).max())
            read = np.minimum(windows.start[:, None] + taps, windows.stop[:, None] - 1)
            x = to.add("Gather", x, to.constant(read.reshape(-1), "read"), axis=axis)
    return _divided(to, "Max", x, OH, OW)


def _output_size(layer: AdaptiveAvgPool2d | AdaptiveMaxPool2d, x: Value) -> Iterator[int]:
    wanted = layer.output_size
    pair = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    assert x.shape is not None
    return (size if out is None else out for out, size in zip(pair, x.shape[2:], strict=True))


def _divided(to: Lowering, kind: str, x: Value, OH: int, OW: int) -> Value:
    """Add the pooling of windows of one size side by side."""
    _, _, H, W = to.images(x)
    if (OH, OW) == (H, W):
        return x
    if (OH, OW) == (1, 1):
        return to.add(f"Global{kind}Pool", x)
    sizes = (H // OH, W // OW)
    return to.add(f"{kind}Pool", x, kernel_shape=sizes, strides=sizes)


# Interpolation -------------------------------------------------------------------------------


def _resize(to: Lowering, layer: Upsample, x: Value) -> Value:
    """Add interpolation. Pixels that `Resize` would choose otherwise are gathered by number."""
    sizes = to.images(x)[2:]
    reads = layer.reads(sizes)
    factors = [len(read) / size for read, size in zip(reads, sizes, strict=True)]
    given = layer.scale_factor
    if given is not None and not (layer.recompute_scale_factor or layer.align_corners):
        factors = list(given) if isinstance(given, tuple) else [given, given]
    axes = list(zip(sizes, reads, factors, strict=True))
    scales = [_scale(size, len(read), factor) for size, read, factor in axes]
    if layer.mode == "nearest":
        same = (_is_nearest(read["low"], scale) for read, scale in zip(reads, scales, strict=True))
        if not all(same):
            for axis, read in enumerate(reads, 2):
                x = to.add("Gather", x, to.constant(read["low"], "read"), axis=axis)
            return x
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        how = {"coordinate_transformation_mode": "half_pixel", "mode": "linear"}
        if layer.align_corners:
            how["coordinate_transformation_mode"] = "align_corners"
    return to.add("Resize", x, None, to.constant((1, 1, *scales), "scales", np.float32), **how)


def _scale(size: int, outputs: int, factor: float) -> np.float32:
    """Return the number next to a factor whose product with the size rounds down to `outputs`.

    >>> bool(_scale(10, 7, 0.7) > np.float32(0.7))
    True
    """
    scale = np.float32(factor)
    for _ in range(8):
        exact = int(size * float(scale))
        if exact == outputs == int(np.float32(size) * scale):
            break
        scale = np.nextafter(scale, np.float32(np.inf if exact < outputs else 0))
    return scale


def _is_nearest(read: Array, scale: np.float32) -> bool:
    """Return whether dividing by a scale and rounding down gives the pixels to read."""
    outputs = np.arange(len(read))
    exact, rounded = outputs / float(scale), outputs.astype(np.float32) / scale
    return all(np.array_equal(np.floor(places), read) for places in (exact, rounded))


#: The rules of layers by their classes.
WINDOWS: dict[type, Rule] = {
    MaxPool2d: _max_pool,
    AvgPool2d: _avg_pool,
    AdaptiveAvgPool2d: _adaptive_avg_pool,
    AdaptiveMaxPool2d: _adaptive_max_pool,
    Upsample: _resize,
}
