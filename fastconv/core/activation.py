"""Activations of a convolution's output.

Kernels get a form and three numbers; `Activation.apply` is the same in NumPy, for algorithms that
do not fuse it into their epilogue. NaN stays NaN.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastconv.core.hints import did_you_mean

Array = NDArray[Any]

#: The activations that need no numbers.
ActivationName: TypeAlias = Literal["relu", "relu6", "leaky_relu", "silu", "hard_swish"]
#: What a user may pass: a name, or a name with its numbers.
ActivationLike: TypeAlias = (
    ActivationName
    | tuple[Literal["clip"], float, float]
    | tuple[Literal["leaky_relu"], float]
    | None
)

#: The forms, as kernels number them. CLAMP is min(max(y, low), high): with infinite bounds it is
#: no activation at all.
CLAMP, LEAKY, SILU, HARD_SWISH = range(4)


@dataclass(frozen=True)
class Activation:
    """A form with its numbers.

    Attributes
    ----------
    form : int
        `CLAMP`, `LEAKY`, `SILU` or `HARD_SWISH`.
    low, high : float
        The bounds of CLAMP.
    slope : float
        What LEAKY multiplies negative numbers by.
    """

    form: int = CLAMP
    low: float = -math.inf
    high: float = math.inf
    slope: float = 0.01

    @property
    def is_none(self) -> bool:
        """Whether nothing changes."""
        return self == Activation()

    def numbers(self, dtype: str) -> Array:
        """Return (low, high, slope), as kernels read them."""
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            return np.array([self.low, self.high, self.slope]).astype(dtype)

    def apply(self, y: Array) -> None:
        """Change `y` in place, silently: kernels raise nothing either."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._apply(y)

    def _apply(self, y: Array) -> None:
        low, high, slope = self.numbers(y.dtype.name)
        if self.form == LEAKY:
            np.multiply(y, slope, out=y, where=y < 0)
        elif self.form == SILU:
            y /= 1 + np.exp(-y)  # exp(-y) = infinity gives the right limit, 0
        elif self.form == HARD_SWISH:
            y *= np.clip(y + 3, 0, 6) / 6
        elif not self.is_none:
            np.clip(y, low, high, out=y)


#: The activations by name. "clip" and "leaky_relu" take numbers of their own.
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(low=0),
    "relu6": Activation(low=0, high=6),
    "clip": Activation(),
    "leaky_relu": Activation(LEAKY),
    "silu": Activation(SILU),
    "hard_swish": Activation(HARD_SWISH),
}
_NUMBERS = {"clip": ("low", "high"), "leaky_relu": ("slope",)}


def as_activation(value: Any) -> Activation:
    """Return what a user passed as an activation; raise if it is none.

    >>> as_activation(("clip", -1, 1)).high
    1.0
    """
    if value is None:
        return Activation()
    name, *numbers = value if isinstance(value, tuple) and value else (value,)
    if not (isinstance(name, str) and name in ACTIVATIONS):
        names = ", ".join(repr(name) for name in ACTIVATIONS)
        hint = did_you_mean("activation", name, ACTIVATIONS)
        raise ValueError(f"activation must be None or one of {names}, got {value!r}{hint}")
    wanted = _NUMBERS.get(name, ())
    if len(numbers) != len(wanted) and (numbers or name == "clip"):
        right = ", ".join((repr(name), *wanted))
        raise ValueError(f"activation {name!r} must be given as ({right}), got {value!r}")
    for number in numbers:
        real = isinstance(number, int | float | np.integer | np.floating)
        if isinstance(number, bool) or not real:
            raise TypeError(f"activation {name!r} takes real numbers, got {number!r}")
        try:
            fits = not math.isnan(number)
        except OverflowError:  # an integer beyond all floats
            fits = False
        if not fits:
            limits = "takes numbers that a float holds, and no NaN"
            raise ValueError(f"activation {name!r} {limits}, got {value!r}")
    given: dict[str, Any] = dict(zip(wanted, map(float, numbers), strict=False))
    result = dataclasses.replace(ACTIVATIONS[name], **given)
    if result.low > result.high:
        raise ValueError(f"activation 'clip' must have low <= high, got {value!r}")
    return result
