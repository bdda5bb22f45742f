"""Every pooling algorithm side by side: maximum and mean, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference_pooling as oracle
from cases import PoolCase
from timing import assert_close, measure, random_array

import fastconv

# The poolings of common networks.
CASES = (
    PoolCase("mnist_2x2", (64, 8, 28, 28), 2),
    PoolCase("resnet_3x3", (1, 64, 112, 112), 3, stride=2, padding=1),
    PoolCase("vgg_2x2", (1, 256, 56, 56), 2),
    PoolCase("inception_3x3", (1, 256, 28, 28), 3, stride=1, padding=1),
    PoolCase("global_7x7", (8, 512, 7, 7), 7),
)
# Windows one by one in Python: seconds a call.
LEFT_OUT = "reference"
# Means divide once; sums of a window have at most some dozen terms.
ALLOWED = 1e-5

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_algorithm = pytest.mark.parametrize(
    "algorithm", [name for name in fastconv.pool_algorithms() if name != LEFT_OUT]
)


def moved_bytes(case: PoolCase) -> float:
    """Return the bytes of input and output: what pooling cannot avoid to touch."""
    return 4.0 * (np.prod(case.input_shape) + np.prod(case.output_shape))


@each_case
@each_algorithm
def test_max_pool(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x = random_array(case.input_shape, 0)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.max_pool2d(x, *window, return_indices=True, algorithm=algorithm)

    values, indices = oracle.max_pool2d(x, *window)
    result, places = run()
    np.testing.assert_array_equal(result, values)
    np.testing.assert_array_equal(places, indices)
    measure(benchmark, f"{case.name} max", run, moved_bytes(case))


@each_case
@each_algorithm
def test_max_pool_grad(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x, grad = random_array(case.input_shape, 0), random_array(case.output_shape, 1)
    window = (case.kernel_size, case.stride, case.padding)
    _, indices = oracle.max_pool2d(x, *window)

    def run() -> Any:
        return fastconv.max_pool2d_grad(grad, indices, case.input_shape, algorithm=algorithm)

    assert_close(run(), oracle.max_pool2d_grad(grad, indices, case.input_shape), ALLOWED)
    measure(benchmark, f"{case.name} max grad", run, moved_bytes(case))


@each_case
@each_algorithm
def test_avg_pool(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    x = random_array(case.input_shape, 0)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.avg_pool2d(x, *window, algorithm=algorithm)

    assert_close(run(), oracle.avg_pool2d(x, *window), ALLOWED)
    measure(benchmark, f"{case.name} mean", run, moved_bytes(case))


@each_case
@each_algorithm
def test_avg_pool_grad(benchmark: Any, case: PoolCase, algorithm: str) -> None:
    grad = random_array(case.output_shape, 1)
    window = (case.kernel_size, case.stride, case.padding)

    def run() -> Any:
        return fastconv.avg_pool2d_grad(grad, case.input_shape, *window, algorithm=algorithm)

    assert_close(run(), oracle.avg_pool2d_grad(grad, case.input_shape, *window), ALLOWED)
    measure(benchmark, f"{case.name} mean grad", run, moved_bytes(case))
