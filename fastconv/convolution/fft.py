"""FFT convolution: for large kernels, whose size then hardly matters.

The transform of a convolution is the product of the transforms. Tiles of the image
(`overlap_save`) are transformed, each frequency is a matrix product over channels, and the products
are transformed back::

    y(f)  (tiles, K) = x(f)    (tiles, C) @ w(f)* (C, K)
    dx(f) (tiles, C) = dy(f)   (tiles, K) @ w(f)  (K, C)
    dw(f) (K, C)     = dy(f)*  (K, tiles) @ x(f)  (tiles, C)

The error of a result is proportional to the largest elements of its tile, not to the products that
it sums as in other algorithms: integers are not exact. Transforms would spread NaN and infinity
over a tile, and overflow earlier than a sum. So a result with elements that are not finite is
computed again by `im2col`.

Source: M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks through FFTs"
(arXiv:1312.5851).
"""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar

import numpy as np

from fastconv.convolution.algorithm import (
    Algorithm,
    Array,
    Forward,
    Gradient,
    Implementation,
    compiler_missing,
)
from fastconv.convolution.blocking import overlap_save
from fastconv.convolution.blocking.partition import PARTS, WORTH_A_TASK, Range, split, split_below
from fastconv.convolution.blocking.spectra import MOST_POINTS, Integers, transform_of
from fastconv.convolution.im2col import IM2COL
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.runtime import threads
from fastconv.runtime.workspace import scratch

# The weights have a single tile.
CORNER = np.zeros(1, np.int64)


class _ByTiles(Implementation):
    """Transforms of tiles, matrix products, and inverse transforms."""

    direction: ClassVar[Direction]

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take kernels smaller than the largest tile, and not too many channels."""
        p, most = problem, MOST_POINTS
        if not all(overlap_save.axis_of(p, self.direction, axis, most) for axis in (0, 1)):
            return f"needs a dilated kernel (and its stride) within tiles of {most} x {most}"
        if overlap_save.best_cut(p, self.direction) is None:
            own, all_of = (
                size // 2**20 for size in (overlap_save.SPECTRA_BYTES, overlap_save.WEIGHT_BYTES)
            )
            return (
                f"needs more than {own} MiB for the spectra of one tile, or more than "
                f"{all_of} MiB for those of the weights"
            )
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count points, products, and the weights' spectra, both computed and read."""
        return overlap_save.seconds(problem, self.direction, _cut(problem, self.direction), threads)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count the spectra of some tiles, and the points of one block of planes."""
        return overlap_save.workspace_bytes(problem, self.direction, _cut(problem, self.direction))


class FftForward(_ByTiles, Forward):
    """The input is multiplied by the conjugates of the weights' spectra."""

    direction = "forward"

    def least_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return half of the fixed costs of one pass: `seconds` halves them at most."""
        return 200e-6

    def prepare(self, problem: Conv2dProblem, weight: Array) -> tuple[Array, Array]:
        """Return the weights and the conjugates of their spectra."""
        return weight, _weight_spectra(problem, "forward", weight)

    def run(self, problem: Conv2dProblem, x: Array, prepared: Any, bias: Array, out: Array) -> None:
        """Multiply by the conjugates of the weights' spectra."""
        weight, spectra = prepared
        _filter(problem, "forward", x, spectra, bias, out)
        if not _all_finite(out):
            other = IM2COL.forward
            other.run(problem, x, other.prepare(problem, weight), bias, out)


class FftInputGrad(_ByTiles, Gradient):
    """The output gradient is multiplied by the weights' spectra."""

    direction = "input_grad"

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Multiply by the weights' spectra."""
        spectra = _weight_spectra(problem, "input_grad", factor)
        nothing = np.zeros(problem.C, problem.dtype)
        _filter(problem, "input_grad", grad_output, spectra, nothing, out)
        if not _all_finite(out):
            IM2COL.input_grad.run(problem, factor, grad_output, out)


class FftWeightGrad(_ByTiles, Gradient):
    """Products of input and output gradient are summed over tiles."""

    direction = "weight_grad"

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Multiply by the conjugates of the gradient's spectra, some output channels at a time."""
        p, cut = problem, _cut(problem, "weight_grad")
        for part in product(
            split_below(p.groups, cut.groups),
            split_below(p.K_per_group, cut.filters),
            split_below(p.C_per_group, cut.channels),
        ):
            _sum_over_tiles(p, cut, factor, grad_output, part, out)
        if not _all_finite(out):
            IM2COL.weight_grad.run(p, factor, grad_output, out)


#: Errors are proportional to the largest elements of a tile.
FFT = Algorithm("fft", FftForward(), FftInputGrad(), FftWeightGrad(), "high")


def _all_finite(array: Array) -> bool:
    flat, found = array.reshape(-1), []

    def look(some: Range) -> None:
        found.append(bool(np.isfinite(flat[slice(*some)]).all()))

    threads.run_tasks(look, split_below(flat.size, 2 * WORTH_A_TASK))
    return all(found)


def _cut(problem: Conv2dProblem, direction: Direction) -> overlap_save.Cut:
    cut = overlap_save.best_cut(problem, direction)
    assert cut is not None, "this problem was refused"
    return cut


