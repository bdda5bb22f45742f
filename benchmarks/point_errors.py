"""The errors that Winograd's interpolation points cost, simulated in NumPy.

Any different points give matrices that are right; which ones decides how much larger than the
result the numbers on the way are, and so how much of it rounding takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from methods import Array, Error, digits, error, exact, table, worst

from fastconv.codegen.winograd_matrices import POINTS, from_points
from fastconv.convolution.blocking.tile_search import RUN

Points = tuple[Fraction, ...]

TILES, FILTERS = 128, 32
#: F(m x m, r x r) and the points tried for it, beside 0: each stands for itself and its opposite.
CANDIDATES: dict[tuple[int, int], tuple[str, ...]] = {
    (2, 3): ("1/2", "3/4", "1", "3/2", "2"),
    (4, 3): (
        *("1 2", "1/2 1", "1/2 2", "5/8 3/2", "3/4 3/2", "2/3 4/3", "1/2 3/2", "1/2 5/4"),
        *("1/2 4/3", "5/8 5/4", "3/4 5/4", "2/3 3/2", "3/4 4/3"),
    ),
    (2, 5): ("1 2", "1/2 1", "1/2 2", "5/8 3/2", "3/4 3/2", "2/3 4/3", "1/2 3/2", "3/4 4/3"),
    (4, 5): (
        *("1/2 1 2", "1 2 3", "1/2 1 3/2", "1/3 1 3", "1/2 3/4 3/2", "1/2 1 5/3", "1/2 5/4 2"),
        *("2/3 1 3/2", "3/5 1 5/3", "3/8 3/4 3/2", "1/2 7/8 7/4", "1/2 1 7/4", "5/8 5/4 15/8"),
    ),
}


def both_signs(text: str) -> Points:
    """Return the points that a candidate stands for.

    >>> [str(point) for point in both_signs("1/2 1")]
    ['0', '1/2', '-1/2', '1', '-1']
    """
    pairs = ((Fraction(one), -Fraction(one)) for one in text.split())
    return (Fraction(0), *(point for pair in pairs for point in pair))


def transform_2d(matrix: Array, tiles: Array) -> Array:
    """Return ``T X T^T`` for all X, whose rows and columns are the first two axes of `tiles`."""
    rows = np.tensordot(matrix, tiles, (1, 1))
    return np.tensordot(matrix, rows, (1, 1))


def simulated(m: int, r: int, points: Points, tiles: Array, weight: Array) -> Array:
    """Return what Winograd's method makes of tiles (m + r - 1, m + r - 1, C, T), in their dtype.

    As in the kernels, weights are transformed in float64 and rounded once, and products are
    summed in runs.
    """
    outputs, weights, inputs = (np.array(some, float) for some in from_points(m, r, points))
    dtype = tiles.dtype
    taps = transform_2d(weights, weight.transpose(2, 3, 0, 1).astype(float)).astype(dtype)
    data = transform_2d(inputs.astype(dtype), tiles)
    runs = (slice(first, first + RUN) for first in range(0, weight.shape[1], RUN))
    products = sum(taps[..., run] @ data[:, :, run] for run in runs)
    return transform_2d(outputs.astype(dtype), np.asarray(products)).transpose(3, 2, 0, 1)


def point_errors(
    m: int, r: int, candidates: Sequence[Points], channels: int, draws: int
) -> list[Error]:
    """Return the error of each candidate in float32 on standard-normal data, over some draws."""
    found: list[list[Error]] = [[] for _ in candidates]
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        alpha = m + r - 1
        tiles = rng.standard_normal((alpha, alpha, channels, TILES), np.float32)
        weight = rng.standard_normal((FILTERS, channels, r, r), np.float32)
        truth = exact(tiles.transpose(3, 2, 0, 1), weight, padding=0)
        for errors, points in zip(found, candidates, strict=True):
            errors.append(error(simulated(m, r, points, tiles, weight), truth))
    return [worst(errors) for errors in found]


def as_table(m: int, r: int, depths: Sequence[int], draws: int) -> str:
    """Return a table of all candidates, the least RMS error first; what is in use is bold."""
    candidates = [both_signs(text) for text in CANDIDATES[m, r]]
    columns = [point_errors(m, r, candidates, channels, draws) for channels in depths]
    found = dict(zip(CANDIDATES[m, r], zip(*columns, strict=True), strict=True))
    rows = []
    for text, errors in sorted(found.items(), key=lambda item: sum(e.rms for e in item[1])):
        told = "0, " + ", ".join(f"±{one}" for one in text.split())
        mark = "**" if set(both_signs(text)) == set(POINTS[m + r - 2]) else ""
        cells = (f"{digits(e.largest / 1e-7)} / {digits(e.rms / 1e-7)}" for e in errors)
        rows.append((mark + told + mark, *cells))
    return table((f"F({m}x{m}, {r}x{r}): points", *(f"C = {c}" for c in depths)), rows)


def landscape(steps: int, channels: int) -> tuple[Array, Array]:
    """Return points up to 2.5, and the RMS errors of F(4x4, 3x3) for 0, ±a, ±b with a < b."""
    grid = [Fraction(5 * (i + 1), 2 * steps) for i in range(steps)]
    pairs = [(i, j) for i in range(steps) for j in range(i + 1, steps)]
    candidates = [both_signs(f"{grid[i]} {grid[j]}") for i, j in pairs]
    found = np.full((steps, steps), np.nan)
    for pair, some in zip(pairs, point_errors(4, 3, candidates, channels, 1), strict=True):
        found[pair] = some.rms
    return np.array(grid, float), found
