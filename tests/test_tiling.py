"""Tiles, bands and parts cover the output, each element by one task, and stay inside.

The loops that run are the library's own; the tile and the copy of a band are replaced by Python
functions that write down what they are called with, so that no memory is needed.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import reference
from checks import assert_identical
from numpy.typing import NDArray

import fastconv
from fastconv.codegen import conv_microkernel as codegen_tile
from fastconv.convolution import register_tiles
from fastconv.convolution.blocking import tile_search, tile_shapes, tiling
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import record_of
from fastconv.kernels import pack_padded_band
from fastconv.kernels.conv_loops import ARGUMENTS, convolve
from fastconv.runtime import cpu
from fastconv.runtime.threads import SERIAL

Array = NDArray[Any]

LANES: tuple[tile_search.Over, ...] = ("channels", "width")
MEBIBYTE = 2**20

# Addresses are only counted with; nothing is read or written.
EMPTY = np.empty(1, np.float32)
NAMES = ("x", "weight", "bias", "residual", "out", "numbers", "bands")


@dataclass
class Log:
    """What one worker does: the bands it copies and the tiles it calls, in order."""

    copies: list[dict[str, int]] = field(default_factory=list)
    tiles: list[dict[str, int]] = field(default_factory=list)


def follow(found: tiling.Tiling, record: Any, worker: int, skip: bool = False) -> Log:
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

    tile, copy = (
        note(codegen_tile.ARGUMENTS, log.tiles),
        note(pack_padded_band.ARGUMENTS, log.copies),
    )
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in (tile, copy)]
    arguments = record_of(
        ARGUMENTS,
        microkernel=addresses[0],
        band_copy=addresses[1],
        layer=record,
        offsets=found.offsets,
        starts=found.cuts,
        numbers=arrays["numbers"],
        form=0,
    )
    inputs = (arrays[name] for name in ("x", "weight", "bias", "residual", "out", "bands"))
    launch = convolve._first_use()
    launch(*SERIAL, worker, 1, 1, *inputs, int(skip), arguments)
    for call in log.copies:
        call |= {name: int(record[name][0]) for name in pack_padded_band.LAYER}
    for call in log.tiles:
        call["first"], left = divmod(call["offsets"] - found.offsets.ctypes.data, 8)
        assert left == 0
    if record[0].copied:  # tiles read what was copied
        for call in log.tiles:
            call["x"] += (bases["x"] - bases["bands"]) // size
    return log


def task_by_task(found: tiling.Tiling, skip: bool = False) -> Iterator[Log]:
    """Return what each task does: as many workers as tasks, so each log is that of one task."""
    record = found.record.copy()
    record["workers"] = tasks = found.record[0].tasks
    for task in range(tasks):
        yield follow(found, record, task, skip)


def cut(problem: Conv2dProblem, over: tile_search.Over, num_threads: int) -> tiling.Tiling:
    return tiling.tiling_of(problem, tile_search.best_blocking(problem, over, num_threads))


def random_problem(rng: np.random.Generator) -> Conv2dProblem:
    groups = int(rng.choice([1, 1, 1, 2, 5]))
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 5, 2)
    dilation = rng.choice([1, 1, 2, 3, 11], 2)
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


def problems() -> Iterator[tuple[Conv2dProblem, tile_search.Over, int]]:
    rng = np.random.default_rng(17)
    for number in range(300):
        problem = tile_search.as_rows(random_problem(rng))
        yield problem, LANES[number % 2], 1 + number // 2 % 9


def places_in_the_image(p: Conv2dProblem) -> Array:
    """Return a number for each place (c, h, w) a window may cover, margins included."""
    (top, bottom), (left, right) = p.padding
    size = p.C_per_group, top + p.H + bottom, left + p.W + right
    return np.arange(np.prod(size)).reshape(size)


def what_is_copied(p: Conv2dProblem, found: tiling.Tiling, copy: dict[str, int]) -> Array:
    """Return the buffer after a copy: numbers of `places_in_the_image`, -1 where nothing is.

    Written down from what the arguments of the copy mean. All that is written lies inside the
    buffer of the worker: vectors are written whole, so up to one of them beyond a row.
    """
    g, a = found.record[0], copy
    lanes = cpu.describe().instructions.lanes(p.dtype)
    image = places_in_the_image(p)
    size = g.band_bytes // p.itemsize
    row = a["phases"] * a["phase_width"]
    assert (a["C_per_group"], a["H"], a["W"]) == (p.C_per_group, p.H, p.W)
    # From front to back: what is written beyond a row is written over later, or not read.
    assert 0 < a["rows"] * row <= a["set_size"]
    assert 0 < a["sets"] * a["set_size"] <= a["band_plane"]
    end = a["C_per_group"] * a["band_plane"]
    assert end + lanes - 1 < size
    assert end + -(-a["tail"] // lanes) * lanes <= size
    band = np.full(size, -1)
    c, r, i, phase, k = np.indices(
        (a["C_per_group"], a["sets"], a["rows"], a["phases"], a["phase_width"]), sparse=True
    )
    h = a["top"] + r * a["set_step"] + i * a["row_step"] + p.padding[0][0]
    w = a["left"] + phase + k * a["band_step"] + p.padding[1][0]
    last_h, last_w = image.shape[1] - 1, image.shape[2] - 1
    near_h, near_w = np.clip(h, 0, last_h), np.clip(w, 0, last_w)
    inside, numbers = (near_h == h) & (near_w == w), image[c, near_h, near_w]
    at = c * a["band_plane"] + r * a["set_size"] + i * row + phase * a["phase_width"] + k
    band[at] = np.where(inside, numbers, -1)
    return band


def test_tiles_cover_the_output_and_stay_inside() -> None:
    seen_kinds: Counter[str] = Counter()
    left_out = 0
    for problem, over, threads in problems():
        p, what = problem, (problem, over, threads)
        shape = tile_search.best_blocking(problem, over, threads).shape
        found = cut(problem, over, threads)
        g = found.record[0]
        assert 1 <= found.workers == g.workers <= min(threads, g.tasks), what
        assert found.band_bytes == g.band_bytes, what
        assert found.band_bytes % 64 == 0, what  # bands of different workers share no line
        kinds = {
            "copied": g.copied,
            "read where it lies": not g.copied,
            "rows apart": g.sets > 1,
            "some rows left out": g.row_step > 1,
            "columns apart": g.phases > 1,
            "columns left out": g.phases < g.band_step,
            "bands of rows": g.row_bands > 1,
            "bands of columns": g.column_bands > 1,
            "parts": g.parts > 1,
            "blocks of rows": g.block_rows * g.row_bands < p.OH - shape.rows,
            "blocks of columns": g.block_columns * g.column_bands < p.OW - shape.columns,
        }
        seen_kinds.update(kind for kind, has in kinds.items() if has)
        image = places_in_the_image(p)
        r, c, s, i, j = np.indices((p.R, p.C_per_group, p.S, shape.rows, shape.columns))
        down = r * p.dilation[0] + i * p.stride[0]
        across = s * p.dilation[1] + j * p.stride[1]
        c, down, across = (a.reshape(p.taps, shape.rows, shape.columns) for a in (c, down, across))
        steps = np.add.outer(
            found.offsets,
            np.add.outer(np.arange(shape.rows) * g.x_row, np.arange(shape.columns) * g.x_step),
        )
        owner = np.full(p.output_shape, -1)
        skip = any(p.padding[0]) and p.N % 2 == 1
        for task, log in enumerate(task_by_task(found, skip)):
            assert len(log.copies) == bool(g.copied), what
            assert log.tiles, what
            if g.copied:
                copy = log.copies[0]
                start = task * g.band_bytes // p.itemsize
                assert copy["target"] == start, what
                held = what_is_copied(p, found, copy)
            seen = np.zeros(p.output_shape, bool)
            for call in log.tiles:
                number, rest = divmod(call["out"], p.K * p.P)
                k, rest = divmod(rest, p.P)
                i, j = divmod(rest, p.OW)
                filters, columns = call["filters"], call["columns"]
                assert 1 <= filters <= shape.filters, what
                # Of more columns than the tile has, it takes those it has.
                columns = min(columns, shape.columns)
                assert columns >= 1, what
                assert over == "width" or columns == shape.columns, what
                # The whole block lies inside the output, and inside its group.
                assert 0 <= number < p.N, what
                assert i + shape.rows <= p.OH, what
                assert j + columns <= p.OW, what
                group = k // p.K_per_group
                assert k + filters <= (group + 1) * p.K_per_group, what
                block = np.s_[number, k : k + filters, i : i + shape.rows, j : j + columns]
                seen[block] = True
                # Whatever belongs to the block is found where it is.
                assert call["residual"] == call["out"], what
                assert call["bias"] == k, what
                tile, inside = divmod(k % p.K_per_group, shape.filters)
                assert inside == 0, what
                packed = (group * g.filter_tiles + tile) * shape.filters * p.taps
                first, last = call["first"], call["first"] + call["taps"]
                assert call["weight"] == packed + first * shape.filters, what
                # Runs have the same limits, wherever the taps begin.
                assert 1 <= call["head"] <= g.run, what
                assert (first + call["head"]) % g.run == 0, what
                assert 0 <= first < last <= p.taps, what
                assert skip or last - first == p.taps, what
                # Every tap of every pixel reads the element it is to read.
                source = (number * p.groups + group) * p.C_per_group * p.H * p.W
                reads = call["x"] + steps
                wanted = np.s_[..., :columns]  # the others are computed, but not stored
                rows, places = down + i * p.stride[0], across + j * p.stride[1]
                if g.copied:
                    assert copy["source"] == source, what
                    reads -= start
                    assert reads.min() >= 0, what
                    assert reads.max() < len(held), what
                    right = image[c[wanted], rows[wanted], places[wanted]]
                    assert (held[reads[wanted]] == right).all(), what
                    # What is left out is margin.
                    outside = (rows < p.padding[0][0]) | (rows >= p.padding[0][0] + p.H)
                    assert outside[:first].all(), what
                    assert outside[last:].all(), what
                    left_out += p.taps - (last - first)
                else:
                    assert source <= reads.min(), what
                    assert reads.max() < source + p.C_per_group * p.H * p.W, what
                    right = source + (c * p.H + rows) * p.W + places
                    assert (reads == right)[wanted].all(), what
            assert (owner[seen] == -1).all(), what  # by no other task
            owner[seen] = task
        assert (owner >= 0).all(), what
    assert left_out > 1000
    assert len(seen_kinds) == len(kinds), seen_kinds
    assert min(seen_kinds.values()) >= 5, seen_kinds


def test_workers_share_the_tasks() -> None:
    for problem, over, threads in problems():
        found = cut(problem, over, threads)
        one_by_one = [call["out"] for log in task_by_task(found) for call in log.tiles]
        logs = [follow(found, found.record, worker) for worker in range(found.workers)]
        assert [call["out"] for log in logs for call in log.tiles] == one_by_one
        for worker, log in enumerate(logs):
            assert log.tiles
            for copy in log.copies:
                assert copy["target"] * problem.itemsize == worker * found.band_bytes


def test_filters_pass_over_a_block_before_the_next() -> None:
    several = 0
    for problem, over, threads in problems():
        p, found = problem, cut(problem, over, threads)
        g = found.record[0]
        for log in task_by_task(found):
            row0, column0 = divmod(min(call["out"] for call in log.tiles) % p.P, p.OW)
            passed: list[tuple[tuple[int, int], int]] = []
            for call in log.tiles:
                k, rest = divmod(call["out"], p.P)
                i, j = divmod(rest, p.OW)
                # A tile at the end of a band has moved back, but by less than its own size.
                block = (
                    int(i - row0 + g.tile_rows - 1) // g.block_rows,
                    int(j - column0 + g.tile_columns - 1) // g.block_columns,
                )
                if not passed or passed[-1] != (block, k):
                    passed.append((block, k))
            # Blocks row by row, and each filter tile once in each.
            assert passed == sorted(set(passed)), (problem, over, threads)
            several += len({block for block, _ in passed}) > 1 < len({k for _, k in passed})
    assert several > 5


@pytest.mark.parametrize("over", LANES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tap_has_its_offset(over: tile_search.Over, dtype: str) -> None:
    """An offset is how far a tap lies from the first one in what the tiles read."""
    kinds = set()
    for problem in (
        Conv2dProblem.from_shapes((1, 3, 9, 70), (4, 3, 3, 2), dilation=(2, 3), dtype=dtype),
        Conv2dProblem.from_shapes((1, 3, 9, 70), (4, 3, 3, 5), (2, 3), 1, (1, 2), dtype=dtype),
        Conv2dProblem.from_shapes((2, 4, 9, 7), (4, 2, 2, 3), 2, 2, groups=2, dtype=dtype),
        Conv2dProblem.from_shapes((1, 3, 9, 70), (4, 3, 3, 3), 1, (20, 1), (20, 1), dtype=dtype),
        Conv2dProblem.from_shapes((1, 3, 29, 70), (4, 3, 2, 3), (9, 2), 2, (5, 2), dtype=dtype),
    ):
        found = cut(problem, over, 2)
        g, p = found.record[0], problem
        kinds.add((bool(g.copied), g.sets > 1))
        row = g.phases * g.phase_width if g.copied else p.W
        plane = g.band_plane if g.copied else p.H * p.W
        # Write down every column's place: phase after phase.
        places = {w: w % g.phases * g.phase_width + w // g.phases for w in range(row)}
        if not g.copied:
            places = {w: w for w in range(row)}
        # And every row's: all of them, or those of each row of the kernel together.
        lines = {r * p.dilation[0]: r * p.dilation[0] * row for r in range(p.R)}
        if g.sets > 1:
            lines = {r * p.dilation[0]: r * g.set_size for r in range(p.R)}
        wanted = [
            c * plane + lines[r * p.dilation[0]] + places[s * p.dilation[1]]
            for r in range(p.R)
            for c in range(p.C_per_group)
            for s in range(p.S)
        ]
        assert found.offsets.tolist() == wanted
    assert kinds >= {(True, False), (True, True)}


# A problem that every tile fits: taller and wider than any, filters and columns left over.
EVERY_TILE = Conv2dProblem.from_shapes((2, 3, 17, 117), (53, 3, 3, 2), (2, 1), ((1, 0), (0, 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["implicit_gemm", "direct"])
def test_every_tile_is_right(algorithm: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too that the estimate of cycles seldom chooses."""
    over: tile_search.Over = "channels" if algorithm == "implicit_gemm" else "width"
    rng = np.random.default_rng(2)
    p = dataclasses.replace(EVERY_TILE, dtype=np.dtype(dtype).name)
    shapes = list(tile_shapes.shapes(p, over))
    assert len(shapes) > 10
    x, weight = (
        rng.integers(-4, 5, shape).astype(dtype) for shape in (p.input_shape, p.weight_shape)
    )
    bias = rng.integers(-4, 5, p.K).astype(dtype)
    residual = rng.integers(-50, 50, p.output_shape).astype(dtype)
    geometry = (p.stride, p.padding, p.dilation, p.groups)
    plain = reference.conv2d(x, weight, bias, *geometry)
    for shape in shapes:

        def best(problem: Any, over: Any, count: int, shape: Any = shape, **_: Any) -> Any:
            return tile_search.blocking_with(problem, shape, count)

        monkeypatch.setattr(register_tiles, "best_blocking", best)
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
            assert_identical(plan(x, residual=added), expected, dtype)
