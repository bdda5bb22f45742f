"""Measurements on disk: followed where they hold, and never in the way."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import refused

import fastconv
from fastconv import nn
from fastconv.select import tuning

SHAPE, FILTERS = (1, 4, 9, 10), (6, 4, 3, 3)
PROBLEM = fastconv.Conv2dProblem.from_shapes(SHAPE, FILTERS)
THREADS = 2
ESTIMATED, OTHER = "direct", "naive"
TIMES = {ESTIMATED: 3e-5, "implicit_gemm": 2e-5, OTHER: 1e-5}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Name a file that is not there yet, and leave no trace of what is read from it."""
    path = tmp_path / "tuning.jsonl"
    monkeypatch.setenv("FASTCONV_TUNING_FILE", str(path))
    before = fastconv.get_num_threads()
    fastconv.set_num_threads(THREADS)
    yield path
    fastconv.set_num_threads(before)
    fastconv.set_tuning(False)


def measurement(**changes: Any) -> tuning.Measurement:
    fields = {"problem": PROBLEM, "direction": "forward", "threads": THREADS, "seconds": TIMES}
    return tuning.Measurement(**{**fields, **changes})


def chosen() -> str:
    return plan().algorithm


def plan(**options: Any) -> Any:
    weight = np.ones(FILTERS, np.float32)
    return fastconv.plan_conv2d(SHAPE, weight, **options)


