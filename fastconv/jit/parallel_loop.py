"""The launch of a loop: one piece of code runs it in chunks, serially or in parallel.

Numba's threading layers all export a C function, `parallel_for`, that runs the loops of `prange`.
Calling it directly needs no further compilation, and its address decides at run time: 0 means that
the calling thread does all the work. (A `prange` around a kernel would compile it a second time.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.funcdesc import PythonFunctionDescriptor

#: The parameters of a launch before those of its loop: the addresses of the threading layer's
#: `parallel_for` and `get_num_threads`, both 0 to run the chunks serially; the first item, the
#: number of items, and the number of chunks.
PARAMETERS = ("parallel_for", "get_num_threads", "start", "items", "chunks")

_WORD = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
# The layer's callback: pointers to the arrays' elements, dimensions, strides, and shared data.
_RUN_CHUNKS = ir.FunctionType(
    ir.VoidType(), [_BYTES.as_pointer(), _WORD.as_pointer(), _WORD.as_pointer(), _BYTES]
)
# `parallel_for(function, arrays, dimensions, strides, data, inner dimensions, arrays, threads)`.
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_WORD] * 3)
_GET_NUM_THREADS = ir.FunctionType(_WORD, [])


def add_launch(context: Any, library: Any, loop: Any, name: str) -> Any:
    """Add ``launch(*PARAMETERS, *arguments)`` to the library that has a `loop` over a range.

    `loop`, Numba's compile result, takes ``(start, stop, *arguments)``. Return the descriptor of
    the launch.
    """
    argument_types = (*[types.int64] * len(PARAMETERS), *loop.signature.args[2:])
    arguments = tuple(f"a{i}" for i in range(len(argument_types)))
    module_name = loop.fndesc.modname
    launch = PythonFunctionDescriptor(
        *(True, module_name, name, name, "", None, types.none, None, arguments, ()),
        argtypes=argument_types,
        mangler=context.mangler,
    )
    module = context.create_module(name)
    function = context.declare_function(module, launch)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    values = context.call_conv.decode_arguments(builder, argument_types, function)
    parallel_for, get_num_threads, start, items, chunks, *bound = values

    shared = [start, items, chunks, *bound]
    data = cgutils.alloca_once(builder, ir.LiteralStructType([value.type for value in shared]))
    for field, value in enumerate(shared):
        builder.store(value, cgutils.gep_inbounds(builder, data, 0, field))
    run_chunks = _add_run_chunks(context, module, loop, data.type)

    # One "array" of bytes at address 0: a chunk's element is its number.
    first = cgutils.alloca_once_value(builder, ir.Constant(_BYTES, None))
    stride = cgutils.alloca_once_value(builder, ir.Constant(_WORD, 1))
    count = cgutils.alloca_once_value(builder, chunks)
    passed_on = builder.bitcast(data, _BYTES)
    is_serial = builder.icmp_unsigned("==", parallel_for, ir.Constant(_WORD, 0))
    with builder.if_else(is_serial) as (serial, parallel):
        with serial:
            builder.call(run_chunks, [first, count, stride, passed_on])
        with parallel:
            ask = builder.inttoptr(get_num_threads, _GET_NUM_THREADS.as_pointer())
            run = builder.inttoptr(parallel_for, _PARALLEL_FOR.as_pointer())
            pointers = [builder.bitcast(p, _BYTES) for p in (run_chunks, first, count, stride)]
            numbers = [ir.Constant(_WORD, 1)] * 2 + [builder.call(ask, [])]
            builder.call(run, [*pointers, passed_on, *numbers])
    context.call_conv.return_value(builder, context.get_dummy_value())
    library.add_ir_module(module)
    # Only the launch calls it, so it needs no external copy.
    library.get_function(loop.fndesc.llvm_func_name).linkage = "internal"
    return launch


def _add_run_chunks(context: Any, module: Any, loop: Any, shared: Any) -> Any:
    """Add the function that runs a range of chunks."""
    function = ir.Function(module, _RUN_CHUNKS, name=module.get_unique_name("run_chunks"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    first = builder.ptrtoint(builder.load(function.args[0]), _WORD)
    count = builder.load(function.args[1])
    data = builder.bitcast(function.args[3], shared)
    fields = range(len(shared.pointee.elements))
    begin, items, chunks, *bound = (
        builder.load(cgutils.gep_inbounds(builder, data, 0, field)) for field in fields
    )
    with cgutils.for_range(builder, count) as over_chunks:
        chunk = builder.add(first, over_chunks.index)
        after = builder.add(chunk, ir.Constant(_WORD, 1))
        start, stop = (
            builder.add(begin, builder.sdiv(builder.mul(number, items), chunks))
            for number in (chunk, after)
        )
        # A loop does not raise: an exception could not be propagated from here.
        context.call_internal_no_propagate(
            builder, loop.fndesc, loop.signature, [start, stop, *bound]
        )
    builder.ret_void()
    return function
