"""The cheapest algorithm is found without asking those that cannot be it."""

from __future__ import annotations

import numpy as np
import pytest
from test_bands import enormous_problem
from test_tiling import random_problem

from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.core.precision import PRECISIONS
from fastconv.select import choice, conv_registry

#: Where transforms win: large kernels, deep maps.
OTHERS = (
    Conv2dProblem.from_shapes((1, 64, 56, 56), (64, 64, 3, 3), padding=1),
    Conv2dProblem.from_shapes((1, 512, 14, 14), (512, 1, 3, 3), padding=1, groups=512),
    Conv2dProblem.from_shapes((4, 16, 128, 128), (16, 16, 31, 31)),
    Conv2dProblem.from_shapes((8, 256, 7, 7), (256, 256, 5, 5), padding=2),
)


def problems() -> list[Conv2dProblem]:
    rng = np.random.default_rng(29)
    enormous = [enormous_problem(rng) for _ in range(20)]
    return [*OTHERS, *(random_problem(rng) for _ in range(100)), *enormous]


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_cheapest_of_all_is_chosen(precision: choice.Precision, once: bool) -> None:
    names = set()
    for problem in problems():
        best = choice.permitted(problem, "forward", precision, once)[0].algorithm
        assert choice.cheapest(problem, "forward", precision, once) is best, problem
        names.add(best.name)
    assert len(names) >= 4


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_estimate_is_below_what_it_is_at_least(direction: Direction) -> None:
    for problem in problems():
        for algorithm in conv_registry.offering(direction):
            implementation = algorithm[direction]
            least = implementation.least_seconds(problem, 4)
            if implementation.refusal(problem) is None:
                seconds = implementation.estimated_seconds(problem, 4)
                assert 0 <= least <= seconds * (1 + 1e-9), (algorithm.name, problem)
