"""Winograd's transforms for the gradient of the weights, a vector of channels at a time.

The gradient of a filter of r x r taps is a convolution whose filter is the gradient of the output:
from m x m elements of that and (m + r - 1)^2 of the input, F(r, m) computes what they contribute::

    inputs   (m + r - 1)^2 -> (m + r - 1)^2      B d B^T
    grads              m^2 -> (m + r - 1)^2      G e G^T
    sums     (m + r - 1)^2 -> r^2                A p A^T

The products p are summed over tiles before they are transformed. Channels (and filters) of a pixel
lie side by side, so a vector holds one element of a tile for as many of them as it has lanes.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from fastconv.codegen.row_copies import vectors_of
from fastconv.codegen.vector import index
from fastconv.codegen.winograd_matrices import winograd
from fastconv.codegen.winograd_transforms import both_ways


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transform_pixels(typingctx, source, target, row, stride, weights, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform a tile for F(m, r) of a vector of channels: as its filter, or else as its input.

    `source` and `target` are addresses. Pixel (i, j) is read `row` elements a row and a vector a
    column behind the first; an element is written `stride` elements behind the one before.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector = vectors_of(builder, bits, lanes)
        of, to = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        row, stride = arguments[2:4]
        matrices = winograd(m.literal_value, r.literal_value)
        matrix = matrices.weights if weights.literal_value else matrices.inputs

        def load(i: int, j: int) -> Any:
            down, across = builder.mul(row, index(i)), index(j * vector.lanes)
            return vector.load(vector.at(of, down, across))

        def keep(i: int, j: int, value: Any) -> None:
            vector.store(value, vector.at(to, builder.mul(stride, index(i * len(matrix) + j))))

        both_ways(vector, matrix, load, keep)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4, weights, m, r, bits, lanes), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def transform_sums(typingctx, source, target, stride, plane, first, m, r, bits, lanes):  # type: ignore[no-untyped-def]
    """Transform a vector of sums of products of F(m, r) to outputs, added to `target`.

    Products are read `stride` elements apart, outputs written `plane` elements apart. If it is the
    `first`, `target` is not read.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vector, m_ = vectors_of(builder, bits, lanes), m.literal_value
        of, to = (builder.inttoptr(a, vector.element.as_pointer()) for a in arguments[:2])
        stride, plane, first = arguments[2:5]
        matrix = winograd(m_, r.literal_value).outputs
        size = len(matrix[0])
        results: list[Any] = []

        def load(i: int, j: int) -> Any:
            return vector.load(vector.at(of, builder.mul(stride, index(i * size + j))))

        both_ways(vector, matrix, load, lambda i, j, value: results.append(value))
        places = [vector.at(to, builder.mul(plane, index(tap))) for tap in range(len(results))]
        with builder.if_else(builder.icmp_signed("!=", first, index(0))) as (alone, adding):
            with alone:
                for value, place in zip(results, places, strict=True):
                    vector.store(value, place)
            with adding:
                for value, place in zip(results, places, strict=True):
                    vector.store(builder.fadd(vector.load(place), value), place)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5, m, r, bits, lanes), generate
