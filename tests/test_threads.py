"""Threads, forks and process pools give right results under every threading layer of Numba."""

from __future__ import annotations

import _thread
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threading_scenarios import SCENARIOS
from threadpoolctl import threadpool_info, threadpool_limits

import fastconv
from fastconv import blas, nn, threads
from fastconv.convolution import base
from fastconv.kernels import jit
from fastconv.problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.registry import offering

SCRIPT = Path(__file__).with_name("threading_scenarios.py")
LAYERS = ("tbb", "omp", "workqueue")


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


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


# Sizes on both sides of every cut: several blocks, one block, groups, small batches.
PROBLEMS = (
    Conv2dProblem.from_shapes((2, 20, 33, 31), (40, 20, 3, 3), padding=1),
    Conv2dProblem.from_shapes((1, 64, 7, 7), (96, 64, 3, 3), padding=1),
    Conv2dProblem.from_shapes((3, 24, 9, 9), (24, 1, 3, 3), padding=1, groups=24),
    Conv2dProblem.from_shapes((9, 3, 12, 11), (5, 3, 5, 5), padding=1),
    # Pixels for more than two bands of a weights' gradient: the sum of two has no order.
    Conv2dProblem.from_shapes((5, 2, 93, 97), (3, 2, 3, 3), padding=1),
)


@pytest.fixture
def any_work_is_worth_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (jit, base):
        monkeypatch.setattr(module, "WORTH_A_THREAD", 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.usefixtures("restored_threads", "any_work_is_worth_a_thread")
def test_same_bits_for_any_number_of_threads(direction: Direction) -> None:
    rng = np.random.default_rng(1)
    compared = set()
    for problem, algorithm in itertools.product(PROBLEMS, fastconv.algorithms(direction)):
        chosen = next(a for a in offering(direction) if a.name == algorithm)
        slow = algorithm == "reference" and (problem.K > 24 or problem.OH > 90)
        if slow or chosen.supports(problem, direction) is not None:
            continue
        x, weight, grad = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in (problem.input_shape, problem.weight_shape, problem.output_shape)
        )
        options = {"padding": 1, "groups": problem.groups, "algorithm": algorithm}
        results = set()
        for count in (1, 2, 8):
            fastconv.set_num_threads(count)
            if direction == "forward":
                result = fastconv.conv2d(x, weight, **options)
            elif direction == "input_grad":
                result = fastconv.conv2d_input_grad(x.shape, weight, grad, **options)
            else:
                result = fastconv.conv2d_weight_grad(x, weight.shape, grad, **options)
            results.add(result.tobytes())
        assert len(results) == 1, (algorithm, problem)
        compared.add(algorithm)
    assert compared == set(fastconv.algorithms(direction))


# Windows that tiles take, with rows shared and not, and others.
POOLINGS: tuple[tuple[Any, ...], ...] = ((3, 2, 1), (3, 1, 1), (2, 2), ((2, 4), 3, 1), (9, 1, 4))


@pytest.mark.parametrize("algorithm", fastconv.pool_algorithms())
@pytest.mark.usefixtures("restored_threads", "any_work_is_worth_a_thread")
def test_pooling_gives_same_bits_for_any_number_of_threads(algorithm: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5, 13, 19)).astype(np.float32)
    results = []
    for count in (1, 2, 8):
        fastconv.set_num_threads(count)
        arrays = []
        for rule in POOLINGS:
            y, where = fastconv.max_pool2d(x, *rule, return_indices=True, algorithm=algorithm)
            mean = fastconv.avg_pool2d(x, *rule, algorithm=algorithm)
            dx = fastconv.max_pool2d_grad(y, where, x.shape, algorithm=algorithm)
            dmean = fastconv.avg_pool2d_grad(mean, x.shape, *rule, algorithm=algorithm)
            layer = fastconv.nn.MaxPool2d(*rule)
            arrays += [y, where, mean, dx, dmean, layer(x), layer.backward(mean)]
        small = fastconv.adaptive_avg_pool2d(x, (4, 3), algorithm=algorithm)
        arrays += [small, fastconv.adaptive_avg_pool2d_grad(small, x.shape, algorithm=algorithm)]
        results.append([array.tobytes() for array in arrays])
    assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("restored_threads", "any_work_is_worth_a_thread")
