"""The parameters of `fastconv.CNNClassifier`: all are checked before anything is learned."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastconv.core.arguments import as_flag
from fastconv.core.geometry import as_int, as_ints
from fastconv.nn.layer_arguments import LARGEST, as_number

OptimizerName: TypeAlias = Literal["adam", "adamw", "sgd"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


def check_settings(given: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError for a parameter that is wrong, naming it.

    >>> check_settings({"filters": 8})
    Traceback (most recent call last):
    TypeError: filters must be a tuple of integers, one a convolution, got 8: did you mean (8,)?
    """
    _check_filters(given["filters"])
    for name, least in (("dense", 0), ("epochs", 1), ("batch_size", 1), ("patience", 1)):
        as_int(name, given[name], least)
    for name, most in (("learning_rate", LARGEST), ("weight_decay", LARGEST), ("dropout", 1)):
        as_number(name, given[name], 0, most)
    fraction = as_number("validation_fraction", given["validation_fraction"], 0, 1)
    if fraction in (0, 1):
        raise ValueError(f"validation_fraction must be above 0 and below 1, got {fraction:g}")
    for name in ("batch_norm", "early_stopping", "warm_start"):
        as_flag(name, given[name])
    optimizer = given["optimizer"]
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    _check_class_weight(given["class_weight"])
    augment = given["augment"]
    auto = isinstance(augment, str) and augment == "auto"
    if not (auto or callable(augment) or isinstance(augment, bool | np.bool)):
        raise ValueError(f"augment must be 'auto', True, False or a callable, got {augment!r}")
    _check_image_shape(given["image_shape"])
    _check_random_state(given["random_state"])
    verbose = given["verbose"]
    as_int("verbose", int(verbose) if isinstance(verbose, bool | np.bool) else verbose, 0)


def _check_filters(filters: Any) -> None:
    try:
        count = len(filters)
    except TypeError:
        hint = f": did you mean ({filters},)?" if type(filters) is int else ""
        raise TypeError(
            f"filters must be a tuple of integers, one a convolution, got {filters!r}{hint}"
        ) from None
    as_ints("filters", filters, count, 1)


def _check_class_weight(weight: Any) -> None:
    if isinstance(weight, Mapping):
        for label, value in weight.items():
            as_number(f"class_weight[{label!r}]", value, 0)
    elif weight is not None and not (isinstance(weight, str) and weight == "balanced"):
        raise ValueError(
            "class_weight must be 'balanced', None, or a dict that gives classes a weight, got "
            f"{weight!r}"
        )


def _check_image_shape(shape: Any) -> None:
    if shape is None:
        return
    try:
        length = len(shape)
    except TypeError:
        raise TypeError(f"image_shape must be (H, W) or (C, H, W), got {shape!r}") from None
    if length not in (2, 3):
        raise ValueError(f"image_shape must be (H, W) or (C, H, W), got {shape!r}")
    as_ints("image_shape", shape, length, 1)


def _check_random_state(state: Any) -> None:
    seed = isinstance(state, numbers.Integral) and 0 <= int(state) < 2**32
    generator = state is np.random or isinstance(state, np.random.RandomState)
    if not (seed or generator or state is None):
        raise ValueError(
            "random_state must be a whole number from 0 to 2**32 - 1, a numpy.random.RandomState "
            f"or None, got {state!r}"
        )
