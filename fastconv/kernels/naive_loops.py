"""Textbook convolution as compiled loops; an item is a plane of the result.

Padding counts as zeros in the sum: 0 * infinity is NaN here, as with a zero-padded input.
"""

from __future__ import annotations

from typing import Any

from fastconv.jit.compiler import inner_kernel, range_kernel


@range_kernel
def forward(start: int, stop: int, x: Any, weight: Any, bias: Any, out: Any, geometry: Any) -> None:
    """Fill planes (n, k) of `out`; plane (n, k) is item n * K + k."""
    g = geometry[0]
    for item in range(start, stop):
        n, k = item // g.K, item % g.K
        first_channel = k // g.K_per_group * g.C_per_group
        for i in range(g.OH):
            for j in range(g.OW):
                total = _window_sum(x, n, first_channel, i, j, weight, k, bias[k], geometry)
                out[n, k, i, j] = total


@inner_kernel
def _window_sum(
    x: Any, n: int, first: int, i: int, j: int, weight: Any, k: int, total: Any, geometry: Any
) -> Any:
    """Return `total` plus the products of window (i, j) of the channels from `first` on."""
    g = geometry[0]
    for c in range(g.C_per_group):
        for r in range(g.R):
            h = i * g.stride_h + r * g.dilation_h - g.pad_top
            for s in range(g.S):
                w = j * g.stride_w + s * g.dilation_w - g.pad_left
                value = x.dtype.type(0)
                if 0 <= h < g.H and 0 <= w < g.W:
                    value = x[n, first + c, h, w]
                total += value * weight[k, c, r, s]
    return total


@range_kernel
def input_grad(start: int, stop: int, weight: Any, grad: Any, out: Any, geometry: Any) -> None:
    """Fill the planes (n, c) of `out`: every gradient pixel is scattered over its window."""
    g = geometry[0]
    K = g.K_per_group
    for item in range(start, stop):
        n, c = item // g.C, item % g.C
        group = c // g.C_per_group
        plane = out[n, c]
        plane[:] = 0
        for k in range(group * K, (group + 1) * K):
            for i in range(g.OH):
                for j in range(g.OW):
                    _scatter(grad[n, k, i, j], weight, k, c % g.C_per_group, plane, i, j, geometry)


@inner_kernel
def _scatter(
    value: Any, weight: Any, k: int, c: int, plane: Any, i: int, j: int, geometry: Any
) -> None:
    """Add a gradient's products with channel c of filter k to its window of a plane."""
    g = geometry[0]
    for r in range(g.R):
        h = i * g.stride_h + r * g.dilation_h - g.pad_top
        for s in range(g.S):
            w = j * g.stride_w + s * g.dilation_w - g.pad_left
            if 0 <= h < g.H and 0 <= w < g.W:
                plane[h, w] += value * weight[k, c, r, s]


@range_kernel
def weight_grad(start: int, stop: int, x: Any, grad: Any, out: Any, geometry: Any) -> None:
    """Fill the planes (k, c) of `out`, each a sum over all images and pixels."""
    g = geometry[0]
    for item in range(start, stop):
        k, c = item // g.C_per_group, item % g.C_per_group
        channel = k // g.K_per_group * g.C_per_group + c
        for r in range(g.R):
            for s in range(g.S):
                out[k, c, r, s] = _tap_sum(x, channel, grad, k, r, s, geometry)


@inner_kernel
def _tap_sum(x: Any, channel: int, grad: Any, k: int, r: int, s: int, geometry: Any) -> Any:
    """Return the weight gradient of tap (r, s)."""
    g, total = geometry[0], x.dtype.type(0)
    for n in range(g.N):
        for i in range(g.OH):
            h = i * g.stride_h + r * g.dilation_h - g.pad_top
            for j in range(g.OW):
                w = j * g.stride_w + s * g.dilation_w - g.pad_left
                value = x.dtype.type(0)
                if 0 <= h < g.H and 0 <= w < g.W:
                    value = x[n, channel, h, w]
                total += value * grad[n, k, i, j]
    return total
