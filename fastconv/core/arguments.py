"""Checking and converting the arrays a user passes. Only the outermost level calls this."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastconv.core import array_hints
from fastconv.core.geometry import as_ints, require_tensor

Array = NDArray[Any]


def as_numbers(
    name: str, value: Any, ndim: int | None = None, hints: Mapping[int, str] | None = None
) -> Array:
    """Return `value` as an array of real numbers, with `ndim` dimensions unless that is None.

    Hints tell, for other numbers of dimensions, what would be right.
    """
    array = _real(name, value)
    if ndim is not None and array.ndim != ndim:
        hint = (hints or {}).get(array.ndim)
        raise ValueError(
            f"{name} must have {ndim} dimension{'s' * (ndim > 1)}, got shape {array.shape}"
            + (f": {hint}" if hint else "")
        )
    return array


def as_filters(value: Any) -> Array:
    """Return the weights of a convolution, (K, C / groups, R, S), as an array of real numbers."""
    return as_numbers("weight", value, 4, array_hints.FILTER_HINTS)


def as_bias(value: Any) -> Array:
    """Return a bias, (K,), as an array of real numbers."""
    return as_numbers("bias", value, 1, array_hints.BIAS_HINTS)


def as_batch(
    name: str, value: Any, axes: tuple[str, ...] = ("N", "C", "H", "W")
) -> tuple[Array, bool]:
    """Return `value` as an array of those `axes`; whether it was one image, without the first."""
    array = _real(name, value)
    if array.ndim == len(axes):
        return array, False
    if array.ndim == len(axes) - 1:
        return array[np.newaxis], True
    hint = ""
    if array.ndim == 2 and "H" in axes:
        hint = f": one gray image is {name}[np.newaxis], rows of pixels {name}.reshape(N, C, H, W)"
    raise ValueError(
        f"{name} must have {len(axes)} dimensions, ({', '.join(axes)}), or {len(axes) - 1} for one "
        f"image, ({', '.join(axes[1:])}), got shape {array.shape}{hint}"
    )


def as_batch_shape(name: str, value: Any) -> tuple[tuple[int, int, int, int], bool]:
    """Return a shape as (N, C, H, W), and whether it was that of one image, (C, H, W)."""
    # The usual case, plain integers, is checked once.
    plain = type(value) is tuple and {int}.issuperset(map(type, value))
    return _batch_shape_again(name, value) if plain else _batch_shape(name, value)


def _batch_shape(name: str, value: Any) -> tuple[tuple[int, int, int, int], bool]:
    try:
        length = len(value)
    except TypeError:
        length = 4
    single = length == 3
    try:
        shape = as_ints(name, value, 3 if single else 4, 0)
    except ValueError as error:
        if length in (3, 4):
            raise
        raise ValueError(
            f"{name} must have 4 entries, (N, C, H, W), or 3 for one image, (C, H, W), got "
            f"{length}: {array_hints.shown(value)}"
        ) from error
    require_tensor(f"{name} {shape}", shape)
    N, C, H, W = (1, *shape) if single else shape
    return (N, C, H, W), single


_batch_shape_again = lru_cache(maxsize=1024)(_batch_shape)


def check_batched_alike(**single: bool) -> None:
    """Raise ValueError where of the named arguments some are of one image, others of a batch."""
    if len(set(single.values())) > 1:
        said = ", ".join(f"{name} {'without' if one else 'with'}" for name, one in single.items())
        raise ValueError(f"all or none of these must have a batch axis, got {said}")


def as_gradient(grad_output: Any, input_shape: Any) -> tuple[Array, tuple[int, ...], bool]:
    """Return a gradient as a batch, the input's shape, and whether both were of one image."""
    grad, single = as_batch("grad_output", grad_output)
    shape, single_shape = as_batch_shape("input_shape", input_shape)
    check_batched_alike(grad_output=single, input_shape=single_shape)
    return grad, shape, single


def as_returned(array: Array, dtype: DTypeLike, single: bool) -> Array:
    """Return a result in the type to return, and without the batch axis if it is `single`."""
    array = array.astype(dtype, copy=False)
    return array[0] if single else array


def _real(name: str, value: Any) -> Array:
    if type(value) is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(
                f"{name} must not be a masked array, because its mask would be lost: fill it "
                f"first, e.g. {name}.filled(0)"
            )
        value = as_array(name, value)
    if value.dtype.kind not in "fiub":
        hint = array_hints.not_numbers(name, value)
        raise TypeError(f"{name} must hold real numbers, got dtype {value.dtype}{hint}")
    if value.dtype.itemsize > 8:
        raise TypeError(
            f"{name} must be float64 or smaller, got dtype {value.dtype}: convert it first, "
            f"e.g. {name}.astype(float)"
        )
    return value  # type: ignore[no-any-return]


def as_array(name: str, value: Any) -> Array:
    """Return `value` as an array of anything; TypeError or ValueError where NumPy cannot."""
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise array_hints.not_an_array(name, value, error) from None


def as_flag(name: str, value: Any) -> bool:
    """Return a boolean as Python's; anything else was probably meant for another argument."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


# The usual types: NumPy's answer takes as long as a small pooling.
_COMPUTED = {np.dtype(name): (name, name) for name in ("float32", "float64")}


def result_dtypes(*arrays: Array) -> tuple[str, str]:
    """Return the dtypes to compute in (for float16 float32) and to return, by NumPy's promotion."""
    known = _COMPUTED.get(arrays[0].dtype) if len(arrays) == 1 else None
    if known is not None:
        return known
    promoted = np.result_type(*(array.dtype for array in arrays))
    if promoted == np.float16:
        return "float32", "float16"
    name = "float32" if promoted == np.float32 else "float64"
    return name, name


def as_computed(array: Array, dtype: DTypeLike) -> Array:
    """Return `array`, or a copy, as a C-contiguous, aligned, native array of `dtype`.

    It is read-only, so that no kernel can write to a user's array, and so that one compiled kernel
    serves writable and read-only inputs alike.
    """
    flags = array.flags
    if array.dtype != dtype or not (flags.c_contiguous and flags.aligned):
        array = np.require(array, dtype, ("C", "A"))
    view = array.view(np.ndarray)
    view.setflags(False)  # type: ignore[call-arg]  # faster than with its name
    return view


def check_shape(
    name: str, array: Array, wanted: tuple[int, ...], meaning: str, single: bool = False
) -> None:
    """Raise ValueError unless `array` has the shape `wanted`, whose batch axis `single` hides."""
    if array.shape != wanted:
        raise ValueError(
            f"{name} must have shape {wanted[single:]} ({meaning}), got {array.shape[single:]}"
        )


def check_out(out: Any, shape: tuple[int, ...], dtype: DTypeLike, name: str, read: Array) -> None:
    """Raise unless results can be written to `out` while `read`, the argument `name`, is read."""
    if type(out) is not np.ndarray:
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    check_shape("out", out, shape, "the output")
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {np.dtype(dtype)}, got {out.dtype}")
    flags = out.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writable")
    if np.may_share_memory(out, read):
        raise ValueError(f"out must not overlap {name} in memory")
