"""fastconv: fast 2-D convolution on the CPU in pure Python.

NumPy arrays in, NumPy arrays out, Numba for machine code. Public names are loaded when they are
first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastconv.core.public_names import public_names
from fastconv.runtime import forks

# Where editors find the docstrings of what __init__.pyi has overloads of.
# ruff: noqa: F401
if TYPE_CHECKING:
    from fastconv.api.adaptive_pool2d import (
        adaptive_avg_pool2d,
        adaptive_avg_pool2d_grad,
        adaptive_max_pool2d,
    )
    from fastconv.api.avg_pool2d import avg_pool2d, avg_pool2d_grad
    from fastconv.api.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad, plan_conv2d
    from fastconv.api.conv2d_backward import Conv2dGradients, conv2d_backward
    from fastconv.api.conv_transpose2d import conv_transpose2d
    from fastconv.api.im2col_col2im import col2im, im2col, sliding_windows
    from fastconv.api.max_pool2d import max_pool2d, max_pool2d_grad
    from fastconv.api.max_unpool2d import max_unpool2d, max_unpool2d_grad
    from fastconv.pooling.pool_registry import pool_algorithms
    from fastconv.select.conv_registry import algorithms
    from fastconv.select.plan import Conv2dPlan

__version__ = "0.1.0"

# Where each public name lives; the types of all of them are in __init__.pyi.
_HOMES = {
    "api.conv2d": (
        "conv2d",
        "conv2d_input_grad",
        "conv2d_weight_grad",
        "plan_conv2d",
    ),
    "api.conv2d_backward": ("Conv2dGradients", "conv2d_backward"),
    "api.conv_transpose2d": ("conv_transpose2d",),
    "api.im2col_col2im": ("im2col", "col2im", "sliding_windows"),
    "api.max_pool2d": ("max_pool2d", "max_pool2d_grad"),
    "api.avg_pool2d": ("avg_pool2d", "avg_pool2d_grad"),
    "api.adaptive_pool2d": (
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_grad",
        "adaptive_max_pool2d",
    ),
    "api.max_unpool2d": ("max_unpool2d", "max_unpool2d_grad"),
    "pooling.pool_registry": ("pool_algorithms",),
    "select.plan": ("Conv2dPlan",),
    "core.precision": ("at_precision", "get_precision", "set_precision"),
    "core.conv_problem": ("Conv2dProblem",),
    "core.pool_problem": ("Pool2dProblem",),
    "select.conv_registry": ("algorithms",),
    "estimator.classifier": ("CNNClassifier",),
    "runtime.threads": ("get_num_threads", "set_num_threads"),
    "select.tuning": ("set_tuning",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Public modules, loaded in the same way.
_MODULES = ("data", "nn", "onnx", "plots")

__all__ = sorted([*_HOME_OF, *_MODULES])


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    with forks.held_off():
        hints = importlib.import_module("fastconv.core.hints")
        if name not in __all__:
            known = [f"fastconv.{other}" for other in __all__]
            for module in _MODULES:
                known += [f"fastconv.{module}.{n}" for n in __getattr__(module).__all__]
            raise hints.no_attribute("fastconv", name, known)
        if name in _MODULES:
            return importlib.import_module(f"fastconv.{name}")
        value = getattr(importlib.import_module(f"fastconv.{_HOME_OF[name]}"), name)
    value = globals()[name] = hints.explained(value)  # for the next access too
    return value


def __dir__() -> list[str]:
    return public_names(globals())
