"""The benchmark harness: a wrong result is found, a time is what the clock said."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference as oracle

from fastconv import registry
from fastconv.bench import files, images, measure, plot, suites, verify, warmup
from fastconv.bench.calls import make_call, make_tensors
from fastconv.bench.errors import BenchError, require
from fastconv.bench.machine import Peak, header
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.run import NAIVE, REFERENCE, Options, measure_layer, run, with_peak
from fastconv.bench.scores import geometric_mean, scores
from fastconv.convolution.base import Algorithm
from fastconv.problem import DIRECTIONS, Conv2dProblem, Direction

QUICK = Options(rounds=3, seconds=0.01, batch=3)


def silent(text: str) -> None:
    """Take no notice of what is being done."""


def layer(identity: str, suite: str = "small") -> suites.Layer:
    return next(each for each in suites.load_suite(suite) if each.id == identity)


def algorithm(name: str, direction: Direction = "forward") -> Algorithm:
    return next(each for each in registry.offering(direction) if each.name == name)


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
    ("wishes", "right"),
    [
        ({"suites": ["resnet"]}, "resnet50"),
        ({"layers": ["r99"]}, "r20"),
        ({"suites": ["vgg16"], "layers": ["r04"]}, "v5"),
    ],
)
def test_unknown_names_are_refused_with_the_right_ones(wishes: Any, right: str) -> None:
    with pytest.raises(BenchError, match=rf"must be one of .*{right}.*, got '"):
        suites.select(**wishes)


def test_missing_extra_is_named() -> None:
    with pytest.raises(BenchError, match=r"pip install 'fastconv\[bench\]'"):
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
    x = images.image_batch(here, here.problem(batch=3))
    np.testing.assert_array_equal(x[2], x[0])
    assert not np.array_equal(x[1], x[0])


def test_edge_filters_find_edges() -> None:
    here = layer("digits_edges", "images")
    weight = images.filters(here, here.problem(), np.random.default_rng(0))
    step = np.zeros((1, 1, 5, 6))
    step[..., 3:] = 1  # dark to bright, from left to right
    sobel_x, sobel_y, laplace, sharpened = oracle.conv2d(step, weight)[0]
    np.testing.assert_array_equal(sobel_x, [[0, 1, 1, 0]] * 3)
    np.testing.assert_array_equal(sobel_y, np.zeros((3, 4)))
    np.testing.assert_array_equal(laplace, [[0, 0.25, -0.25, 0]] * 3)
    np.testing.assert_array_equal(sharpened, [[0, -1, 2, 1]] * 3)


def test_blur_keeps_the_brightness() -> None:
    here = layer("photo_blur", "images")
    weight = images.filters(here, here.problem(), np.random.default_rng(0))
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
    # One call to find out how long it takes, then one a round: long calls need no warming up.
    assert len(slow_calls) == 1 + measure.FEWEST_ROUNDS
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
        sample = verify.cut(problem, tensors, range(1, 2), range(first, last))
        part = make_call(sample.problem, "forward", algorithm(REFERENCE), sample.tensors)
        part.run()
        np.testing.assert_allclose(part.out, whole.out[1:2, :, first:last], rtol=1e-4, atol=1e-5)
        assert sample.share == pytest.approx((last - first) / (problem.N * problem.OH))
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


class _Oracle:
    """An oracle for r04-like rows, where only some rows are known from the reference."""

    def __init__(self, direction: Direction, naive: Algorithm | None = None) -> None:
        self.problem = Conv2dProblem.from_shapes((2, 3, 14, 10), (4, 3, 3, 3), padding=1)
        self.tensors = make_tensors(self.problem)
        sample = verify.cut(self.problem, self.tensors, range(1), range(6, 9))
        self.oracle = verify.Oracle(
            self.problem,
            direction,
            self.tensors,
            sample,
            algorithm(REFERENCE, direction),
            naive or algorithm(NAIVE, direction),
        )
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
    check = case.oracle.check(Wrong(), case.result)  # the whole result is right
    assert not check.correct
    assert check.error > 0.01


def test_without_a_trustworthy_naive_the_sample_still_counts() -> None:
    case = _Oracle("forward", naive=Wrong())
    assert case.oracle.check(algorithm("im2col"), case.result).correct
    assert not case.oracle.check(Wrong(), case.result).correct


# The run -----------------------------------------------------------------------------------------


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


def test_new_algorithms_take_part_and_wrong_ones_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = registry.ALGORITHMS
    monkeypatch.setattr(registry, "ALGORITHMS", (Wrong(), Raising(), Picky(), *known))
    result = measure_layer(layer("rgb8"), "forward", QUICK, silent)
    records = {record.algorithm: record for record in result.records}
    assert list(records) == ["wrong", "raising", *(each.name for each in known)]
    assert result.refused == ("picky",)
    for name in ("wrong", "raising"):
        assert not records[name].correct
        assert records[name].median_s is None
        assert records[name].gflops is None
    assert (records["wrong"].max_rel_error or 0) > (records["wrong"].tolerance or 1)
    assert records["raising"].failure == "ZeroDivisionError: no luck"
    assert all(records[each.name].correct for each in known)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_records(direction: Direction, dtype: str) -> None:
    options = dataclasses.replace(QUICK, dtype=dtype)
    result = measure_layer(layer("rgb8"), direction, options, silent)
    assert [r.algorithm for r in result.records] == list(registry.algorithms(direction))
    by_name = {record.algorithm: record for record in result.records}
    for record in result.records:
        assert (record.suite, record.layer, record.direction) == ("small", "rgb8", direction)
        assert (record.batch, record.C, record.K, record.OH, record.dtype) == (3, 3, 5, 8, dtype)
        assert record.correct
        assert record.median_s
        assert record.gflops == pytest.approx(record.gflop / record.median_s)
        assert record.max_rel_error is not None
        assert record.tolerance is not None
        assert record.max_rel_error <= record.tolerance
        assert record.rounds >= measure.FEWEST_ROUNDS
        for baseline, speedup in (
            (REFERENCE, record.speedup_over_reference),
            (NAIVE, record.speedup_over_naive),
        ):
            assert speedup == pytest.approx((by_name[baseline].median_s or 0) / record.median_s)
    assert sum(record.chosen_by_auto for record in result.records) == 1
    assert by_name[REFERENCE].speedup_over_reference == 1


def test_large_layers_are_timed_on_a_part_of_the_reference() -> None:
    options = dataclasses.replace(QUICK, batch=None, algorithms=(REFERENCE,))
    result = measure_layer(layer("mnist_s2"), "forward", options, silent)
    (record,) = result.records  # naive was measured, but not asked for
    assert record.reference_is_estimate
    assert (record.median_s or 0) > 3 * verify.REFERENCE_SECONDS
    assert record.speedup_over_naive
    assert record.speedup_over_naive < 1


def test_a_run_goes_through_all_items() -> None:
    items = suites.select(layers=["rgb8", "digits"], directions=["forward", "weight_grad"])
    peak = Peak("float32", 1)
    told: list[str] = []
    results = list(run(items, dataclasses.replace(QUICK, batch=1), peak, told.append))
    done = [(result.layer.id, result.direction) for result in results]
    assert done == [(i, d) for i in ("rgb8", "digits") for d in ("forward", "weight_grad")]
    assert len(peak.samples) == 4
    assert peak.best == max(peak.samples) > 0.1
    assert "digits weight_grad: measuring" in told
    record = with_peak(results[0], 10.0).records[0]
    assert record.fraction_of_peak == pytest.approx((record.gflops or 0) / 10)


# Scores ------------------------------------------------------------------------------------------


def result_of(identity: str, auto: str, **seconds: float) -> LayerResult:
    """Return a made-up result: the algorithms' times, and which of them auto runs."""
    here = layer(identity)
    problem = here.problem()
    records = tuple(
        Record(
            **{"suite": "small", "layer": identity, "direction": "forward", "algorithm": name},
            **{"batch": 1, "dtype": "float32", "threads": 1, "workspace_bytes": 0},
            **dict.fromkeys(("C", "K", "H", "W", "R", "S", "OH", "OW"), 1),
            **{"stride": 1, "padding": 0, "groups": 1, "count": 1, "gflop": 1.0},
            chosen_by_auto=name == auto,
            correct=True,
            median_s=time,
            gflops=1 / time,
            speedup_over_reference=seconds["reference"] / time,
            speedup_over_naive=seconds["naive"] / time,
        )
        for name, time in seconds.items()
    )
    return LayerResult(here, "forward", problem, records, ())


