"""The benchmark harness: a wrong result is found, a time is what the clock said."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference as oracle
from bench_doubles import WRONG, NeverChosen, algorithm, layer

from fastconv.bench import image_suite, measure, suites, verify
from fastconv.bench.bench_calls import make_call, make_tensors
from fastconv.bench.bench_errors import BenchError, require
from fastconv.bench.verify import IM2COL, NAIVE, REFERENCE
from fastconv.convolution.algorithm import Algorithm, Forward
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.select import conv_registry

# Suites ------------------------------------------------------------------------------------------


def test_suites_are_found_inside_the_package() -> None:
    assert suites.suite_names() == ("images", "mobilenet_v1", "resnet50", "small", "vgg16")
    sizes = {name: len(suites.load_suite(name)) for name in suites.suite_names()}
    assert sizes == {"images": 7, "mobilenet_v1": 19, "resnet50": 20, "small": 9, "vgg16": 9}


def test_layer_is_its_row_of_the_table() -> None:
    r08 = layer("r08", "resnet50")
    assert (r08.C, r08.K, r08.H, r08.W, r08.R, r08.S) == (128, 128, 28, 28, 3, 3)
    assert (r08.stride, r08.padding, r08.groups, r08.count, r08.batch) == (1, 1, 1, 4, 1)
    assert r08.problem(batch=2, dtype="float64").output_shape == (2, 128, 28, 28)
    assert layer("mnist1").batch == 64
    assert layer("photo_edge").batch == 1


def test_every_layer_is_a_convolution_with_a_name_of_its_own() -> None:
    layers = [each for name in suites.suite_names() for each in suites.load_suite(name)]
    assert len({each.id for each in layers}) == len(layers)
    assert all(each.problem().flops > 0 for each in layers)


def test_selection() -> None:
    items = suites.select()
    assert [item.layer.suite for item in items[:7]] == ["images"] * 7
    assert {item.layer.suite for item in items} == set(suites.suite_names())
    assert sum(len(item.directions) for item in items) < 40
    assert {d for item in items for d in item.directions} == set(DIRECTIONS)
    by_suite = suites.select(["small"], directions=["input_grad"])
    assert [item.layer.id for item in by_suite] == [x.id for x in suites.load_suite("small")]
    assert {item.directions for item in by_suite} == {("input_grad",)}
    by_layer = suites.select(layers=["dw3", "r04"])
    assert {(item.layer.suite, item.layer.id) for item in by_layer} == {
        ("mobilenet_v1", "dw3"),
        ("resnet50", "r04"),
    }


@pytest.mark.parametrize(
    ("names", "right"),
    [
        ({"suites": ["resnet"]}, "resnet50"),
        ({"suites": ["vgg16"], "layers": ["r04"]}, "v5"),
    ],
)
def test_unknown_names_are_refused_with_the_right_ones(names: Any, right: str) -> None:
    with pytest.raises(BenchError, match=rf"must be one of .*{right}.*, got '"):
        suites.select(**names)


def test_missing_extra_is_named() -> None:
    with pytest.raises(BenchError, match=r'pip install "fastconv\[bench\]"'):
        require("no_such_package_at_all", "this")


# Data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [each.id for each in suites.load_suite("images")])
def test_images_are_real(identity: str) -> None:
    here = layer(identity, "images")
    problem = here.problem()
    x, weight, bias, grad = make_tensors(problem, here)
    assert (x.shape, weight.shape) == (problem.input_shape, problem.weight_shape)
    assert (bias.shape, grad.shape) == ((problem.K,), problem.output_shape)
    assert 0 <= x.min() < 0.1
    assert 0.9 < x.max() <= 1
    assert x.std() > 0.1
    assert x.dtype == weight.dtype == np.float32
    assert not any(array.flags.writeable for array in (x, weight, bias, grad))


def test_images_start_again_when_there_are_too_few() -> None:
    here = layer("photo_blur", "images")
    x = image_suite.image_batch(here, here.problem(batch=3))
    np.testing.assert_array_equal(x[2], x[0])
    assert not np.array_equal(x[1], x[0])


def test_edge_filters_find_edges() -> None:
    here = layer("digits_edges", "images")
    weight = image_suite.filters(here, here.problem(), np.random.default_rng(0))
    step = np.zeros((1, 1, 5, 6))
    step[..., 3:] = 1  # dark to bright, from left to right
    sobel_x, sobel_y, laplace, sharpened = oracle.conv2d(step, weight)[0]
    np.testing.assert_array_equal(sobel_x, [[0, 1, 1, 0]] * 3)
    np.testing.assert_array_equal(sobel_y, np.zeros((3, 4)))
    np.testing.assert_array_equal(laplace, [[0, 0.25, -0.25, 0]] * 3)
    np.testing.assert_array_equal(sharpened, [[0, -1, 2, 1]] * 3)


def test_blur_keeps_the_brightness() -> None:
    here = layer("photo_blur", "images")
    weight = image_suite.filters(here, here.problem(), np.random.default_rng(0))
    np.testing.assert_allclose(weight.sum(axis=(1, 2, 3)), np.ones(3))


def test_other_data_is_normal_and_the_same_every_time() -> None:
    problem = layer("cifar2").problem(batch=2)
    first, second = make_tensors(problem), make_tensors(problem)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert abs(first.x.std() - 1) < 0.05
    assert np.count_nonzero(first.x) == first.x.size


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_call_computes_into_its_array(direction: Direction) -> None:
    problem = layer("rgb8").problem(batch=2)
    tensors = make_tensors(problem)
    call = make_call(problem, direction, algorithm(NAIVE, direction), tensors)
    assert np.isnan(call.out).all()
    call.run()
    x, weight, _, grad = tensors.astype("float64")
    geometry = (problem.stride, problem.padding, problem.dilation, problem.groups)
    expected = {
        "forward": lambda: oracle.conv2d(x, weight, None, *geometry),
        "input_grad": lambda: oracle.conv2d_input_grad(x.shape, weight, grad, *geometry),
        "weight_grad": lambda: oracle.conv2d_weight_grad(x, weight.shape, grad, *geometry),
    }[direction]()
    assert call.out.shape == problem.result_shape(direction)
    np.testing.assert_allclose(call.out, expected, rtol=1e-4, atol=1e-4)


# Measuring, with a clock that only moves when a function is called --------------------------------


class Clock:
    """Time as the functions under test spend it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def function(self, *durations: float) -> tuple[Callable[[], None], list[float]]:
        """Return a function that takes these times in turn, and the list of its calls."""
        calls: list[float] = []

        def spend() -> None:
            calls.append(durations[len(calls) % len(durations)])
            self.now += calls[-1]

        return spend, calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_block_is_the_mean_of_its_calls(clock: Clock) -> None:
    spend, calls = clock.function(1.0, 3.0)
    assert measure.time_block(spend, 4) == 2.0
    assert len(calls) == 4


