"""Every convolution algorithm side by side, in all directions.

The layers are the cross-section of the suites that ``fastconv bench`` measures, and enlarged
cases of the table that the tests run. A group of the report is one layer in one direction.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import pytest
import reference as oracle
from cases import CONV_CASES, ConvCase
from timing import assert_close, measure

from fastconv.bench.bench_calls import Tensors, make_call, make_tensors
from fastconv.bench.suites import CROSS_SECTION, select
from fastconv.bench.verify import tolerance
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.select import conv_registry

# Beyond this the compiled loops (`naive`) take seconds a call.
MOST_FLOPS = 1e9
# The one layer that loops in Python (`reference`) compute in less than a second.
SMALL_LAYER = "rgb8"
# One case of each family.
FAMILIES = (
    *("first_rgb_7x7_strided", "pointwise", "pointwise_strided", "3x3", "3x3_strided"),
    *("5x5", "grouped", "depthwise_5x5", "dilated", "asymmetric", "everything"),
)
REFERENCE = "reference"


def enlarged(case: ConvCase) -> ConvCase:
    """Return a case with 8 images of four times the height and width."""
    _, channels, height, width = case.input_shape
    return dataclasses.replace(case, input_shape=(8, channels, 4 * height, 4 * width))


def problem_of(case: ConvCase) -> Conv2dProblem:
    return Conv2dProblem.from_shapes(case.input_shape, case.weight_shape, *case.geometry)


Work = tuple[str, Conv2dProblem, Direction]


def all_work() -> list[Work]:
    """Return (name, problem, direction) for everything that is measured."""
    (small,) = select(["small"], [SMALL_LAYER])
    work: list[Work] = [(SMALL_LAYER, small.layer.problem(), "forward")]
    for item in select(suites=list(CROSS_SECTION)):
        chosen = CROSS_SECTION[item.layer.suite].get(item.layer.id, ())
        problem = item.layer.problem()
        if problem.flops < MOST_FLOPS:
            work += [(item.layer.id, problem, direction) for direction in chosen]
    for case in CONV_CASES:
        if case.name in FAMILIES:
            problem = problem_of(enlarged(case))
            work += [(case.name, problem, direction) for direction in DIRECTIONS]
    return work


@lru_cache(maxsize=1)
def arrays(problem: Conv2dProblem) -> Tensors:
    return make_tensors(problem)


@lru_cache(maxsize=1)
def truth(problem: Conv2dProblem, direction: Direction) -> Any:
    x, weight, _, grad = arrays(problem)
    geometry = (problem.stride, problem.padding, problem.dilation, problem.groups)
    if direction == "forward":
        return oracle.conv2d(x, weight, None, *geometry)
    if direction == "input_grad":
        return oracle.conv2d_input_grad(problem.input_shape, weight, grad, *geometry)
    return oracle.conv2d_weight_grad(x, problem.weight_shape, grad, *geometry)


def runs() -> list[Any]:
    return [
        pytest.param(name, problem, direction, algorithm, id=f"{name}-{direction}-{algorithm.name}")
        for name, problem, direction in all_work()
        for algorithm in conv_registry.offering(direction)
        if algorithm[direction].refusal(problem) is None
        and (algorithm.name != REFERENCE or name == SMALL_LAYER)
    ]


@pytest.mark.parametrize(("name", "problem", "direction", "algorithm"), runs())
def test_convolution(
    benchmark: Any, name: str, problem: Conv2dProblem, direction: Direction, algorithm: Any
) -> None:
    call = make_call(problem, direction, algorithm, arrays(problem))
    call.run()  # compiles
    assert_close(call.out, truth(problem, direction), tolerance(problem, direction))
    measure(benchmark, f"{name} {direction}", call.run, problem.flops)
