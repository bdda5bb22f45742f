"""Pooling and batch normalization on every sample with which PyTorch tests its own operators.

Each sample, in float32 and float64, must give PyTorch's values and gradients, or be refused by
both; each of PyTorch's wrong inputs must be refused. Every test prints how many samples there were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from reference import Array

import fastconv
from fastconv import nn

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
# Several threads would wait for each other on planes as small as these.
torch.set_num_threads(1)

#: The results of a call and the gradient of its input, or None where it was refused.
Answer = list[Array] | None
REFUSALS = (ValueError, TypeError)
#: Two orders of a sum of at most a hundred terms, or two ways to divide.
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def operators(name: str) -> list[Any]:
    """Return PyTorch's descriptions of an operator that it has samples for."""
    # It takes two seconds to import, so not while collecting.
    common = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    return [op for op in common.op_db if op.name == name and op.dtypes]


def samples(name: str, dtype: str) -> Iterator[tuple[Any, Any]]:
    """Yield the operator's function and a sample, for all samples."""
    for op in operators(name):
        torch.manual_seed(0)
        for sample in op.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True):
            yield op.op, sample


def cotangent(values: Any) -> Any:
    """Return a gradient for the output of a sample."""
    rng = np.random.default_rng(values.numel())
    return torch.from_numpy(rng.standard_normal(tuple(values.shape))).to(values.dtype)


def plain(value: Any) -> Any:
    """Return an argument without tensors."""
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def theirs(function: Callable[..., Any], sample: Any) -> Answer:
    """Return what PyTorch makes of a sample."""
    x = sample.input.detach().clone().requires_grad_()
    try:
        results = function(x, *sample.args, **sample.kwargs)
    except (RuntimeError, *REFUSALS, IndexError):
        return None
    results = results if isinstance(results, tuple) else (results,)
    (grad,) = torch.autograd.grad(results[0], x, cotangent(results[0]))
    return [plain(value) for value in (*results, grad)]


def ours(name: str, sample: Any) -> Answer:
    """Return what fastconv makes of it."""
    x, arguments = plain(sample.input), [plain(value) for value in sample.args]
    options = {key: plain(value) for key, value in sample.kwargs.items()}
    try:
        return CALLS[name](x, *arguments, **options)
    except REFUSALS:
        return None


def sent(values: Array) -> Array:
    """Return the same gradient as an array."""
    return cotangent(torch.from_numpy(values)).numpy()  # type: ignore[no-any-return]


def maximum(pool: Callable[..., Any]) -> Callable[..., list[Array]]:
    """Return the results and the gradient of a function that returns maxima."""

    def call(x: Array, *arguments: Any, return_indices: Any = None, **options: Any) -> list[Array]:
        # In adaptive pooling PyTorch takes it by its position.
        *arguments, asked = arguments if return_indices is None else (*arguments, return_indices)
        values, indices = pool(x, *arguments, return_indices=True, **options)
        back = fastconv.max_pool2d_grad(sent(values), indices, x.shape)
        if asked:
            return [values, indices, back]
        alone = pool(x, *arguments, return_indices=asked, **options)
        np.testing.assert_array_equal(alone, values)
        return [alone, back]

    return call


def average(x: Array, *arguments: Any, **options: Any) -> list[Array]:
    values = fastconv.avg_pool2d(x, *arguments, **options)
    back = fastconv.avg_pool2d_grad(sent(values), x.shape, *arguments, **options)
    return [values, back]


def adaptive_average(x: Array, output_size: Any) -> list[Array]:
    values = fastconv.adaptive_avg_pool2d(x, output_size)
    return [values, fastconv.adaptive_avg_pool2d_grad(sent(values), x.shape)]


def unpool(x: Array, indices: Array, *arguments: Any, **options: Any) -> list[Array]:
    planes = fastconv.max_unpool2d(x, indices, *arguments, **options)
    return [planes, fastconv.max_unpool2d_grad(sent(planes), indices)]


CALLS: dict[str, Callable[..., list[Array]]] = {
    "nn.functional.max_pool2d": maximum(fastconv.max_pool2d),
    "nn.functional.avg_pool2d": average,
    "nn.functional.adaptive_avg_pool2d": adaptive_average,
    "nn.functional.adaptive_max_pool2d": maximum(fastconv.adaptive_max_pool2d),
    "nn.functional.max_unpool2d": unpool,
}


