"""Packages that only parts of fastconv need, and how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


def missing(purpose: str, package: str, extra: str) -> str:
    """Return the sentence that says what is missing and which command installs it.

    pip adds the packages of an extra to the fastconv that is installed, from wherever it came.

    >>> missing("fastconv.plots", "matplotlib", "plots")
    'fastconv.plots needs matplotlib: python -m pip install "fastconv[plots]"'
    """
    return f'{purpose} needs {package}: python -m pip install "fastconv[{extra}]"'


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """Import a package that `purpose` needs, or say that the extra `extra` installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        raise ModuleNotFoundError(missing(purpose, package, extra), name=error.name) from None


def stand_in(message: str) -> Any:
    """Return a base class for classes that can be looked at, but not made without a package."""

    class Missing:
        def __new__(cls, *_: object, **__: object) -> Missing:
            raise ImportError(message)

    return Missing
