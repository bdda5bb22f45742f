"""Convolution as nested loops, one plane of the result an item of work.

The order of the loops is the textbook's. A position outside the input counts as the zero it is
padded with: 0 * infinity is NaN here, as in the sum over a zero-padded input.
"""

from __future__ import annotations

from typing import Any

from fastconv.jit.compiler import range_kernel


@range_kernel
def forward(start: int, stop: int, x: Any, weight: Any, bias: Any, out: Any, geometry: Any) -> None:
    """Fill the planes (n, k) of `out`, counted n * K + k."""
    g = geometry[0]
    C, H, W, K, R, S = g.C_per_group, g.H, g.W, g.K, g.R, g.S
    for item in range(start, stop):
        n, k = item // K, item % K
        first_channel = k // g.K_per_group * C
        for i in range(g.OH):
            for j in range(g.OW):
                total = bias[k]
                for c in range(C):
                    for r in range(R):
                        h = i * g.stride_h + r * g.dilation_h - g.pad_top
                        for s in range(S):
                            w = j * g.stride_w + s * g.dilation_w - g.pad_left
                            value = bias.dtype.type(0)
                            if 0 <= h < H and 0 <= w < W:
                                value = x[n, first_channel + c, h, w]
                            total += value * weight[k, c, r, s]
                out[n, k, i, j] = total


@range_kernel
def input_grad(start: int, stop: int, weight: Any, grad: Any, out: Any, geometry: Any) -> None:
    """Fill the planes (n, c) of `out`: every gradient pixel is scattered over its window."""
    g = geometry[0]
    C, H, W, K, R, S = g.C, g.H, g.W, g.K_per_group, g.R, g.S
    for item in range(start, stop):
        n, c = item // C, item % C
        group = c // g.C_per_group
        out[n, c] = 0
        for k in range(group * K, (group + 1) * K):
            for i in range(g.OH):
                for j in range(g.OW):
                    value = grad[n, k, i, j]
                    for r in range(R):
                        h = i * g.stride_h + r * g.dilation_h - g.pad_top
                        for s in range(S):
                            w = j * g.stride_w + s * g.dilation_w - g.pad_left
                            if 0 <= h < H and 0 <= w < W:
                                out[n, c, h, w] += value * weight[k, c % g.C_per_group, r, s]


@range_kernel
def weight_grad(start: int, stop: int, x: Any, grad: Any, out: Any, geometry: Any) -> None:
    """Fill the planes (k, c) of `out`, each a sum over all images and pixels."""
    g = geometry[0]
    C, H, W, R, S = g.C_per_group, g.H, g.W, g.R, g.S
    for item in range(start, stop):
        k, c = item // C, item % C
        channel = k // g.K_per_group * C + c
        for r in range(R):
            for s in range(S):
                total = out.dtype.type(0)
                for n in range(g.N):
                    for i in range(g.OH):
                        h = i * g.stride_h + r * g.dilation_h - g.pad_top
                        for j in range(g.OW):
                            w = j * g.stride_w + s * g.dilation_w - g.pad_left
                            value = out.dtype.type(0)
                            if 0 <= h < H and 0 <= w < W:
                                value = x[n, channel, h, w]
                            total += value * grad[n, k, i, j]
                out[k, c, r, s] = total
