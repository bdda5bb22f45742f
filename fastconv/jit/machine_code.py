"""Machine code in this process: object code in, addresses out.

The code of a kernel stays for the life of the process, as its address may be kept anywhere. So
`stored_code` is the only caller, and its callers remember addresses: each kernel is loaded once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm

# How object files begin: ELF, Mach-O, and COFF for x86-64 and for ARM. LLVM asks for no more than
# that and ends the process where it is not so.
_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86", b"\x64\xaa")
#: How many kernels' object code this process has loaded.
_loaded = 0


def load(code: bytes, *symbols: str) -> list[int]:
    """Load object code and return the addresses of these symbols.

    Raises
    ------
    ValueError
        If it is no object code, or has no such symbol.
    """
    global _loaded
    engine = _engine()
    if not code.startswith(_MAGIC):
        raise ValueError("the object code cannot be read")
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
