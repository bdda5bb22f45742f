"""Wrong arguments of pooling raise ValueError or TypeError, as those of convolution do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bad_calls import HUGE, NAN, NOT_POSITIVE, OTHERS, POOLS, UNPOOLS, call, zeros
from checks import refused


@pytest.mark.parametrize(("value", "shown"), NOT_POSITIVE, ids=lambda v: repr(v)[:30])
@pytest.mark.parametrize("argument", ["kernel_size", "stride"])
@pytest.mark.parametrize("function", [*POOLS, "max_unpool2d"])
def test_kernel_and_stride_of_pooling(function: str, argument: str, value: Any, shown: Any) -> None:
    if (argument, shown) == ("stride", ()):
        call(function, stride=())  # PyTorch's other word for None
        return
    with refused(argument, shown):
        call(function, **{argument: value})


@pytest.mark.parametrize(("value", "shown"), NOT_POSITIVE, ids=lambda v: repr(v)[:30])
def test_other_positive_numbers(value: Any, shown: Any) -> None:
    for function in POOLS:
        with refused("dilation", shown):
            call(function, dilation=value)
    for function in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        if shown is None:
            call(function, output_size=value)  # as many columns as there are
            return
        with refused("output_size", shown):
            call(function, output_size=value)


@pytest.mark.parametrize("value", [0, 1.5, NAN, True, "2", (2,), [2, 2], HUGE, -HUGE], ids=repr)
@pytest.mark.parametrize("function", ["avg_pool2d", "avg_pool2d_grad"])
def test_divisor(function: str, value: Any) -> None:
    with refused("divisor_override", "nan" if value is NAN else value):
        call(function, divisor_override=value)


@pytest.mark.parametrize("function", POOLS)
def test_pooling_padding_over_half_the_window(function: str) -> None:
    with refused("padding", 2):
        call(function, padding=2)
    with refused("padding", 3):
        call(function, padding=(1, 3))
    with pytest.raises(ValueError, match="wide_padding=True"):
        call(function, padding=2)


@pytest.mark.parametrize("value", [None, 1, "yes", 0.5, [True]], ids=repr)
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        *((function, "ceil_mode") for function in POOLS),
        ("avg_pool2d", "count_include_pad"),
        ("avg_pool2d_grad", "count_include_pad"),
        ("max_pool2d", "return_indices"),
        ("adaptive_max_pool2d", "return_indices"),
        *((function, "wide_padding") for function in (*POOLS, "max_pool2d_grad")),
    ],
)
def test_flags(function: str, argument: str, value: Any) -> None:
    with refused(argument, value):
        call(function, **{argument: value})


@pytest.mark.parametrize("function", POOLS)
@pytest.mark.parametrize("kernel", [8, (1, 9), (8, 1), (100, 100)])
def test_pooling_window_over_the_input(function: str, kernel: Any) -> None:
    with refused("kernel_size", max(kernel) if isinstance(kernel, tuple) else kernel):
        call(function, kernel_size=kernel)


# Of empty dimensions only that of the batch has a pooling.
@pytest.mark.parametrize("shape", [(2, 0, 7, 8), (0, 0, 7, 8), (2, 3, 0, 8), (2, 3, 7, 0)])
@pytest.mark.parametrize("function", ["max_pool2d", "avg_pool2d", "adaptive_max_pool2d"])
def test_pooling_of_nothing(function: str, shape: tuple[int, ...]) -> None:
    with refused("x", 0):
        call(function, x=np.zeros(shape))
    assert call(function, x=np.zeros((0, 3, 7, 8))).shape[:2] == (0, 3)


@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (2, 3, 3, 2), (1, 3, 2, 2), (2, 4, 2, 2)])
def test_pooling_gradient_of_another_shape(shape: tuple[int, ...]) -> None:
    with refused("grad_output", shape):
        call("avg_pool2d_grad", grad_output=np.zeros(shape))
    with refused("indices", shape):
        call("max_pool2d_grad", indices=np.zeros(shape, np.int64))


def test_pooling_gradient_of_other_planes() -> None:
    for function in ("max_pool2d_grad", "adaptive_avg_pool2d_grad"):
        for shape in ((1, 3, 7, 8), (2, 2, 7, 8)):
            # Which of the two is wrong nobody knows: the gradient is shown.
            with refused("grad_output", OTHERS[function]["grad_output"].shape):
                call(function, input_shape=shape)


def test_indices_that_are_no_integers() -> None:
    for dtype in ("float64", "bool"):
        for function in ("max_pool2d_grad", *UNPOOLS):
            with refused("indices", dtype):
                call(function, indices=zeros(2, 3, 2, 2, dtype=dtype))
