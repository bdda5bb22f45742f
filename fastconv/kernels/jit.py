"""The only place that calls Numba's compiler: flags, cache and parallel form of every kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numba
from numba.core import types
from numba.core.ccallback import CFunc

from fastconv import threads
from fastconv.kernels.cache import KernelCache

# No `fastmath=True`: it would let the compiler assume that NaN and infinity never occur.
# "contract" alone allows a multiplication and an addition to become one fused instruction.
_FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# For sums in vectors: the compiler may choose the order of additions, once and for all calls.
_ANY_ORDER = {"contract", "reassoc"}

#: Elements of light work, a few instructions each, that take longer than waking a thread.
WORTH_A_THREAD = 2**14


def _rename(function: Callable[..., Any], name: str) -> None:
    # Symbols in machine code are named after the function, its argument types and a count that
    # each process starts anew. Two variants of one function, stored by two processes, could bear
    # the same symbol, and a third process would run one in place of the other.
    function.__name__ = function.__qualname__ = re.sub(r"\W", "_", name)


def _compile(function: Callable[..., Any], name: str, **flags: Any) -> Any:
    _rename(function, name)
    dispatcher = numba.njit(function, **{**_FLAGS, **flags})
    if hasattr(dispatcher, "_cache"):  # a plain function under NUMBA_DISABLE_JIT=1
        dispatcher._cache = KernelCache(name)
    return dispatcher


def _name(function: Callable[..., Any], variant: str) -> str:
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__name__}{variant and '-'}{variant}"


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop that runs on the calling thread; other kernels may call it."""
    return _compile(function, _name(function, ""))


def summing_kernel(function: Callable[..., Any]) -> Any:
    """Compile a `kernel` whose sums may be split over the lanes of vectors."""
    return _compile(function, _name(function, ""), fastmath=_ANY_ORDER)


def address_of(function: Callable[..., None], name: str, arguments: int) -> int:
    """Return the address of a function of that many 64-bit integers, compiled as C would call it.

    Such a function is compiled apart from its callers, once for all of them. It must neither
    raise nor use Python objects.
    """
    _rename(function, name)
    compiled: Any = CFunc(function, ((types.int64,) * arguments, types.void), {}, _FLAGS)
    compiled._cache = KernelCache(name)
    compiled.compile()
    _addressed.append(compiled)  # its code lives as long as this object
    return int(compiled.address)


_addressed: list[CFunc] = []


class RangeKernel:
    """A loop over independent items, run in parallel where that is safe.

    The wrapped function takes ``(start, stop, *arguments)`` and handles the items of that
    range; the call is ``kernel(items, *arguments)``. Each thread gets one contiguous range.

    A function that closes over numbers becomes another kernel for each of them: `variant` must
    then name them, because the store of compiled kernels knows a kernel by its name.
    """

    def __init__(self, function: Callable[..., Any], variant: str = "") -> None:
        self._function = function
        self._name = _name(function, variant)
        self.__doc__ = function.__doc__

    @cached_property
    def serial(self) -> Any:
        """The loop itself, compiled: ``serial(start, stop, *arguments)``."""
        return _compile(self._function, self._name)

    @cached_property
    def parallel(self) -> Any:
        """The loop cut into chunks: ``parallel(items, chunks, *arguments)``."""
        body = self.serial

        def over_chunks(items, chunks, *arguments):  # type: ignore[no-untyped-def]
            for chunk in numba.prange(chunks):
                start = chunk * items // chunks
                stop = (chunk + 1) * items // chunks
                body(start, stop, *arguments)

        return _compile(over_chunks, f"{self._name}-parallel", parallel=True)

    def __call__(self, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)``."""
        self.on(threads.get_num_threads(), items, *arguments)

    def small(self, elements: int, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)``, on as many threads as so many elements are worth."""
        worth = elements // WORTH_A_THREAD
        self.on(min(threads.get_num_threads(), worth) if worth > 1 else 1, items, *arguments)

    def on(self, most: int, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)`` on at most so many threads."""
        chunks = min(items, most)
        if chunks > 1 and threads.parallel_is_safe():
            threads.run_parallel(self.parallel, items, chunks, *arguments)
        elif items > 0:
            self.serial(0, items, *arguments)


def range_kernel(function: Callable[..., Any]) -> RangeKernel:
    """Decorate a loop ``(start, stop, *arguments)`` over independent items: see `RangeKernel`."""
    return RangeKernel(function)
