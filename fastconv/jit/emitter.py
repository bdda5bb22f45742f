"""Machine code directly from LLVM IR, for microkernels, without Numba's compiler.

Numba would type a Python function, lower it and optimize it twice, which takes several times as
long as LLVM alone. Here a module with one function is optimized once, for the processor and the
features that Numba compiles for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.fastmathpass import rewrite_module

from fastconv.jit.compiler import FASTMATH, stored_address, target
from fastconv.jit.kernel_cache import StoredKernel

#: Emits a function's instructions, given a builder at its beginning and its arguments by name.
Emit = Callable[[ir.IRBuilder, dict[str, Any]], None]


def emitted_address(name: str, arguments: Sequence[str], emit: Emit) -> int:
    """Return the address of ``void name(int64, int64, ...)``, with the C calling convention.

    Parameters
    ----------
    name : str
        The key of the machine code in the store: equal names must mean equal instructions.
    arguments : sequence of str
        The names of the arguments, all of them 64-bit integers.
    emit : callable
        Emits the instructions: ``emit(builder, arguments)`` with a dictionary of LLVM values. It is
        called only if the store does not have the machine code. The function returns at the
        builder's final position.
    """
    return stored_address(name, len(arguments), lambda: compiled(name, arguments, emit))


def compiled(name: str, arguments: Sequence[str], emit: Emit) -> StoredKernel:
    """Return the machine code of such a function, without storing it."""
    triple, machine = target()[0], _target_machine()
    module = ir.Module()
    module.triple, module.data_layout = triple, str(machine.target_data)
    signature = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(arguments))
    function = ir.Function(module, signature, name)
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(builder, dict(zip(arguments, function.args, strict=True)))
    builder.ret_void()
    # The same floating-point flags as in Numba's kernels.
    rewrite_module(module, SimpleNamespace(flags=FASTMATH))
    optimized = llvm.parse_assembly(str(module))
    optimized.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(optimized, passes)
    return StoredKernel((name,), machine.emit_object(optimized))


@lru_cache(maxsize=1)
def _target_machine() -> Any:
    """Return Numba's target machine, with the options for code loaded at run time."""
    triple, cpu, features = target()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    relocation = "static" if triple.startswith("x86") else "default"
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu, features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )
