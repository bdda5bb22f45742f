"""The only place that calls Numba's compiler: flags, store and parallel form of every kernel."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy.ma  # noqa: F401 - Numba would import it in a first call, where a fork may cut it in two
from numba.core import sigutils, types
from numba.core.caching import _Cache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult, compile_result
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import Environment
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from fastconv.jit import compile_notice, kernel_cache, machine_code
from fastconv.jit.kernel_cache import StoredKernel
from fastconv.jit.parallel_loop import run_chunks
from fastconv.runtime import forks, threads

# No `fastmath=True`: it would let the compiler assume that NaN and infinity never occur.
# "contract" alone allows a multiplication and an addition to become one fused instruction.
_FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
# For sums in vectors: the compiler may choose the order of additions, once and for all calls.
_ANY_ORDER = {"contract", "reassoc"}

#: What an element of light work takes, a few instructions, in seconds.
SECONDS_AN_ELEMENT = 0.6e-9


def _rename(function: Callable[..., Any], name: str) -> None:
    # Symbols in machine code are named after the function, its argument types and a count that
    # each process starts anew. Two variants of one function, stored by two processes, could bear
    # the same symbol, and a third process would run one in place of the other.
    function.__name__ = function.__qualname__ = re.sub(r"\W", "_", name)


def _compile(function: Callable[..., Any], name: str, **flags: Any) -> Any:
    _rename(function, name)
    return numba.njit(function, **{**_FLAGS, **flags})


def _name(function: Callable[..., Any], variant: str) -> str:
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__name__}{variant and '-'}{variant}"


def inner_kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop that other kernels call; it becomes a part of them."""
    return _compile(function, _name(function, ""))


def summing_kernel(function: Callable[..., Any]) -> Any:
    """Compile an `inner_kernel` whose sums may be split over the lanes of vectors."""
    return _compile(function, _name(function, ""), fastmath=_ANY_ORDER)


def kernel(function: Callable[..., None]) -> Any:
    """Compile a loop without a result that Python calls, and that runs on the calling thread."""
    name = _name(function, "")
    return _stored(_compile(function, name), name)


def _stored(dispatcher: Any, name: str) -> Any:
    if hasattr(dispatcher, "_cache"):  # not a plain function, as under NUMBA_DISABLE_JIT=1
        dispatcher._cache = _Store(dispatcher, name)
    return dispatcher


# Functions of integers, called by their address ------------------------------------------


def address_of(function: Callable[..., None], name: str, arguments: int) -> int:
    """Return the address of a function of that many 64-bit integers, compiled as C would call it.

    Such a function is compiled apart from its callers, once for all of them, and found by its
    name from then on. It must neither raise nor use Python objects.
    """
    address = _addresses.get(name)
    if address is None:
        with forks.held_off(), global_compiler_lock:
            address = _addresses.get(name)
            if address is None:
                address = _addresses[name] = _load_function(function, name, arguments)
    return address


_addresses: dict[str, int] = {}


def _load_function(function: Callable[..., None], name: str, arguments: int) -> int:
    key = repr((arguments, _codegen().magic_tuple()))
    loaded = _loaded_from_store(name, key)
    if loaded is not None:
        return loaded[0]
    _rename(function, name)
    compiled = _compiled_function(function, arguments)
    kernel_cache.write(name, key, compiled)
    return machine_code.load(compiled.code, *compiled.symbols)[0]


def _loaded_from_store(name: str, key: str) -> list[int] | None:
    """Return the addresses of a stored kernel's symbols, None if it must be compiled."""
    kept = kernel_cache.read(name, key)
    if kept is None:
        return None
    try:
        return machine_code.load(kept.code, *kept.symbols)
    except ValueError as error:
        kernel_cache.refuse(name, key, str(error))
        return None


def _compiled_function(function: Callable[..., None], arguments: int) -> StoredKernel:
    callback: Any = CFunc(function, ((types.int64,) * arguments, types.void), {}, _FLAGS)
    result = callback._compile_uncached()
    result.library._ensure_finalized()
    symbol = result.fndesc.llvm_cfunc_wrapper_name
    return StoredKernel((symbol,), result.library._get_compiled_object())


