"""Tiles, bands and parts cover the output, each element by one task, and stay inside.

The loops that run are the library's own; the tile and the copy of a band are replaced by Python
functions that write down what they are called with, so that no memory is needed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_identical

import fastconv
from fastconv.bench.suites import load_suite, suite_names
from fastconv.codegen import tile as codegen_tile
from fastconv.convolution import tiled, tiling
from fastconv.kernels import bands
from fastconv.kernels.tiled import convolve
from fastconv.problem import Conv2dProblem

LANES: tuple[tiling.Lanes, ...] = ("filters", "pixels")
MEBIBYTE = 2**20

# Addresses are only counted with; nothing is read or written.
EMPTY = np.empty(1, np.float32)
NAMES = ("x", "weight", "bias", "residual", "out", "numbers", "bands")


@dataclass
class Log:
    """What one worker does: the bands it copies and the tiles it calls, in order."""

    copies: list[dict[str, int]] = field(default_factory=list)
    tiles: list[dict[str, int]] = field(default_factory=list)


def follow(record: Any, offsets: Any, worker: int) -> Log:
    """Run the loops of one worker and return what they do; addresses become element numbers."""
    log, size = Log(), int(record["itemsize"][0])
    arrays = {name: EMPTY.copy() for name in NAMES}
    bases = {name: array.ctypes.data for name, array in arrays.items()}
    bases |= {"source": bases["x"], "target": bases["bands"]}

    def note(names: tuple[str, ...], where: list[dict[str, int]]) -> Any:
        def noted(*values: int) -> None:
            call = dict(zip(names, values, strict=True))
            for name in bases.keys() & call.keys():
                call[name], left = divmod(call[name] - bases[name], size)
                assert left == 0
            where.append(call)

        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(names))(noted)

    tile, copy = note(codegen_tile.ARGUMENTS, log.tiles), note(bands.ARGUMENTS, log.copies)
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in (tile, copy)]
    a = arrays
    convolve.serial(
        *(worker, worker + 1, *addresses),
        *(a["x"], a["weight"], a["bias"], a["residual"], a["out"], a["numbers"]),
        *(0, offsets, a["bands"], record),
    )
    if record[0].copied:  # tiles read what was copied
        for call in log.tiles:
            call["x"] += (bases["x"] - bases["bands"]) // size
    return log


def random_problem(rng: np.random.Generator) -> Conv2dProblem:
    groups = int(rng.choice([1, 1, 1, 2, 5]))
    kernel, stride, dilation = rng.integers(1, 5, 2), rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    padding = rng.integers(0, 4, (2, 2)) * rng.integers(0, 2)
    if rng.random() < 0.25:
        kernel[:], stride[:], padding[:] = 1, 1, 0
    spans = dilation * (kernel - 1) + 1
    longest = rng.choice([3, 20, 80], 2)
    size = np.maximum(spans - padding.sum(axis=1), 1) + rng.integers(0, longest)
    c, k = groups * int(rng.integers(1, 9)), groups * int(rng.integers(1, 71))
    return Conv2dProblem.from_shapes(
        (int(rng.integers(1, 4)), c, *map(int, size)),
        (k, c // groups, *map(int, kernel)),
        *(tuple(map(int, stride)), tuple(tuple(map(int, sides)) for sides in padding)),
        *(tuple(map(int, dilation)), groups, str(rng.choice(["float32", "float64"]))),
    )


def problems() -> Iterator[tuple[Conv2dProblem, tiling.Lanes, int]]:
    rng = np.random.default_rng(17)
    for number in range(300):
        problem = tiling.as_rows(random_problem(rng))
        yield problem, LANES[number % 2], 1 + number // 2 % 9


def test_tiles_cover_the_output_and_stay_inside() -> None:
    for problem, over, threads in problems():
        p, what = problem, (problem, over, threads)
        found = tiling.tiling_of(problem, over, threads)
        g = found.record[0]
        shape = tiling.tile_shape(problem, over)
        assert 1 <= found.workers == g.workers <= min(threads, g.tasks), what
        # As many workers as tasks: so each log is that of one task.
        record = found.record.copy()
        record["workers"] = g.tasks
        owner = np.full(p.output_shape, -1)
        reads = found.offsets
        for task in range(g.tasks):
            log = follow(record, found.offsets, task)
            assert len(log.copies) == bool(g.copied), what
            assert log.tiles, what
            seen = np.zeros(p.output_shape, bool)
            for call in log.tiles:
                image, rest = divmod(call["out"], p.K * p.P)
                k, rest = divmod(rest, p.P)
                i, j = divmod(rest, p.OW)
                filters, columns = call["filters"], call["columns"]
                assert 1 <= filters <= shape.filters, what
                assert 1 <= columns <= shape.columns, what
                assert over == "pixels" or columns == shape.columns, what
                # The whole block lies inside the output, and inside its group.
                assert 0 <= image < p.N, what
                assert i + shape.rows <= p.OH, what
                assert j + columns <= p.OW, what
                group = k // p.K_per_group
                assert k + filters <= (group + 1) * p.K_per_group, what
                block = np.s_[image, k : k + filters, i : i + shape.rows, j : j + columns]
                seen[block] = True
                # Whatever belongs to the block is found where it is.
                assert call["residual"] == call["out"], what
                assert call["bias"] == k, what
                number, inside = divmod(k % p.K_per_group, shape.filters)
                assert inside == 0, what
                packed = (group * g.filter_tiles + number) * shape.filters * p.taps
                assert call["weight"] == packed, what
                first = call["x"] + reads.min()
                last = call["x"] + reads.max() + (shape.rows - 1) * g.x_row
                last += (shape.columns - 1) * g.x_step
                if g.copied:
                    copy = log.copies[0]
                    assert copy["target"] == task * g.band_elements, what
                    assert task * g.band_elements <= first, what
                    assert last < (task + 1) * g.band_elements, what
                    plane = image * p.groups + group
                    assert copy["source"] == plane * p.C_per_group * p.H * p.W, what
                    # The place in the band is the place in the image.
                    at = call["x"] - copy["target"]
                    row, column = divmod(at, g.x_row) if g.x_row else (0, at)
                    row = row * p.stride[0] + copy["top"]
                    column = column // g.x_step * p.stride[1] + copy["left"]
                    assert row == i * p.stride[0] - p.padding[0][0], what
                    assert column == j * p.stride[1] - p.padding[1][0], what
                    # Rows and columns that the block needs are among those copied.
                    needed = (shape.rows - 1) * p.stride[0] + g.span_h
                    assert row + needed <= copy["top"] + copy["rows"], what
                    assert copy["rows"] * g.phases * g.phase_width <= g.band_plane, what
                    needed = (columns - 1) * p.stride[1] + (p.S - 1) * p.dilation[1]
                    width = copy["phases"] * copy["phase_width"]
                    assert column + needed < copy["left"] + width, what
                else:
                    place = (image * p.groups + group) * p.C_per_group * p.H * p.W
                    assert call["x"] == place + i * p.stride[0] * p.W + j * p.stride[1], what
                    assert place <= first, what
                    assert last < place + p.C_per_group * p.H * p.W, what
            assert (owner[seen] == -1).all(), what  # by no other task
            owner[seen] = task
        assert (owner >= 0).all(), what


def test_workers_share_the_tasks() -> None:
    for problem, over, threads in problems():
        found = tiling.tiling_of(problem, over, threads)
        each = found.record.copy()
        each["workers"] = found.record[0].tasks
        one_by_one = [
            call["out"]
            for task in range(found.record[0].tasks)
            for call in follow(each, found.offsets, task).tiles
        ]
        logs = [follow(found.record, found.offsets, worker) for worker in range(found.workers)]
        assert [call["out"] for log in logs for call in log.tiles] == one_by_one
        for worker, log in enumerate(logs):
            assert log.tiles
            for copy in log.copies:
                assert copy["target"] == worker * found.record[0].band_elements


@pytest.mark.parametrize("over", LANES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tap_has_its_offset(over: tiling.Lanes, dtype: str) -> None:
    """An offset is how far a tap lies from the first one in what the tiles read."""
    for problem in (
        Conv2dProblem.from_shapes((1, 3, 9, 70), (4, 3, 3, 2), dilation=(2, 3), dtype=dtype),
        Conv2dProblem.from_shapes((1, 3, 9, 70), (4, 3, 3, 5), (2, 3), 1, (1, 2), dtype=dtype),
        Conv2dProblem.from_shapes((2, 4, 9, 7), (4, 2, 2, 3), 2, 2, groups=2, dtype=dtype),
    ):
        found = tiling.tiling_of(problem, over, 2)
        g, p = found.record[0], problem
        row = g.phases * g.phase_width if g.copied else p.W
        plane = g.band_plane if g.copied else p.H * p.W
        # Write down every column's place: phase after phase.
        places = {w: w % g.phases * g.phase_width + w // g.phases for w in range(row)}
        if not g.copied:
            places = {w: w for w in range(row)}
        wanted = [
            c * plane + r * p.dilation[0] * row + places[s * p.dilation[1]]
            for c in range(p.C_per_group)
            for r in range(p.R)
            for s in range(p.S)
        ]
        assert found.offsets.tolist() == wanted


def test_a_band_stays_in_the_cache() -> None:
    compared = 0
    for name in suite_names():
        for layer in load_suite(name):
            for dtype in ("float32", "float64"):
                problem = tiling.as_rows(layer.problem(dtype=dtype))
                for over in LANES:
                    for threads in (1, 2, 3, 8):
                        found = tiling.tiling_of(problem, over, threads)
                        assert found.band_bytes <= 4 * MEBIBYTE, (layer, over, threads)
                        compared += 1
    assert compared > 100


@pytest.mark.parametrize("over", LANES)
@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "padding"),
    [
        ((1, 64, 1, 100000), (64, 64, 1, 5), (0, 2)),
        ((1, 3, 1, 100000), (8, 3, 1, 9), (0, 4)),
        ((1, 64, 100000, 1), (64, 64, 5, 1), (2, 0)),
        ((1, 3, 20000, 20000), (8, 3, 3, 3), 1),
        ((1, 20000, 7, 7), (32, 20000, 3, 3), 1),
        ((1, 20000, 14, 14), (8, 20000, 1, 1), 1),
    ],
)
def test_a_band_of_a_monstrous_image_is_small_too(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], padding: Any, over: tiling.Lanes
) -> None:
    problem = Conv2dProblem.from_shapes(input_shape, weight_shape, padding=padding)
    for threads in range(1, 10):
        assert tiling.tiling_of(problem, over, threads).band_bytes <= 4 * MEBIBYTE


# A problem that every tile fits: taller and wider than any, filters and columns left over.
EVERY_TILE = Conv2dProblem.from_shapes((2, 3, 17, 117), (53, 3, 3, 2), (2, 1), ((1, 0), (0, 1)))


@pytest.mark.parametrize("algorithm", ["implicit_gemm", "direct"])
def test_every_tile_is_right(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too that the estimate of cycles seldom chooses."""
    over: tiling.Lanes = "filters" if algorithm == "implicit_gemm" else "pixels"
    rng = np.random.default_rng(2)
    p = EVERY_TILE
    shapes = list(tiling.shapes(p, over))
    assert len(shapes) > 10
    x, weight = (
        rng.integers(-4, 5, shape).astype(np.float32) for shape in (p.input_shape, p.weight_shape)
    )
    bias = rng.integers(-4, 5, p.K).astype(np.float32)
    residual = rng.integers(-50, 50, p.output_shape).astype(np.float32)
    geometry = (p.stride, p.padding, p.dilation, p.groups)
    plain = reference.conv2d(x, weight, bias, *geometry)
    monkeypatch.setattr(tiled, "tiling_of", tiling.tiling_of.__wrapped__)
    for shape in shapes:
        for module in (tiling, tiled):
            monkeypatch.setattr(module, "tile_shape", lambda *_, shape=shape: shape)
        for added, activation in ((None, None), (residual, "relu"), (None, ("leaky_relu", 0.5))):
            plan = fastconv.plan_conv2d(
                *(p.input_shape, weight, bias, *geometry),
                activation=activation,
                algorithm=algorithm,
            )
            expected = plain if added is None else plain + added
            if activation is not None:
                expected = np.where(
                    expected < 0, expected * (0 if added is not None else 0.5), expected
                )
            assert_identical(plan(x, residual=added), expected, np.float32)
