"""Plans with `max_pool`: the bits of two calls, one after the other, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cases import CONV_CASES, ConvCase, make_inputs
from checks import refused
from numpy.typing import DTypeLike
from reference import Array

import fastconv

ALGORITHMS = ("auto", *fastconv.algorithms())
#: Those whose store takes maxima; for all others a plan does both steps.
FUSING = ("direct", "depthwise", "winograd_2x2", "winograd_4x4")
ACTIVATIONS: tuple[Any, ...] = ("relu", None, "relu6", ("leaky_relu", -2.0), "silu", "hard_swish")

#: Odd and even maps, wider than a tile and narrower, several bands, and padding on one side only.
WIDE = (
    ConvCase("even", (2, 3, 20, 36), (9, 3, 3, 3), padding=1),
    ConvCase("odd", (3, 2, 23, 69), (5, 2, 3, 3), padding=1),
    ConvCase("one_row_of_squares", (1, 4, 3, 131), (13, 4, 3, 3), padding=((0, 1), (0, 2))),
    ConvCase("one_column_of_squares", (2, 3, 41, 5), (6, 3, 3, 3)),
    ConvCase("five", (1, 3, 18, 50), (7, 3, 5, 5), padding=((2, 1), (0, 3))),
    ConvCase("groups", (2, 6, 17, 39), (8, 3, 3, 3), padding=1, groups=2),
    ConvCase("strided", (2, 3, 33, 75), (8, 3, 3, 3), stride=2, padding=1),
    ConvCase("first_gray", (5, 1, 28, 28), (8, 1, 3, 3), padding=1),
    ConvCase("narrow_gray", (3, 1, 14, 13), (6, 1, 5, 5), padding=2),
    ConvCase("one_channel_a_filter", (2, 5, 15, 43), (10, 1, 3, 3), padding=1, groups=5),
    ConvCase("one_channel_strided", (2, 5, 31, 70), (5, 1, 3, 3), stride=2, groups=5),
    ConvCase("pointwise", (2, 5, 9, 42), (11, 5, 1, 1)),
    ConvCase("many_channels", (1, 70, 10, 34), (40, 70, 3, 3), padding=1),
)


def bits(array: Array) -> Array:
    """Return what tells +0 from -0, and one NaN from another."""
    return array.view(f"u{array.itemsize}")


def spoiled(data: Array, seed: int) -> Array:
    """Return a copy some of whose elements are no numbers, or so large that sums are infinite."""
    rng, result = np.random.default_rng(seed), data.copy()
    for value in (np.nan, np.inf, -np.inf, np.finfo(data.dtype).max):
        result.reshape(-1)[rng.integers(data.size)] = value
    return result


def plans_of(case: ConvCase, dtype: DTypeLike, **options: Any) -> tuple[Any, Any] | None:
    """Return the plan and the one that pools; None if the algorithm refuses the problem."""
    data = make_inputs(case, dtype)
    arguments = case.input_shape, data.weight, data.bias, *case.geometry
    try:
        plain = fastconv.plan_conv2d(*arguments, **options)
    except ValueError as error:
        refusal = str(error)
        assert options["algorithm"] in refusal
        return None
    return plain, fastconv.plan_conv2d(*arguments, max_pool=2, **options)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_case(algorithm: str) -> None:
    for number, case in enumerate(CONV_CASES):
        activation = ACTIVATIONS[number % len(ACTIVATIONS)]
        if min(case.output_shape[2:]) < 2:
            continue
        plans = plans_of(case, np.float32, algorithm=algorithm, activation=activation)
        if plans is None:
            continue
        plain, pooled = plans
        x = make_inputs(case).x
        wanted = fastconv.max_pool2d(plain(x), 2)
        assert wanted.shape == pooled.output_shape
        np.testing.assert_array_equal(bits(pooled(x)), bits(wanted), case.name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", FUSING)
def test_same_bits_as_two_calls(algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    """With any activation, with and without residual, on any number of threads."""
    before = fastconv.get_num_threads()
    number = WIDE.index(case)
    x = make_inputs(case, dtype).x
    rng = np.random.default_rng(number)
    residual = rng.standard_normal(case.output_shape).astype(dtype)
    try:
        for activation in ("relu", ACTIVATIONS[1:][number % (len(ACTIVATIONS) - 1)]):
            plans = plans_of(case, dtype, algorithm=algorithm, activation=activation)
            if plans is None:
                return
            plain, pooled = plans
            for images in (x, spoiled(x, number)):
                wanted = fastconv.max_pool2d(plain(images), 2)
                added = fastconv.max_pool2d(plain(images, residual=residual), 2)
                for threads in (1, 2, 8):
                    fastconv.set_num_threads(threads)
                    out = np.full(wanted.shape, np.nan, dtype)
                    assert pooled(images, out) is out
                    np.testing.assert_array_equal(bits(out), bits(wanted))
                    actual = pooled(images, residual=residual)
                    np.testing.assert_array_equal(bits(actual), bits(added))
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("algorithm", FUSING)
def test_which_of_two_zeros_wins(algorithm: str) -> None:
    """Sums of products with zeros: -0 and +0 side by side, the first of which a maximum is."""
    channels = 3 if algorithm == "depthwise" else 1
    rng = np.random.default_rng(1)
    x = rng.choice(np.float32([-1, 0, 1]), (2, 3, 24, 40))
    weight = np.zeros((6, 3 // channels, 3, 3), np.float32)
    bias = np.float32([-0.0, 0.0, -0.0, -1.0, -0.0, 1.0])
    for activation in ("relu", None, ("leaky_relu", -1.0)):
        options = {"padding": 1, "groups": channels, "algorithm": algorithm}
        plain, pooled = (
            fastconv.plan_conv2d(
                x.shape, weight, bias, activation=activation, max_pool=side, **options
            )
            for side in (None, 2)
        )
        zeros = rng.choice(np.float32([-0.0, 0.0, -1.0]), plain.output_shape)
        for residual in (None, zeros):
            wanted = fastconv.max_pool2d(plain(x, residual=residual), 2)
            np.testing.assert_array_equal(bits(pooled(x, residual=residual)), bits(wanted))


@pytest.mark.parametrize("algorithm", FUSING)
def test_weights_that_are_not_finite(algorithm: str) -> None:
    case = next(c for c in WIDE if c.name == "one_channel_a_filter")
    data = make_inputs(case)
    data.weight[3, 0, 1, 1], data.weight[6, 0, 0, 2] = np.inf, np.nan
    arguments = case.input_shape, data.weight, data.bias, *case.geometry
    plain, pooled = (
        fastconv.plan_conv2d(*arguments, algorithm=algorithm, activation="relu", max_pool=side)
        for side in (None, 2)
    )
    wanted = fastconv.max_pool2d(plain(data.x), 2)
    np.testing.assert_array_equal(bits(pooled(data.x)), bits(wanted))


@pytest.mark.parametrize("algorithm", FUSING)
def test_copies_compute_the_same(algorithm: str) -> None:
    case = next(c for c in WIDE if c.name == "first_gray")
    plans = plans_of(case, np.float32, algorithm=algorithm, activation="relu")
    assert plans is not None
    x, plan = make_inputs(case).x, plans[1]
    residual = np.ones(case.output_shape, np.float32)
    wanted, added = plan(x), plan(x, residual=residual)
    for twin in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        np.testing.assert_array_equal(twin(x), wanted)
        np.testing.assert_array_equal(twin(x, residual=residual), added)


def test_what_a_plan_says() -> None:
    case = WIDE[0]
    for algorithm in fastconv.algorithms():
        plans = plans_of(case, np.float32, algorithm=algorithm)
        if plans is None:
            continue
        plain, pooled = plans
        assert plain.max_pool is None
        assert "maxima" not in plain.explain()
        assert pooled.max_pool == 2
        assert pooled.problem == plain.problem
        assert plain.output_shape == case.output_shape == (2, 9, 20, 36)
        assert pooled.output_shape == (2, 9, 10, 18)
        assert "-> (2, 9, 10, 18)" in repr(pooled)
        how = "before the output is stored" if algorithm in FUSING else "in a second pass"
        assert how in pooled.explain().splitlines()[-1]


def test_outputs_and_residuals_are_checked() -> None:
    case = WIDE[0]
    plans = plans_of(case, np.float32, algorithm="auto")
    assert plans is not None
    plan, x = plans[1], make_inputs(case).x
    with refused("out", plan.output_shape):
        plan(x, np.zeros(case.output_shape, np.float32))
    with refused("residual", case.output_shape):
        plan(x, residual=np.zeros(plan.output_shape, np.float32))


def test_no_images() -> None:
    plan = fastconv.plan_conv2d((0, 2, 9, 8), np.ones((3, 2, 3, 3)), max_pool=2)
    assert plan(np.zeros((0, 2, 9, 8))).shape == (0, 3, 3, 3)


@pytest.mark.parametrize("value", [0, 1, 3, 4, -2, np.int64(3)])
def test_other_squares_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"max_pool must be None or 2.*stride 2.*max_pool2d") as e:
        fastconv.plan_conv2d((1, 1, 8, 8), np.ones((1, 1, 3, 3)), max_pool=value)
    assert repr(value) in str(e.value)


@pytest.mark.parametrize("value", [2.0, "2", True, (2, 2), [2]])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="max_pool must be None or 2, got") as e:
        fastconv.plan_conv2d((1, 1, 8, 8), np.ones((1, 1, 3, 3)), max_pool=value)
    assert repr(value) in str(e.value)


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (3, 3)])
def test_outputs_without_a_square_are_refused(shape: tuple[int, int]) -> None:
    weight = np.ones((1, 1, 3, 3))
    size = f"{shape[0] - 2} x {shape[1] - 2}"
    with pytest.raises(ValueError, match=f"max_pool=2 needs .*at least 2 x 2 pixels, got {size}"):
        fastconv.plan_conv2d((1, 1, *shape), weight, max_pool=2)
