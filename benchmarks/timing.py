"""How the benchmarks here are timed: in blocks, for a bounded time, checked before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.measure import FEWEST_ROUNDS, find_repeats
from fastconv.bench.verify import relative_error

#: About how long one benchmark takes.
SECONDS = 0.25
MOST_ROUNDS = 30


def assert_close(result: NDArray[Any], truth: NDArray[Any], allowed: float) -> None:
    """Ask that the largest error, relative to the largest true value, is allowed."""
    assert result.shape == truth.shape
    assert relative_error(result, truth) <= allowed


def measure(benchmark: Any, group: str, function: Callable[[], object], work: float) -> None:
    """Time a function that has been called, and so compiled, before.

    A round is a block of calls, as long as in ``fastconv bench``. The columns of pytest-benchmark
    show seconds a call; `work` a second, in GFLOP/s or GB/s, is kept in the saved files.
    """
    repeats, seconds = find_repeats(function)
    rounds = int(SECONDS / (repeats * seconds))
    benchmark.group = group
    benchmark.pedantic(
        function,
        iterations=repeats,
        rounds=min(MOST_ROUNDS, max(FEWEST_ROUNDS, rounds)),
        warmup_rounds=1,
    )
    if benchmark.stats:
        benchmark.extra_info["giga_per_second"] = work / benchmark.stats.stats.median / 1e9


def random_array(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return standard normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
