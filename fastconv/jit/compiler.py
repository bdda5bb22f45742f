"""Kernel decorators: Numba's flags, and how Python and other kernels call a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy.ma  # noqa: F401 - Numba would import it in a first call, where a fork may cut it in two
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from fastconv.jit.kernel_cache import StoredKernel
from fastconv.jit.loop_compiler import inner_dispatcher, is_claimed, is_compiled, loop_dispatcher
from fastconv.jit.missing_kernels import MissingKernel, described, is_collecting, note_missing
from fastconv.jit.parallel_loop import PARAMETERS
from fastconv.jit.stored_code import addresses
from fastconv.runtime import forks, threads

# Not `fastmath=True`, which lets the compiler assume that NaN and infinity never occur. "contract"
# only allows fused multiply-add.
FASTMATH = {"contract"}
_FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
# Vectorized sums: the compiler chooses the order of additions, the same for all calls.
_ANY_ORDER = {"contract", "reassoc"}

#: Seconds per element of light work, a few instructions.
SECONDS_AN_ELEMENT = 0.6e-9


def _rename(function: Callable[..., Any], name: str) -> None:
    # Symbols in machine code are named after the function, its argument types and a counter of the
    # process. Two variants of one function, stored by two processes, could have the same symbol,
    # and a third process would run the wrong one.
    function.__name__ = function.__qualname__ = re.sub(r"\W", "_", name)


def _name(function: Callable[..., Any], variant: str = "") -> str:
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__name__}{variant and '-'}{variant}"


def inner_kernel(function: Callable[..., Any]) -> Any:
    """Inline a loop into each kernel that calls it, which halves the compilation time."""
    return _inner(function, inline="always")


def summing_kernel(function: Callable[..., Any]) -> Any:
    """Compile an inner loop whose sums may be vectorized.

    LLVM inlines it, not Numba, which would lose its flags.
    """
    return _inner(function, fastmath=_ANY_ORDER)


def _inner(function: Callable[..., Any], **options: Any) -> Any:
    _rename(function, _name(function))
    return function if numba.config.DISABLE_JIT else inner_dispatcher(function, _FLAGS | options)


def kernel(function: Callable[..., None]) -> Any:
    """Decorate a loop without a result that Python calls and that runs on the calling thread."""
    name = _name(function)
    _rename(function, name)
    if numba.config.DISABLE_JIT:
        return function
    return loop_dispatcher(function, name, False, _FLAGS)


# Functions of integers, called by their address ------------------------------------------

_addresses: dict[str, int] = {}


def stored_address(name: str, arguments: int, compiled: Callable[[], StoredKernel]) -> int:
    """Return the address of machine code that takes integers; compile it if it is not stored."""
    address = _addresses.get(name)
    if address is None:
        with forks.held_off(), global_compiler_lock:
            address = _addresses.get(name)
            if address is None:
                key = repr((arguments, target()))
                address = _addresses[name] = addresses(name, key, compiled)[0]
    return address


def target() -> tuple[str, str, str]:
    """Return the triple, the processor and the features that Numba compiles for."""
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features


# Loops over a range ----------------------------------------------------------------------


class RangeKernel:
    """A loop over independent items, run in parallel if that is safe.

    The wrapped function takes ``(start, stop, *arguments)`` and handles the items of that
    range; the call is ``kernel(items, *arguments)``. Each thread gets one contiguous range.

    A closure over numbers is a different kernel for each of them: `variant` must then name them,
    because the store finds a kernel by its name.
    """

    def __init__(self, function: Callable[..., Any], variant: str = "") -> None:
        self._function = function
        self._import_from = function.__module__, function.__qualname__
        self._name = _name(function, variant)
        self._launch: Any = None  # made when first used
        self.__doc__ = function.__doc__

    def _first_use(self) -> Any:
        with forks.held_off(), global_compiler_lock:
            if self._launch is None:
                self._launch = _launch_of(self._function, self._name)
        return self._launch

    def __call__(self, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)``."""
        self.on(threads.get_num_threads(), items, *arguments)

    def small(self, elements: int, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)``, on as many threads as `elements` justify."""
        self.on(threads.useful_threads(elements * SECONDS_AN_ELEMENT), items, *arguments)

    def on(self, most: int, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)`` on at most `most` threads."""
        launch, chunks = self._launch or self._first_use(), min(items, most)
        if is_collecting():
            self._note(launch, arguments)
        elif chunks > 1 and threads.parallel_is_safe():
            threads.run_parallel(launch, *threads.layer_addresses(), 0, items, chunks, *arguments)
        elif items > 0:
            launch(*threads.SERIAL, 0, items, 1, *arguments)

    # Compilation ahead of time ---------------------------------------------------------------

    def _note(self, launch: Any, arguments: Sequence[Any]) -> None:
        """Note these types as missing, unless their machine code exists."""
        note, types = note_missing.get(), described(arguments)
        importable = self._import_from[1].isidentifier()
        if note and types and importable and not is_compiled(launch, _types(arguments)):
            note(MissingKernel(*self._import_from, types))

    def compile_for(self, arguments: Sequence[Any], wait: bool = True) -> bool:
        """Compile the loop for the types of these arguments and store it, without running it.

        Without `wait`, a loop that another process is compiling is skipped. Return whether it is
        compiled now.
        """
        if not wait and self.is_claimed(arguments):
            return False
        (self._launch or self._first_use()).compile(_types(arguments))
        return True

    def is_claimed(self, arguments: Sequence[Any]) -> bool:
        """Return whether another process is compiling the loop for these types."""
        return is_claimed(self._launch or self._first_use(), _types(arguments))


def _types(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Return the types of a launch's arguments."""
    return (*[types.int64] * len(PARAMETERS), *map(numba.typeof, arguments))


def _launch_of(function: Callable[..., Any], name: str) -> Any:
    """Return ``launch(*PARAMETERS, *arguments)`` of a loop: see `parallel_loop`."""
    _rename(function, name)
    if numba.config.DISABLE_JIT:
        return lambda _, __, start, items, ___, *rest: function(start, start + items, *rest)
    return loop_dispatcher(function, name, True, _FLAGS)


def range_kernel(function: Callable[..., Any]) -> RangeKernel:
    """Decorate a loop ``(start, stop, *arguments)`` over independent items: see `RangeKernel`."""
    return RangeKernel(function)
