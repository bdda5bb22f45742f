"""Machine code in this process: object code in, addresses out, each kernel loaded once.

The code of a kernel stays for the life of the process, as its address may be kept anywhere. So
there is one owner, which knows kernels by their names: whoever asks twice gets the same address.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm

#: How many kernels' object code this process has loaded.
_loaded = 0


def load(code: bytes, *symbols: str) -> list[int]:
    """Load object code and return the addresses of these symbols.

    Raises
    ------
    ValueError
        If the code has no such symbol.
    """
    global _loaded
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _loaded += 1
    addresses = [engine.get_function_address(symbol) for symbol in symbols]
    if not all(addresses):
        raise ValueError(f"the object code must have the symbols {symbols}")
    return addresses


def loaded_kernels() -> int:
    """Return how many kernels' object code this process has loaded."""
    return _loaded


@lru_cache(maxsize=1)
def _engine() -> Any:
    """Return what holds machine code: an engine of our own, which Numba's does not depend on."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
