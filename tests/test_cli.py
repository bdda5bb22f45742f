"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from test_bench import WRONG

import fastconv
from fastconv import cli
from fastconv.bench.suites import load_suite, suite_names
from fastconv.core.conv_problem import DIRECTIONS
from fastconv.runtime.threads import available_cores
from fastconv.select import conv_registry


class Outcome(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process."""

    def run(*arguments: str | Path) -> Outcome:
        threads = fastconv.get_num_threads()
        try:
            with pytest.raises(SystemExit) as end:
                cli.build()([str(argument) for argument in arguments])
        finally:
            fastconv.set_num_threads(threads)
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return run


def in_new_process(
    *arguments: str, environment: dict[str, str] | None = None, before: str = ""
) -> Outcome:
    """Run the command as a program of its own, its output in pipes."""
    program = (
        f"import sys\n{before}\nfrom fastconv.cli import main\nsys.argv[0] = 'fastconv'\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def one_error(outcome: Outcome) -> str:
    """Return the message of a command that was refused: one line, nothing printed."""
    assert outcome.code == 2
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


COMMANDS = ("bench", "suites", "explain", "run", "profile", "tune", "warmup", "info")
TINY = ("bench", "--layer", "rgb8", "--batch", "2", "--quick")


# The program as such -----------------------------------------------------------------------------


def test_version(command: Command) -> None:
    assert command("--version") == Outcome(0, f"fastconv {fastconv.__version__}\n", "")


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"fastconv {fastconv.__version__}\n"


def test_help_names_all_commands(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert name in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_whole_sentences_and_no_leftovers(command: Command, name: str) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert "----" not in outcome.out  # a heading of docstrings
    for parameter in inspect.signature(getattr(cli, name)).parameters.values():
        (given,) = typing.get_type_hints(getattr(cli, name), include_extras=True)[
            parameter.name
        ].__metadata__
        assert given.help.endswith(".")


def test_unknown_option_is_refused(command: Command) -> None:
    assert command("bench", "--fast").code == 2
    assert command("train").code == 2


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_extras_are_told_in_one_line(package: str) -> None:
    # typer draws its own messages with rich, so it must have been imported before.
    before = f"import typer.rich_utils\nsys.modules[{package!r}] = None"
    message = one_error(in_new_process("bench", before=before))
    assert package in message
    assert 'python -m pip install "fastconv[bench]"' in message


def test_missing_scikit_learn_is_told_in_one_line() -> None:
    before = "sys.modules['sklearn'] = None"
    message = one_error(in_new_process("bench", before=before))
    assert message.startswith("the suite of images needs sklearn")
    assert 'python -m pip install "fastconv[bench]"' in message
    assert in_new_process(*TINY, before=before).code == 0


# bench -------------------------------------------------------------------------------------------


def test_bench_prints_and_writes(command: Command, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("r.json", "r.csv", "r.png")]
    targets = ("--json", paths[0], "--csv", paths[1], "--plot", paths[2])
    outcome = command(*TINY, "--direction", "all", "--threads", "1", *targets)
    assert (outcome.code, outcome.err) == (0, "")
    content = json.loads(paths[0].read_text())
    assert set(content) == {"header", "records"}

    header = content["header"]
    assert header["complete"] is True
    assert header["threads"] == 1
    assert header["dtype"] == "float32"
    assert header["peak_gflops"] > 0
    assert header["command"][0] == "fastconv"
    assert header["versions"]["fastconv"] == fastconv.__version__

    names = {d: [n for n in fastconv.algorithms(d) if n != "depthwise"] for d in DIRECTIONS}
    expected = [(d, name) for d in DIRECTIONS for name in names[d]]
    assert [(r["direction"], r["algorithm"]) for r in content["records"]] == expected
    for record in content["records"]:
        assert record["correct"] is True
        assert (record["suite"], record["layer"], record["batch"]) == ("small", "rgb8", 2)
        assert (record["dtype"], record["threads"]) == ("float32", 1)
        assert (record["C"], record["K"], record["H"], record["R"]) == (3, 5, 8, 3)
        assert record["gflops"] == pytest.approx(record["gflop"] / record["median_s"])
        assert record["fraction_of_peak"] == pytest.approx(record["gflops"] / header["peak_gflops"])
        assert 0 <= record["max_rel_error"] < 1e-5
        assert isinstance(record["reference_is_estimate"], bool)  # it is on a busy machine
        assert record["workspace_bytes"] >= 0
        for name in ("spread_s", "compile_s", "speedup_over_reference", "speedup_over_naive"):
            assert record[name] >= 0
    assert sum(record["chosen_by_auto"] for record in content["records"]) == 3

    with open(paths[1], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["direction"], row["algorithm"]) for row in rows] == expected
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_output_in_a_pipe_is_plain_and_narrow() -> None:
    outcome = in_new_process(*TINY, "--direction", "forward")
    assert (outcome.code, outcome.err) == (0, "")
    assert "\x1b" not in outcome.out
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line.endswith(" ") for line in lines)
    rows = [line for line in lines if re.match(r" [ *] \w+ +~?[\d.]+ ", line)]
    assert len(rows) == len(fastconv.algorithms()) - 1  # depthwise refuses
    assert sum(row.startswith(" *") for row in rows) == 1
    # Aligned: the same column holds the unit of the time in every row.
    assert len({re.search(r" (µs|ms|s) ", row).end() for row in rows}) == 1  # type: ignore[union-attr]
    assert f"all {len(rows)} results agree with the reference" in outcome.out


def test_output_survives_a_terminal_without_these_characters() -> None:
    outcome = in_new_process(*TINY, environment={"PYTHONIOENCODING": "ascii"})
    assert (outcome.code, outcome.err) == (0, "")
    assert "results agree" in outcome.out


def test_wrong_algorithm_is_reported_and_ends_with_1(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conv_registry, "ALGORITHMS", (WRONG, *conv_registry.ALGORITHMS))
    outcome = command(*TINY, "--json", tmp_path / "r.json")
    assert outcome.code == 1
    assert re.search(r"^   wrong +WRONG: error \d", outcome.out, re.MULTILINE)
    assert "WRONG: wrong on rgb8 forward" in outcome.out
    records = json.loads((tmp_path / "r.json").read_text())["records"]
    assert [r["algorithm"] for r in records if not r["correct"]] == ["wrong"]
    assert f"{len(records) - 1} of {len(records)} results agree" in outcome.out
    assert records[0]["median_s"] is None
    assert records[0]["max_rel_error"] > records[0]["tolerance"]


def test_only_the_named_algorithms_are_listed(command: Command, tmp_path: Path) -> None:
    outcome = command(*TINY, "--algorithm", "im2col", "--json", tmp_path / "r.json")
    assert outcome.code == 0
    (record,) = json.loads((tmp_path / "r.json").read_text())["records"]
    assert record["algorithm"] == "im2col"
    assert record["speedup_over_reference"] > 0
    assert not re.search(r"^ [ *] naive", outcome.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (("--suite", "resnet"), "images, mobilenet_v1, resnet50, small, vgg16"),
        (("--suite", "small", "--layer", "r01"), "mnist1"),
        (("--algorithm", "fourier"), ", ".join(conv_registry.algorithms())),
        (("--direction", "backward"), "forward, input_grad, weight_grad, all"),
        (("--dtype", "float16"), "float32, float64"),
    ],
)
def test_wrong_names_list_the_right_ones(
    command: Command, arguments: Sequence[str], right: str
) -> None:
    message = one_error(command("bench", *arguments))
    assert message.startswith(f"{arguments[-2].removeprefix('--')} must be one of ")
    assert right in message
    assert message.endswith(f"got {arguments[-1]!r}")


@pytest.mark.parametrize(("given", "right"), [("r4", "r04"), ("minst1", "mnist1"), ("dw33", "dw3")])
def test_wrong_layers_are_answered_with_the_nearest(
    command: Command, given: str, right: str
) -> None:
    message = one_error(command("bench", "--layer", given))
    assert message.startswith(
        f"layer must be one that `fastconv suites NAME` lists, got {given!r}; the nearest are "
    )
    assert right in message.partition("nearest are ")[2].split(", ")
    assert len(message) < 150
    assert "nearest" not in one_error(command("bench", "--layer", "?"))


def test_bench_measures_given_shapes(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    geometry = ("--stride", "2,1", "--padding", "1,0,2,0", "--dilation", "1,2", "--groups", "2")
    shapes = ("2,4,9,8,6,3,2", "1,2,7,7,2,3,3")
    outcome = command("bench", *shapes, *geometry, "--quick", "--json", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "2x4x9x8 → 6x4x8, 3x2, stride 2x1, dilation 1x2, 2 groups" in outcome.out
    records = json.loads(path.read_text())["records"]
    assert {record["layer"] for record in records} == {*shapes}
    record = records[0]
    assert (record["suite"], record["batch"], record["OH"], record["OW"]) == ("given", 2, 4, 8)
    assert (record["stride"], record["dilation"]) == ([2, 1], [1, 2])
    assert (record["padding"], record["groups"]) == ([[1, 0], [2, 0]], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1,3,9,9",), "7 whole numbers"),
        (("1,3,9,9,2,3,3", "1,3,2,9,2,3,3"), "padded input"),
        (("0,3,9,9,2,3,3",), "N=0"),
        (("1,3,9,9,2,3,3", "--suite", "small"), "without --suite and --layer"),
        (("1,3,9,9,2,3,3", "--layer", "r04"), "without --suite and --layer"),
        (("--stride", "2"), "--stride, --padding, --dilation, --groups go with a shape"),
        (("--layer", "r04", "--groups", "2"), "go with a shape"),
    ],
)
def test_bench_refuses_wrong_shapes_in_one_line(
    command: Command, arguments: Sequence[str], message: str
) -> None:
    assert message in one_error(command("bench", *arguments))


@pytest.mark.parametrize(
    "arguments", [("--batch", "0"), ("--batch", "-4"), ("--threads", "0"), ("--batch", "many")]
)
def test_wrong_numbers_are_refused(command: Command, arguments: Sequence[str]) -> None:
    outcome = command("bench", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert arguments[0] in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["bench", "tune"])
def test_more_threads_than_can_be_of_use_are_refused(
    command: Command, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 4 * available_cores()
    message = one_error(command(name, "--threads", "100000"))
    assert message.startswith(f"--threads must be at most {most}, ")
    assert "got 100000" in message
    assert str(most) in one_error(command(name, "--threads", str(most + 1)))
    # What is allowed goes on to the next refusal.
    few = (name, "--threads", str(most), "--batch", str(2**31))
    assert "2147483647" in one_error(command(*few))
    monkeypatch.setattr(fastconv.runtime.threads, "_num_threads", 100_000)
    assert one_error(command(name)).startswith("FASTCONV_NUM_THREADS must be at most")


def test_impossible_batch_is_refused_before_measuring(command: Command) -> None:
    assert "2147483647" in one_error(command("bench", "--batch", str(2**31)))


def test_impossible_files_are_refused_before_measuring(command: Command, tmp_path: Path) -> None:
    for option in ("--json", "--csv", "--plot"):
        path = tmp_path / "missing" / "r.png"
        assert one_error(command("bench", option, path)).startswith(f"{option} cannot be written")
    assert "must name a file" in one_error(command("bench", "--csv", tmp_path))
    for option in ("--json", "--csv", "--plot"):
        assert one_error(command("bench", option, "")) == f"{option} must name a file, got ''"
    assert one_error(command("tune", "--model-shapes", "")).startswith("--model-shapes must name")
    assert ".png, .svg, .pdf" in one_error(command("bench", "--plot", tmp_path / "r.gif"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal as Ctrl-C does on POSIX")
def test_interrupt_prints_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "fastconv", "bench", "--suite", "small", "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("digits"):  # the second layer is being printed
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in out
    assert "results agree" in out
    content = json.loads(path.read_text())
    assert content["header"]["complete"] is False
    assert {"rgb8", "digits"} <= {record["layer"] for record in content["records"]}


# suites, info, explain ---------------------------------------------------------------------------


def test_suites_are_listed(command: Command) -> None:
    outcome = command("suites")
    assert (outcome.code, outcome.err) == (0, "")
    title, *rows = outcome.out.splitlines()
    assert title.split() == ["suite", "layers", "in", "the", "network", "GFLOP"]
    assert [row.split()[0] for row in rows] == [*suite_names()]
    assert ["resnet50", "20", "53", "7.71"] in [row.split() for row in rows]


def test_layers_of_suites_are_listed(command: Command) -> None:
    outcome = command("suites", "mobilenet_v1", "small")
    assert (outcome.code, outcome.err) == (0, "")
    names = re.findall(r"^(\w+) +\d+x\d+x", outcome.out, re.MULTILINE)
    known = [layer.id for suite in ("mobilenet_v1", "small") for layer in load_suite(suite)]
    assert names == known
    row = next(line for line in outcome.out.splitlines() if line.startswith("dw8 "))
    assert re.sub(" +", " ", row) == (
        "dw8 1x512x14x14 → 512x7x7, 3x3, stride 2, depthwise 1 1 0.000452"
    )
    assert one_error(command("suites", "resnet")).startswith("suite must be one of images, ")


def test_info(command: Command) -> None:
    outcome = command("info")
    assert (outcome.code, outcome.err) == (0, "")
    facts = dict(
        re.split(r"\s{2,}| (?=\S+$)", line, maxsplit=1) for line in outcome.out.splitlines()
    )
    assert facts["fastconv"] == fastconv.__version__
    assert facts["threads"] == str(fastconv.get_num_threads())
    assert "KiB" in facts["caches"]
    assert facts["threading layer"]
    assert "numba" in facts["packages"]
    assert "scikit-learn" in facts["extras"]
    assert "torch" in facts["peers"]


def test_explain_tells_what_runs_and_what_refuses(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = command("explain", "2,6,9,9,4,3,3", "--padding", "same", "--groups", "2")
    assert (outcome.code, outcome.err) == (0, "")
    assert "(4, 3, 3, 3)" in outcome.out
    assert "output (2, 4, 9, 9)" in outcome.out
    for name in fastconv.algorithms():
        assert re.search(rf"^[* ] {name} ", outcome.out, re.MULTILINE)
    assert outcome.out.count("\n* ") == 1


@pytest.mark.parametrize(
    ("options", "output"),
    [
        (("--stride", "2", "--padding", "1"), "(1, 2, 5, 5)"),
        (("--stride", "2,1", "--padding", "1,0"), "(1, 2, 5, 7)"),
        (("--padding", "1,0,2,0", "--dilation", "2"), "(1, 2, 6, 7)"),
        (("--padding", "same_lower", "--stride", "2"), "(1, 2, 5, 5)"),
        (
            ("--padding", "valid", "--dtype", "float64", "--direction", "weight_grad"),
            "(1, 2, 7, 7)",
        ),
    ],
)
def test_explain_reads_all_spellings(command: Command, options: Sequence[str], output: str) -> None:
    outcome = command("explain", "1,3,9,9,2,3,3", *options)
    assert outcome.code == 0
    assert f"output {output}" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1,3,9,9",), "7 whole numbers"),
        (("1,3,9,9,2,3,x",), "7 whole numbers"),
        (("1,3,2,9,2,3,3",), "padded input"),
        (("1,3,9,9,2,3,3", "--groups", "2"), "groups must divide"),
        (("1,3,9,9,2,3,3", "--groups", "0"), "groups must be"),
        (("1,3,9,9,2,3,3", "--stride", "0"), "stride must be"),
        (("1,3,9,9,2,3,3", "--padding", "-1"), "padding must"),
        (("1,3,9,9,2,3,3", "--padding", "some"), "--padding must be"),
        (("1,3,9,9,2,3,3", "--dilation", "1,2,3"), "--dilation must be"),
        (("1,3,9,9,2,3,3", "--direction", "all"), "forward, input_grad, weight_grad"),
        (("1,3,9,9,2,3,3", "--dtype", "int8"), "float32, float64"),
    ],
)
def test_explain_refuses_in_one_line(
    command: Command, arguments: Sequence[str], message: str
) -> None:
    assert message in one_error(command("explain", *arguments))
