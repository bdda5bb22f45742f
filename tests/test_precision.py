"""What `set_precision` asks for holds: in every thread, in a block, for caches and for plans."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from checks import refused
from reference import Array

import fastconv
from fastconv import nn
from fastconv.api import conv2d
from fastconv.convolution.algorithm import Algorithm, Forward
from fastconv.core.precision import Precision
from fastconv.select import choice, conv_registry

X = np.ones((1, 1, 5, 6), np.float32)
WEIGHT = np.ones((1, 1, 3, 3), np.float32)
EXACT, ROUGH = 9.0, 10.0


class RoughForward(Forward):
    """Very fast, as it says, and too large by one, so that it is seen when it runs."""

    def estimated_seconds(self, problem: Any, threads: int) -> float:
        """Be ahead of all."""
        return 0.0

    def run(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Take the textbook's loops and be wrong."""
        conv_registry.ALGORITHMS[-1].forward.run(problem, x, prepared, bias + 1, out)


ROUGHLY = Algorithm("rough", RoughForward(), precision="high")


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `ROUGHLY` take part, and leave everything as it was."""
    monkeypatch.setattr(conv_registry, "ALGORITHMS", (ROUGHLY, *conv_registry.ALGORITHMS))
    before = fastconv.get_precision()
    choice._decide.cache_clear()
    conv2d._kept.cache_clear()
    yield
    choice._decide.cache_clear()
    conv2d._kept.cache_clear()
    fastconv.set_precision(before)


def convolved(**options: Any) -> float:
    return float(fastconv.conv2d(X, WEIGHT, **options)[0, 0, 1, 1])


def test_auto_runs_what_is_exact_enough() -> None:
    assert fastconv.get_precision() == "high"
    assert convolved() == ROUGH
    fastconv.set_precision("highest")
    assert fastconv.get_precision() == "highest"
    assert convolved() == EXACT
    fastconv.set_precision("high")
    assert convolved() == ROUGH


def test_a_named_algorithm_always_runs() -> None:
    with fastconv.at_precision("highest"):
        assert convolved(algorithm="rough") == ROUGH
        named = fastconv.plan_conv2d(X.shape, WEIGHT, algorithm="rough")
        assert named(X)[0, 0, 0, 0] == ROUGH
    assert "\n* rough " in named.explain()
    assert named.explain().endswith("rough was named")


def test_a_plan_keeps_what_was_chosen() -> None:
    fastest = fastconv.plan_conv2d(X.shape, WEIGHT)
    with fastconv.at_precision("highest"):
        exact = fastconv.plan_conv2d(X.shape, WEIGHT)
        assert fastest(X)[0, 0, 0, 0] == ROUGH
    assert exact(X)[0, 0, 0, 0] == EXACT
    # Each explains what was asked for when it was made, not what is asked for now.
    assert re.search(r"^\* rough +estimated 0 ms$", fastest.explain(), re.MULTILINE)
    told = exact.explain()
    assert "less exact than a plain sum: not with precision 'highest'" in told
    assert told.count("\n* ") == 1
    assert "\n* rough" not in told


def test_networks_follow_a_change() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False)
    layer.weight.data[...] = 1
    model = nn.Sequential(layer, nn.ReLU()).eval()

    def first() -> float:
        return float(model(X)[0, 0, 0, 0])

    assert first() == ROUGH
    with fastconv.at_precision("highest"):
        assert first() == EXACT
    assert first() == ROUGH
    fastconv.set_precision("highest")
    assert first() == EXACT


def test_a_block_ends_where_it_began() -> None:
    with fastconv.at_precision("highest"):
        with fastconv.at_precision("high"):
            assert convolved() == ROUGH
        assert convolved() == EXACT
        with pytest.raises(ZeroDivisionError), fastconv.at_precision("high"):
            raise ZeroDivisionError
        fastconv.set_precision("high")  # for the process: the block goes on as it is
        assert convolved() == EXACT
    assert convolved() == ROUGH

    @fastconv.at_precision("highest")
    def decorated() -> float:
        return convolved()

    assert decorated() == EXACT
    assert convolved() == ROUGH


def test_the_setting_reaches_every_thread_and_a_block_only_its_own() -> None:
    fastconv.set_precision("highest")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: convolved(), range(4))) == [EXACT] * 4
        with fastconv.at_precision("high"):
            assert convolved() == ROUGH
            assert pool.submit(convolved).result() == EXACT
    fastconv.set_precision("high")

    # Blocks of two threads overlap without disturbing each other or what comes after.
    entered, left = threading.Barrier(2), threading.Barrier(2)

    def work(precision: Precision) -> tuple[float, float]:
        with fastconv.at_precision(precision):
            entered.wait(10)
            inside = convolved()
            if precision == "high":
                left.wait(10)
        if precision == "highest":
            left.wait(10)
        return inside, convolved()

    with ThreadPoolExecutor(2) as pool:
        precisions: tuple[Precision, ...] = ("highest", "high")
        assert list(pool.map(work, precisions)) == [(EXACT, ROUGH), (ROUGH, ROUGH)]


def test_a_change_amid_a_call_does_not_outlast_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another thread sets while a call is made ready is not kept for the setting before."""
    make_ready = conv2d._make_ready

    def changed_amid(*arguments: Any) -> Any:
        with fastconv.set_precision("high"):
            return make_ready(*arguments)

    fastconv.set_precision("highest")
    with monkeypatch.context() as patch:
        patch.setattr(conv2d, "_make_ready", changed_amid)
        convolved()
    assert convolved() == EXACT


def test_blocks_of_asynchronous_tasks() -> None:
    async def work(precision: Precision) -> Array:
        with fastconv.at_precision(precision):
            await asyncio.sleep(0.01)
            return fastconv.conv2d(X, WEIGHT)

    async def both() -> list[Array]:
        return await asyncio.gather(work("highest"), work("high"), work("highest"))

    assert [y[0, 0, 0, 0] for y in asyncio.run(both())] == [EXACT, ROUGH, EXACT]


@pytest.mark.parametrize("value", ["low", "HIGH", "", None, 1, np.ones(2)])
def test_other_values_are_refused(value: Any) -> None:
    with refused("precision", repr(value)):
        fastconv.set_precision(value)
    with refused("precision", repr(value)), fastconv.at_precision(value):
        pass
    assert fastconv.get_precision() == "high"


@pytest.mark.parametrize(
    ("value", "told"),
    [("highest", "highest"), (" high ", "high"), ("", "high"), ("medium", "got 'medium'")],
)
def test_the_environment_sets_the_start(value: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import fastconv; print(fastconv.get_precision())"],
        env={**os.environ, "FASTCONV_PRECISION": value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told in (done.stdout or done.stderr)
    assert ("FASTCONV_PRECISION must be 'highest' or 'high'" in done.stderr) == (value == "medium")


def test_setting_as_a_context_manager_sets_back() -> None:
    before = fastconv.get_precision()
    other = "high" if before == "highest" else "highest"
    with fastconv.set_precision(other):
        assert fastconv.get_precision() == other
        with pytest.raises(KeyError), fastconv.set_precision(before):
            raise KeyError
        assert fastconv.get_precision() == other
    assert fastconv.get_precision() == before