# Loops over a range ----------------------------------------------------------------------


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
        self._launch: Any = None  # compiled when first used
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
        """Run the loop over ``range(items)``, on as many threads as so many elements are worth."""
        self.on(threads.useful_threads(elements * SECONDS_AN_ELEMENT), items, *arguments)

    def on(self, most: int, items: int, *arguments: Any) -> None:
        """Run the loop over ``range(items)`` on at most so many threads."""
        launch = self._launch or self._first_use()
        chunks = min(items, most)
        if chunks > 1 and threads.parallel_is_safe():
            threads.run_parallel(launch, threads.layer_addresses(), 0, items, chunks, *arguments)
        elif items > 0:
            launch(threads.SERIAL, 0, items, 1, *arguments)

    def serial(self, start: int, stop: int, *arguments: Any) -> None:
        """Run the loop over ``range(start, stop)`` on the calling thread."""
        launch = self._launch or self._first_use()
        launch(threads.SERIAL, start, stop - start, 1, *arguments)


def _launch_of(function: Callable[..., Any], name: str) -> Any:
    """Return the compiled ``launch(layer, start, items, chunks, *arguments)`` of a loop."""
    module = function.__module__
    body = _compile(function, f"{name}-body")
    if not hasattr(body, "overloads"):  # a plain function under NUMBA_DISABLE_JIT=1
        return lambda _, start, items, __, *arguments: body(start, start + items, *arguments)

    def launch(layer, start, items, chunks, *arguments):  # type: ignore[no-untyped-def]
        run_chunks(body, layer, start, items, chunks, arguments)

    launch.__module__ = module  # a part of its symbol, as the name is
    return _stored(_compile(launch, name), name)


def range_kernel(function: Callable[..., Any]) -> RangeKernel:
    """Decorate a loop ``(start, stop, *arguments)`` over independent items: see `RangeKernel`."""
    return RangeKernel(function)


class _Store(_Cache):  # type: ignore[misc]
    """The store as Numba's dispatcher wants to see it, for one kernel without a result."""

    def __init__(self, dispatcher: Any, name: str) -> None:
        self._dispatcher, self._name = dispatcher, name

    @property
    def cache_path(self) -> str:
        """Where the files are."""
        return str(kernel_cache.usable_folder() or "")

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """Return the compiled kernel for these argument types, or None."""
        # Loading needs Numba's runtime symbols only. `target_context.refresh()` would also import
        # everything the compiler knows, which takes longer than all the rest of a first call.
        rtsys.initialize(target_context)
        loaded = _loaded_from_store(self._name, self._key(sig, target_context))
        if loaded is None:
            compile_notice.compiling()
            return None
        entry, *environments = loaded
        for place in environments:
            ctypes.c_void_p.from_address(place).value = id(_environment())
        return self._result(entry, sig, target_context)

    def _result(self, entry: int, sig: Any, target_context: Any) -> CompileResult:
        """Return what Numba makes of a compilation, as far as its dispatcher asks for it."""
        from numba import _dynfunc

        function = self._dispatcher.py_func
        name = function.__name__
        descriptor = PythonFunctionDescriptor(
            *(True, function.__module__, name, name, "", None, types.none, None),
            *((), ()),
            argtypes=_argument_types(sig),
            mangler=lambda name, *_, **__: name,  # nothing is linked with it
        )
        module, doc = descriptor.lookup_module(), f"compiled wrapper for {name!r}"
        function = _dynfunc.make_function(module, name, doc, entry, _environment(), ())
        return compile_result(
            target_context=target_context,
            typing_context=target_context.typing_context,
            signature=types.none(*_argument_types(sig)),
            entry_point=function,
            fndesc=descriptor,
            objectmode=False,
        )

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled kernel."""
        if data.library.has_dynamic_globals or data.lifted:
            return
        environments = [data.environment, *data._find_referenced_environments()]
        if any(environment.consts for environment in environments):
            return
        names = sorted({environment.env_name for environment in environments})
        symbols = data.fndesc.llvm_cpython_wrapper_name, *names
        code = data.library._get_compiled_object()
        key = self._key(sig, data.target_context)
        kernel_cache.write(self._name, key, StoredKernel(symbols, code))

    def _key(self, sig: Any, target_context: Any) -> str:
        return repr((_argument_types(sig), target_context.codegen().magic_tuple()))

    def enable(self) -> None:
        """Do nothing: the store is always on."""

    def disable(self) -> None:
        """Do nothing: the store is always on."""

    def flush(self) -> None:
        """Do nothing: `fastconv warmup --clear` empties the folder."""


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Return the environment of all loaded kernels: Numba asks for one, none has constants."""
    return Environment({})


def _argument_types(sig: Any) -> tuple[Any, ...]:
    arguments, _ = sigutils.normalize_signature(sig)
    return tuple(arguments)


def _codegen() -> Any:
    return cpu_target.target_context.codegen()
