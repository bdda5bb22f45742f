"""Wrong arguments raise ValueError or TypeError that names the argument and shows what it was."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from bad_calls import ALL, CONVOLUTIONS, GOOD, HUGE, NAN, NOT_POSITIVE, POOLS, UNPOOLS, call, zeros
from checks import refused

import fastconv


@pytest.mark.parametrize("function", ALL)
def test_the_valid_calls_are_valid(function: str) -> None:
    call(function)


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "shown"), NOT_POSITIVE, ids=lambda v: repr(v)[:30])
@pytest.mark.parametrize("argument", ["stride", "dilation"])
@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_stride_and_dilation(function: str, argument: str, value: Any, shown: Any) -> None:
    with refused(argument, shown):
        call(function, **{argument: value})


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_dilation_over_the_input(function: str) -> None:
    # A kernel of three then spans 13, but the padded input has no more than 9.
    with pytest.raises(ValueError, match=r"\bweight") as caught:
        call(function, dilation=6, padding=(1, 0))
    for word in ("dilation", "13", "9"):
        assert re.search(rf"\b{word}\b", str(caught.value))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1, -1),
        ((0, -2), -2),
        (((0, 0), (0, -1)), -1),
        (0.0, 0.0),
        (NAN, "nan"),
        (True, True),
        (None, None),
        ("full", "full"),
        ("SAME", "SAME"),
        ("1", 1),
        ((1, 2, 3), (1, 2, 3)),
        (((1, 1), 1), (1, 1)),
        (((1, 1), (1, 1), (1, 1)), ((1, 1), (1, 1), (1, 1))),
        (((1, 2, 3), (1, 2)), (1, 2, 3)),
        (("same", "same"), "same"),
        (HUGE, HUGE),
        ((0, HUGE), HUGE),
        (((0, HUGE), (0, 0)), HUGE),
        (10**6, 10**6),
        (10**9, 10**9),
        (2**31 - 1, 2**31 - 1),
        (2**31, 2**31),
        (2**62, 2**62),
        (2**64, 2**64),
    ],
    ids=lambda v: repr(v)[:30],
)
@pytest.mark.parametrize("function", [*CONVOLUTIONS, *POOLS])
def test_padding(function: str, value: Any, shown: Any) -> None:
    # The last ones ask for more memory than there is: they must fail at once.
    with refused("padding", shown):
        call(function, padding=value)


@pytest.mark.parametrize("value", [0, -2, 3, 4, 1.0, NAN, True, "2", None, (2, 2), HUGE], ids=repr)
@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_groups(function: str, value: Any) -> None:
    with refused("groups", "nan" if value is NAN else value):
        call(function, groups=value)


def test_groups_must_divide_both_channels() -> None:
    with refused("groups", 2):
        fastconv.conv2d(zeros(1, 3, 4, 4), zeros(2, 1, 1, 1), groups=2)
    with refused("groups", 2):
        fastconv.conv2d(zeros(1, 4, 4, 4), zeros(3, 2, 1, 1), groups=2)


# Shapes -----------------------------------------------------------------------------------------

WRONG_RANK = [(), (3,), (7, 8), (1, 2, 4, 7, 8)]
ARRAYS = [
    (f, a) for f, arguments in ALL.items() for a in arguments if type(arguments[a]) is np.ndarray
]


@pytest.mark.parametrize("shape", WRONG_RANK)
@pytest.mark.parametrize(("function", "argument"), ARRAYS)
def test_rank_of_arrays(function: str, argument: str, shape: tuple[int, ...]) -> None:
    with refused(argument, shape):
        call(function, **{argument: np.zeros(shape, ALL[function][argument].dtype)})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ((2, 7), (2, 7)),
        ((2, 3, 7, 8, 1), (2, 3, 7, 8, 1)),
        ((), ()),
        (7, 7),
        ("2478", "2478"),
        (None, None),
        ((2, 3, 7.0, 8), 7.0),
        ((2, 3, -7, 8), -7),
        ((2, 3, True, 8), True),
        ((2, 3, NAN, 8), "nan"),
        ((2, 3, HUGE, 8), HUGE),
        ((2, 3, 0, 8), 0),
        ((2, 3, 7, 0), 0),
    ],
)
@pytest.mark.parametrize(
    ("function", "argument"),
    [(f, a) for f, arguments in ALL.items() for a in arguments if a.endswith("_shape")],
)
def test_shapes_given_as_numbers(function: str, argument: str, value: Any, shown: Any) -> None:
    with refused(argument, shown):
        call(function, **{argument: value})


@pytest.mark.parametrize("function", ["conv2d", "plan_conv2d"])
@pytest.mark.parametrize("shape", [(5,), (7,), (1,), (6, 1), (1, 6), (), (0,), (1, 6, 1, 1)])
def test_bias(function: str, shape: tuple[int, ...]) -> None:
    with refused("bias", shape):
        call(function, bias=np.zeros(shape))


@pytest.mark.parametrize("function", CONVOLUTIONS)
def test_channels_that_do_not_match(function: str) -> None:
    if "weight" in ALL[function]:
        with refused("weight", 3):
            call(function, weight=zeros(6, 3, 3, 3))
    else:
        with refused("weight_shape", 3):
            call(function, weight_shape=(6, 3, 3, 3))


@pytest.mark.parametrize("shape", [(6, 2, 8, 3), (6, 2, 3, 9), (6, 2, 100, 100)])
def test_kernel_over_the_input(shape: tuple[int, ...]) -> None:
    for function in ("conv2d", "plan_conv2d", "conv2d_input_grad"):
        with refused("weight", max(shape[2:])):
            call(function, weight=np.zeros(shape, np.float32))
    with refused("weight_shape", max(shape[2:])):
        call("conv2d_weight_grad", weight_shape=shape)


@pytest.mark.parametrize("function", ["conv2d_input_grad", "conv2d_weight_grad"])
@pytest.mark.parametrize("shape", [(2, 6, 5, 5), (2, 6, 6, 5), (1, 6, 5, 6), (2, 5, 5, 6)])
def test_gradient_of_another_shape(function: str, shape: tuple[int, ...]) -> None:
    with refused("grad_output", shape):
        call(function, grad_output=np.zeros(shape))


# A window count of zero is no output; a kernel without taps is no kernel.
@pytest.mark.parametrize(
    ("argument", "shape"),
    [
        ("x", (2, 0, 7, 8)),
        ("x", (2, 4, 0, 8)),
        ("x", (2, 4, 7, 0)),
        ("weight", (0, 2, 3, 3)),
        ("weight", (6, 0, 3, 3)),
        ("weight", (6, 2, 0, 3)),
        ("weight", (6, 2, 3, 0)),
    ],
)
def test_empty_dimensions(argument: str, shape: tuple[int, ...]) -> None:
    with refused(argument, shape if argument == "weight" else 0):
        call("conv2d", **{argument: np.zeros(shape)})


# Elements ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "object", "<U1", "|S1", "<M8[s]"])
@pytest.mark.parametrize(("function", "argument"), ARRAYS)
def test_elements_that_are_no_real_numbers(function: str, argument: str, dtype: str) -> None:
    array = np.zeros(ALL[function][argument].shape, dtype)
    with refused(argument, array.dtype):
        call(function, **{argument: array})


@pytest.mark.parametrize(("function", "argument"), ARRAYS)
def test_masked_arrays(function: str, argument: str) -> None:
    # Taking the data alone would lose the mask without a word.
    with refused(argument, "masked"):
        call(function, **{argument: np.ma.masked_array(ALL[function][argument])})


@pytest.mark.parametrize(
    "value", [None, "image", [[[[1, 2], [3]]]], [[[["a", "b"]]]], {}, object(), [None], range(4)]
)
@pytest.mark.parametrize("argument", ["x", "weight"])
def test_things_that_are_no_arrays(argument: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"\b{argument}\b"):
        call("conv2d", **{argument: value})


# Algorithms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [name for name in ALL if name not in UNPOOLS])
@pytest.mark.parametrize("name", ["", "fast", "NAIVE", "naive ", None, 0, ["auto"], {}], ids=repr)
def test_unknown_algorithm(function: str, name: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"\balgorithm\b") as caught:
        call(function, algorithm=name)
    grads = {"conv2d_input_grad": "input_grad", "conv2d_weight_grad": "weight_grad"}
    known = fastconv.algorithms(grads.get(function, "forward"))
    if "pool" in function:
        known = fastconv.pool_algorithms()
    assert repr(name) in str(caught.value)
    for algorithm in known:
        assert algorithm in str(caught.value)


def test_unknown_names_are_not_swallowed() -> None:
    with pytest.raises(TypeError, match="strides"):
        call("conv2d", strides=2)
    with pytest.raises(TypeError):
        fastconv.conv2d(*GOOD["conv2d"].values(), 0, 1, 1, 1, "naive")  # keyword only


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None, NAN])
def test_number_of_threads(value: Any) -> None:
    before = fastconv.get_num_threads()
    with pytest.raises((ValueError, TypeError)) as caught:
        fastconv.set_num_threads(value)
    assert str(value) in str(caught.value)
    assert fastconv.get_num_threads() == before
