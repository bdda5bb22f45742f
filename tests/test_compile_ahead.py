"""Kernels compiled ahead, several at once: helpers help, and never hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from fastconv import nn
from fastconv.jit import compile_ahead, kernel_cache
from fastconv.jit.compiler import RangeKernel, range_kernel
from fastconv.jit.missing_kernels import described, examples

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as on POSIX systems")

LOOPS = """
from fastconv.jit.compiler import range_kernel

@range_kernel
def first(start, stop, out):
    for i in range(start, stop):
        out[i] = 1

@range_kernel
def second(start, stop, out):
    for i in range(start, stop):
        out[i] = 2

@range_kernel
def third(start, stop, out):
    for i in range(start, stop):
        out[i] = 3

@range_kernel
def fourth(start, stop, out):
    for i in range(start, stop):
        out[i] = 4

ALL = first, second, third, fourth
"""

BEGIN = """
import os, sys, time, signal
import numpy as np
import loops
from fastconv.jit import compile_ahead
from fastconv.jit.compile_ahead import compiling_ahead
out = np.zeros((4, 3))
"""

RUN = """
with compiling_ahead():
    for loop, row in zip(loops.ALL, out):
        loop(3, row)
assert not out.any()  # none of them has run
for loop, row in zip(loops.ALL, out):
    loop(3, row)
assert (out == [[1], [2], [3], [4]]).all()
try:
    os.waitpid(-1, os.WNOHANG)
    print("a helper is left")
except ChildProcessError:
    print("right")
"""


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have new processes find `loops`, two threads and an empty store; return its folder."""
    (tmp_path / "loops.py").write_text(LOOPS)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "2")
    monkeypatch.setenv("FASTCONV_QUIET", "1")
    return tmp_path / "kernels"


def run(program: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip(), done.stderr


def stored(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.glob("*/*"))


FOUR = ["loops.first", "loops.fourth", "loops.second", "loops.third"]


@posix
def test_helpers_compile_and_leave_nothing_behind(cold: Path) -> None:
    # This process compiles nothing: it waits until helpers have.
    alone = """
before = compile_ahead._Helpers.finish
def finish(self, tell):
    end = time.monotonic() + 60
    while len(list(compile_ahead.kernel_cache.usable_folder().glob("*.kernel"))) < 4:
        assert time.monotonic() < end, "helpers do not help"
        time.sleep(0.01)
    before(self, tell)
compile_ahead._Helpers.finish = finish
from fastconv.jit import loop_compiler
loop_compiler.compile_extra = None
"""
    assert run(BEGIN + alone + RUN) == ("right", "")
    assert stored(cold) == FOUR


@posix
@pytest.mark.parametrize(
    "helper",
    [
        "import time; time.sleep(1000)",
        "import os; os.kill(os.getpid(), 9)",
        "raise SystemExit('no fastconv here')",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        # One that is killed while it compiles.
        """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from fastconv.jit import compile_ahead, loop_compiler
loop_compiler.compile_extra = lambda *_: os.kill(os.getpid(), 9)
compile_ahead.serve()
""",
    ],
)
def test_helpers_that_do_not_help(cold: Path, helper: str) -> None:
    program = f"{BEGIN}compile_ahead._PROGRAM = {helper!r}\n{RUN}"
    assert run(program) == ("right", "")
    assert stored(cold) == FOUR


@posix
def test_a_helper_ends_with_its_process(cold: Path) -> None:
    killed = """
from fastconv.jit import missing_kernels
helpers = compile_ahead._Helpers()
for name in "first", "second", "third":
    helpers.send(missing_kernels.MissingKernel("loops", name, (("<f8", 1, True),)))
print(helpers._processes[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + killed], capture_output=True, text=True, check=False
    )
    helper = int(done.stdout)
    end = time.monotonic() + 60
    while is_running(helper):
        assert time.monotonic() < end, "the helper is still there"
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@posix
@pytest.mark.parametrize("executable", ["'/usr/bin/editor'", "''", "None"])
def test_no_helpers_where_python_cannot_be_started(cold: Path, executable: str) -> None:
    refuse = f"sys.executable = {executable}\nassert not compile_ahead.can_help()\n"
    assert run(BEGIN + refuse + RUN) == ("right", "")
    assert stored(cold) == FOUR


def test_a_folder_that_keeps_nothing(cold: Path) -> None:
    cold.write_text("in the way")
    out, errors = run(BEGIN + RUN)
    assert out == "right"
    assert errors.count("RuntimeWarning") == 1


@posix
def test_a_working_folder_that_is_deleted(cold: Path, tmp_path: Path) -> None:
    """Numba needs one: whoever has none is told."""
    vanish = f"""
os.mkdir({str(tmp_path / "gone")!r}); os.chdir({str(tmp_path / "gone")!r}); os.rmdir(os.getcwd())
try:
    loops.zip_sum(out[0])
except FileNotFoundError as error:
    print(error)
os.chdir("/")
loops.zip_sum(out[0])
"""
    (tmp_path / "loops.py").write_text(
        LOOPS
        + """
@range_kernel
def _zip(start, stop, out):
    for i, value in zip(range(start, stop), out):
        out[i] = value

def zip_sum(out):
    _zip(3, out)
"""
    )
    out, _ = run(BEGIN + vanish)
    assert "os.chdir" in out


# What is missing ----------------------------------------------------------------------------------


def test_types_survive_the_way_to_another_process() -> None:
    record = np.zeros(1, [("a", np.int64), ("b", np.float32)])
    frozen = np.ones((2, 3), np.float32)
    frozen.flags.writeable = False
    values = [1, True, 0.5, np.float32(1), np.int32(2), frozen, np.zeros(3, np.uint8), record]
    types = described(values)
    assert types is not None
    back = examples(json.loads(json.dumps(types)))
    assert list(map(numba.typeof, back)) == list(map(numba.typeof, values))
    assert described([np.ones((2, 3)).T]) is None
    assert described(["text"]) is None


@range_kernel
def _doubled(start: int, stop: int, out: Any) -> None:
    for i in range(start, stop):
        out[i] *= 2


def test_blocks_inside_blocks() -> None:
    out = np.ones(3)
    with compile_ahead.compiling_ahead():
        with compile_ahead.compiling_ahead():
            _doubled(3, out)
        _doubled.on(1, 3, out)
    assert out.tolist() == [1, 1, 1]
    _doubled(3, out)
    assert out.tolist() == [2, 2, 2]

    def closed(number: int) -> RangeKernel:
        def add(start: int, stop: int, out: Any) -> None:
            for i in range(start, stop):
                out[i] += number

        return RangeKernel(add, str(number))

    with compile_ahead.compiling_ahead():
        closed(1)(3, out)  # which no other process could find
    closed(1)(3, out)
    assert out.tolist() == [3, 3, 3]


# Two processes that need the same kernel ----------------------------------------------------------


@posix
def test_a_claim_is_given_up_however_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(tmp_path / "kernels"))
    assert not kernel_cache.is_claimed("name", "key")
    program = """
import time
from fastconv.jit import kernel_cache
with kernel_cache.claim("name", "key"):
    print("claimed", flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        assert kernel_cache.is_claimed("name", "key")
        assert not kernel_cache.is_claimed("name", "another key")
        other.send_signal(signal.SIGKILL)
    assert not kernel_cache.is_claimed("name", "key")
    with kernel_cache.claim("name", "key"):
        assert kernel_cache.is_claimed("name", "key")
    assert not any(tmp_path.glob("kernels/*/*"))


@posix
def test_whoever_waits_too_long_for_a_claim_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(tmp_path / "kernels"))
    monkeypatch.setattr(kernel_cache, "_MOST_SECONDS_OF_WAITING", 0.05)
    with kernel_cache.claim("name", "key"), kernel_cache.claim("name", "key"):
        assert kernel_cache.is_claimed("name", "key")


# Training -----------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A layer that counts its calls, as one of a user may."""

    def __init__(self) -> None:
        self.calls = 0

    def forward(self, x: Any) -> Any:
        """Return x."""
        self.calls += 1
        self.keep(x)
        return x

    def backward(self, grad: Any) -> Any:
        """Return the gradient."""
        (grad,) = self.recall(grad)
        return grad


def test_training_is_the_same_whether_compiled_ahead_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastconv.nn.training import training_loop

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((21, 2, 8, 8), np.float32), rng.integers(0, 3, 21)
    results = []
    ahead: list[int] = []
    compile_training = training_loop.compile_training
    for compiled in (True, False):
        monkeypatch.setattr(
            training_loop,
            "compile_training",
            lambda *parts: (ahead.append(1), compile_training(*parts)) if compiled else None,  # noqa: B023
        )
        layers = np.random.default_rng(1)
        model = nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1, rng=layers), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5, rng=layers)),
            nn.Linear(64, 3, rng=layers),
        )
        history = nn.fit(model, x, y, epochs=2, batch_size=8, validation=0.2, progress="silent")
        results.append([history.loss, *(v.tobytes() for v in model.state_dict().values())])
    assert ahead == [1]
    assert results[0] == results[1]


