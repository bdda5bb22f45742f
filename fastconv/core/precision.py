"""How exact a result must be: what `algorithm="auto"` may choose from.

A plain float32 sum of n products errs by a few roundings. Algorithms that transform their input
first, such as Winograd's and the Fourier transform, need fewer products and err by more. Each says
which kind it is (`Algorithm.precision`); which kinds may run is set here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

Precision = Literal["highest", "high"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: Environment variable with the precision to start with.
PRECISION_VARIABLE = "FASTCONV_PRECISION"

# Of the whole process; None before its first use.
_everywhere: Precision | None = None
# Of a `with at_precision(...)`, for the thread or the asynchronous task inside it.
_here: ContextVar[Precision | None] = ContextVar("fastconv_precision", default=None)


def get_precision() -> Precision:
    """Return the precision that holds here and now, "highest" or "high".

    Raises
    ------
    ValueError
        If the environment variable ``FASTCONV_PRECISION`` is neither of them.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.at_precision("highest"):
    ...     fastconv.get_precision()
    'highest'
    """
    global _everywhere
    inside = _here.get()
    if inside is not None:
        return inside
    if _everywhere is None:
        text = os.environ.get(PRECISION_VARIABLE, "").strip()
        _everywhere = _checked(f"environment variable {PRECISION_VARIABLE}", text or "high")
    return _everywhere


def set_precision(precision: Precision) -> ExitStack:
    """Set how exact results must be, in all threads of this process.

    With "highest", ``algorithm="auto"`` runs only algorithms that err as a plain sum in the dtype
    of the arrays does. With "high" it also runs faster ones whose error is several times as large,
    such as Winograd's. The starting value is the environment variable ``FASTCONV_PRECISION``, else
    "high".

    An algorithm that is named always runs. A plan keeps the algorithm it was made with. Inside of
    `at_precision` that one's precision holds.

    Parameters
    ----------
    precision : {"highest", "high"}

    Returns
    -------
    context manager
        Used in a ``with`` statement it sets back what was set before, for the whole process. Where
        several threads may do so, `at_precision` is the better one: it holds for one of them.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.set_precision("highest"):
    ...     fastconv.get_precision()
    'highest'
    """
    global _everywhere
    before, _everywhere = _everywhere, _checked("precision", precision)
    undo = ExitStack()
    undo.callback(_restore, before)
    return undo


def _restore(before: Precision | None) -> None:
    global _everywhere
    _everywhere = before


@contextmanager
def at_precision(precision: Precision) -> Iterator[None]:
    """Set another precision for the time of a ``with`` block; see `set_precision`.

    It holds for the thread (or the asynchronous task) that is inside the block and for the threads
    that fastconv itself uses there, as `numpy.errstate` does. Threads that the block's own code
    starts do not inherit it: they follow `set_precision`.

    Parameters
    ----------
    precision : {"highest", "high"}

    Raises
    ------
    ValueError
        For anything else, on entering the block.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, weight = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    >>> with fastconv.at_precision("highest"):
    ...     y = fastconv.conv2d(x, weight)
    """
    token = _here.set(_checked("precision", precision))
    try:
        yield
    finally:
        _here.reset(token)


def suffices(offered: Precision, wanted: Precision) -> bool:
    """Return whether an algorithm of the precision `offered` may run where `wanted` is set."""
    return wanted == "high" or offered == "highest"


def _checked(name: str, value: Any) -> Precision:
    for known in PRECISIONS:
        if isinstance(value, str) and value == known:
            return known
    names = " or ".join(repr(known) for known in PRECISIONS)
    raise ValueError(f"{name} must be {names}, got {value!r}: 'high' permits every algorithm")
