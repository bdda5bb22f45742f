"""Packages that only parts of fastconv need, and how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """Import a package that `purpose` needs and the extra `extra` brings.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise ModuleNotFoundError(
            f"{purpose} needs {missing}, which is not installed: pip install 'fastconv[{extra}]'",
            name=error.name,
        ) from None