def test_layers_of_others_are_called_no_more_than_they_expect() -> None:
    counting = Counting()
    model = nn.Sequential(counting, nn.Flatten(), nn.Linear(4, 2))
    x, y = np.ones((6, 1, 2, 2), np.float32), np.arange(6) % 2
    nn.fit(model, x, y, epochs=1, batch_size=2, progress="silent")
    assert counting.calls == 3


def test_methods_replaced_by_others_are_called_no_more_than_they_expect() -> None:
    relu, calls = nn.ReLU(), []
    forward = relu.forward

    def counted(x: Any) -> Any:
        calls.append(x)
        return forward(x)

    relu.forward = counted  # type: ignore[method-assign]
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), relu, nn.Linear(3, 2))
    x, y = np.ones((6, 1, 2, 2), np.float32), np.arange(6) % 2
    nn.fit(model, x, y, epochs=1, batch_size=2, progress="silent")
    assert len(calls) == 3


@posix
def test_the_first_training_on_a_machine(cold: Path) -> None:
    program = """
import numpy as np
from fastconv import nn
layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)
model = nn.Sequential(*layers)
x, y = np.ones((9, 1, 8, 8), np.float32), np.arange(9) % 2
from fastconv.nn.training.training_loop import Training
step, found = Training.step, []
def counted(self, *batch):
    found.append(len(list(compile_ahead.kernel_cache.usable_folder().glob("*.kernel"))))
    step(self, *batch)
Training.step = counted
from fastconv.jit import compile_ahead
nn.fit(model, x, y, epochs=2, batch_size=4, progress="silent")
assert found[0] == found[-1] > 8, found  # nothing was compiled in a step
print("right")
"""
    assert run(program) == ("right", "")


# The notice ---------------------------------------------------------------------------------------
