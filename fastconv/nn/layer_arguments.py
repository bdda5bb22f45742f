"""Checks of what users pass to layers: inputs, sizes, numbers, random generators."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_array, as_batch, as_numbers
from fastconv.core.array_hints import channels_last
from fastconv.core.geometry import IntPair, Padding, as_pair, resolve_padding
from fastconv.core.pool_problem import not_given

#: The largest number that is finite.
LARGEST = sys.float_info.max

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)

#: What a user may pass as `rng`: a generator, a seed, or None for other numbers every time.
RngLike = Generator | int | None


def as_floats(
    layer: object, x: ArrayLike, dtype: np.dtype[Any] | None = None, argument: str = "x"
) -> Array:
    """Return `x` as an array of float32 or float64, of `dtype` if one is given."""
    array = as_numbers(argument, x)
    if array.dtype in (_FLOATS if dtype is None else (dtype,)):
        return array
    name, wanted = type(layer).__name__, dtype or "float32 or float64"
    hint = f"convert {argument} ({argument}.astype({str(dtype or 'float32')!r}))"
    if dtype is not None and array.dtype in (np.float32, np.float64):
        hint += f" or the model (model.astype({str(array.dtype)!r}))"
    elif array.dtype == np.uint8:
        hint += ", and scale it as for training"
    raise TypeError(f"{argument} must be {wanted} for this {name}, got {array.dtype}: {hint}")


def as_images(
    layer: object,
    x: ArrayLike,
    channels: int | None = None,
    dtype: np.dtype[Any] | None = None,
    *,
    any_type: bool = False,
) -> Array:
    """Return `x` as contiguous images (N, C, H, W), or one image (C, H, W), with those channels.

    With `any_type` integers and booleans, which have no gradient, are images too.
    """
    images, single = as_batch("x", x)
    if not any_type or images.dtype.kind == "f":
        images = as_floats(layer, images, dtype)
    if channels is not None and images.shape[1] != channels:
        wanted = f"({channels}, H, W) of one image" if single else f"(N, {channels}, H, W)"
        raise ValueError(
            f"x must have {channels} channels for this {type(layer).__name__}, {wanted}, got shape "
            f"{images.shape[single:]}{channels_last('x', channels, images.shape, single)}"
        )
    images = np.ascontiguousarray(images)
    return images[0] if single else images


def require_float_gradient(layer: object, grad: Array) -> None:
    """Raise TypeError where the images were not floating point, whose type `grad` has."""
    if grad.dtype.kind != "f":
        raise TypeError(
            f"{type(layer).__name__} has no gradient for images of {grad.dtype}: convert them "
            "before, x.astype('float32')"
        )


def as_state_array(name: str, value: Any) -> Array:
    """Return what a state holds under a name as an array; PyTorch's tensors are detached."""
    detach = getattr(value, "detach", None)
    try:
        return as_array(f"{name} in state", value if detach is None else detach())
    except (TypeError, RuntimeError) as error:
        wanted = f"{name} in state must be an array, or a tensor on the CPU"
        raise TypeError(f"{wanted}: {error}") from None


def as_given_pair(name: str, value: Any, minimum: int) -> IntPair:
    """Return one integer, or a pair of them, checked and as it was given."""
    pair = as_pair(name, value, minimum)
    return pair if hasattr(value, "__iter__") else pair[0]


def as_given_windows(kernel_size: Any, stride: Any) -> tuple[IntPair, IntPair]:
    """Return kernel size and stride as they were given; without a stride, the kernel size."""
    kernel = as_given_pair("kernel_size", kernel_size, 1)
    return kernel, kernel if not_given(stride) else as_given_pair("stride", stride, 1)


def as_given_padding(value: Any) -> Padding:
    """Return padding as it was given, if that is padding for some window."""
    sides = resolve_padding(value, (1, 1), (1, 1), (1, 1), (1, 1))
    if isinstance(value, str):
        return value  # type: ignore[return-value]  # one of the names: it was resolved
    (top, bottom), (left, right) = sides
    if (top, left) != (bottom, right):
        return sides
    return (top, left) if hasattr(value, "__iter__") else top


def check_parameter(layer: object, name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise unless an attribute that a kernel reads, which users may replace, has its shape."""
    if getattr(value, "shape", None) != shape and np.shape(value) != shape:
        raise ValueError(
            f"{name} must have shape {shape} in this {type(layer).__name__}, got {np.shape(value)}"
        )


def as_generator(rng: RngLike) -> Generator:
    """Return `rng` as a generator: a new one of a seed, an unseeded one of None."""
    if rng is None or isinstance(rng, Generator):
        return rng or np.random.default_rng()
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer):
        raise TypeError(
            f"rng must be a numpy.random.Generator, a whole number as seed, or None, got {rng!r}"
        )
    return np.random.default_rng(rng)


def as_dtype(name: str, x: Array, dtype: np.dtype[Any]) -> Array:
    """Return `x` in the dtype of a model; numbers that are too large for it are an error."""
    with np.errstate(over="ignore"):
        converted = x.astype(dtype, copy=False)
    if converted is not x and x.dtype.kind == "f":
        lost = x[np.isinf(converted)]
        lost = lost[np.isfinite(lost)]
        if lost.size:
            raise ValueError(
                f"{name} must hold numbers that {dtype} can hold, up to {np.finfo(dtype).max:.2g}, "
                f"got {np.abs(lost).max():.2g}: divide it, for example by that"
            )
    return converted


def as_number(name: str, value: Any, low: float, high: float = LARGEST) -> float:
    """Return `value` as a float from low to high, which is finite unless given."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:
        bounds = [f"at least {low:g}"] * (low > -LARGEST)
        if high < LARGEST:
            bounds.append(f"at most {high:g}")
        elif not math.isfinite(number):
            bounds.append("finite")
        raise ValueError(f"{name} must be {' and '.join(bounds)}, got {value!r}")
    return number


def as_decay(name: str, value: Any) -> float:
    """Return `value`, the decay rate of a running mean: from 0, below 1."""
    number = as_number(name, value, 0)
    if number >= 1:
        raise ValueError(f"{name} must be below 1, got {value!r}")
    return number
