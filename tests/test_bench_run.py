"""The benchmark as a whole: what it records, scores and writes, and how it treats mistakes."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from bench_doubles import PICKY, QUICK, RAISING, WRONG, layer, silent

from fastconv.bench import bench_plot, measure, result_files, suites, verify, warmup
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.bench_run import measure_layer, run, with_peak
from fastconv.bench.machine import Peak, header
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.scores import geometric_mean, scores
from fastconv.bench.verify import NAIVE, REFERENCE
from fastconv.bench.warmup_programs import programs
from fastconv.core.conv_problem import DIRECTIONS, Direction
from fastconv.select import conv_registry

# The run -----------------------------------------------------------------------------------------


def test_new_algorithms_take_part_and_wrong_ones_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = conv_registry.ALGORITHMS
    monkeypatch.setattr(conv_registry, "ALGORITHMS", (WRONG, RAISING, PICKY, *known))
    result = measure_layer(layer("rgb8"), "forward", QUICK, silent)
    records = {record.algorithm: record for record in result.records}
    taking_part = [each.name for each in known if each.name != "depthwise"]
    assert list(records) == ["wrong", "raising", *taking_part]
    assert result.refused == ("picky", "depthwise")
    for name in ("wrong", "raising"):
        assert not records[name].correct
        assert records[name].median_s is None
        assert records[name].gflops is None
    assert (records["wrong"].max_rel_error or 0) > (records["wrong"].tolerance or 1)
    assert records["raising"].failure == "ZeroDivisionError: no luck"
    assert all(records[name].correct for name in taking_part)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_records(direction: Direction, dtype: str) -> None:
    options = dataclasses.replace(QUICK, dtype=dtype)
    result = measure_layer(layer("rgb8"), direction, options, silent)
    names = [r.algorithm for r in result.records]
    assert sorted([*names, *result.refused]) == sorted(conv_registry.algorithms(direction))
    assert result.refused == (() if direction == "weight_grad" else ("depthwise",))
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
    (record,) = result.records  # naive was measured, but not named
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
            **{"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "count": 1, "gflop": 1.0},
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
    return header(peak, complete=True)


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
    result_files.write_json(tmp_path / "r.json", top(), [broken, *records])
    result_files.write_csv(tmp_path / "r.csv", [broken, *records])
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
        result_files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_targets_are_checked_beforehand(tmp_path: Path) -> None:
    result_files.check_target("--json", tmp_path / "new.json")
    assert list(tmp_path.iterdir()) == []
    for path in (tmp_path, tmp_path / "missing" / "r.json", Path("/dev/null")):
        with pytest.raises(BenchError, match="--json"):
            result_files.check_target("--json", path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    result_files.write_csv(tmp_path / "link.csv", [])
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("suite,layer,")


@pytest.mark.parametrize(
    ("name", "begins"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.PDF", b"%PDF")]
)
def test_plot(tmp_path: Path, results: list[LayerResult], name: str, begins: bytes) -> None:
    bench_plot.check_plot(tmp_path / name)
    bench_plot.write_plot(tmp_path / name, top(), results)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_plot_needs_a_known_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"must end in \.png, \.svg, \.pdf"):
        bench_plot.check_plot(tmp_path / "p.gif")


def test_plot_tells_many_algorithms_apart(results: list[LayerResult]) -> None:
    first = results[0].records[0]
    many = tuple(dataclasses.replace(first, algorithm=f"number {i}") for i in range(11))
    styles = bench_plot._styles([dataclasses.replace(results[0], records=many)])
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 11


# Kernels on disk ---------------------------------------------------------------------------------


def test_clearing_touches_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "cache"))
    own, other = tmp_path / "cache" / "0123456789abcdef", tmp_path / "cache" / "photographs"
    mixed, away = tmp_path / "cache" / "fedcba9876543210", tmp_path / "away"
    for folder in (own, other, mixed, away):
        folder.mkdir(parents=True)
        (folder / "one.kernel").write_text("x")
    (mixed / "letter.txt").write_text("dear")
    (tmp_path / "cache" / "aaaaaaaaaaaaaaaa").symlink_to(away)
    (tmp_path / "cache" / "loose.kernel").write_text("x")
    assert len(warmup.stored_kernels(tmp_path / "cache").files) == 4
    assert warmup.clear() == 2
    assert not own.exists()
    assert [entry.name for entry in mixed.iterdir()] == ["letter.txt"]
    assert (other / "one.kernel").exists()
    assert (away / "one.kernel").exists()
    assert (tmp_path / "cache" / "loose.kernel").exists()


def test_clearing_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "none"))
    assert warmup.clear() == 0


def test_warming_up_reaches_every_algorithm_and_direction() -> None:
    names = {name for name, _ in programs("bench", "float64")}
    for direction in DIRECTIONS:
        for name in conv_registry.algorithms(direction):
            assert f"{name} {direction} float64" in names
