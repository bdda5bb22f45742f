"""The plans of many threads: the busiest gets little more than its share of the tiles.

What each worker does is worked out from the cut as the kernel reads it, by the kernel's own rule
for which tasks are whose, and not from the estimates that chose the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastconv
from fastconv.bench.suites import load_suite, suite_names
from fastconv.convolution.blocking import tile_search, tiling, winograd_blocking, winograd_search
from fastconv.convolution.depthwise import DEPTHWISE, depthwise_shape
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.select import choice

MOST = 1.15
#: Enough work: so many tiles for every thread.
ENOUGH = 8
THREADS = (2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 19, 24, 31, 32, 37, 42, 48, 55, 64)

Counts = NDArray[Any]


def shared_out(tasks: Any, workers: int) -> Counts:
    """Return the sum of what each worker gets: worker w the tasks from w * tasks // workers on."""
    ends = np.arange(workers + 1) * len(tasks) // workers
    return np.diff(np.concatenate([[0], np.cumsum(tasks)])[ends])


def register_tiles(problem: Conv2dProblem, over: tile_search.Over) -> tuple[Counts, int]:
    """Return how many tiles each worker computes, and the number of threads."""
    p = tile_search.as_rows(problem)
    search = partial(tile_search.best_blocking, p, over)
    found = tile_search.for_useful_threads(search)
    cut = tiling.tiling_of(p, found)
    g = cut.record[0]
    ends = np.cumsum([g.row_bands + 1, g.column_bands + 1])
    rows, columns, parts = map(np.diff, np.split(cut.cuts, ends))
    rows, columns = -(-rows // g.tile_rows), -(-columns // g.tile_columns)
    tasks = (rows[:, None, None] * columns[:, None] * parts).reshape(-1)
    return shared_out(np.tile(tasks, p.N * p.groups), g.workers), found.threads


def winograd_tiles(problem: Conv2dProblem, m: int, once: bool) -> tuple[Counts, int]:
    """Return how many tiles each worker computes, counted as the products' tiles are."""
    p = problem
    cut = tile_search.for_useful_threads(partial(winograd_search.cheapest, p, m, once=once))
    blocks = winograd_blocking.blocks_of(p, m, cut)
    g = blocks.record[0]
    if g.shared:  # all do every block, each for its own filters
        return shared_out(np.ones(g.filter_tiles, int), g.workers), cut.threads
    rows, columns = map(np.diff, np.split(blocks.starts, [g.row_blocks + 1]))
    sizes = np.tile((rows[:, None] * columns).reshape(-1), p.groups)
    return shared_out(sizes, g.workers) / cut.shape.columns, cut.threads


def depthwise_tiles(problem: Conv2dProblem) -> tuple[Counts, int]:
    """Return how many blocks of rows each thread computes, by the rule of range kernels."""
    p, threads = problem, fastconv.get_num_threads()
    blocks = p.N * p.K * -(-p.OH // depthwise_shape(p).rows)
    return shared_out(np.ones(blocks, int), min(threads, blocks)), threads


def planned(problem: Conv2dProblem, name: str, once: bool) -> tuple[Counts, int] | None:
    """Return what each worker gets, and the threads, with algorithms that plan by tiles."""
    if name == "depthwise":
        return depthwise_tiles(problem)
    if name in ("implicit_gemm", "direct"):
        return register_tiles(problem, "channels" if name == "implicit_gemm" else "width")
    if name.startswith("winograd"):
        return winograd_tiles(problem, int(name[-1]), once)
    return None


def layers(batch: int) -> Iterator[Conv2dProblem]:
    yield Conv2dProblem.from_shapes((batch, 64, 224, 224), (64, 64, 3, 3), padding=1)
    for suite in suite_names():
        yield from dict.fromkeys(layer.problem(batch) for layer in load_suite(suite))


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("batch", [1, 8])
def test_the_busiest_thread_gets_little_more_than_the_others(batch: int) -> None:
    compared = 0
    for problem in layers(batch):
        for once in (False, True):
            name = choice.choose(problem, "forward", once=once).name
            for threads in THREADS:
                fastconv.set_num_threads(threads)
                counts, count = planned(problem, name, once) or (np.zeros(1, int), 1)
                if counts.sum() < ENOUGH * count:
                    continue
                compared += 1
                busiest = counts.max() / (counts.sum() / count)
                assert busiest <= MOST, (problem, name, once, threads, counts)
    assert compared > 500


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("m", [2, 4])
def test_threads_do_large_maps_on_their_own(m: int) -> None:
    """Together each would read all that the others have transformed, and wait for them twice."""
    problem = Conv2dProblem.from_shapes((1, 64, 224, 224), (64, 64, 3, 3), padding=1)
    for threads in range(1, 65):
        assert not winograd_search.cheapest(problem, m, threads).shared, threads


@pytest.mark.usefixtures("_restored_threads")
def test_depthwise_layers_are_worth_a_second_thread() -> None:
    """They are short in operations, but not in seconds: nearly all of MobileNet's thirteen."""
    fastconv.set_num_threads(2)
    worth = 0
    for layer in load_suite("mobilenet_v1"):
        problem = layer.problem(1)
        if problem.C_per_group == 1 and DEPTHWISE.forward.refusal(problem) is None:
            seconds = DEPTHWISE.forward.estimated_seconds(problem, 1)
            worth += layer.count * (useful_threads(seconds) == 2)
    assert worth >= 11 or not cpu.describe().instructions.masks
