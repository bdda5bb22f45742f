"""Other libraries beside fastconv: who is wrong, fails or dies, and who runs when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import peer_doubles as doubles
import pytest
from bench_doubles import QUICK, layer, silent
from processes import alive, nobody_left_behind, state_of

from fastconv.bench.bench_calls import make_tensors
from fastconv.bench.peers import compare_peers, peer_process
from fastconv.bench.peers.compare_peers import Crew, measure_layer
from fastconv.bench.peers.inference_peers import Mnn
from fastconv.bench.peers.peer_base import Runtime
from fastconv.bench.peers.peer_process import RuntimeFailure, Worker
from fastconv.bench.peers.peer_runtimes import PEERS, Fastconv, Numpy
from fastconv.bench.peers.training_peers import symmetric
from fastconv.bench.results import Record
from fastconv.bench.verify import tolerance
from fastconv.convolution.reference import REFERENCE
from fastconv.core.conv_problem import Conv2dProblem

needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="cannot stop processes")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="has no /proc")


@pytest.fixture(autouse=True)
def _nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nobody_left_behind(monkeypatch):
        yield


def meet(*members: Runtime, identity: str = "rgb8") -> dict[str, Record]:
    """Return what each gets on one layer."""
    with Crew(members, 1) as crew:
        result = measure_layer(layer(identity), crew, QUICK, silent)
    return {record.contender: record for record in result.records}


# Runtimes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [Fastconv(), *PEERS], ids=lambda peer: peer.name)
def test_everybody_computes_every_geometry(peer: Runtime) -> None:
    for package in peer.packages:
        pytest.importorskip(package)
    problems = [
        Conv2dProblem.from_shapes((2, 4, 9, 8), (6, 4, 3, 3), padding=1),
        Conv2dProblem.from_shapes((2, 4, 9, 8), (6, 4, 1, 1)),
        Conv2dProblem.from_shapes((1, 4, 9, 8), (8, 1, 3, 2), (2, 1), (1, 0), (1, 2), groups=4),
        Conv2dProblem.from_shapes((1, 4, 9, 8), (6, 2, 3, 3), 2, 1, groups=2),
    ]
    member = Worker(peer)
    try:
        member.ask("start", 2)
        for problem in problems:
            x, weight, bias, _ = make_tensors(problem)
            truth = np.empty(problem.output_shape, np.float32)
            REFERENCE.forward.run(problem, x, weight, bias, truth)
            first = member.ask("prepare", problem, x, weight)
            np.testing.assert_allclose(first.output, truth, rtol=0, atol=1e-4)
            for _ in range(2):
                block = member.ask("block")
                assert block.seconds > 0
                assert block.repeats >= 1
            np.testing.assert_allclose(member.ask("output"), truth, rtol=0, atol=1e-4)
    finally:
        member.kill()


def test_peers_are_loaded_nowhere_else() -> None:
    program = "import sys, fastconv.bench.peers.peers_command; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {package for peer in PEERS for package in peer.packages} - {"numpy"}


def test_measuring_mnn_installs_nothing() -> None:
    # Its converter's own program, and what that imports, runs pip for a package for telemetry.
    for package in Mnn.packages:
        pytest.importorskip(package)
    program = """
import os, subprocess, sys
from fastconv.bench.bench_calls import make_tensors
from fastconv.bench.peers.inference_peers import Mnn
from fastconv.core.conv_problem import Conv2dProblem
os.system = subprocess.Popen = None
problem = Conv2dProblem.from_shapes((1, 3, 6, 6), (4, 3, 3, 3))
runtime = Mnn()
runtime.start(1)
assert runtime.prepare(problem, *make_tensors(problem)[:2]).run().shape == (1, 4, 4, 4)
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not [name for name in done.stdout.split() if name.startswith("MNN.tools")]


def test_missing_packages_are_known_without_importing() -> None:
    assert doubles.Absent().missing == "no_such_package_anywhere"
    assert Numpy().missing is None


def test_pytorch_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="same padding on both sides"):
        symmetric(((0, 1), (0, 0)))


# One layer ---------------------------------------------------------------------------------------


def test_records() -> None:
    records = meet(Fastconv(), Fastconv("im2col"), doubles.Right(), doubles.Chatty())
    assert list(records) == ["fastconv", "fastconv:im2col", "right", "chatty"]
    for name, record in records.items():
        assert record.correct, name
        assert (record.layer, record.batch, record.direction) == ("rgb8", 3, "forward")
        assert record.rounds == QUICK.rounds
        assert record.median_s
        assert record.gflops == pytest.approx(record.gflop / record.median_s)
        own = records["fastconv"].median_s
        assert own
        assert record.time_over_fastconv == pytest.approx(record.median_s / own)
    assert records["fastconv"].chosen_by_auto
    assert records["fastconv:im2col"].algorithm == "im2col"
    assert records["right"].algorithm == "right"
    assert records["right"].workspace_bytes is None
    assert not records["right"].chosen_by_auto


