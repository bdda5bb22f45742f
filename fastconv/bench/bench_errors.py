"""What goes wrong before or during a benchmark and is told in one line, without a traceback."""

from __future__ import annotations

from types import ModuleType

from fastconv.runtime import optional_packages


class BenchError(Exception):
    """The arguments are invalid; the message says what would be right."""


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional dependency; `BenchError` says how to install it."""
    try:
        return optional_packages.require(module, purpose, "bench")
    except ModuleNotFoundError as error:
        raise BenchError(str(error)) from None
