"""The samples of PyTorch's own operator tests: equal in values and gradients, or refused by both.

They come with PyTorch (`torch.testing._internal`, its OpInfo and ModuleInfo lists). Folding has no
list there; it gets the samples of unfolding, backwards.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from checks import growth
from reference import Array

import fastconv
from fastconv import nn

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which PyTorch's lists import

functional = torch.nn.functional
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
Tensor = Any


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Keep to algorithms whose error is that of a plain sum, and to the same samples."""
    torch.manual_seed(0)
    with fastconv.at_precision("highest"):
        yield


def listed(module: str, name: str) -> Any:
    """Return one of PyTorch's lists; they take two seconds to import, so not while collecting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"torch.testing._internal.{module}"), name)


def operator_named(name: str) -> Any:
    operators = listed("common_methods_invocations", "op_db")
    return {op.name: op for op in operators}[f"nn.functional.{name}"]


def every_sample(name: str, dtype: str, check: Callable[..., None]) -> int:
    """Check every sample: its tensors, other arguments and options. Return how many there were."""
    operator = operator_named(name)
    count = 0
    for sample in operator.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True):
        given = [sample.input, *sample.args]
        tensors = [each for each in given if isinstance(each, torch.Tensor)]
        check(
            tensors, [each for each in given if not isinstance(each, torch.Tensor)], sample.kwargs
        )
        count += 1
    assert count
    return count


def plain(tensors: Iterable[Tensor]) -> list[Array]:
    return [tensor.detach().numpy() for tensor in tensors]


def with_gradients(run: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> list[Array]:
    """Return the output of an operator and the gradients of its tensors."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = run(*leaves)
    return plain([y, *torch.autograd.grad(y, leaves, grad)])


def compare(
    run: Callable[..., Tensor],
    tensors: list[Tensor],
    ours: Callable[[list[Array], Array], list[Array | None]],
) -> None:
    """Compare output and gradients with PyTorch's, as sums of as many terms as there are.

    Each of the two errs by no more than a plain sum does: `growth` times the sum of the absolute
    values, which is what the operator and its gradients make of absolute values.
    """
    y = run(*tensors)
    grad = torch.testing.make_tensor(y.shape, dtype=y.dtype, device="cpu")
    wanted = with_gradients(run, tensors, grad)
    magnitude = with_gradients(run, [tensor.abs() for tensor in tensors], grad.abs())
    actual = ours(plain(tensors), grad.numpy())
    assert len(actual) == len(wanted)
    terms = 1 + max(tensor.numel() for tensor in (*tensors, y))
    for mine, theirs, size in zip(actual, wanted, magnitude, strict=True):
        assert isinstance(mine, np.ndarray)
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert np.all(np.abs(mine - theirs) <= 2 * growth(terms, mine.dtype) * size)


# Operators --------------------------------------------------------------------------------------


def check_conv2d(tensors: list[Tensor], _: list[Any], options: dict[str, Any]) -> None:
    def together(arrays: list[Array], grad: Array) -> list[Array | None]:
        x, weight, *bias = arrays
        y = fastconv.conv2d(x, weight, *bias, **options)
        return [y, *fastconv.conv2d_backward(x, weight, grad, **options)[: len(arrays)]]

    def apart(arrays: list[Array], grad: Array) -> list[Array | None]:
        x, weight, *bias = arrays
        plan = fastconv.plan_conv2d(x.shape, weight, *bias, **options)
        dx = fastconv.conv2d_input_grad(x.shape, weight, grad, **options)
        dw = fastconv.conv2d_weight_grad(x, weight.shape, grad, **options)
        sums = fastconv.conv2d_backward(x, weight, grad, **options, need=["bias"])
        return [plan(x), dx, dw, sums.bias][: 1 + len(arrays)]

    def layer(arrays: list[Array], grad: Array) -> list[Array | None]:
        return run_layer(nn.Conv2d, arrays, grad, options)

    for ours in (together, apart, layer):
        compare(lambda *given: functional.conv2d(*given, **options), tensors, ours)


def check_conv_transpose2d(tensors: list[Tensor], _: list[Any], options: dict[str, Any]) -> None:
    def function(arrays: list[Array], grad: Array) -> list[Array | None]:
        y = fastconv.conv_transpose2d(*arrays, **options)  # its gradients are the layer's
        return [y, *layer(arrays, grad)[1:]]

    def layer(arrays: list[Array], grad: Array) -> list[Array | None]:
        return run_layer(nn.ConvTranspose2d, arrays, grad, options)

    for ours in (function, layer):
        compare(lambda *given: functional.conv_transpose2d(*given, **options), tensors, ours)