def test_garbage_waits_for_the_end_of_a_block() -> None:
    seen: list[bool] = []
    assert gc.isenabled()
    measure.time_block(lambda: seen.append(gc.isenabled()), 2)
    assert seen == [False, False]
    assert gc.isenabled()

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.time_block(fail, 1)
    assert gc.isenabled()


@pytest.mark.parametrize("seconds", [1e-6, 3e-5, 1.9e-3, 2.1e-3, 1.0])
def test_blocks_are_long_enough_and_not_much_longer(clock: Clock, seconds: float) -> None:
    spend, _ = clock.function(seconds)
    repeats, measured = measure.find_repeats(spend)
    assert measured == pytest.approx(seconds)
    assert repeats * seconds >= measure.BLOCK_SECONDS
    assert repeats == 1 or repeats * seconds < 3 * measure.BLOCK_SECONDS


def test_functions_are_measured_side_by_side(clock: Clock) -> None:
    fast, fast_calls = clock.function(1e-4)
    slow, slow_calls = clock.function(0.5)
    timings = measure.interleave({"fast": fast, "slow": slow}, seconds=1.0, rounds=12)
    assert timings["fast"].median == pytest.approx(1e-4)
    assert timings["fast"].spread == pytest.approx(0, abs=1e-12)
    assert timings["slow"].median == pytest.approx(0.5)
    assert len(timings["fast"].samples) == 12
    assert len(timings["slow"].samples) == measure.FEWEST_ROUNDS
    # The call that tells how long it takes counts; then one a round: long calls need no warming up.
    assert len(slow_calls) == measure.FEWEST_ROUNDS
    repeats = timings["fast"].repeats
    assert len(fast_calls) >= 12 * (1 + repeats)