def same(actual: Answer, expected: Answer, exact: bool, dtype: str, what: Any) -> str:
    """Compare two answers; return how they agreed."""
    if actual is None or expected is None:
        assert actual is expected, (what, "refused by one only", actual, expected)
        return "refused by both"
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), what
        scale = 0 if exact else TOLERANCE[dtype] * max(1, np.abs(other).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=scale, err_msg=str(what))
    return "equal"


def report(capsys: pytest.CaptureFixture[str], name: str, counts: Counter[str]) -> None:
    """Print how many samples agreed, whatever pytest captures."""
    with capsys.disabled():
        words = ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
        print(f"\n{name}: {sum(counts.values())} samples, {words}")


@TYPES
@pytest.mark.parametrize("name", CALLS)
def test_samples(name: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for function, sample in samples(name, dtype):
        actual, expected = ours(name, sample), theirs(function, sample)
        # A gradient of maxima is a sum where windows overlap, in another order perhaps.
        what = tuple(sample.input.shape), sample.args, sample.kwargs
        how = same(actual, expected, "unpool" in name, dtype, what)
        if actual is not None and expected is not None and "max_pool" in name:
            for one, other in zip(actual[:-1], expected[:-1], strict=True):
                np.testing.assert_array_equal(one, other)
        counts[how] += 1
    assert counts["equal"] > 0
    report(capsys, f"{name}, {dtype}", counts)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_inputs_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for op in operators(name):
        for wrong in list(op.error_inputs("cpu")) if op.error_inputs_func else []:
            sample = wrong.sample_input
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                op.op(sample.input, *sample.args, **sample.kwargs)
            assert ours(name, sample) is None, sample
            counts["refused by both"] += 1
    assert counts
    report(capsys, f"{name}, wrong inputs", counts)


# Batch normalization ------------------------------------------------------------------------------


def layer_of(library: Any, x: Any, numbers: Any, training: bool, options: Any) -> Any:
    """Return a BatchNorm2d with the statistics and parameters of a sample, in a library."""
    mean, variance, weight, bias = numbers
    options = {"momentum": 0.1, "eps": 1e-5, **options}
    layer = library.BatchNorm2d(x.shape[1] if x.ndim > 1 else x.shape[0], **options)
    if library is nn:
        layer.astype(x.dtype)
    else:
        layer.to(x.dtype)
    values = {"running_mean": mean, "running_var": variance, "weight": weight, "bias": bias}
    state = {name: value for name, value in values.items() if value is not None}
    layer.load_state_dict(state, strict=False)
    return layer.train(training)


def our_norm(x: Array, *numbers: Any, training: bool = False, **options: Any) -> Answer:
    try:
        layer = layer_of(nn, x, numbers, training, options)
        if not training:
            layer.eval(keep=True)
        values = layer(x)
        back = layer.backward(sent(values))
    except REFUSALS:
        return None
    return [values, back, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var]


def their_norm(x: Any, *numbers: Any, training: bool = False, **options: Any) -> Answer:
    x = x.detach().clone().requires_grad_()
    try:
        layer = layer_of(torch.nn, x, numbers, training, options)
        values = layer(x)
    except (RuntimeError, *REFUSALS):
        return None
    values.backward(cotangent(values.detach()))
    found = values, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean
    return [plain(value) for value in (*found, layer.running_var)]


@TYPES
def test_batch_norm(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The operator takes images of any rank; a BatchNorm2d, theirs too, only those of rank four."""
    counts: Counter[str] = Counter()
    for _, sample in samples("nn.functional.batch_norm", dtype):
        arguments = [plain(value) for value in sample.args]
        actual = our_norm(plain(sample.input), *arguments, **sample.kwargs)
        expected = their_norm(sample.input, *sample.args, **sample.kwargs)
        what = tuple(sample.input.shape), sample.kwargs
        how = same(actual, expected, False, dtype, what)
        assert (how == "equal") == (sample.input.ndim == 4), what
        counts[f"{how}, of rank {sample.input.ndim}"] += 1
    report(capsys, f"nn.BatchNorm2d, {dtype}", counts)
