"""Other libraries beside fastconv: where it stands, and what the command prints and writes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peer_doubles as doubles
import pytest
from bench_doubles import QUICK, layer, silent
from processes import nobody_left_behind

from fastconv import cli
from fastconv.bench.machine import Peak
from fastconv.bench.peers import compare_peers, peers_command
from fastconv.bench.peers.compare_peers import Crew, measure_layer
from fastconv.bench.peers.peer_runtimes import PEERS, Fastconv
from fastconv.bench.peers.peers_report import PeersReport
from fastconv.bench.peers.standings import BEST, best_peer, standings
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item
from fastconv.runtime import threads


@pytest.fixture(autouse=True)
def _nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nobody_left_behind(monkeypatch):
        yield


# Standings ---------------------------------------------------------------------------------------


def result_of(
    identity: str, count: int, suite: str = "small", error: float = 0.0, **seconds: float | None
) -> LayerResult:
    """Return a made-up result; the error is that of MNN."""
    here = layer(identity, suite)
    records = tuple(
        Record(
            **{"suite": suite, "layer": identity, "direction": "forward", "algorithm": name},
            **{"batch": 1, "dtype": "float32", "threads": 1, "workspace_bytes": None},
            **dict.fromkeys(("C", "K", "H", "W", "R", "S", "OH", "OW"), 1),
            **{"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "count": count, "gflop": 1.0},
            chosen_by_auto=name == "fastconv",
            correct=time is not None,
            max_rel_error=error if name == "mnn" else 1e-7,
            tolerance=5e-3,
            median_s=time,
            contender=name,
            time_over_fastconv=time and time / (seconds["fastconv"] or 1.0),
        )
        for name, time in seconds.items()
    )
    return LayerResult(here, "forward", here.problem(), records, ())


def test_standings() -> None:
    results = [
        result_of("rgb8", 3, fastconv=1.0, torch=2.0, jax=4.0),
        result_of("digits", 1, fastconv=2.0, torch=None, jax=1.0),
        result_of("mnist1", 5, fastconv=None, torch=1.0, jax=1.0),
    ]
    found = {standing.peer: standing for standing in standings(results)}
    assert list(found) == [BEST, "torch", "jax"]
    assert {(each.title, each.contender) for each in found.values()} == {("small", "fastconv")}
    best = found[BEST]
    assert (len(best.ratios), best.ahead) == (2, 1)
    assert best.mean == pytest.approx(1.0)
    assert best.weighted == pytest.approx((2**3 * 0.5) ** (1 / 4))
    assert found["torch"].mean == found["torch"].weighted == pytest.approx(2.0)
    assert found["jax"].mean == pytest.approx(2**0.5)
    worst = best.worst
    assert (worst.value, worst.peer.layer, worst.peer.contender) == (0.5, "digits", "jax")
    assert standings([result_of("rgb8", 1, fastconv=1.0)]) == []
    fastest = best_peer(results[0])
    assert fastest is not None
    assert fastest.contender == "torch"


def test_who_is_inexact_is_nobodys_best() -> None:
    for error, best in ((1.9e-5, "mnn"), (2.1e-5, "torch")):
        result = result_of("rgb8", 1, fastconv=1.0, torch=2.0, mnn=0.5, error=error)
        fastest = best_peer(result)
        assert fastest is not None
        assert fastest.contender == best
        found = {standing.peer: standing for standing in standings([result])}
        assert found[BEST].ahead == (best == "torch")
        assert found["mnn"].mean == pytest.approx(0.5)
        assert found["mnn"].error == error
    assert best_peer(result_of("rgb8", 1, fastconv=1.0, mnn=0.5, error=1e-3)) is None


def test_who_is_inexact_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        result_of("rgb8", 1, fastconv=1e-3, torch=2e-3, mnn=0.5e-3, error=1e-3),
        result_of("digits", 1, fastconv=1e-3, torch=2e-3, mnn=0.5e-3, error=1e-6),
    ]
    report = PeersReport([Fastconv()], PEERS)
    for result in results:
        report.layer(result)
    first, second = re.findall("^ mnn .*$", capsys.readouterr().out, re.MULTILINE)
    assert re.search(r"\(500 µs\) .* \(0\.50x\) +1\.0e-03$", first)
    assert re.search(r" 500 µs .* 0\.50x +1\.0e-06$", second)
    report.summary(results, _peak())
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"  mnn +2 +0 +1\.0e-03( +\(0\.50x\)){3} on rgb8$", line) for line in lines)
    assert any(re.match(r"  torch +2 +2 +1\.0e-07( +2\.00x ){3} on rgb8$", line) for line in lines)
    best = next(line for line in lines if line.startswith("  best peer"))
    assert best.endswith("on digits (mnn)")  # where its error is small, it counts


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def crew_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = (doubles.Right(), doubles.Absent())
    monkeypatch.setattr(peers_command, "PEERS", peers)


def end_of(*arguments: str | Path) -> int:
    before = threads.get_num_threads()
    try:
        with pytest.raises(SystemExit) as end:
            cli.build()(["bench", "--peers", *map(str, arguments)])
    finally:
        threads.set_num_threads(before)
    return int(end.value.code or 0)


TINY = ("--layer", "rgb8", "--batch", "2", "--quick", "--rounds", "3")


@pytest.mark.usefixtures("crew_of_two")
def test_command_prints_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("r.json", "r.csv", "r.svg")]
    targets = ("--json", paths[0], "--csv", paths[1], "--plot", paths[2])
    assert end_of(*TINY, "--threads", "1", *targets) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "not installed: absent (needs no_such_package_anywhere)" in captured.out
    row = r" +[\d.]+ [mµ]s +[\d.]+% +[\d.]+ .* [\d.]+% +[\d.]+x +\d\.\de-\d\d$"
    assert re.search(rf"^ fastconv  \w+{row}", captured.out, re.MULTILINE)
    assert re.search(rf"^ right{row}", captured.out, re.MULTILINE)
    assert re.search(r"^  best peer +1 +[01] .* on rgb8 \(right\)$", captured.out, re.MULTILINE)
    assert max(map(len, captured.out.splitlines())) <= 100
    content = json.loads(paths[0].read_text())
    assert content["header"]["peers"] == {"right": np.__version__, "absent": None}
    assert [record["contender"] for record in content["records"]] == ["fastconv", "right"]
    assert all(record["fraction_of_peak"] for record in content["records"])
    with open(paths[1], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["contender"] for row in rows] == ["fastconv", "right"]
    assert paths[2].stat().st_size > 0


def test_lines_are_at_most_100_wide(capsys: pytest.CaptureFixture[str]) -> None:
    report = PeersReport([Fastconv()], PEERS)
    names = ("fastconv", *(peer.name for peer in PEERS))
    results = [result_of("photo_sharpen", 1, "images", **dict.fromkeys(names, 1.2345))]
    report.layer(results[0])
    report.summary(results, _peak())
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert any(line.startswith(f" {name} ") for line in lines)
    assert max(map(len, lines)) <= 100


def _peak() -> Peak:
    peak = Peak("float32", 1)
    peak.measure()
    return peak


def test_wrong_peers_end_with_1_and_failed_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for peers, code in (((doubles.Wrong(),), 1), ((doubles.Raising(),), 0)):
        monkeypatch.setattr(peers_command, "PEERS", peers)
        assert end_of(*TINY) == code
    out = capsys.readouterr().out
    assert "WRONG: wrong on rgb8 forward: error 1.0e-02" in out
    assert "failed: raising on rgb8 forward: ZeroDivisionError: no luck" in out


@pytest.mark.usefixtures("crew_of_two")
def test_command_takes_named_algorithms(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(*TINY, "--algorithm", "im2col", "--algorithm", "naive") == 0
    out = capsys.readouterr().out
    assert re.search(r"^ fastconv  im2col +\d", out, re.M)
    assert re.search(r"^ fastconv  naive +\d", out, re.M)
    assert re.findall(r"^small (\w+) +layers", out, re.M) == ["im2col", "naive"]


@pytest.mark.usefixtures("crew_of_two")
def test_interrupted_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def second_time(*arguments: Any) -> LayerResult:
        done.append("one")
        if len(done) == 2:
            raise KeyboardInterrupt
        return measure_layer(*arguments)

    monkeypatch.setattr(compare_peers, "measure_layer", second_time)
    assert end_of(*TINY, "--layer", "digits") == 130
    out = capsys.readouterr().out
    assert "interrupted" in out
    assert "  best peer" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--dtype", "float64"), "float32"), (("--direction", "all"), "one direction at a time")],
)
def test_command_refuses(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(*TINY, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_a_run_measures_the_peak_before_each_layer() -> None:
    items = [Item(layer(name), ("forward",)) for name in ("rgb8", "digits")]
    peak = Peak("float32", 1)
    options = dataclasses.replace(QUICK, batch=1)
    with Crew([Fastconv()], 1) as crew:
        results = list(compare_peers.run(items, crew, options, peak, silent))
    assert [result.layer.id for result in results] == ["rgb8", "digits"]
    assert len(peak.samples) == 2
    assert all(result.records[0].fraction_of_peak for result in results)