def test_one_bad_moment_does_not_move_the_median(clock: Clock) -> None:
    spend, _ = clock.function(*[0.01] * 7, 5.0)
    timing = measure.interleave({"only": spend}, seconds=60, rounds=15)["only"]
    assert timing.median == pytest.approx(0.01)


def test_spread_is_half_of_the_middle_eighty_percent() -> None:
    timing = measure.Timing(tuple(float(value) for value in range(101)), repeats=1)
    assert timing.median == 50
    assert timing.spread == 40


# Checking ----------------------------------------------------------------------------------------


def test_relative_error() -> None:
    truth = np.array([1.0, -4.0, 2.0])
    assert verify.relative_error(truth.astype(np.float32), truth) == 0
    assert verify.relative_error(truth * [1, 1, 1.2], truth) == pytest.approx(0.1)
    assert verify.relative_error(truth, np.zeros(3)) == 4
    for bad in (np.nan, np.inf):
        assert not verify.relative_error(truth * [1, bad, 1], truth) <= 1e9


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_tolerance_lies_between_rounding_and_a_mistake(direction: Direction) -> None:
    for each in suites.load_suite("resnet50"):
        problem = each.problem()
        terms = problem.P if direction == "weight_grad" else problem.taps
        allowed = verify.tolerance(problem, direction)
        assert allowed > 10 * np.finfo(np.float32).eps * math.sqrt(terms)
        assert allowed < 1 / (4 * math.sqrt(terms))


GEOMETRIES = [
    ((3, 4, 11, 9), (6, 4, 3, 3), 1, 1, 1, 1),
    ((3, 4, 12, 9), (6, 2, 3, 2), (2, 1), ((2, 0), (1, 3)), 1, 2),
    ((2, 3, 13, 8), (3, 1, 3, 3), 2, 2, 2, 3),
    ((2, 3, 9, 9), (5, 3, 1, 1), 2, 0, 1, 1),
    ((2, 2, 6, 6), (3, 2, 5, 5), 1, 4, 1, 1),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_sample_is_a_part_of_the_whole(geometry: Any) -> None:
    problem = Conv2dProblem.from_shapes(*geometry)
    tensors = make_tensors(problem)
    whole = make_call(problem, "forward", algorithm(NAIVE), tensors)
    whole.run()
    for first, last in ((0, 2), (1, 2), (problem.OH // 2, problem.OH)):
        channels = 2 if problem.groups == 1 else None
        sample = verify.cut(problem, tensors, range(1, 2), range(first, last), channels)
        part = make_call(sample.problem, "forward", algorithm(REFERENCE), sample.tensors)
        part.run()
        expected = whole.out[1:2, :channels, first:last]
        np.testing.assert_allclose(part.out, expected, rtol=1e-4, atol=1e-5)
        rows = problem.N * problem.OH * problem.K / sample.problem.K
        assert sample.share == pytest.approx((last - first) / rows)
        assert sample.problem.flops == pytest.approx(problem.flops * sample.share)


def test_interior_rows_need_no_padding() -> None:
    problem = layer("r04", "resnet50").problem()
    sample = verify.cut(problem, make_tensors(problem), range(1), range(20, 23))
    assert sample.problem.padding == ((0, 0), (1, 1))
    assert sample.problem.input_shape == (1, 64, 5, 56)


@pytest.mark.parametrize(
    ("seconds", "batch", "whole_images"), [(100.0, 4, True), (0.02, 2, True), (1e-9, 1, False)]
)
def test_the_reference_gets_what_it_can_do_in_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, batch: int, whole_images: bool
) -> None:
    problem = Conv2dProblem.from_shapes((4, 1, 10, 10), (1, 1, 1, 1))
    # A clock that says 1 ms between two looks at it: so long takes a row of ten.
    ticks = iter(range(100))
    fake = SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3)
    monkeypatch.setattr(verify, "time", fake)
    monkeypatch.setattr(verify, "REFERENCE_SECONDS", seconds + 1e-6)
    tensors = make_tensors(problem)
    sample = verify.sample_for_reference(problem, "forward", tensors, algorithm(REFERENCE))
    assert sample.problem.input_shape[0] == batch
    assert (sample.problem.OH == 10) == whole_images
    assert sample.share == batch * sample.problem.OH / 40


def known(direction: Direction = "forward", **others: Algorithm) -> dict[str, Algorithm]:
    return {each.name: each for each in conv_registry.offering(direction)} | others


def test_of_a_slow_row_the_reference_gets_some_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Conv2dProblem.from_shapes((1, 1, 10, 10), (100, 1, 1, 1))
    ticks = iter(range(100))  # 32 channels of a row take 1 ms
    monkeypatch.setattr(verify, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3))
    tensors = make_tensors(problem)
    for seconds, channels, rows in ((1e-9, 32, 1), (2e-3, 64, 1), (7e-3, 100, 2)):
        monkeypatch.setattr(verify, "REFERENCE_SECONDS", seconds + 1e-6)
        sample = verify.sample_for_reference(problem, "forward", tensors, algorithm(REFERENCE))
        assert (channels, rows) == (sample.problem.K, sample.problem.OH)
        assert sample.share == pytest.approx(channels * rows / 1000)