def warned(path: Path) -> str:
    """Read the file; return what it is warned of, which must be one thing, and once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fastconv.set_tuning(True)
        chosen()
        chosen()
    assert [each.category for each in caught] == [RuntimeWarning]
    message = str(caught[0].message)
    assert str(path) in message
    return message


# Following -----------------------------------------------------------------------------------


def test_auto_follows_a_measurement_where_it_holds(file: Path) -> None:
    fastconv.set_tuning(True)
    assert chosen() == ESTIMATED
    tuning.append(file, measurement())
    assert chosen() == ESTIMATED  # the file is not read again and again
    fastconv.set_tuning(True)
    assert chosen() == OTHER
    assert plan(padding=1).algorithm != OTHER
    fastconv.set_num_threads(THREADS + 1)
    assert chosen() == ESTIMATED
    fastconv.set_num_threads(THREADS)
    assert chosen() == OTHER
    assert plan(algorithm="im2col").algorithm == "im2col"
    fastconv.set_tuning(False)
    assert chosen() == ESTIMATED


def test_explanations_tell_measurements_from_estimates(file: Path) -> None:
    tuning.append(file, measurement())
    fastconv.set_tuning(True)
    measured, elsewhere = plan(), plan(padding=1)
    named = plan(algorithm="im2col")
    fastconv.set_tuning(False)
    estimated = plan()
    again = pickle.loads(pickle.dumps(measured))
    assert again.algorithm == OTHER
    assert again.explain() == measured.explain()
    lines = measured.explain().splitlines()
    (runs,) = [line for line in lines if line.startswith("* ")]
    assert runs.startswith("* naive ")
    assert runs.endswith("measured 0.01 ms")
    assert sum("measured" in line for line in lines[:-1]) == len(TIMES)
    assert lines[-1] == "chosen by measurement on 2 threads, with precision 'high'"
    assert "chosen by estimate, not measured on 2 threads" in elsewhere.explain()
    assert "chosen by estimate, with" in estimated.explain()
    assert "measured" not in estimated.explain()
    assert named.explain().endswith("im2col was named")


def test_the_last_measurement_counts_and_close_ones_change_nothing(file: Path) -> None:
    for seconds, right in (
        ({ESTIMATED: 2e-5, OTHER: 1e-5}, OTHER),
        ({ESTIMATED: 1.02e-5, OTHER: 1e-5}, ESTIMATED),
        ({ESTIMATED: 1.05e-5, OTHER: 1e-5}, OTHER),
        ({"im2col": 1e-5}, "im2col"),
        ({"depthwise": 1e-9}, ESTIMATED),  # it refuses this problem
        ({"depthwise": 1e-9, "im2col": 1e-5}, "im2col"),
    ):
        tuning.append(file, measurement(seconds=seconds))
        fastconv.set_tuning(True)
        assert chosen() == right


def test_every_direction_has_its_own(file: Path) -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape) for shape in (SHAPE, FILTERS))
    problem = fastconv.Conv2dProblem.from_shapes(SHAPE, FILTERS, dtype="float64")
    grad = rng.standard_normal(problem.output_shape)
    for direction in ("input_grad", "weight_grad"):
        seconds = {"reference": 1e-5}
        tuning.append(file, measurement(problem=problem, direction=direction, seconds=seconds))
    fastconv.set_tuning(True)
    assert np.array_equal(
        fastconv.conv2d_input_grad(SHAPE, weight, grad),
        fastconv.conv2d_input_grad(SHAPE, weight, grad, algorithm="reference"),
    )
    assert np.array_equal(
        fastconv.conv2d_weight_grad(x, FILTERS, grad),
        fastconv.conv2d_weight_grad(x, FILTERS, grad, algorithm="reference"),
    )


def test_networks_follow_a_change(file: Path) -> None:
    tuning.append(file, measurement())
    layer = nn.Conv2d(4, 6, 3, bias=False, rng=0).eval()
    model, x = nn.Sequential(layer).eval(), np.ones(SHAPE, np.float32)

    def algorithm() -> str:
        model(x)
        _, newest = list(layer.plans.values())[-1]
        return str(newest.algorithm)

    assert algorithm() == ESTIMATED
    fastconv.set_tuning(True)
    assert algorithm() == OTHER
    fastconv.set_num_threads(THREADS + 1)
    assert algorithm() == ESTIMATED


@pytest.mark.parametrize("value", [1, "on", None])
def test_the_switch_is_a_bool(value: Any) -> None:
    with refused("on", repr(value)):
        fastconv.set_tuning(value)


# Damage --------------------------------------------------------------------------------------


def record(**changes: Any) -> str:
    fields = {
        "build": tuning.build(),
        "processor": tuning.processor(),
        "threads": THREADS,
        "direction": "forward",
        "problem": {name: getattr(PROBLEM, name) for name in PROBLEM.__dataclass_fields__},
        "seconds": TIMES,
    }
    return json.dumps({**fields, **changes})


DAMAGED: dict[str, tuple[str, str]] = {
    "not JSON": ("{'seconds': __import__('os')}", "Expecting"),
    "half a line": (record()[:-5], "delimiter"),
    "zeros": ("\0" * 40, "line"),
    "a list": ("[1, 2]", "no JSON object"),
    "nested": ("[" * 100_000, "line"),
    "no processor": (record(processor=None), "processor must be text"),
    "no problem": (record(problem=None), "problem must have"),
    "half a problem": (record(problem={"N": 1}), "problem must have"),
    "direction": (record(direction="sideways"), "got 'sideways'"),
    "threads": (record(threads=True), "threads must be"),
    "no threads": (record(threads=0), "threads must be"),
    "no seconds": (record(seconds={}), "seconds must hold"),
    "unknown": (record(seconds={"os.system": 1e-5}), "'os.system', which is no algorithm"),
    "NaN": (record(seconds={OTHER: float("nan")}), "seconds of naive must be"),
    "no time": (record(seconds={OTHER: 0}), "seconds of naive must be"),
    "negative": (record(seconds={OTHER: -1.0}), "seconds of naive must be"),
    "huge": (record(seconds={OTHER: 10**400}), "seconds of naive must be"),
    "text": (record(seconds={OTHER: "1e-5"}), "seconds of naive must be"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_lines_are_left_out_with_one_warning(kind: str, file: Path) -> None:
    line, told = DAMAGED[kind]
    file.write_text(f"{line}\n\n{line}")
    message = warned(file)
    assert "2 of them" in message
    assert "the first is line 1: " in message
    assert told in message
    assert chosen() == ESTIMATED
    tuning.append(file, measurement())
    assert "2 of them" in warned(file)
    assert chosen() == OTHER


def test_warnings_made_errors_come_once(file: Path) -> None:
    file.write_text(f"rubbish\n{record()}")
    with pytest.raises(RuntimeWarning):  # as all warnings are in this suite
        fastconv.set_tuning(True)
    assert chosen() == OTHER


def test_measurements_of_elsewhere_do_not_apply(file: Path) -> None:
    strange = {"seconds": "to be defined"}  # another version may write other things
    for change in ({"processor": "abacus"}, {"build": "0123", **strange}):
        with file.open("a") as stream:
            stream.write(record(**change) + "\n")
    message = warned(file)
    assert "all 2 measurements" in message
    assert "another processor or of another version" in message
    assert chosen() == ESTIMATED
    tuning.append(file, measurement(threads=7))
    fastconv.set_tuning(True)  # no warning: some are of here
    assert chosen() == ESTIMATED


def test_what_is_no_file(file: Path) -> None:
    file.touch()
    fastconv.set_tuning(True)  # empty: nothing to warn of
    os.truncate(file, tuning.LARGEST_FILE + 1)
    assert "larger than 16 MiB" in warned(file)
    file.write_text("x\n" * 10**6)
    assert "more than 1000 of its lines are no measurements, the first is line 1:" in warned(file)
    file.unlink()
    file.mkdir()
    assert "not a file" in warned(file)
    file.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        assert "not a file" in warned(file)
        file.unlink()
        file.symlink_to(file)
        assert "symbolic links" in warned(file)
    assert chosen() == ESTIMATED


# Processes -----------------------------------------------------------------------------------


def started(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "FASTCONV_TUNING": "on", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_by(program: str, *arguments: str, **environment: str) -> tuple[str, str]:
    process = started(program, *arguments, **environment)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out.strip(), errors


CHOOSE = f"""
import os, sys
looked = []
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("tuning.jsonl"):
        looked.append(event)
