"""`fastconv tune`: what it measures, keeps and prints, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import test_cli
from bench_doubles import QUICK, RaisingForward, WrongForward, layer, silent
from test_cli import Command, in_new_process, one_error

import fastconv
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.machine import Peak
from fastconv.bench.suites import Item, Layer
from fastconv.bench.tuning import findings, tune_command
from fastconv.bench.tuning.user_layers import load_shapes
from fastconv.convolution.algorithm import Algorithm, Forward
from fastconv.core.precision import Precision
from fastconv.select import conv_registry, tuning

TWO_LAYERS = "id,C,K,H,W,R,S,stride,padding,groups,count,N\nfirst,3,4,8,9,3,3,1,1,1,1,2\n"
TWO_LAYERS += "second,4,4,6,6,3,3,2,0,4,1,\n"


command = test_cli.command


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Name a file for measurements."""
    path = tmp_path / "folder" / "tuning.jsonl"
    path.parent.mkdir()
    monkeypatch.setenv("FASTCONV_TUNING_FILE", str(path))
    yield path
    fastconv.set_tuning(False)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    path = tmp_path / "layers.csv"
    path.write_text(TWO_LAYERS)
    return path


# The command -------------------------------------------------------------------------------------


def test_what_is_tuned_is_followed(command: Command, file: Path, shapes: Path) -> None:
    options = ("--direction", "all", "--threads", "1", "--quick")
    outcome = command("tune", "--model-shapes", shapes, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert len(re.findall(r"^(first|second)( \w+)? +[12]x", outcome.out, re.MULTILINE)) == 6
    assert re.search(r"of 6 choices: \d within 3%, \d within 10% of the fastest", outcome.out)
    assert re.search(r"than by estimate on \d of 6", outcome.out)
    assert str(file) in outcome.out

    table = tuning.read(file)
    assert (len(table.times), table.damaged, table.others) == (6, (), 0)
    problem = fastconv.Conv2dProblem.from_shapes((2, 3, 8, 9), (4, 3, 3, 3), padding=1)
    times = table.seconds(problem, "forward", 1)
    assert {"direct", "implicit_gemm", "im2col"} <= set(times)
    assert "depthwise" not in times
    assert not table.seconds(problem, "forward", 2)

    environment = {"FASTCONV_TUNING": "on", "FASTCONV_NUM_THREADS": "1"}
    told = in_new_process("explain", "2,3,8,9,4,3,3", "--padding", "1", environment=environment)
    assert "chosen by measurement on 1 thread," in told.out
    runs = re.search(r"^\* (\w+) .*measured ([\d.]+) ms$", told.out, re.MULTILINE)
    assert runs
    assert times[runs[1]] <= 1.03 * min(times.values())
    environment["FASTCONV_TUNING"] = "off"
    told = in_new_process("explain", "2,3,8,9,4,3,3", "--padding", "1", environment=environment)
    assert "chosen by estimate" in told.out


def test_two_programs_tune_at_once(file: Path, shapes: Path) -> None:
    program = [sys.executable, "-m", "fastconv", "tune", "--model-shapes", str(shapes), "--quick"]
    both = [
        subprocess.Popen([*program, "--threads", threads], stdout=subprocess.PIPE, text=True)
        for threads in ("1", "2")
    ]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    table = tuning.read(file)
    assert sorted(threads for _, _, threads in table.times) == [1, 1, 2, 2]
    assert not table.damaged


def test_invalid_arguments(command: Command, file: Path, shapes: Path) -> None:
    for arguments, message in (
        (("--suite", "resnet"), "suite must be one of"),
        (("--suite", "small", "--model-shapes", shapes), "cannot be combined"),
        (("--direction", "sideways"), "direction must be one of"),
        (("--dtype", "int8"), "dtype must be one of"),
        (("--model-shapes", shapes.with_name("none.csv")), "No such file"),
        (("--model-shapes", shapes, "--batch", str(2**31)), "2147483647"),
    ):
        assert message in one_error(command("tune", *arguments))
    assert list(file.parent.iterdir()) == []


def test_places_that_cannot_be_written_are_told_before_measuring(
    command: Command,
    file: Path,
    shapes: Path,
) -> None:
    def refusal() -> str:
        return one_error(command("tune", "--model-shapes", shapes, "--quick"))

    file.parent.rmdir()
    assert "FASTCONV_TUNING_FILE must name a file in a folder that exists" in refusal()
    assert not file.parent.exists()
    file.parent.write_text("in the way")
    assert "FASTCONV_TUNING_FILE" in refusal()
    file.parent.unlink()
    file.mkdir(parents=True)
    assert f"{file} is not a file" in refusal()
    file.rmdir()
    file.write_text("My thesis\nis here.\n")
    assert "which holds something else: remove it" in refusal()
    assert file.read_text() == "My thesis\nis here.\n"


def test_the_folder_for_all_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setenv("FASTCONV_TUNING_FILE", "")
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "new" / "folder"))
    assert tune_command.target() == tmp_path / "new" / "folder" / "tuning.jsonl"
    assert not list(file.parent.iterdir())