def test_training_gives_same_bits_for_any_number_of_threads() -> None:
    results = []
    for count in (1, 2, 8):
        fastconv.set_num_threads(count)
        rng = np.random.default_rng(1)
        x = rng.standard_normal((5, 3, 70, 64)).astype(np.float32)
        model = nn.Sequential(
            *(nn.Conv2d(3, 5, 3, rng=0), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 4, 3, rng=1), nn.ReLU(), nn.Flatten(), nn.Linear(3712, 3, rng=2)),
        )
        optimizer = nn.Adam(model.parameters())
        for _ in range(2):
            y = model(x)
            optimizer.zero_grad()
            dx = model.backward(y)
            assert dx is not None
            optimizer.step()
        arrays = [y, dx, *model.state_dict().values(), model.eval()(x[:1])]
        results.append([array.tobytes() for array in arrays])
    assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("restored_threads")
def test_a_large_gradient_from_a_small_one_is_worth_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks: list[int] = []
    monkeypatch.setattr(threads, "parallel_is_safe", lambda: True)
    monkeypatch.setattr(
        threads, "run_parallel", lambda _, items, count, *rest: chunks.append(count)
    )
    fastconv.set_num_threads(2)
    grad = np.ones((1, 1, 100, 100), np.float32)  # 40 times as many pixels before the pooling
    fastconv.avg_pool2d_grad(grad, (1, 1, 200, 2000), (2, 20))
    fastconv.avg_pool2d_grad(grad[..., :9, :9], (1, 1, 18, 18), 2)
    assert chunks == [2]


@pytest.mark.usefixtures("restored_threads")
def test_set_num_threads() -> None:
    fastconv.set_num_threads(np.int64(5))
    assert fastconv.get_num_threads() == 5
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=rf"n must be .*{wrong}"):
            fastconv.set_num_threads(wrong)
    for wrong in (1.5, "2", None, True):
        with pytest.raises(TypeError, match="n must be an integer"):
            fastconv.set_num_threads(wrong)  # type: ignore[arg-type]
    assert fastconv.get_num_threads() == 5


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


def blas_threads() -> list[int]:
    # NumPy's own: other packages bring further copies that no product here goes through.
    return [info["num_threads"] for info in threadpool_info() if "numpy" in info["filepath"]]


def test_blas_threads_are_limited_inside_and_restored() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with blas.single_threaded():
            assert set(blas_threads()) == {1}
            with blas.single_threaded():
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(ZeroDivisionError):
            threads.run_tasks(lambda task: 1 // task, [3, 0, 1])
        assert blas_threads() == before


def test_any_thread_may_limit_blas() -> None:
    seen: list[list[int]] = []

    def limit() -> None:
        with blas.single_threaded():
            seen.append(blas_threads())

    with threadpool_limits(2, user_api="blas"):  # by this thread
        before = blas_threads()
        limit()
        for _ in range(2):
            other = threading.Thread(target=limit)
            other.start()
            other.join()
        assert blas_threads() == before
    assert {count for counts in seen for count in counts} == {1}


@pytest.mark.usefixtures("restored_threads")
def test_run_tasks_does_every_task_once() -> None:
    for count in (1, 2, 8):
        fastconv.set_num_threads(count)
        done: list[int] = []
        threads.run_tasks(done.append, range(100))
        assert sorted(done) == list(range(100))
        threads.run_tasks(done.append, [])
        assert len(done) == 100


def test_run_tasks_waits_for_helpers_that_did_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = _thread.start_new_thread, []

    def start_once(*arguments: Any) -> int:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(arguments)
        return start(*arguments)

    monkeypatch.setattr(threads, "_errands", queue.SimpleQueue())
    monkeypatch.setattr(threads, "_helpers_started", 0)
    monkeypatch.setattr(_thread, "start_new_thread", start_once)
    monkeypatch.setattr(threads, "_num_threads", 4)
    done: list[int] = []

    def work(task: int) -> None:
        time.sleep(0.01)
        done.append(task)

    threads.run_tasks(work, range(8))
    assert sorted(done) == list(range(8))
    assert len(started) == 1


def test_helpers_that_cannot_start_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    errands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    monkeypatch.setattr(threads, "_errands", errands)
    monkeypatch.setattr(threads, "_helpers_started", 0)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    monkeypatch.setattr(threads, "_num_threads", 4)
    done: list[int] = []
    threads.run_tasks(done.append, range(8))
    assert sorted(done) == list(range(8))
    assert errands.empty()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_an_interrupted_call_leaves_no_helper_at_work() -> None:
    program = """
import signal, threading, time
from fastconv import blas, threads
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
