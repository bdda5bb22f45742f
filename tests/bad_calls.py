"""Valid calls of the public functions; tests of wrong arguments spoil one argument of each."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastconv

NAN = float("nan")
HUGE = 10**12


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Build an array of zeros, by default float32."""
    return np.zeros(shape, dtype)


# One valid call of each function; each test spoils one argument. groups=2, 3x3 kernel, 5x6 output.
GOOD: dict[str, dict[str, Any]] = {
    "conv2d": {"x": zeros(2, 4, 7, 8), "weight": zeros(6, 2, 3, 3), "groups": 2},
    "conv2d_input_grad": {
        "input_shape": (2, 4, 7, 8),
        "weight": zeros(6, 2, 3, 3),
        "grad_output": zeros(2, 6, 5, 6),
        "groups": 2,
    },
    "conv2d_weight_grad": {
        "x": zeros(2, 4, 7, 8),
        "weight_shape": (6, 2, 3, 3),
        "grad_output": zeros(2, 6, 5, 6),
        "groups": 2,
    },
    "plan_conv2d": {"input_shape": (2, 4, 7, 8), "weight": zeros(6, 2, 3, 3), "groups": 2},
}
CONVOLUTIONS = tuple(GOOD)
POOLS: dict[str, dict[str, Any]] = {
    "max_pool2d": {"x": zeros(2, 3, 7, 8), "kernel_size": 3},
    "avg_pool2d": {"x": zeros(2, 3, 7, 8), "kernel_size": 3},
    "avg_pool2d_grad": {
        "grad_output": zeros(2, 3, 2, 2),
        "input_shape": (2, 3, 7, 8),
        "kernel_size": 3,
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "max_pool2d_grad": {
        "grad_output": zeros(2, 3, 2, 2),
        "indices": zeros(2, 3, 2, 2, dtype=np.int64),
        "input_shape": (2, 3, 7, 8),
    },
    "adaptive_avg_pool2d": {"x": zeros(2, 3, 7, 8), "output_size": 3},
    "adaptive_max_pool2d": {"x": zeros(2, 3, 7, 8), "output_size": 3},
    "adaptive_avg_pool2d_grad": {
        "grad_output": zeros(2, 3, 3, 4),
        "input_shape": (2, 3, 7, 8),
    },
}
UNPOOLS: dict[str, dict[str, Any]] = {
    "max_unpool2d": {
        "x": zeros(2, 3, 2, 2),
        "indices": zeros(2, 3, 2, 2, dtype=np.int64),
        "kernel_size": 3,
    },
    "max_unpool2d_grad": {
        "grad_output": zeros(2, 3, 6, 6),
        "indices": zeros(2, 3, 2, 2, dtype=np.int64),
    },
}
ALL = {**GOOD, **POOLS, **OTHERS, **UNPOOLS}


def call(function: str, **spoiled: Any) -> Any:
    """Make the valid call, some arguments replaced."""
    return getattr(fastconv, function)(**{**ALL[function], **spoiled})


# Value of an argument that wants one positive integer for each axis, and what must be shown.
NOT_POSITIVE = [
    (0, 0),
    (-1, -1),
    ((1, 0), 0),
    ((-3, 1), -3),
    (1.0, 1.0),
    (1.5, 1.5),
    (NAN, "nan"),
    ((1, NAN), "nan"),
    (float("inf"), "inf"),
    (True, True),
    (np.True_, repr(np.True_)),
    ((2, False), False),
    ("2", 2),
    ("two", "two"),
    (b"2", "2"),
    ((1, 2, 3), (1, 2, 3)),
    ((), ()),
    ([2, "2"], 2),
    ((1, None), None),
    (2 + 0j, 2 + 0j),
    (np.float64(2), 2.0),
    (np.array([1.0, 2.0]), 1.0),
    (object, object),
    (2**63, 2**63),
    (HUGE, HUGE),
]