def test_peers_may_be_inexact_and_fastconv_may_not() -> None:
    records = meet(Fastconv(), doubles.Inexact(), doubles.Right())
    assert records["inexact"].correct
    assert records["inexact"].max_rel_error == pytest.approx(1e-3, rel=0.1)
    assert records["inexact"].median_s
    assert (records["inexact"].tolerance or 0) > 50 * (records["fastconv"].tolerance or 1)
    assert records["fastconv"].tolerance == tolerance(layer("rgb8").problem(3), "forward")


def test_wrong_results_get_no_time() -> None:
    records = meet(
        Fastconv(), doubles.Wrong(), doubles.WrongShape(), doubles.WrongLater(), doubles.Right()
    )
    for name in ("wrong", "wrong_shape", "wrong_later"):
        assert not records[name].correct
        assert records[name].failure is None
        assert records[name].median_s is None
        assert records[name].time_over_fastconv is None
    assert records["wrong"].max_rel_error == pytest.approx(0.01, rel=0.1)
    assert records["right"].correct


@needs_signals
def test_failures_are_results() -> None:
    members = (doubles.Raising(), doubles.Unstartable(), doubles.Exiting(), doubles.Killed())
    records = meet(*members, doubles.Right())
    assert {name: record.failure for name, record in records.items()} == {
        "raising": "ZeroDivisionError: no luck",
        "unstartable": "ImportError: half of it is missing",
        "exiting": "its process died: exit code 7",
        "killed": "its process died: SIGKILL",
        "right": None,
    }
    assert [name for name, record in records.items() if record.correct] == ["right"]
    assert all(record.median_s is None for name, record in records.items() if name != "right")


@needs_signals
def test_who_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_process, "PATIENCE_SECONDS", 2.0)
    assert meet(doubles.Hanging())["hanging"].failure == "no answer within 2 s"


@needs_signals
def test_the_dead_are_replaced() -> None:
    with Crew([doubles.Right()], 1) as crew:
        measure_layer(layer("rgb8"), crew, QUICK, silent)
        first = crew.pids["right"]
        os.kill(first, signal.SIGKILL)
        problem = layer("rgb8").problem(1)
        x, weight, *_ = make_tensors(problem)
        # Whoever asks before it has died gets no answer; whoever asks later asks its successor.
        with suppress(RuntimeFailure):
            crew.ask(doubles.Right(), "prepare", problem, x, weight)
        result = measure_layer(layer("rgb8"), crew, QUICK, silent)
        assert result.records[0].correct
        assert crew.pids["right"] != first


def test_algorithms_may_refuse() -> None:
    refusing = [
        name
        for name in ("im2col_jit", "im2col", "naive", "reference")
        if compare_peers._refuses(Fastconv(name), layer("rgb8").problem(), "forward")
    ]
    assert refusing == []
    assert not compare_peers._refuses(Numpy(), layer("rgb8").problem(), "forward")


# Stopping ----------------------------------------------------------------------------------------


@needs_signals
@needs_proc
def test_at_most_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    members = (Fastconv(), doubles.Right(), doubles.Chatty())
    seen: list[tuple[str, dict[str, str]]] = []
    send = peer_process._send

    def watch(pipe: Any, message: Any) -> None:
        send(pipe, message)
        if isinstance(message, tuple) and message[0] == "block":
            running = {n: state_of(pid) for n, pid in crew.pids.items()}
            asked = next(n for n, w in crew._workers.items() if w._questions is pipe)
            seen.append((asked, running))

    with Crew(members, 1) as crew:
        monkeypatch.setattr(peer_process, "_send", watch)
        measure_layer(layer("rgb8"), crew, QUICK, silent)
        assert {state_of(pid) for pid in crew.pids.values()} == {"T"}
    assert len(seen) == QUICK.rounds * len(members)
    assert {asked for asked, _ in seen} == {each.name for each in members}
    for asked, states in seen:
        others = {state for name, state in states.items() if name != asked}
        assert others == {"T"}
        assert states[asked] != "T"


@needs_signals
@needs_proc
def test_no_worker_outlives_an_interruption() -> None:
    pids: list[int] = []

    def interrupt(text: str) -> None:
        if "measuring" in text:
            pids.extend(crew.pids.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Crew([Fastconv(), doubles.Right()], 1) as crew:
        measure_layer(layer("rgb8"), crew, QUICK, interrupt)
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# The program compares without end; its first line of output are the workers' numbers.
_ENDLESS = """
import sys
from bench_doubles import QUICK, layer, silent
import peer_doubles as doubles
from fastconv.bench.peers.compare_peers import Crew, measure_layer
with Crew([doubles.Right(), doubles.Chatty()], 1) as crew:
    measure_layer(layer("rgb8"), crew, QUICK, silent)
    print(*crew.pids.values(), flush=True)
    while True:
        measure_layer(layer("rgb8"), crew, QUICK, silent)
"""


@needs_signals
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=str)
def test_no_worker_outlives_the_benchmark(number: int) -> None:
    here = str(Path(__file__).parent)
    package = str(Path(compare_peers.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((package, here))}
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        os.killpg(process.pid, number)  # as a terminal does
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    # Whoever was killed cannot wait for them: a running worker finds the pipe closed.
    end = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
