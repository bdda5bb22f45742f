"""Images made larger, or smaller, by interpolation."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_computed, as_flag, as_numbers
from fastconv.core.geometry import require_tensor
from fastconv.jit.compiler import RangeKernel
from fastconv.kernels.interpolation_loops import READ, interpolate, interpolate_grad
from fastconv.nn.layer_arguments import as_given_pair, as_images, as_number
from fastconv.nn.module import Module
from fastconv.runtime import output_memory


class Upsample(Module):
    """Images (N, C, H, W) of another size, by interpolation.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width of the output.
    scale_factor : float or (float, float), optional
        What the height and width are multiplied by, and then rounded down. Either `size` or this.
    mode : {"nearest", "bilinear"}
        Each output pixel is a copy of one, or a weighted mean of four.
    align_corners : bool, optional
        With "bilinear", whether the centres of the corner pixels stay in the corners; if not, the
        edges of the images do. None is False.
    recompute_scale_factor : bool, optional
        Whether the ratio of the sizes is used for the positions instead of `scale_factor`, from
        which it differs if the output's size was rounded.

    Examples
    --------
    >>> Upsample(scale_factor=2)(np.array([[[[1.0, 2.0]]]]))
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]])
    >>> Upsample((1, 3), mode="bilinear", align_corners=True)(np.array([[[[1.0, 2.0]]]]))
    array([[[[1. , 1.5, 2. ]]]])
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: Literal["nearest", "bilinear"] = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError(
                "size or scale_factor must be given, and not both, got "
                f"size={size!r} and scale_factor={scale_factor!r}"
            )
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"mode must be 'nearest' or 'bilinear', got {mode!r}")
        if mode == "nearest" and align_corners is not None:
            raise ValueError(
                f"align_corners must be None with mode='nearest', got {align_corners!r}"
            )
        self.size = None if size is None else as_given_pair("size", size, 1)
        self.scale_factor = None if scale_factor is None else _as_factors(scale_factor)
        self.mode, self.align_corners = mode, _as_choice("align_corners", align_corners)
        self.recompute_scale_factor = _as_choice("recompute_scale_factor", recompute_scale_factor)

    def reads(self, sizes: tuple[int, ...]) -> list[Array]:
        """Return what is read along the height and the width of images of these sizes."""
        outs, factors = _pair(self.size), _pair(self.scale_factor)
        if self.scale_factor is not None:
            outs = tuple(int(size * factor) for size, factor in zip(sizes, factors, strict=True))
            if min(outs) < 1:
                raise ValueError(
                    f"scale_factor must leave at least one pixel of {sizes}, got {factors}"
                )
            require_tensor(f"scale_factor {factors}", outs)
        if self.recompute_scale_factor:
            factors = (None, None)
        axes = zip(sizes, outs, factors, strict=True)
        return [_read(*axis, self.mode, bool(self.align_corners)) for axis in axes]

    def forward(self, x: ArrayLike) -> Array:
        """Return the images in the other size."""
        images = as_images(self, as_numbers("x", x, 4))
        sizes = images.shape[2:]
        if min(sizes) < 1:
            raise ValueError(f"x must have pixels, got shape {images.shape}")
        rows, columns = self.reads(sizes)
        shape = (*images.shape[:2], len(rows), len(columns))
        require_tensor("size", shape)
        y = output_memory.empty(shape, images.dtype)
        _planes(interpolate, as_computed(images, images.dtype), y, rows, columns)
        self.keep(y, rows, columns, images.shape)
        return y

    def backward(self, grad: Array) -> Array:
        """Return the gradients, each added to the pixels that were read."""
        grad, rows, columns, shape = self.recall(grad)
        out = output_memory.empty(shape, grad.dtype)
        _planes(interpolate_grad, as_computed(grad, grad.dtype), out, rows, columns)
        return out

    def extra_repr(self) -> str:
        """Return the arguments, as PyTorch shows them."""
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={getattr(self, name)}, mode={self.mode!r}"


def _read(size: int, out: int, factor: float | None, mode: str, align: bool) -> Array:
    """Return what is read for so many outputs from an input of that size, as PyTorch does."""
    step, reads = size / out if factor is None else 1 / factor, np.zeros(out, READ)
    if mode == "nearest":  # in float32, whose rounding decides between neighbours
        places = np.arange(out, dtype=np.float32) * np.float32(step)
    elif align:
        places = np.arange(out) * ((size - 1) / max(out - 1, 1))
    else:
        places = np.maximum((np.arange(out) + 0.5) * step - 0.5, 0)
    reads["low"] = np.minimum(places, size - 1)
    reads["high"] = np.minimum(reads["low"] + 1, size - 1)
    if mode == "bilinear":
        reads["part"] = np.minimum(places - reads["low"], 1)
    return reads


def _planes(loop: RangeKernel, x: Array, out: Array, rows: Array, columns: Array) -> None:
    """Run a loop over the planes of `x` and `out`."""
    planes, results = (array.reshape(-1, *array.shape[2:]) for array in (x, out))
    loop.small(max(x.size, out.size), len(planes), planes, results, rows, columns)


def _pair(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value, value)


def _as_factors(value: Any) -> float | tuple[float, float]:
    """Return one factor, or one for the height and one for the width."""
    tiny = math.ulp(0.0)
    if not hasattr(value, "__len__"):
        return as_number("scale_factor", value, tiny)
    if len(value) != 2:
        raise ValueError(f"scale_factor must be a number or a pair of numbers, got {value!r}")
    height, width = (as_number("scale_factor", each, tiny) for each in value)
    return height, width


def _as_choice(name: str, value: bool | None) -> bool | None:
    return None if value is None else as_flag(name, value)
