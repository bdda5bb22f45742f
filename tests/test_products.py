"""Products of dense layers: exact to rounding, the same for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
from guarded_products import TRANSPOSED
from reference import Array

import fastconv
from fastconv import nn
from fastconv.dense import dense_product
from fastconv.kernels.dense_loops import product

needs_compiler = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs Numba's compiler")


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


def given(x: Array, transposed: bool) -> Array:
    return np.ascontiguousarray(x.T if transposed else x)


def multiply(a: Array, b: Array, transposed: tuple[bool, bool]) -> Array:
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    product(given(a, transposed[0]), given(b, transposed[1]), out, transposed)
    return out


@needs_compiler
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("transposed", TRANSPOSED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 2e-15)])
def test_products(transposed: tuple[bool, bool], dtype: Any, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    for M, depth, N in ((1, 1, 1), (5, 3, 7), (64, 784, 128), (10, 64, 128), (33, 1000, 49)):
        a = rng.standard_normal((M, depth)).astype(dtype)
        b = rng.standard_normal((depth, N)).astype(dtype)
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        results = []
        for count in (1, 2, 8):
            fastconv.set_num_threads(count)
            results.append(multiply(a, b, transposed))
        largest = tolerance * np.abs(exact).max()
        np.testing.assert_allclose(results[0], exact.astype(dtype), rtol=0, atol=largest)
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


@needs_compiler
@pytest.mark.parametrize("transposed", TRANSPOSED)
def test_nan_and_infinity_stay_in_their_sums(transposed: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(1, 5, shape).astype(np.float32) for shape in ((19, 150), (150, 53)))
    a[3, 149], a[18, 0], b[7, 52] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(multiply(a, b, transposed), a @ b)


@needs_compiler
def test_matrices_that_do_not_fit_are_refused() -> None:
    a, b, out = (np.ones(shape, np.float32) for shape in ((3, 4), (5, 6), (3, 6)))
    with pytest.raises(ValueError, match="shapes must match"):
        product(a, b, out, (False, False))
    layer = nn.Linear(4, 6, rng=0)
    y = layer(np.ones((5, 4), np.float32))
    layer.weight = nn.Parameter(np.ones((7, 4), np.float32))
    with pytest.raises(ValueError, match="shapes must match"):
        layer.backward(np.ones_like(y))


@pytest.mark.parametrize("bias", [True, False])
def test_no_rows(bias: bool) -> None:
    layer = nn.Linear(4, 6, bias=bias, rng=0)
    assert layer(np.empty((0, 4), np.float32)).shape == (0, 6)
    assert layer.backward(np.empty((0, 6), np.float32)).shape == (0, 4)
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_a_layer_whose_bias_was_replaced(rows: int) -> None:
    layer, x = nn.Linear(4, 6, rng=0), np.ones((rows, 4), np.float32)
    layer.bias = nn.Parameter(np.arange(6, dtype=np.float32))
    np.testing.assert_allclose(layer(x)[-1], layer.weight.value.sum(1) + np.arange(6), rtol=1e-6)
    layer.bias = None
    np.testing.assert_allclose(layer(x)[-1], layer.weight.value.sum(1), rtol=1e-6)
    layer.bias = nn.Parameter(np.ones(5, np.float32))
    with pytest.raises(ValueError, match=r"bias must have shape \(6,\)"):
        layer(x)


def test_inputs_of_any_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(12, 5, rng=0)
    x = np.random.default_rng(2).standard_normal((12, 3, 8)).astype(np.float32).T
    y = layer(x)
    np.testing.assert_allclose(y, x @ layer.weight.value.T + layer.bias.value, atol=1e-5)
    back = layer.backward(np.ones_like(y))
    # Matrices too large for tiles go to BLAS.
    monkeypatch.setattr(dense_product, "_MOST_BYTES_A", 0)
    other = nn.Linear(12, 5, rng=0)
    np.testing.assert_allclose(other(x), y, atol=1e-5)
    np.testing.assert_allclose(other.backward(np.ones_like(y)), back, atol=1e-5)
    np.testing.assert_allclose(other.weight.grad, layer.weight.grad, atol=1e-5)
