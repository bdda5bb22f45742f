"""fastconv: fast 2-D convolution on the CPU in pure Python.

NumPy arrays in, NumPy arrays out, Numba for machine code. Public names are loaded when they are
first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastconv import forks

__version__ = "0.1.0"

# Where each public name lives; the types of all of them are in __init__.pyi.
_HOMES = {
    "functional": (
        "conv2d",
        "conv2d_input_grad",
        "conv2d_weight_grad",
        "plan_conv2d",
    ),
    "backward": ("Conv2dGradients", "conv2d_backward"),
    "transposed": ("conv_transpose2d",),
    "columns": ("im2col", "col2im", "sliding_windows"),
    "pooling.maximum": ("max_pool2d", "max_pool2d_grad"),
    "pooling.mean": ("avg_pool2d", "avg_pool2d_grad"),
    "pooling.adaptive": (
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_grad",
        "adaptive_max_pool2d",
    ),
    "pooling.unpooling": ("max_unpool2d", "max_unpool2d_grad"),
    "pooling.registry": ("pool_algorithms",),
    "plan": ("Conv2dPlan",),
    "precision": ("at_precision", "get_precision", "set_precision"),
    "problem": ("Conv2dProblem",),
    "pooling.problem": ("Pool2dProblem",),
    "registry": ("algorithms",),
    "estimator": ("CNNClassifier",),
    "threads": ("get_num_threads", "set_num_threads"),
    "tuning": ("set_tuning",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Public modules, loaded in the same way.
_MODULES = ("data", "nn", "plots")

__all__ = sorted([*_HOME_OF, *_MODULES])


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    with forks.held_off():
        if name in _MODULES:
            return importlib.import_module(f"fastconv.{name}")
        value = getattr(importlib.import_module(f"fastconv.{_HOME_OF[name]}"), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