def run_layer(
    kind: Any, arrays: list[Array], grad: Array, options: dict[str, Any]
) -> list[Array | None]:
    """Return the output of a layer with those weights, and its gradients."""
    x, weight, *bias = arrays
    channels = len(weight) if kind is nn.Conv2d else weight.shape[1] * options.get("groups", 1)
    layer = kind(x.shape[-3], channels, weight.shape[2:], **options, bias=bool(bias))
    layer.astype(x.dtype)
    for parameter, values in zip(layer.parameters(), (weight, *bias), strict=True):
        parameter.data[...] = values
    y = layer(x)
    return [y, layer.backward(grad), *(parameter.grad for parameter in layer.parameters())]


def check_unfold(tensors: list[Tensor], rule: list[Any], options: dict[str, Any]) -> None:
    for x in (*tensors, *tensors[0][:1].unbind()):  # unbatched too, where there is an image
        size = tuple(x.shape[-2:])

        def unfold(arrays: list[Array], grad: Array) -> list[Array | None]:
            cols = fastconv.im2col(arrays[0], *rule, **options)
            return [cols, fastconv.col2im(grad, size, *rule, **options)]  # noqa: B023

        compare(lambda images: functional.unfold(images, *rule, **options), [x], unfold)


def check_fold(tensors: list[Tensor], rule: list[Any], options: dict[str, Any]) -> None:
    for x in (*tensors, *tensors[0][:1].unbind()):
        size = tuple(x.shape[-2:])
        cols = functional.unfold(x, *rule, **options).detach()
        cols = torch.testing.make_tensor(cols.shape, dtype=cols.dtype, device="cpu")

        def fold(arrays: list[Array], grad: Array) -> list[Array | None]:
            images = fastconv.col2im(arrays[0], size, *rule, **options)  # noqa: B023
            return [images, fastconv.im2col(grad, *rule, **options)]

        compare(lambda cols: functional.fold(cols, size, *rule, **options), [cols], fold)  # noqa: B023


# PyTorch warns that it copies the input where "same" needs one pixel more at the end.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@DTYPES
@pytest.mark.parametrize(
    ("name", "samples_of", "check"),
    [
        ("conv2d", "conv2d", check_conv2d),
        ("conv_transpose2d", "conv_transpose2d", check_conv_transpose2d),
        ("unfold", "unfold", check_unfold),
        ("fold", "unfold", check_fold),
    ],
)
def test_samples(
    name: str,
    samples_of: str,
    check: Callable[..., None],
    dtype: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = every_sample(samples_of, dtype, check)
    with capsys.disabled():
        print(f"\n{name}, {dtype}: {count} samples equal to PyTorch's", end=" ")


# Refusals ---------------------------------------------------------------------------------------


def test_errors_of_conv2d(capsys: pytest.CaptureFixture[str]) -> None:
    count = 0
    for error in operator_named("conv2d").error_inputs("cpu"):
        sample = error.sample_input
        x, (weight, bias) = sample.input, sample.args
        with pytest.raises(error.error_type, match=error.error_regex):
            functional.conv2d(x, weight, bias, **sample.kwargs)
        arrays = plain([x, weight, bias])
        if x.dtype == torch.int64:
            # Mixed types are no error here: they follow NumPy's promotion.
            wanted = functional.conv2d(x.double(), weight.double(), bias, **sample.kwargs)
            actual = fastconv.conv2d(*arrays, **sample.kwargs)
            np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-13, atol=1e-11)
            continue
        with pytest.raises((ValueError, TypeError)):
            fastconv.conv2d(*arrays, **sample.kwargs)
        count += 1
    assert count
    with capsys.disabled():
        print(f"\nconv2d: {count} error inputs refused by both", end=" ")


# Modules ----------------------------------------------------------------------------------------


def check_module(theirs: Any, ours: nn.Module, inputs: list[Tensor]) -> None:
    names, parameters = zip(*theirs.named_parameters(), strict=True)
    ours.load_state_dict(dict(zip(names, plain(parameters), strict=True)))

    def run(x: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(theirs, dict(zip(names, given, strict=True)), (x,))

    def layer(arrays: list[Array], grad: Array) -> list[Array | None]:
        y, back = ours(arrays[0]), ours.backward(grad)
        return [y, back, *(parameter.grad for parameter in ours.parameters())]

    compare(run, [*inputs, *parameters], layer)


@DTYPES
@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_modules(name: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    modules = listed("common_modules", "module_db")
    (info,) = (info for info in modules if info.module_cls is getattr(torch.nn, name))
    kind, count = getattr(torch, dtype), 0
    for sample in info.module_inputs_func(info, "cpu", kind, requires_grad=True, training=True):
        told = sample.constructor_input
        ours = getattr(nn, name)(*told.args, **told.kwargs).astype(dtype)
        theirs = info.module_cls(*told.args, **told.kwargs, dtype=kind)
        check_module(theirs, ours, list(sample.forward_input.args))
        count += 1
    assert count
    with capsys.disabled():
        print(f"\nnn.{name}, {dtype}: {count} samples equal to PyTorch's", end=" ")
