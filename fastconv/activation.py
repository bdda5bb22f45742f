"""What may be applied to a convolution's output before it is returned.

Each function changes its argument in place. NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def relu(y: Array) -> None:
    """max(y, 0)."""
    np.maximum(y, 0, out=y)


def relu6(y: Array) -> None:
    """min(max(y, 0), 6)."""
    np.clip(y, 0, 6, out=y)


def leaky_relu(y: Array) -> None:
    """Keep y where it is positive, and a hundredth of it elsewhere (PyTorch's default slope)."""
    np.multiply(y, y.dtype.type(0.01), out=y, where=y < 0)


def silu(y: Array) -> None:
    """Y / (1 + exp(-y))."""
    with np.errstate(over="ignore"):  # exp(-y) = infinity gives the right limit, 0
        y /= 1 + np.exp(-y)


def hard_swish(y: Array) -> None:
    """Y * relu6(y + 3) / 6."""
    gate = y + 3
    relu6(gate)
    y *= gate / 6


ACTIVATIONS: dict[str, Callable[[Array], None]] = {
    function.__name__: function for function in (relu, relu6, leaky_relu, silu, hard_swish)
}
