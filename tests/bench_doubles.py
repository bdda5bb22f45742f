"""What the tests of the benchmark share: short measurements, and algorithms that go wrong."""

from __future__ import annotations

import math
from typing import Any

from fastconv.bench import suites
from fastconv.bench.bench_run import Options
from fastconv.bench.verify import REFERENCE
from fastconv.convolution.algorithm import Algorithm, Forward, Gradient, Implementation
from fastconv.core.conv_problem import Direction
from fastconv.select import conv_registry

QUICK = Options(rounds=3, seconds=0.01, batch=3)


def silent(text: str) -> None:
    """Take no notice of what is being done."""


def layer(identity: str, suite: str = "small") -> suites.Layer:
    return next(each for each in suites.load_suite(suite) if each.id == identity)


def algorithm(name: str, direction: Direction = "forward") -> Algorithm:
    return next(each for each in conv_registry.offering(direction) if each.name == name)


class NeverChosen(Implementation):
    """An implementation that `auto` keeps away from."""

    def estimated_seconds(self, problem: Any, threads: int) -> float:
        """Take for ever."""
        return math.inf


class WrongForward(NeverChosen, Forward):
    """Forgets a tap, as a tail gone wrong would."""

    def run(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Leave out the last tap."""
        weight = prepared.copy()
        weight[..., -1, -1] = 0
        algorithm(REFERENCE).forward.run(problem, x, weight, bias, out)


class RaisingForward(NeverChosen, Forward):
    """Does not get that far."""

    def run(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Fail."""
        raise ZeroDivisionError("no luck")


class PickyForward(NeverChosen, Forward):
    """Never takes part."""

    def refusal(self, problem: Any) -> str | None:
        """Refuse."""
        return "needs something else"


class WrongInputGrad(NeverChosen, Gradient):
    """Makes everything a little too large."""

    def run(self, problem: Any, factor: Any, grad_output: Any, out: Any) -> None:
        """Take larger weights."""
        algorithm(REFERENCE).input_grad.run(problem, 1.1 * factor, grad_output, out)


class WrongWeightGrad(NeverChosen, Gradient):
    """Leaves out everything."""

    def run(self, problem: Any, factor: Any, grad_output: Any, out: Any) -> None:
        """Store zeros."""
        out[...] = 0


WRONG = Algorithm("wrong", WrongForward(), WrongInputGrad(), WrongWeightGrad())
RAISING = Algorithm("raising", RaisingForward(), WrongInputGrad(), WrongWeightGrad())
PICKY = Algorithm("picky", PickyForward())
