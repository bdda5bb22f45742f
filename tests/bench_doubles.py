"""What the tests of the benchmark share: short measurements, and algorithms that go wrong."""

from __future__ import annotations

import math
from typing import Any

from fastconv.bench import suites
from fastconv.bench.bench_run import Options
from fastconv.bench.verify import REFERENCE
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.conv_problem import Direction
from fastconv.select import conv_registry

QUICK = Options(rounds=3, seconds=0.01, batch=3)


def silent(text: str) -> None:
    """Take no notice of what is being done."""


def layer(identity: str, suite: str = "small") -> suites.Layer:
    return next(each for each in suites.load_suite(suite) if each.id == identity)


def algorithm(name: str, direction: Direction = "forward") -> Algorithm:
    return next(each for each in conv_registry.offering(direction) if each.name == name)


class Wrong(Algorithm):
    """Forgets a tap, as a tail gone wrong would."""

    name = "wrong"

    def estimated_seconds(self, problem: Any, direction: Any, threads: int) -> float:
        """Keep `auto` away."""
        return math.inf

    def forward(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Leave out the last tap."""
        weight = prepared.copy()
        weight[..., -1, -1] = 0
        algorithm(REFERENCE).forward(problem, x, weight, bias, out)

    def input_grad(self, problem: Any, weight: Any, grad_output: Any, out: Any) -> None:
        """Make everything a little too large."""
        algorithm(REFERENCE, "input_grad").input_grad(problem, 1.1 * weight, grad_output, out)

    def weight_grad(self, problem: Any, x: Any, grad_output: Any, out: Any) -> None:
        """Leave out everything."""
        out[...] = 0


class Raising(Wrong):
    """Does not get that far."""

    name = "raising"

    def forward(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Fail."""
        raise ZeroDivisionError("no luck")


class Picky(Wrong):
    """Never takes part."""

    name = "picky"

    def supports(self, problem: Any, direction: Any) -> str | None:
        """Refuse."""
        return "needs something else"
