"""Checking a result before its speed counts.

The truth is what the reference loops give in float64. Python needs microseconds for every
output element, so for a large layer the loops run on a *sample* only: some whole images, or
some rows of one image, or of its first output channels. For the whole result the truth is then
``im2col`` in float64, after it has agreed with the reference on the sample to the last digits,
and everywhere with the compiled loops (``naive``) in the layer's own type, which share no code
with it. The algorithm in question must also compute the sample, as a small problem of its own.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastconv.bench.bench_calls import Tensors, make_call
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.arguments import Array, as_computed
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.geometry import extent

#: The two algorithms that all others are compared with, and one that is fast and exact enough.
REFERENCE, NAIVE, IM2COL = "reference", "naive", "im2col"
#: About how long one run of the reference loops may take.
REFERENCE_SECONDS = 0.05
#: A row of so many output channels is sampled at least: it fills vectors and register tiles.
FEWEST_CHANNELS = 32


def relative_error(result: Array, truth: Array) -> float:
    """Return the largest difference, relative to the largest true value; NaN if there is one."""
    largest = float(np.abs(truth).max())
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities: the NaN says enough
        difference = float(np.abs(result - truth).max())
    return difference / largest if largest else difference


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


def cut(
    problem: Conv2dProblem,
    tensors: Tensors,
    images: range,
    rows: range,
    channels: int | None = None,
) -> Sample:
    """Return the problem of some output rows of some images, with the input rows they need.

    Interior rows need no padding above and below; at an edge the padding that they see stays.
    `channels` limits the output channels to the first ones; there must be one group then.
    """
    stride, (top, _) = problem.stride[0], problem.padding[0]
    first = rows.start * stride - top
    last = (rows.stop - 1) * stride - top + extent(problem.R, problem.dilation[0])
    inside = slice(max(0, first), min(problem.H, last))
    padding = (max(0, -first), max(0, last - problem.H)), problem.padding[1]
    x = tensors.x[images.start : images.stop, :, inside]
    weight, bias = tensors.weight[:channels], tensors.bias[:channels]
    grad = tensors.grad_output[images.start : images.stop, :channels, rows.start : rows.stop]
    part = Conv2dProblem.from_shapes(
        *(x.shape, weight.shape, problem.stride, padding, problem.dilation),
        *(problem.groups, problem.dtype),
    )
    share = len(images) * len(rows) * part.K / (problem.N * problem.OH * problem.K)
    own = (as_computed(array, problem.dtype) for array in (x, weight, bias, grad))
    return Sample(part, Tensors(*own), share)


def sample_for_reference(
    problem: Conv2dProblem, direction: Direction, tensors: Tensors, reference: Algorithm
) -> Sample:
    """Return the part that the reference loops do in about `REFERENCE_SECONDS`, all if they can.

    Whole images if it is possible, because these have edges; else rows from the middle of one,
    or the first output channels of a row where even that takes long.
    """
    middle = range(problem.OH // 2, problem.OH // 2 + 1)
    some = min(problem.K, FEWEST_CHANNELS) if problem.groups == 1 else problem.K
    small = cut(problem, tensors, range(1), middle, some)
    call = make_call(small.problem, direction, reference, small.tensors)
    begin = time.perf_counter()
    call.run()
    spent = time.perf_counter() - begin
    channels = max(some, int(some * REFERENCE_SECONDS / spent))
    if channels < problem.K and problem.groups == 1:
        return cut(problem, tensors, range(1), middle, channels)
    rows = max(1, int(REFERENCE_SECONDS / spent * some / problem.K))
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
    """Knows the right result of one problem in one direction.

    `known` are the algorithms, `REFERENCE`, `NAIVE` and `IM2COL` among them; `sample` is what the
    reference loops are to do, by default as much as they can in their time.
    """

    def __init__(
        self,
        problem: Conv2dProblem,
        direction: Direction,
        tensors: Tensors,
        known: Mapping[str, Algorithm],
        sample: Sample | None = None,
    ) -> None:
        self._problem, self._direction, self._tensors = problem, direction, tensors
        self._known = known
        self.sample = sample or sample_for_reference(problem, direction, tensors, known[REFERENCE])

    def find_truth(self, naive: Array | None = None) -> None:
        """Compute what is right; `naive` is the result of those loops, if it is known already."""
        whole = Sample(self._problem, self._tensors, 1.0)
        self._part = self._whole = self._in_float64(REFERENCE, self.sample)
        if self.sample.share == 1:
            return
        name = next((n for n in (IM2COL, NAIVE) if self._agrees(n)), REFERENCE)
        self._whole = self._in_float64(name, whole)
        if name == IM2COL:
            plain = self._computed(NAIVE, whole) if naive is None else naive
            if not self.compare(plain).correct:  # the loops must decide, however long they take
                self._whole = self._in_float64(REFERENCE, whole)

    def _agrees(self, name: str) -> bool:
        """Return whether an algorithm in float64 agrees with the reference on the sample."""
        known = self._known.get(name)
        if known is None or known[self._direction].refusal(self._problem) is not None:
            return False
        exact = dataclasses.replace(self.sample.problem, dtype="float64")
        found = self._in_float64(name, self.sample)
        return relative_error(found, self._part) <= tolerance(exact, self._direction)

    def _computed(self, name: str, part: Sample) -> Array:
        call = make_call(part.problem, self._direction, self._known[name], part.tensors)
        call.run()
        return call.out

    def _in_float64(self, name: str, part: Sample) -> Array:
        exact = dataclasses.replace(part.problem, dtype="float64")
        return self._computed(name, Sample(exact, part.tensors.astype("float64"), part.share))

    def check(self, algorithm: Algorithm, result: Array) -> Check:
        """Judge an algorithm by its whole result and by what it makes of the sample."""
        check = self.compare(result)
        part, direction = self.sample.problem, self._direction
        if self.sample.share == 1 or algorithm[direction].refusal(part) is not None:
            return check
        call = make_call(part, direction, algorithm, self.sample.tensors)
        call.run()
        other = self.compare_sample(call.out)
        # max() would lose a NaN that comes second.
        error = float(np.maximum(check.error, other.error))
        return Check(error, check.correct and other.correct)

    def compare(self, result: Array) -> Check:
        """Judge a whole result."""
        return _judge(result, self._whole, tolerance(self._problem, self._direction))

    def compare_sample(self, result: Array) -> Check:
        """Judge the result of the sample."""
        return _judge(result, self._part, tolerance(self.sample.problem, self._direction))


def _judge(result: Array, truth: Array, allowed: float) -> Check:
    error = relative_error(result, truth)
    return Check(error, error <= allowed)  # False for NaN
