"""fastconv: fast 2-D convolution on the CPU in pure Python.

NumPy arrays in, NumPy arrays out, Numba for machine code. Public names are loaded when they are
first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives.
_HOMES = {
    "Conv2dPlan": "plan",
    "Conv2dProblem": "problem",
    "Pool2dProblem": "problem",
    "adaptive_avg_pool2d": "pooling.functional",
    "adaptive_avg_pool2d_grad": "pooling.functional",
    "algorithms": "registry",
    "avg_pool2d": "pooling.functional",
    "avg_pool2d_grad": "pooling.functional",
    "col2im": "functional",
    "conv2d": "functional",
    "conv2d_input_grad": "functional",
    "conv2d_weight_grad": "functional",
    "conv_transpose2d": "functional",
    "get_num_threads": "threads",
    "im2col": "functional",
    "max_pool2d": "pooling.functional",
    "max_pool2d_grad": "pooling.functional",
    "plan_conv2d": "functional",
    "pool_algorithms": "pooling.functional",
    "set_num_threads": "threads",
    "sliding_windows": "functional",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from fastconv.functional import (
        col2im,
        conv2d,
        conv2d_input_grad,
        conv2d_weight_grad,
        conv_transpose2d,
        im2col,
        plan_conv2d,
        sliding_windows,
    )
    from fastconv.plan import Conv2dPlan
    from fastconv.pooling.functional import (
        adaptive_avg_pool2d,
        adaptive_avg_pool2d_grad,
        avg_pool2d,
        avg_pool2d_grad,
        max_pool2d,
        max_pool2d_grad,
        pool_algorithms,
    )
    from fastconv.problem import Conv2dProblem, Pool2dProblem
    from fastconv.registry import algorithms
    from fastconv.threads import get_num_threads, set_num_threads


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f"fastconv.{home}"), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
