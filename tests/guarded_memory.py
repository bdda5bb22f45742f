"""Convolutions on arrays that touch protected pages: a stray access ends the process.

Run as ``python guarded_memory.py ALGORITHM COUNT``; prints how many problems came out right.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastconv

PAGE = mmap.PAGESIZE
PROT_NONE = 0


def guarded(values: NDArray[Any], at_end: bool) -> NDArray[Any]:
    """Return a copy of `values` that ends where a protected page begins, or starts after one."""
    pages = -(-values.nbytes // PAGE) or 1
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (0, pages + 1):
        place = ctypes.c_void_p(address + page * PAGE)
        if libc.mprotect(place, ctypes.c_size_t(PAGE), PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = (pages + 1) * PAGE - values.nbytes if at_end else PAGE
    array = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    array[...] = values
    return array


def random_problem(rng: np.random.Generator) -> dict[str, Any]:
    """Return shapes and parameters of a convolution, sizes on both sides of every tile."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    c, k = groups * rng.integers(1, 6), groups * rng.integers(1, 40)
    kernel = rng.integers(1, 5, 2)
    stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = rng.integers(0, 3, (2, 2)) * rng.integers(0, 2)
    spans = dilation * (kernel - 1) + 1
    size = np.maximum(spans - padding.sum(axis=1), 1) + rng.integers(0, 33, 2)
    return {
        "input_shape": tuple(map(int, (rng.integers(1, 3), c, *size))),
        "weight_shape": tuple(map(int, (k, c // groups, *kernel))),
        "stride": tuple(map(int, stride)),
        "padding": tuple(tuple(map(int, sides)) for sides in padding),
        "dilation": tuple(map(int, dilation)),
        "groups": groups,
    }


def check(rng: np.random.Generator, algorithm: str) -> bool:
    """Return whether one problem comes out right; integers, so that it is exactly right."""
    options = random_problem(rng)
    input_shape, weight_shape = options.pop("input_shape"), options.pop("weight_shape")
    dtype = rng.choice([np.float32, np.float64])
    x, weight = (rng.integers(-3, 4, shape).astype(dtype) for shape in (input_shape, weight_shape))
    bias = rng.integers(-3, 4, weight_shape[0]).astype(dtype)
    expected = fastconv.conv2d(x, weight, bias, algorithm="im2col", **options)
    assert math.prod(expected.shape)
    right = True
    for at_end in (True, False):
        plan = fastconv.plan_conv2d(
            input_shape,
            guarded(weight, at_end),
            guarded(bias, at_end),
            algorithm=algorithm,
            **options,
        )
        out = guarded(np.full_like(expected, np.nan), at_end)
        plan(guarded(x, at_end), out=out)
        right &= np.array_equal(out, expected)
    return right


if __name__ == "__main__":
    generator = np.random.default_rng(11)
    print(sum(check(generator, sys.argv[1]) for _ in range(int(sys.argv[2]))))
