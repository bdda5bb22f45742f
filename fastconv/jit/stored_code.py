"""Machine code by name: read from the store, or compiled and stored."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastconv.jit import compile_notice, kernel_cache, machine_code
from fastconv.jit.kernel_cache import StoredKernel


def addresses(name: str, key: str, compiled: Callable[[], StoredKernel]) -> list[int]:
    """Return the addresses of a kernel's symbols in this process.

    `key` is everything that the machine code depends on besides the build; `compiled` compiles it.
    """
    loaded = _loaded(name, key)
    if loaded is not None:
        return loaded
    with kernel_cache.claim(name, key):
        # Another process may have compiled it meanwhile.
        loaded = _loaded(name, key) if kernel_cache.exists(name, key) else None
        if loaded is not None:
            return loaded
        with compile_notice.compiling(), _collector_paused():
            kernel = compiled()
        kernel_cache.write(name, key, kernel)
    return machine_code.load(kernel.code, *kernel.symbols)


def _loaded(name: str, key: str) -> list[int] | None:
    """Return the addresses of a stored kernel's symbols, None if it must be compiled."""
    kept = kernel_cache.read(name, key)
    if kept is None:
        return None
    try:
        return machine_code.load(kept.code, *kept.symbols)
    except ValueError as error:
        kernel_cache.refuse(name, key, str(error))
        return None


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which would scan the compiler's many long-lived objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