class _Oracle:
    """An oracle for r04-like rows, where only some rows are known from the reference."""

    def __init__(self, direction: Direction, **others: Algorithm) -> None:
        self.problem = Conv2dProblem.from_shapes((2, 3, 14, 10), (4, 3, 3, 3), padding=1)
        self.tensors = make_tensors(self.problem)
        sample = verify.cut(self.problem, self.tensors, range(1), range(6, 9))
        algorithms = known(direction, **others)
        self.oracle = verify.Oracle(self.problem, direction, self.tensors, algorithms, sample)
        self.oracle.find_truth()
        call = make_call(self.problem, direction, algorithm("im2col", direction), self.tensors)
        call.run()
        self.result = call.out


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mistake", [np.nan, np.inf, 0.01])
def test_one_wrong_element_anywhere_is_found(direction: Direction, mistake: float) -> None:
    case = _Oracle(direction)
    im2col = algorithm("im2col", direction)
    assert case.oracle.check(im2col, case.result).correct
    for place in (0, case.result.size // 2, -1):
        wrong = case.result.copy()
        wrong.flat[place] += mistake
        assert not case.oracle.check(im2col, wrong).correct


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_algorithm_that_fails_on_the_sample_is_found(direction: Direction) -> None:
    case = _Oracle(direction)
    check = case.oracle.check(WRONG, case.result)  # the whole result is right
    assert not check.correct
    assert check.error > 0.01


class WrongAtTheEnd(NeverChosen, Forward):
    """Is right but for one element of large problems, which no sample shows."""

    def run(self, problem: Any, x: Any, prepared: Any, bias: Any, out: Any) -> None:
        """Add something to the last element."""
        algorithm(REFERENCE).forward.run(problem, x, prepared, bias, out)
        out.flat[-1] += problem.OH > 3


LATE = Algorithm("late", WrongAtTheEnd())


@pytest.mark.parametrize(
    "others",
    [
        {NAIVE: WRONG},
        {IM2COL: WRONG},
        {NAIVE: WRONG, IM2COL: WRONG},
        {IM2COL: LATE},
        {NAIVE: LATE},
        {NAIVE: WRONG, IM2COL: LATE},
    ],
)
def test_the_truth_needs_nobody_but_the_reference(others: dict[str, Algorithm]) -> None:
    case = _Oracle("forward", **others)
    assert case.oracle.check(algorithm("im2col"), case.result).correct
    assert not case.oracle.check(WRONG, case.result).correct