sys.addaudithook(hook)
import fastconv
assert not looked
problem = fastconv.Conv2dProblem.from_shapes({SHAPE}, {FILTERS})
from fastconv.select import choice
names = [choice.choose(problem, "forward").name for _ in range(3)]
if hasattr(os, "fork") and os.fork() == 0:
    os._exit(choice.choose(problem, "forward").name != names[0])
assert not hasattr(os, "fork") or os.wait()[1] == 0
print(*set(names), len(looked))
"""


def test_the_file_is_read_at_the_first_choice_and_once(file: Path) -> None:
    environment = {"FASTCONV_NUM_THREADS": str(THREADS)}
    assert told_by(CHOOSE, **environment) == (f"{ESTIMATED} 0", "")
    tuning.append(file, measurement())
    assert told_by(CHOOSE, **environment) == (f"{OTHER} 1", "")
    off = told_by(CHOOSE, FASTCONV_TUNING="off", **environment)
    assert off == (f"{ESTIMATED} 0", "")
    process = started(CHOOSE, FASTCONV_TUNING="maybe")
    assert "FASTCONV_TUNING must be 'on' or 'off', got 'maybe'" in process.communicate()[1]


def test_the_file_lies_beside_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCONV_TUNING_FILE", raising=False)
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "no such folder"))
    assert tuning.tuning_file() == tmp_path / "no such folder" / "tuning.jsonl"
    fastconv.set_tuning(True)
    assert chosen() == ESTIMATED
    fastconv.set_tuning(False)


# Appends measurements for threads first, first + 1, ... and says so after each.
APPEND = f"""
import sys, fastconv
from pathlib import Path
from fastconv.select import tuning
problem = fastconv.Conv2dProblem.from_shapes({SHAPE}, {FILTERS})
print("ready", flush=True)
sys.stdin.readline()
first, count = map(int, sys.argv[2:])
for threads in range(first, first + count):
    one = tuning.Measurement(problem, "forward", threads, {TIMES})
    tuning.append(Path(sys.argv[1]), one)
    print(threads, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as on POSIX systems")
def test_processes_that_write_at_once_and_are_killed_lose_nothing(file: Path) -> None:
    counts = (800, 10**6, 10**6)
    firsts = [1 + 10**7 * number for number in range(len(counts))]
    writers = []
    for first, count in zip(firsts, counts, strict=True):
        command = [sys.executable, "-c", APPEND, str(file), str(first), str(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        writers.append(subprocess.Popen(command, text=True, **pipes))  # type: ignore[call-overload]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers[1:]:
        time.sleep(0.1)
        writer.kill()
    wrote = [
        int(line) for writer in writers for line in writer.communicate()[0].split("\n") if line
    ]
    assert [writer.returncode for writer in writers] == [0, -signal.SIGKILL, -signal.SIGKILL]
    table = tuning.read(file)
    found = {threads for _, _, threads in table.times}
    assert len(wrote) > 800
    assert found >= {*wrote}
    assert len(found - {*wrote}) <= 2  # written, but not told any more
    assert len(table.damaged) <= 2  # half a line of a killed one, at most


def test_a_line_cut_short_spoils_no_other(file: Path) -> None:
    tuning.append(file, measurement(threads=1))
    whole = file.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole + whole[:length])
        tuning.append(file, measurement())
        table = tuning.read(file)
        assert sorted(threads for _, _, threads in table.times) == [1, THREADS]
        assert len(table.damaged) == (length > 1)
