"""What goes wrong before or during a benchmark and is told in one line, without a traceback."""

from __future__ import annotations

import importlib
from types import ModuleType


class BenchError(Exception):
    """The arguments are invalid; the message says what would be right."""


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Raises
    ------
    BenchError
        If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'fastconv[bench]'"
        ) from None
