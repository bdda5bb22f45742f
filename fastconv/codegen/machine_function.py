"""Machine code from a function that emits it: compiled once for each set of parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from fastconv.codegen.integers import integers
from fastconv.jit.emitter import emitted_address


def machine_function(
    name: Callable[..., str], *arguments: str
) -> Callable[[Callable[..., None]], Callable[..., int]]:
    """Decorate ``emit(builder, v, *parameters)``, which emits a function of 64-bit integers.

    Calls take the parameters alone and return the address of the machine code. To the code that
    emits, the function's arguments are a namespace `v` of `Integer`.

    Parameters
    ----------
    name : callable
        Returns the key in the store for some parameters; docs/kernels.md has the grammar.
    arguments : str
        The names of the function's arguments.
    """

    def decorate(emit: Callable[..., None]) -> Callable[..., int]:
        @cache
        @wraps(emit)
        def address(*parameters: Any) -> int:
            return emitted_address(
                name(*parameters),
                arguments,
                lambda builder, values: emit(builder, integers(builder, values), *parameters),
            )

        return address

    return decorate
