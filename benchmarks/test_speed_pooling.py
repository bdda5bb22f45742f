"""Every pooling algorithm, PyTorch if it is there, and a copy of as many bytes, side by side."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import reference_pooling as oracle
from cases import PoolCase
from timing import assert_close, measure, random_array

import fastconv
from fastconv.api.max_pool_training import max_pool2d_training, max_pool2d_training_grad
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.runtime.threads import run_tasks

# The poolings of common networks, in batches as in training and one image at a time.
CASES = (
    PoolCase("mnist_2x2", (64, 8, 28, 28), 2),
    PoolCase("batch_2x2", (64, 128, 28, 28), 2),
    PoolCase("resnet_3x3", (1, 64, 112, 112), 3, stride=2, padding=1),
    PoolCase("resnet_3x3_batch", (8, 64, 112, 112), 3, stride=2, padding=1),
    PoolCase("vgg_2x2", (1, 256, 56, 56), 2),
    PoolCase("inception_3x3", (1, 256, 28, 28), 3, stride=1, padding=1),
    PoolCase("global_7x7", (8, 2048, 7, 7), 7),
)
# Windows one by one in Python: seconds a call.
LEFT_OUT = "reference"
# Means divide once; sums of a window have at most some dozen terms.
ALLOWED = 1e-5

TORCH, COPY = "torch", "copy"
PEERS = (TORCH, COPY) if find_spec("torch") else (COPY,)

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_algorithm = pytest.mark.parametrize(
    "algorithm", [*(name for name in fastconv.pool_algorithms() if name != LEFT_OUT), *PEERS]
)


def moved_bytes(case: PoolCase) -> float:
    """Return the bytes of input and output: what pooling cannot avoid to touch."""
    return 4.0 * (np.prod(case.input_shape) + np.prod(case.output_shape))


def copier(case: PoolCase) -> Callable[[], None]:
    """Return a copy that reads and writes as many bytes together, by all threads."""
    threads = fastconv.get_num_threads()
    source = random_array((threads, int(moved_bytes(case) / 8 / threads)), 0)
    target = np.empty_like(source)
    return lambda: run_tasks(lambda part: np.copyto(target[part], source[part]), range(threads))


def peer(name: str, case: PoolCase, work: str) -> Callable[[], Any]:
    """Return the same work as PyTorch does it, or a copy instead."""
    if name == COPY:
        return copier(case)
    import torch

    torch.set_num_threads(fastconv.get_num_threads())
    x, grad = (
        torch.from_numpy(random_array(shape, seed))
        for seed, shape in enumerate((case.input_shape, case.output_shape))
    )
    step, window = case.stride or case.kernel_size, [case.kernel_size] * 2
    stride, padding = [step] * 2, [case.padding] * 2
    if work == "max":
        return lambda: torch.nn.functional.max_pool2d(x, window, stride, padding)
    if work == "mean":
        return lambda: torch.nn.functional.avg_pool2d(x, window, stride, padding)
    if work == "mean grad":
        back = torch.ops.aten.avg_pool2d_backward
        return lambda: back(grad, x, window, stride, padding, False, True, None)
    _, indices = torch.nn.functional.max_pool2d(x, window, stride, padding, return_indices=True)
    back = torch.ops.aten.max_pool2d_with_indices_backward
    return lambda: back(grad, x, window, stride, padding, [1, 1], False, indices)


@each_case
@each_algorithm
def test_max_pool(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x = random_array(case.input_shape, 0)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.max_pool2d(x, *window, algorithm=algorithm)

    if algorithm in PEERS:
        run = peer(algorithm, case, "max")
    if algorithm != COPY:
        values, _ = oracle.max_pool2d(x, *window)
        np.testing.assert_array_equal(np.asarray(run()), values)
    measure(benchmark, f"{case.name} max", run, moved_bytes(case))


@each_case
@each_algorithm
def test_max_pool_grad(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x, grad = random_array(case.input_shape, 0), random_array(case.output_shape, 1)
    window = (case.kernel_size, case.stride, case.padding)
    _, indices = oracle.max_pool2d(x, *window)

    def run() -> Any:
        return fastconv.max_pool2d_grad(grad, indices, case.input_shape, algorithm=algorithm)

    if algorithm in PEERS:
        run = peer(algorithm, case, "max grad")
    if algorithm != COPY:
        right = oracle.max_pool2d_grad(grad, indices, case.input_shape)
        assert_close(np.asarray(run()), right, ALLOWED)
    measure(benchmark, f"{case.name} max grad", run, moved_bytes(case))


@each_case
def test_max_pool_grad_in_training(benchmark: Any, case: PoolCase) -> None:
    """What `fastconv.nn.MaxPool2d` does: indices of one byte, gradients gathered."""
    x, grad = random_array(case.input_shape, 0), random_array(case.output_shape, 1)
    window = (case.kernel_size, case.stride, case.padding)
    _, argmax = max_pool2d_training(x, Pool2dProblem.from_shapes(case.input_shape, *window))
    _, indices = oracle.max_pool2d(x, *window)

    def run() -> Any:
        return max_pool2d_training_grad(grad, argmax)

    assert_close(run(), oracle.max_pool2d_grad(grad, indices, case.input_shape), ALLOWED)
    measure(benchmark, f"{case.name} max grad", run, moved_bytes(case))


@each_case
@each_algorithm
def test_avg_pool(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x = random_array(case.input_shape, 0)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.avg_pool2d(x, *window, algorithm=algorithm)

    if algorithm in PEERS:
        run = peer(algorithm, case, "mean")
    if algorithm != COPY:
        assert_close(np.asarray(run()), oracle.avg_pool2d(x, *window), ALLOWED)
    measure(benchmark, f"{case.name} mean", run, moved_bytes(case))


@each_case
@each_algorithm
def test_avg_pool_grad(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    grad = random_array(case.output_shape, 1)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.avg_pool2d_grad(grad, case.input_shape, *window, algorithm=algorithm)

    if algorithm in PEERS:
        run = peer(algorithm, case, "mean grad")
    if algorithm != COPY:
        right = oracle.avg_pool2d_grad(grad, case.input_shape, *window)
        assert_close(np.asarray(run()), right, ALLOWED)
    measure(benchmark, f"{case.name} mean grad", run, moved_bytes(case))
