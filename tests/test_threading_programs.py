"""Programs with threads, forks, signals and process pools end well, and with right results.

Each is a process of its own, under every threading layer of Numba where that makes a difference.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from threading_scenarios import SCENARIOS

from fastconv.runtime import threads

SCRIPT = Path(__file__).with_name("threading_scenarios.py")
LAYERS = ("tbb", "omp", "workqueue")


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_aborts(scenario: str, layer: str) -> None:
    if "fork" in scenario and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    # More threads than cores, so that parallel kernels are used on any machine.
    done = run_python(str(SCRIPT), scenario, NUMBA_THREADING_LAYER=layer, FASTCONV_NUM_THREADS="3")
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"{layer} is not to be had here")
    assert done.returncode == 0, done.stderr[-2000:]
    # Numba may print a word of its own on a fork first.
    assert done.stdout.split()[-2:] == ["right", layer]
    assert "invalid state" not in done.stderr


FIRST_USES = """
import os, signal, threading, time
import numpy as np, fastconv
x, weight = np.ones((8, 16, 40, 40), np.float32), np.ones((16, 16, 3, 3), np.float32)

def right():
    return round(fastconv.conv2d(x, weight, padding=1)[0, 0, 5, 5]) == 144

results = []
thread = threading.Thread(target=lambda: results.append(right()))
thread.start()
for children in range(10_000):
    child = os.fork()
    if not child:
        signal.alarm(30)  # rather than to hang
        os._exit(0 if right() else 3)
    assert os.waitpid(child, 0)[1] == 0
    if results:
        break
    time.sleep(0.01)
print("right", results)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forks_amid_the_first_use_of_another_thread() -> None:
    # The child needs modules that the other thread was importing, and its locks.
    done = run_python("-c", FIRST_USES)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout, done.stderr) == ("right [True]\n", "")


def test_environment_variable() -> None:
    program = "import fastconv; print(fastconv.get_num_threads())"
    assert run_python("-c", program, FASTCONV_NUM_THREADS="7").stdout.strip() == "7"
    assert run_python("-c", program, FASTCONV_NUM_THREADS="").stdout.strip() == str(
        threads.available_cores()
    )
    for wrong in ("0", "many", "2.5"):
        done = run_python("-c", program, FASTCONV_NUM_THREADS=wrong)
        assert done.returncode == 1
        assert "FASTCONV_NUM_THREADS" in done.stderr
        assert repr(wrong) in done.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_an_interrupted_call_leaves_no_helper_at_work() -> None:
    program = """
import signal, threading, time
from fastconv.runtime import blas
from fastconv.runtime import threads
threads.set_num_threads(2)
caller, at_work = threading.get_ident(), []

def work(task):
    if threading.get_ident() == caller:
        while not at_work:  # leave one task to the helper
            time.sleep(0.001)
        return
    at_work.append(task)
    time.sleep(0.5)
    at_work.remove(task)

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    threads.run_tasks(work, range(2))
except KeyboardInterrupt:
    print("interrupted", at_work)
"""
    done = run_python("-c", program)
    assert done.stdout.strip() == "interrupted []", done.stderr[-2000:]


INTERRUPTED = """
import signal, numpy as np, fastconv
rng = np.random.default_rng(0)
x, other = rng.standard_normal((2, 4, 16, 16, 16)).astype(np.float32)
weight = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
name = "im2col_jit"
expected, nested = [], []
for each in (x, other):
    expected.append(fastconv.conv2d(each, weight, padding=1, algorithm=name))
busy = False

def handler(*_):
    global busy
    if not busy:
        busy = True
        y = fastconv.conv2d(other, weight, padding=1, algorithm=name)
        nested.append(np.array_equal(y, expected[1]))
        busy = False

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
right = all(
    np.array_equal(fastconv.conv2d(x, weight, padding=1, algorithm=name), expected[0])
    for _ in range(1000)
)
signal.setitimer(signal.ITIMER_REAL, 0)
print(right and all(nested) and len(nested) > 10)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_signal_handler_may_convolve(count: str) -> None:
    done = run_python("-c", INTERRUPTED, FASTCONV_NUM_THREADS=count)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_indices_that_another_thread_changes_do_no_harm() -> None:
    program = """
import threading, numpy as np, fastconv
grad, places = np.ones((1, 1, 1000, 1000), np.float32), np.zeros((1, 1, 1000, 1000), np.int64)
stop = threading.Event()
def change():
    while not stop.is_set():
        places[0, 0, -200:] = 10**12
        places[0, 0, -200:] = 0
thread = threading.Thread(target=change)
thread.start()
for _ in range(100):
    try:
        fastconv.max_pool2d_grad(grad, places, (1, 1, 4, 4))
    except ValueError:
        pass
stop.set()
thread.join()
print("alive")
"""
    done = run_python("-c", program)
    assert done.stdout.strip() == "alive", done.stderr[-2000:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forks_amid_products_of_other_threads() -> None:
    program = """
import faulthandler, os, threading
faulthandler.dump_traceback_later(90, exit=True)
import numpy as np, fastconv
x, w = np.ones((2, 32, 40, 40), np.float32), np.ones((48, 32, 3, 3), np.float32)
plan = fastconv.plan_conv2d(x.shape, w, padding=1, algorithm="im2col")
expected = plan(x)
ended = threading.Event()
def work():
    while not ended.is_set():
        assert np.array_equal(plan(x), expected)
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
ended.set()
for thread in threads:
    thread.join()
print("right")
os._exit(0)
"""
    done = run_python("-c", program)
    assert done.stdout.strip() == "right", done.stderr[-2000:]
