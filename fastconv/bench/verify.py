"""Checking a result before its speed counts.

The truth is what the reference loops give in float64. Python needs microseconds for every
output element, so for a large layer the loops run on a *sample* only: some whole images, or
some rows of one image. The whole result is then compared with the compiled loops of ``naive``
in float64, after those have agreed with the reference on the sample; and the algorithm in
question computes the sample as well, as a small problem of its own.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.bench_calls import Tensors, make_call
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.arguments import as_computed
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.geometry import extent

Array = NDArray[Any]

#: About how long one run of the reference loops may take.
REFERENCE_SECONDS = 0.05


def relative_error(result: Array, truth: Array) -> float:
    """Return the largest deviation, relative to the largest true value; NaN if there is one."""
    largest = float(np.abs(truth).max())
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities: the NaN says enough
        deviation = float(np.abs(result - truth).max())
    return deviation / largest if largest else deviation


def tolerance(problem: Conv2dProblem, direction: Direction) -> float:
    """Return the largest `relative_error` that rounding explains.

    The rounding errors of a sum of n products are a random walk: relative to the largest of
    many such sums they grow like eps * sqrt(n), and stay below twice that in practice, in
    whatever order is summed. Methods that transform their input first (Winograd, FFT) add and
    subtract numbers larger than the result, which costs a constant of some 100 eps however few
    the products. Sixteen times (16 + sqrt(n)) eps covers both. A mistake is larger: one product
    missing from a sum of n random ones changes the largest by about 1 / (4 sqrt(n)), more than
    this in float32 up to n = 10^5; and the reference's sample keeps n small.
    """
    terms = {
        "forward": problem.taps,
        "input_grad": problem.K_per_group * problem.R * problem.S,
        "weight_grad": problem.N * problem.P,
    }[direction]
    return float(16 * np.finfo(problem.dtype).eps * (16 + math.sqrt(terms)))


@dataclass(frozen=True)
class Sample:
    """A part of a problem that the reference loops can do, and how large a part it is."""

    problem: Conv2dProblem
    tensors: Tensors
    share: float


def cut(problem: Conv2dProblem, tensors: Tensors, images: range, rows: range) -> Sample:
    """Return the problem of some output rows of some images, with the input rows they need.

    Interior rows need no padding above and below; at an edge the margin that they see stays.
    """
    stride, (top, _) = problem.stride[0], problem.padding[0]
    first = rows.start * stride - top
    last = (rows.stop - 1) * stride - top + extent(problem.R, problem.dilation[0])
    inside = slice(max(0, first), min(problem.H, last))
    margins = (max(0, -first), max(0, last - problem.H)), problem.padding[1]
    x = tensors.x[images.start : images.stop, :, inside]
    grad = tensors.grad_output[images.start : images.stop, :, rows.start : rows.stop]
    part = Conv2dProblem.from_shapes(
        *(x.shape, problem.weight_shape, problem.stride, margins, problem.dilation),
        *(problem.groups, problem.dtype),
    )
    share = len(images) * len(rows) / (problem.N * problem.OH)
    own = (as_computed(array, problem.dtype) for array in (x, grad))
    return Sample(part, Tensors(next(own), tensors.weight, tensors.bias, next(own)), share)


def sample_for_reference(
    problem: Conv2dProblem, direction: Direction, tensors: Tensors, reference: Algorithm
) -> Sample:
    """Return the part that the reference loops do in about `REFERENCE_SECONDS`, all if they can.

    Whole images if it is possible, because these have edges; else rows from the middle of one.
    """
    middle = problem.OH // 2
    row = cut(problem, tensors, range(1), range(middle, middle + 1))
    call = make_call(row.problem, direction, reference, row.tensors)
    begin = time.perf_counter()
    call.run()
    rows = max(1, int(REFERENCE_SECONDS / (time.perf_counter() - begin)))
    if rows >= problem.N * problem.OH:
        return Sample(problem, tensors, 1.0)
    if rows >= problem.OH:
        return cut(problem, tensors, range(rows // problem.OH), range(problem.OH))
    first = (problem.OH - rows) // 2
    return cut(problem, tensors, range(1), range(first, first + rows))


class Check(NamedTuple):
    """How far a result was from the truth, and whether rounding explains it."""

    error: float
    correct: bool


class Oracle:
    """Knows the right result of one problem in one direction."""

    def __init__(
        self,
        problem: Conv2dProblem,
        direction: Direction,
        tensors: Tensors,
        sample: Sample,
        reference: Algorithm,
        naive: Algorithm,
    ) -> None:
        self._problem, self._direction, self._sample = problem, direction, sample
        self._part = _in_float64(sample.problem, direction, sample.tensors, reference)
        self._whole = self._part
        if sample.share < 1:
            checked = _in_float64(sample.problem, direction, sample.tensors, naive)
            exact = dataclasses.replace(sample.problem, dtype="float64")
            # Where `naive` itself is wrong the loops must do it all, however long they take.
            agree = relative_error(checked, self._part) <= tolerance(exact, direction)
            whole = naive if agree else reference
            self._whole = _in_float64(problem, direction, tensors, whole)

    def check(self, algorithm: Algorithm, result: Array) -> Check:
        """Judge an algorithm by its whole result and by what it makes of the sample."""
        check = self.compare(result)
        part, direction = self._sample.problem, self._direction
        if self._sample.share == 1 or algorithm[direction].refusal(part) is not None:
            return check
        call = make_call(part, direction, algorithm, self._sample.tensors)
        call.run()
        return _worse(check, self.compare_sample(call.out))

    def compare(self, result: Array) -> Check:
        """Judge a whole result."""
        return _judge(result, self._whole, tolerance(self._problem, self._direction))

    def compare_sample(self, result: Array) -> Check:
        """Judge the result of the sample."""
        return _judge(result, self._part, tolerance(self._sample.problem, self._direction))


def _in_float64(
    problem: Conv2dProblem, direction: Direction, tensors: Tensors, algorithm: Algorithm
) -> Array:
    exact = dataclasses.replace(problem, dtype="float64")
    call = make_call(exact, direction, algorithm, tensors.astype("float64"))
    call.run()
    return call.out


def _judge(result: Array, truth: Array, allowed: float) -> Check:
    error = relative_error(result, truth)
    return Check(error, error <= allowed)  # False for NaN


def _worse(one: Check, other: Check) -> Check:
    # max() would lose a NaN that comes second.
    error = float(np.maximum(one.error, other.error))
    return Check(error, one.correct and other.correct)
