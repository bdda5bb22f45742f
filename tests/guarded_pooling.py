"""Poolings on arrays that touch protected pages: a stray access ends the process.

`guarded_runs` runs it; in a narrower instruction set only what is written in vector instructions,
on one thread. What the library makes for itself (the results, the places of maxima, its tables) is
guarded too, and results are full of NaN before.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import reference_pooling as oracle
from guarded_memory import guarded
from numpy.typing import NDArray

import fastconv
from fastconv.api import max_pool_training
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.jit import launch
from fastconv.runtime import output_memory

Array = NDArray[Any]

#: Window, stride and type; each is several kernels.
SMALL: tuple[tuple[int, int, Any], ...] = (
    (2, 2, np.float32),
    (3, 2, np.float64),
    (3, 1, np.float32),
)


class Guard:
    """NumPy, but that new arrays lie between protected pages and are full of NaN."""

    at_end = True

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> Array:
        """Return an array that nothing was written to, and that nothing is beside."""
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xFF
        return guarded(array, Guard.at_end)


def guard_the_library() -> None:
    """Put what the library allocates for itself between protected pages."""
    begin = launch.Launch.__init__

    def with_guarded_tables(self: Any, code: int, tables: Any, sizes: Any) -> None:
        begin(self, code, [guarded(table, Guard.at_end) for table in tables], sizes)

    launch.Launch.__init__ = with_guarded_tables  # type: ignore[method-assign]
    output_memory.np = Guard()  # type: ignore[attr-defined]
    output_memory.LEAST_BYTES = sys.maxsize  # none of them in memory that is used again


def random_rule(rng: np.random.Generator, number: int, tiles: bool) -> tuple[Any, ...]:
    """Return the size of the input, and a pooling that it has windows for."""
    while True:
        if tiles or number % 3:
            size, step, dtype = SMALL[number % (2 if tiles else 3)]
            window, stride, dilation = (size, size), (step, step), (1, 1)
        else:
            dtype = (np.float32, np.float64)[number % 2]
            window, stride, dilation = (
                (int(a), int(b))
                for a, b in (rng.integers(1, 9, 2), rng.integers(1, 6, 2), rng.integers(1, 4, 2))
            )
        most = rng.choice([5, 20, 70])
        shape = (int(rng.integers(1, 3)), 3, int(rng.integers(1, 14)), int(rng.integers(1, most)))
        spans = [gap * (taps - 1) + 1 for taps, gap in zip(window, dilation, strict=True)]
        padding = tuple(
            (int(rng.integers(0, span // 2 + 1)), int(rng.integers(0, span // 2 + 1)))
            for span in spans
        )
        rule = window, stride, padding, dilation, bool(rng.integers(2))
        try:
            Pool2dProblem.from_shapes(shape, *rule)
            if all(axis.all_meet_the_input() for axis in oracle.axes(shape[2:], *rule)):
                return shape, rule, dtype
        except ValueError:
            continue


def near(actual: Array, expected: Array) -> bool:
    """Return whether sums are right."""
    return np.allclose(actual, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def check_any_windows(rng: np.random.Generator, number: int, at_end: bool) -> bool:
    """Return the same of windows in the padding, of given output sizes, and of their inverse."""
    dtype = (np.float32, np.float64, np.int8)[number % 3]
    shape = (1, 2, *(int(n) for n in rng.integers(1, 30, 2)))
    x = guarded(rng.integers(-9, 10, shape).astype(dtype), at_end)
    padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 9, (2, 2)))
    kernel, gap = (1, 1), int(rng.integers(1, 4))
    if min(shape[2:]) > gap:
        kernel = (2, int(rng.integers(1, 3)))
    rule = kernel, int(rng.integers(1, 5)), padding, gap, bool(number % 2)
    values, indices = oracle.max_pool2d(x, *rule, wide_padding=True)
    wide = {"wide_padding": True}
    found, where = fastconv.max_pool2d(x, *rule, return_indices=True, **wide)
    right = np.array_equal(found, values) and np.array_equal(where, indices)
    right &= np.array_equal(fastconv.max_pool2d(x, *rule, **wide), values)
    outputs = int(rng.integers(1, shape[2] + 3)), int(rng.integers(1, shape[3] + 3))
    values, indices = oracle.adaptive_max_pool2d(x, outputs)
    found, where = fastconv.adaptive_max_pool2d(x, outputs, True)
    right &= np.array_equal(found, values) and np.array_equal(where, indices)
    size = values.shape[2:]
    alone = tuple((n - 1, 0) for n in size)  # with which the planes have the size of x
    held, where = guarded(values, at_end), guarded(indices, at_end)
    planes = fastconv.max_unpool2d(held, where, shape[2:], 1, alone)
    right &= np.array_equal(planes, oracle.max_unpool2d(values, indices, shape[2:]))
    back = fastconv.max_unpool2d_grad(x, where)
    right &= np.array_equal(back, oracle.max_unpool2d_grad(x, indices))
    mean_rule = (*rule[:3], rule[4], bool(number % 3), None, gap)
    named = {"dilation": gap, **wide}
    expected = oracle.avg_pool2d(x, *mean_rule)
    right &= near(fastconv.avg_pool2d(x, *mean_rule[:5], **named), expected)
    grad = rng.integers(-9, 10, expected.shape).astype(np.float32)
    sent = guarded(grad, at_end)
    expected = oracle.avg_pool2d_grad(grad, shape, *mean_rule)
    right &= near(fastconv.avg_pool2d_grad(sent, shape, *mean_rule[:5], **named), expected)
    if not right:
        print(shape, rule, dtype, outputs, file=sys.stderr)
    return right


def check(rng: np.random.Generator, number: int, tiles: bool) -> bool:
    """Return whether maxima, means and their gradients of one problem come out right."""
    shape, rule, dtype = random_rule(rng, number, tiles)
    x = rng.integers(-9, 10, shape).astype(dtype)
    values, indices = oracle.max_pool2d(x, *rule)
    grad = rng.integers(-9, 10, values.shape).astype(dtype)
    back = oracle.max_pool2d_grad(grad, indices, shape)
    window, stride, padding, dilation, ceil_mode = rule
    mean_rule = window, stride, padding, ceil_mode, bool(number % 2)
    outputs = int(rng.integers(1, shape[2] + 3)), int(rng.integers(1, shape[3] + 3))
    few = rng.integers(-9, 10, (*shape[:2], *outputs)).astype(dtype)
    fastconv.set_num_threads(number % 3 + 1)
    right = True
    for at_end in (True, False):
        Guard.at_end = at_end
        image, sent = guarded(x, at_end), guarded(grad, at_end)
        right &= np.array_equal(fastconv.max_pool2d(image, *rule), values)
        problem = Pool2dProblem.from_shapes(shape, *rule, np.dtype(dtype).name)
        found, argmax = max_pool_training.max_pool2d_training(image, problem)
        right &= np.array_equal(found, values)
        right &= np.array_equal(max_pool_training.max_pool2d_training_grad(sent, argmax), back)
        found, argmax = max_pool_training.max_pool2d_training(image, problem, relu=True)
        right &= np.array_equal(found, np.maximum(values, 0))
        passed = oracle.max_pool2d_grad(np.where(values > 0, grad, 0), indices, shape)
        right &= np.array_equal(max_pool_training.max_pool2d_training_grad(sent, argmax), passed)
        found, where = fastconv.max_pool2d(image, *rule, return_indices=True)
        right &= np.array_equal(found, values) and np.array_equal(where, indices)
        if not tiles:
            right &= np.array_equal(fastconv.max_pool2d_grad(sent, where, shape), back)
        if dilation == (1, 1):
            expected = oracle.avg_pool2d(x, *mean_rule)
            right &= near(fastconv.avg_pool2d(image, *mean_rule), expected)
            expected = oracle.avg_pool2d_grad(grad, shape, *mean_rule)
            right &= near(fastconv.avg_pool2d_grad(sent, shape, *mean_rule), expected)
        expected = oracle.adaptive_avg_pool2d(x, outputs)
        right &= near(fastconv.adaptive_avg_pool2d(image, outputs), expected)
        expected = oracle.adaptive_avg_pool2d_grad(few, shape)
        few_sent = guarded(few, at_end)
        right &= near(fastconv.adaptive_avg_pool2d_grad(few_sent, shape), expected)
        right &= tiles or check_any_windows(rng, number, at_end)
    if not right:
        print(shape, rule, dtype, outputs, file=sys.stderr)
    return right
