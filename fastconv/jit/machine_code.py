"""Loading object code into this process.

The code of a kernel stays loaded until the process ends, since its address may be kept anywhere. So
`stored_code` is the only caller, and its callers cache addresses: each kernel is loaded once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm

# Magic numbers of object files: ELF, Mach-O, and COFF for x86-64 and for ARM. LLVM checks no more,
# and aborts the process if they are wrong.
_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86", b"\x64\xaa")
#: The number of kernels that this process has loaded.
_loaded = 0


def load(code: bytes, *symbols: str) -> list[int]:
    """Load object code and return the addresses of the symbols.

    Raises
    ------
    ValueError
        If it is not object code, or a symbol is missing.
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
    """Return the number of kernels that this process has loaded."""
    return _loaded


@lru_cache(maxsize=1)
def _engine() -> Any:
    """Return the execution engine that owns the machine code, separate from Numba's."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