def test_ctrl_c_keeps_what_was_measured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_then_interrupted(items: object, options: object, peak: Peak, tell: object) -> Any:
        peak.measure()
        for _ in range(2):
            yield findings.find(layer("rgb8"), "forward", QUICK, silent)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_command, "tune", two_then_interrupted)
    assert tune_command.tune_all([Item(layer("rgb8"), ("forward",))], QUICK) == 130
    assert len(file.read_bytes().splitlines()) == 3  # each ends the line before
    assert len(tuning.read(file).times) == 1


# Findings ----------------------------------------------------------------------------------------


def test_wrong_algorithms_are_told_and_not_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fast(WrongForward):
        def estimated_seconds(self, *arguments: object) -> float:
            """Be ahead of all."""
            return 1e-6

    class Slow(RaisingForward):
        def estimated_seconds(self, *arguments: object) -> float:
            """Not be worth a trial."""
            return 1.0

    strangers = Algorithm("fast", Fast()), Algorithm("slow", Slow())
    monkeypatch.setattr(conv_registry, "ALGORITHMS", (*strangers, *conv_registry.ALGORITHMS))
    items = [Item(layer("rgb8"), ("forward",))] * 2  # the second one is no new problem
    assert tune_command.tune_all(items, QUICK) == 1
    printed = capsys.readouterr().out
    assert "WRONG: fast: error" in printed
    assert "slow" not in printed
    assert printed.count("rgb8") == 1
    (kept,) = tuning.read(file).times.values()
    assert "fast" not in kept
    fastconv.set_tuning(True)
    plan = fastconv.plan_conv2d((3, 3, 8, 8), np.ones((5, 3, 3, 3), np.float32), padding=1)
    assert "* fast " not in plan.explain()
    assert "chosen by measurement" in plan.explain()