def test_scores() -> None:
    results = [
        result_of("rgb8", "a", a=1.0, b=1.04, naive=2.0, reference=100.0),
        result_of("digits", "b", a=1.0, b=1.04, naive=8.0, reference=400.0),
        result_of("mnist1", "b", a=1.0, b=1.5, naive=3.0, reference=150.0),
    ]
    (score,) = scores(results, peak=2.0)
    assert (score.title, score.algorithm, score.layers, score.best) == ("small", "auto", 3, 2)
    assert score.worst == pytest.approx(0.5)
    assert score.worst_layer == "mnist1 forward"
    assert score.over_naive == pytest.approx((2 * 8 / 1.04 * 3 / 1.5) ** (1 / 3))
    assert score.over_reference == pytest.approx((100 * 400 / 1.04 * 150 / 1.5) ** (1 / 3))
    assert score.of_peak == pytest.approx((1 / 2 / (2 * 1.04) / (2 * 1.5)) ** (1 / 3))
    (only,) = scores(results, peak=2.0, algorithms=["b"])
    assert (only.algorithm, only.best) == ("b", 2)


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0, None]) == pytest.approx(4)
    assert math.isnan(geometric_mean([None]))


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results() -> list[LayerResult]:
    return [
        measure_layer(layer("rgb8"), direction, QUICK, silent)
        for direction in ("forward", "weight_grad")
    ]


