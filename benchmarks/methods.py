"""The ways to compute a convolution that accuracy.py compares, the truth, and how far from it.

All convolutions here have stride 1 and the padding that keeps the size of the image.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import fastconv
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.precision import Precision
from fastconv.select import conv_registry

Array = NDArray[Any]

#: Convolves images (N, C, H, W) with weights (K, C, R, S); None where that is refused.
Method = Callable[[Array, Array], Array | None]

TORCH = "PyTorch"


class Error(NamedTuple):
    """How far a result is from the truth, in units of the largest true value."""

    largest: float
    rms: float


def error(result: Array, truth: Array) -> Error:
    """Compare a result with the truth, in the truth's precision."""
    difference = np.abs(result - truth)
    scale = np.abs(truth).max()
    return Error(float(difference.max() / scale), float(np.sqrt(np.mean(difference**2)) / scale))


def worst(errors: Sequence[Error]) -> Error:
    """Return the largest error of several results of one size, and the RMS of all."""
    rms = np.sqrt(np.mean(np.square([e.rms for e in errors])))
    return Error(max(e.largest for e in errors), float(rms))


def exact(x: Array, weight: Array, padding: int | None = None) -> Array:
    """Return the convolution in the next wider type: float64 for float32, long double for float64.

    One matrix product a filter tap, by NumPy alone. Without `padding` the size of images is kept.
    """
    side = weight.shape[-1] // 2 if padding is None else padding
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    around = ((0, 0), (0, 0), (side, side), (side, side))
    windows = sliding_window_view(np.pad(x.astype(wide), around), weight.shape[2:], (2, 3))
    total: Array = np.zeros(1, wide)
    for r, s in np.ndindex(*weight.shape[2:]):
        total = total + np.tensordot(weight[..., r, s].astype(wide), windows[..., r, s], (1, 1))
    return total.swapaxes(0, 1)


def methods() -> dict[str, Method]:
    """Return every algorithm of fastconv by name, fastest first, and PyTorch where it is."""
    known = {name: by_algorithm(name) for name in fastconv.algorithms()}
    return known | ({TORCH: by_torch} if importlib.util.find_spec("torch") else {})


def less_exact() -> list[str]:
    """Return the names of algorithms that "highest" rules out."""
    return [a.name for a in conv_registry.offering("forward") if a.precision != "highest"]


def by_algorithm(name: str) -> Method:
    """Return a method that runs an algorithm by name."""
    (algorithm,) = (a for a in conv_registry.offering("forward") if a.name == name)

    def convolve(x: Array, weight: Array) -> Array | None:
        padding = weight.shape[-1] // 2
        problem = Conv2dProblem.from_shapes(
            x.shape, weight.shape, padding=padding, dtype=x.dtype.name
        )
        if algorithm.forward.refusal(problem) is not None:
            return None
        return fastconv.conv2d(x, weight, padding=padding, algorithm=name)

    return convolve


def by_precision(precision: Precision) -> Method:
    """Return a method that runs what `auto` chooses at a precision."""

    def convolve(x: Array, weight: Array) -> Array:
        with fastconv.at_precision(precision):
            return fastconv.conv2d(x, weight, padding=weight.shape[-1] // 2)

    return convolve


def by_torch(x: Array, weight: Array) -> Array:
    """Convolve by PyTorch."""
    import torch

    # What is read-only is copied: tensors can be written to.
    tensors = (torch.from_numpy(np.require(array, requirements="W")) for array in (x, weight))
    with torch.inference_mode():
        result: Array = torch.nn.functional.conv2d(*tensors, padding=weight.shape[-1] // 2).numpy()
    return result


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows))


def digits(value: float) -> str:
    """Return a number with two digits: "0.12", "1.2", "12", "120".

    >>> [digits(value) for value in (0.123, 1.23, 12.3, 123)]
    ['0.12', '1.2', '12', '120']
    """
    rounded = float(f"{value:.2g}")
    return f"{rounded:.{0 if rounded >= 10 else 1 if rounded >= 1 else 2}f}"