def test_other_precisions_need_no_other_measurement(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rough(Forward):
        def estimated_seconds(self, *arguments: object) -> float:
            """Be ahead of all."""
            return 1e-6

        def run(self, *arguments: Any) -> None:
            """Take the compiled loops, and be found right."""
            conv_registry.ALGORITHMS[-2].forward.run(*arguments)

    rough = Algorithm("rough", Rough(), precision="high")
    monkeypatch.setattr(conv_registry, "ALGORITHMS", (rough, *conv_registry.ALGORITHMS))
    for precision in get_args(Precision):
        with fastconv.at_precision(precision):
            finding = findings.find(layer("rgb8"), "forward", QUICK, silent)
        assert {"rough", "direct"} <= set(finding.seconds)
        assert (finding.estimated == "rough") == (precision == "high")
    assert finding.fastest != "rough"
    seconds = {"direct": 3e-5, "im2col": 2e-5, "rough": 1e-5}
    tuning.append(file, dataclasses.replace(finding.measurement, seconds=seconds))
    fastconv.set_tuning(True)
    weight = np.ones((5, 3, 3, 3), np.float32)
    assert fastconv.plan_conv2d((3, 3, 8, 8), weight, padding=1).algorithm == "rough"
    with fastconv.at_precision("highest"):
        plan = fastconv.plan_conv2d((3, 3, 8, 8), weight, padding=1)
    assert plan.algorithm == "im2col"
    assert "chosen by measurement" in plan.explain()
    assert plan.explain().endswith("with precision 'highest'")


# A user's own layers -----------------------------------------------------------------------------


def test_layers_from_a_table_and_from_a_list(tmp_path: Path, shapes: Path) -> None:
    first, second = load_shapes(shapes)
    assert (first.id, first.C, first.K, first.H, first.W, first.padding) == ("first", 3, 4, 8, 9, 1)
    assert (first.batch, second.batch, second.stride, second.groups) == (2, 1, 2, 4)
    (short,) = written(tmp_path / "s.CSV", "\ufeffK, C, H, W, R, S\r\n8,4,6,7,3,1\r\n\r\n")
    assert (short.id, short.C, short.K, short.S, short.batch) == ("line 2", 4, 8, 1, 1)
    (odd,) = written(tmp_path / "o.csv", "id,C,K,H,W,R,S\na\u2028b,3,4,8,8,3,3\n")
    assert odd.id == "a\u2028b"  # that ends no line of a table
    content = [{"id": 7, "C": 3, "K": 4, "H": 8, "W": 9, "R": 3, "S": 3, "N": 5, "padding": 2}]
    (listed,) = written(tmp_path / "l.json", json.dumps(content))
    assert (listed.id, listed.batch, listed.padding, listed.stride) == ("7", 5, 2, 1)


def written(path: Path, text: str) -> tuple[Layer, ...]:
    path.write_text(text, encoding="utf-8")
    return load_shapes(path)


NAMES = "C,K,H,W,R,S,padding\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", NAMES, r"must end in \.csv or \.json"),
        ("x.csv", "", "line 1 must name each column once, C,K,H,W,R,S at least"),
        ("x.csv", "C,K,H,W,R\n1,1,1,1,1", "line 1 must name"),
        ("x.csv", "C,C,K,H,W,R,S\n1,1,1,1,1,1,1", "line 1 must name each column once"),
        ("x.csv", NAMES, "describes no layer"),
        ("x.csv", NAMES + "3,4,8,8,3,3,1\n3,4,8,8,3,3", "line 3: 7 columns are named, got 6"),
        ("x.csv", NAMES + "3,4,8,8,3,three,1", "line 2: S must be a whole number, got 'three'"),
        ("x.csv", NAMES + "3,4,8,8,3,,1", "line 2: S is missing"),
        ("x.csv", NAMES + f"3,{'4' * 200_000},8,8,3,3,1", "line 2: field larger than"),
        ("x.csv", NAMES + "3,0,8,8,3,3,1", "line 2: K must be between 1"),
        ("x.csv", NAMES + "3,4,8,8,3,3,-1", "line 2: padding must be between 0"),
        ("x.csv", NAMES + "3,4,2,2,3,3,0", "line 2: .* padded input"),
        ("x.csv", NAMES + "3,4,8,1.5,3,3,1", "line 2: W must be a whole number, got '1.5'"),
        ("x.csv", "dilation," + NAMES + "2,3,4,8,8,3,3,1", "line 2: 'dilation' must be one of"),
        ("x.csv", "groups," + NAMES + "2,3,4,8,8,3,3,1", "line 2: groups must divide"),
        ("x.json", "", "is no JSON"),
        ("x.json", "[" * 10**5, "is no JSON"),
        ("x.json", "{}", "must hold a list of objects, got dict"),
        ("x.json", "[]", "describes no layer"),
        ("x.json", "[3]", "entry 1 must be an object, got 3"),
        ("x.json", '[{"C": 3}]', "entry 1: K is missing"),
        ("x.json", json.dumps([dict.fromkeys("CKHWRS", 2.0)]), "entry 1: C must be an integer"),
        ("x.json", json.dumps([dict.fromkeys("CKHWRS", True)]), "entry 1: C must be an integer"),
    ],
)
def test_bad_layers_are_told_by_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        written(tmp_path / name, text)
    assert name in str(caught.value)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"C,K\xff\xfe\0")
    with pytest.raises(BenchError, match=r"cannot be read from .*x\.csv"):
        load_shapes(path)