def top() -> dict[str, Any]:
    peak = Peak("float32", 1)
    peak.measure()
    return header(peak, "float32", ["fastconv", "bench"], complete=True)


def test_header_tells_where_the_numbers_come_from() -> None:
    content = top()
    assert content["cpu"]["name"]
    assert content["peak_gflops"] == max(content["peak_samples_gflops"])
    assert content["date"].endswith("+00:00")
    assert {"python", "numpy", "numba", "llvmlite", "fastconv"} <= set(content["versions"])
    assert content["threads"] >= 1
    assert content["threading_layer"]


def test_json_and_csv_hold_the_same_records(tmp_path: Path, results: list[LayerResult]) -> None:
    records = [record for result in results for record in result.records]
    broken = dataclasses.replace(records[0], max_rel_error=math.nan, spread_s=math.inf)
    files.write_json(tmp_path / "r.json", top(), [broken, *records])
    files.write_csv(tmp_path / "r.csv", [broken, *records])
    content = json.loads((tmp_path / "r.json").read_text())
    with open(tmp_path / "r.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert content["records"][0]["max_rel_error"] is None
    assert rows[0]["spread_s"] == ""
    assert content["records"][1] == dataclasses.asdict(records[0])
    assert len(rows) == len(content["records"]) == 1 + len(records)
    for row, record in zip(rows, content["records"], strict=True):
        assert list(row) == list(record)
        assert row["median_s"] == str(record["median_s"])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def fail(file: Path) -> None:
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_targets_are_checked_beforehand(tmp_path: Path) -> None:
    files.check_target("--json", tmp_path / "new.json")
    assert list(tmp_path.iterdir()) == []
    for path in (tmp_path, tmp_path / "missing" / "r.json", Path("/dev/null")):
        with pytest.raises(BenchError, match="--json"):
            files.check_target("--json", path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    files.write_csv(tmp_path / "link.csv", [])
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("suite,layer,")


@pytest.mark.parametrize(
    ("name", "begins"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.PDF", b"%PDF")]
)
def test_plot(tmp_path: Path, results: list[LayerResult], name: str, begins: bytes) -> None:
    plot.check_plot(tmp_path / name)
    plot.write_plot(tmp_path / name, top(), results)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_plot_needs_a_known_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"must end in \.png, \.svg, \.pdf"):
        plot.check_plot(tmp_path / "p.gif")


def test_plot_tells_many_algorithms_apart(results: list[LayerResult]) -> None:
    first = results[0].records[0]
    many = tuple(dataclasses.replace(first, algorithm=f"number {i}") for i in range(11))
    styles = plot._styles([dataclasses.replace(results[0], records=many)])
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 11


# Kernels on disk ---------------------------------------------------------------------------------


def test_clearing_touches_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "cache"))
    warmup.usable_folder.cache_clear()
    own, other = tmp_path / "cache" / "0123456789abcdef", tmp_path / "cache" / "photographs"
    mixed, away = tmp_path / "cache" / "fedcba9876543210", tmp_path / "away"
    for folder in (own, other, mixed, away):
        folder.mkdir(parents=True)
        (folder / "one.kernel").write_text("x")
    (mixed / "letter.txt").write_text("dear")
    (tmp_path / "cache" / "aaaaaaaaaaaaaaaa").symlink_to(away)
    (tmp_path / "cache" / "loose.kernel").write_text("x")
    try:
        assert len(warmup.stored_kernels(tmp_path / "cache").files) == 4
        assert warmup.clear() == 2
    finally:
        warmup.usable_folder.cache_clear()
    assert not own.exists()
    assert [entry.name for entry in mixed.iterdir()] == ["letter.txt"]
    assert (other / "one.kernel").exists()
    assert (away / "one.kernel").exists()
    assert (tmp_path / "cache" / "loose.kernel").exists()


def test_clearing_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "none"))
    try:
        assert warmup.clear() == 0
    finally:
        warmup.usable_folder.cache_clear()


def test_warming_up_reaches_every_algorithm_and_direction() -> None:
    names = {name for name, _ in warmup.steps(["float64"])}
    for direction in DIRECTIONS:
        for name in registry.algorithms(direction):
            assert f"{name} {direction} float64" in names
