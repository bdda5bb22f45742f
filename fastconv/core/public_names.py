"""What `dir` shows of a public module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def public_names(module: Mapping[str, Any]) -> list[str]:
    """Return the public names of a module, given its globals, and those between underscores.

    >>> public_names({"__all__": ["pad"], "pad": max, "helper": min, "__doc__": ""})
    ['__all__', '__doc__', 'pad']
    """
    return sorted({*module["__all__"], *(name for name in module if name.startswith("__"))})
