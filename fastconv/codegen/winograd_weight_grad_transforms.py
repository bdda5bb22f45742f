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

from fastconv.codegen.integers import Integer, pointer_to
from fastconv.codegen.winograd_transforms import Transforms, both_ways


class WeightGradTransforms(Transforms):
    """Writes the transforms of one form; all addresses are `Integer`."""

    def pixels(
        self, source: Integer, target: Integer, row: Integer, stride: Integer, grads: bool
    ) -> None:
        """Transform a tile of a vector of channels: of the gradient, else of the input.

        Pixel (i, j) is read `row` elements a row and a vector a column behind the first; results
        are written `stride` elements apart.
        """
        vector = self.vector
        matrix = self.matrices.weights if grads else self.matrices.inputs

        def load(i: int, j: int) -> Any:
            return vector.load(pointer_to(vector, source, row * i, j * vector.lanes))

        both_ways(vector, matrix, load, self._keep(target, stride, self.alpha))

    def sums(
        self, source: Integer, target: Integer, stride: Integer, plane: Integer, first: Integer
    ) -> None:
        """Transform a vector of sums of products to outputs, added to `target`.

        Products are read `stride` elements apart, outputs written `plane` elements apart. If it is
        the `first`, `target` is not read.
        """
        builder, vector = self.builder, self.vector
        results: list[Any] = []

        def load(i: int, j: int) -> Any:
            return vector.load(pointer_to(vector, source, stride * (i * self.alpha + j)))

        both_ways(vector, self.matrices.outputs, load, lambda i, j, value: results.append(value))
        pointers = [pointer_to(vector, target, plane * tap) for tap in range(len(results))]
        with builder.if_else(first.compare("!=", 0)) as (alone, adding):
            with alone:
                for value, pointer in zip(results, pointers, strict=True):
                    vector.store(value, pointer)
            with adding:
                for value, pointer in zip(results, pointers, strict=True):
                    vector.store(builder.fadd(vector.load(pointer), value), pointer)