def _weight_planes(problem: Conv2dProblem) -> Integers:
    """Return the indices of the weights' planes: (groups, K / groups, C / groups)."""
    p = problem
    return np.arange(p.K * p.C_per_group).reshape(p.groups, p.K_per_group, p.C_per_group)


def _planes(image: Integers, groups: int, some: Range, channels: int, few: Range) -> Integers:
    """Return the indices of planes of some groups and channels, for each image."""
    numbers = np.arange(groups * channels).reshape(groups, channels)[slice(*some), slice(*few)]
    return image[:, np.newaxis, np.newaxis] * (groups * channels) + numbers


def _spectra(problem: Conv2dProblem, name: str, shape: tuple[int, ...]) -> scratch:
    return scratch(name, shape, "complex64" if problem.dtype == "float32" else "complex128")


def _weight_spectra(problem: Conv2dProblem, direction: Direction, weight: Array) -> Array:
    """Return the spectra for `_filter`: (frequencies, groups, channels in, channels out)."""
    p, cut = problem, _cut(problem, direction)
    transform = transform_of(p.dtype, cut.n_h, cut.n_w)
    forward, planes = direction == "forward", _weight_planes(p)
    if forward:
        planes = planes.swapaxes(1, 2)
    spectra = np.empty((cut.frequencies, *planes.shape), np.result_type(p.dtype, np.complex64))
    reading = cut.down.filter, cut.across.filter
    transform.spectra(weight, planes, (CORNER, CORNER), reading, spectra, conjugate=forward)
    return spectra


def _filter(
    problem: Conv2dProblem,
    direction: Direction,
    source: Array,
    factors: Array,
    bias: Array,
    out: Array,
) -> None:
    """Transform tiles of `source`, multiply by `factors`, and store the inverse in `out`."""
    p, cut = problem, _cut(problem, direction)
    transform = transform_of(p.dtype, cut.n_h, cut.n_w)
    channels_in, channels_out = factors.shape[2:]

    def filter_tiles(groups: Range, some: Range) -> None:
        image, tiles = cut.tiles_at(some)
        sources = _planes(image, p.groups, groups, channels_in, (0, channels_in))
        results = _planes(image, p.groups, groups, channels_out, (0, channels_out))
        biases = bias.reshape(p.groups, channels_out)[slice(*groups)]
        added = np.broadcast_to(biases, results.shape)
        with (
            _spectra(p, "sources", (cut.frequencies, *sources.shape)) as spectra,
            _spectra(p, "product", (cut.frequencies, *results.shape)) as products,
        ):
            reading = cut.down.source, cut.across.source
            transform.spectra(source, sources, tiles, reading, spectra)
            matrices = spectra.swapaxes(1, 2), factors[:, slice(*groups)]
            _multiply(*matrices, products.swapaxes(1, 2))
            writing = cut.down.result, cut.across.result
            transform.images(products, out, results, tiles, writing, np.ascontiguousarray(added))

    for groups in split_below(p.groups, cut.groups):
        for some in split_below(cut.total, cut.tiles):
            filter_tiles(groups, some)


def _sum_over_tiles(
    problem: Conv2dProblem,
    cut: overlap_save.Cut,
    x: Array,
    grad_output: Array,
    part: tuple[Range, Range, Range],
    out: Array,
) -> None:
    """Fill the part of `out` for some groups, output channels and input channels."""
    p, (groups, filters, channels) = problem, part
    transform = transform_of(p.dtype, cut.n_h, cut.n_w)
    planes = _weight_planes(p)[slice(*groups), slice(*filters), slice(*channels)]
    shape = cut.frequencies, *planes.shape

    def correlate(some: Range, out: Array) -> None:
        image, tiles = cut.tiles_at(some)
        of_x = _planes(image, p.groups, groups, p.C_per_group, channels)
        of_y = _planes(image, p.groups, groups, p.K_per_group, filters)
        with (
            _spectra(p, "sources", (cut.frequencies, *of_x.shape)) as sources,
            _spectra(p, "factors", (cut.frequencies, *of_y.shape)) as factors,
        ):
            reading = cut.down.source, cut.across.source
            transform.spectra(x, of_x, tiles, reading, sources)
            reading = cut.down.filter, cut.across.filter
            transform.spectra(grad_output, of_y, tiles, reading, factors, conjugate=True)
            _multiply(factors.transpose(0, 2, 3, 1), sources.swapaxes(1, 2), out)

    with _spectra(p, "sum", shape) as total, _spectra(p, "product", shape) as summand:
        total[...] = 0
        for some in split_below(cut.total, cut.tiles):
            correlate(some, summand)
            with np.errstate(all="ignore"):
                total += summand
        writing = cut.down.result, cut.across.result
        nothing = np.zeros(planes.size, p.dtype)
        transform.images(total, out, planes, (CORNER, CORNER), writing, nothing)


def _multiply(a: Array, b: Array, out: Array) -> None:
    """Do ``out[f] = a[f] @ b[f]`` for all frequencies f, one product each for any thread count."""

    def multiply(some: Range) -> None:
        f = slice(*some)
        with np.errstate(all="ignore"):
            if a.shape[-1] == 1:
                np.multiply(a[f], b[f], out=out[f])
            else:
                np.matmul(a[f], b[f], out=out[f])

    worth = a.size * b.shape[-1] // WORTH_A_TASK
    threads.run_tasks(multiply, split(len(a), min(PARTS, worth)))
