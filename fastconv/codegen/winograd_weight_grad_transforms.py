"""Winograd transforms for the weight gradient, a vector of channels at a time.

The gradient of an r x r filter is a convolution whose filter is the output gradient. F(r, m)
computes the contribution of m x m elements of that and (m + r - 1)^2 elements of the input::

    inputs   (m + r - 1)^2 -> (m + r - 1)^2      B d B^T
    grads              m^2 -> (m + r - 1)^2      G e G^T
    sums     (m + r - 1)^2 -> r^2                A p A^T

The products p are summed over tiles before they are transformed. Both factors are packed
channels-last, so a vector holds one element of a tile for as many channels as it has lanes.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import Integer, pointer_to
from fastconv.codegen.winograd_transforms import Transforms, transform_2d


class WeightGradTransforms(Transforms):
    """Emits the transforms of one form; all addresses are `Integer`."""

    def pixels(
        self, source: Integer, target: Integer, row: Integer, stride: Integer, grads: bool
    ) -> None:
        """Transform a tile for a vector of channels: of the gradient if `grads`, else of the input.

        Rows have stride `row`, columns a stride of one vector; results are stored with stride
        `stride`.
        """
        vector = self.vector
        matrix = self.matrices.weights if grads else self.matrices.inputs

        def load(i: int, j: int) -> Any:
            return vector.load(pointer_to(vector, source, row * i, j * vector.lanes))

        transform_2d(vector, matrix, load, self._keep(target, stride, self.alpha))

    def sums(
        self, source: Integer, target: Integer, stride: Integer, plane: Integer, first: Integer
    ) -> None:
        """Transform a vector of sums of products to weight gradients, and add them to `target`.

        Products have stride `stride`, gradients stride `plane`. If `first`, they are stored instead
        of added.
        """
        builder, vector = self.builder, self.vector
        results: list[Any] = []

        def load(i: int, j: int) -> Any:
            return vector.load(pointer_to(vector, source, stride * (i * self.alpha + j)))

        transform_2d(vector, self.matrices.outputs, load, lambda i, j, value: results.append(value))
        pointers = [pointer_to(vector, target, plane * tap) for tap in range(len(results))]
        with builder.if_else(first.compare("!=", 0)) as (alone, adding):
            with alone:
                for value, pointer in zip(results, pointers, strict=True):
                    vector.store(value, pointer)
            with adding:
                for value, pointer in zip(results, pointers, strict=True):
                    vector.store(builder.fadd(vector.load(pointer), value), pointer)
