"""The normal distribution, for GELU."""

from __future__ import annotations

import math
from typing import Any

from fastconv.jit.compiler import range_kernel


@range_kernel
def cumulative(start: int, stop: int, x: Any, out: Any) -> None:
    """Write the probability that a standard normal number is below each element of `x` to `out`.

    With the C library's ``erfc`` the error is at most half an ulp of 1. Where the probability is
    small, it is a few ulps of that, unlike with ``1 + erf``: 8 for x > -3, and growing as x * x.
    """
    number = x.dtype.type
    for i in range(start, stop):
        out[i] = number(0.5) * number(math.erfc(-x[i] * number(math.sqrt(0.5))))
