"""Any number of threads gives the same bits; tasks and BLAS are spread over as many as asked."""

from __future__ import annotations

import _thread
import itertools
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastconv
from fastconv import nn
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.runtime import blas, threads
from fastconv.select.conv_registry import offering


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


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
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.usefixtures("restored_threads", "any_work_is_worth_a_thread")
def test_same_bits_for_any_number_of_threads(direction: Direction) -> None:
    rng = np.random.default_rng(1)
    compared = set()
    for problem, name in itertools.product(PROBLEMS, fastconv.algorithms(direction)):
        chosen = next(a for a in offering(direction) if a.name == name)
        slow = name == "reference" and (problem.K > 24 or problem.OH > 90)
        if slow or chosen[direction].refusal(problem) is not None:
            continue
        x, weight, grad = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in (problem.input_shape, problem.weight_shape, problem.output_shape)
        )
        options = {"padding": 1, "groups": problem.groups, "algorithm": name}
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
        assert len(results) == 1, (name, problem)
        compared.add(name)
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
    monkeypatch.setattr(threads, "run_parallel", lambda _, *numbers: chunks.append(numbers[4]))
    fastconv.set_num_threads(2)
    grad = np.ones((1, 1, 100, 100), np.float32)  # 40 times as many pixels before the pooling
    fastconv.avg_pool2d_grad(grad, (1, 1, 200, 2000), (2, 20))
    fastconv.avg_pool2d_grad(grad[..., :9, :9], (1, 1, 18, 18), 2)
    assert chunks == [2]


@pytest.mark.parametrize("algorithm", ["winograd_2x2", "winograd_4x4", "direct", "implicit_gemm"])
@pytest.mark.usefixtures("restored_threads", "any_work_is_worth_a_thread")
def test_another_thread_may_change_the_number_amid_a_call(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    for C, size in ((128, 28), (256, 7)):
        x = rng.standard_normal((1, C, size, size)).astype(np.float32)
        weight = rng.standard_normal((C, C, 3, 3)).astype(np.float32)
        plan = fastconv.plan_conv2d(x.shape, weight, padding=1, algorithm=algorithm)
        wanted = plan(x)
        for pair in itertools.permutations((1, 4, 8), 2):
            for number in pair:  # how the work is cut is kept
                fastconv.set_num_threads(number)
                plan(x)
            with monkeypatch.context() as patch:
                numbers = itertools.cycle(pair)
                patch.setattr(threads, "get_num_threads", lambda numbers=numbers: next(numbers))
                found = plan(x, out=np.full_like(wanted, np.nan))
            np.testing.assert_array_equal(found, wanted)


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

    monkeypatch.setattr(threads, "_jobs", queue.SimpleQueue())
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
    monkeypatch.setattr(threads, "_jobs", errands)
    monkeypatch.setattr(threads, "_helpers_started", 0)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    monkeypatch.setattr(threads, "_num_threads", 4)
    done: list[int] = []
    threads.run_tasks(done.append, range(8))
    assert sorted(done) == list(range(8))
    assert errands.empty()
