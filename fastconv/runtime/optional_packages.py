"""Packages that only parts of fastconv need, and how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """Import a package that `purpose` needs, or say that the extra `extra` installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise ModuleNotFoundError(
            f"{purpose} needs {missing}, which is not installed: pip install 'fastconv[{extra}]'",
            name=error.name,
        ) from None
