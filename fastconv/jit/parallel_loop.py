"""Running a loop in chunks: one piece of code for every kernel, serial and parallel at once.

Numba's threading layers all export one C function, `parallel_for`, to which the loops that
`prange` makes are handed. Called directly it needs no compilation of its own, and its address
decides at run time: 0 means that the calling thread does all the work. (A kernel with a `prange`
around it would be compiled a second time, for a second.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
# What the layer calls: pointers to the arrays' elements, dimensions, steps, and what is passed on.
_PART = ir.FunctionType(
    ir.VoidType(), [_BYTES.as_pointer(), _WORD.as_pointer(), _WORD.as_pointer(), _BYTES]
)
# `parallel_for(part, arrays, dimensions, steps, passed on, inner dimensions, arrays, threads)`.
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_WORD] * 3)
_GET_NUM_THREADS = ir.FunctionType(_WORD, [])


@intrinsic  # type: ignore[misc, unused-ignore]
def run_chunks(typingctx, body, layer, start, items, chunks, arguments):  # type: ignore[no-untyped-def]
    """Call ``body(first, after, *arguments)`` for `chunks` ranges of so many items from `start` on.

    `layer` has the addresses of the threading layer's `parallel_for` and `get_num_threads`; two
    zeros run the chunks one after the other.
    """
    argument_types = (types.int64, types.int64, *arguments)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        result = body.dispatcher.get_compile_result(types.none(*argument_types))
        context.active_code_library.add_linking_library(result.library)

        addresses, count, bound = values[1], values[4], values[5]
        shared = ir.LiteralStructType([_WORD, _WORD, _WORD, bound.type])
        data = cgutils.alloca_once(builder, shared)
        for field, value in enumerate(values[2:]):
            builder.store(value, cgutils.gep_inbounds(builder, data, 0, field))
        part = _part(context, builder.module, result, argument_types, shared)

        # One "array" of bytes at address 0: a chunk's element is its number.
        first = cgutils.alloca_once_value(builder, ir.Constant(_BYTES, None))
        step = cgutils.alloca_once_value(builder, ir.Constant(_WORD, 1))
        amount = cgutils.alloca_once_value(builder, count)
        passed_on = builder.bitcast(data, _BYTES)
        parallel_for, get_num_threads = cgutils.unpack_tuple(builder, addresses)
        serial = builder.icmp_unsigned("==", parallel_for, ir.Constant(_WORD, 0))
        with builder.if_else(serial) as (alone, together):
            with alone:
                builder.call(part, [first, amount, step, passed_on])
            with together:
                ask = builder.inttoptr(get_num_threads, _GET_NUM_THREADS.as_pointer())
                run = builder.inttoptr(parallel_for, _PARALLEL_FOR.as_pointer())
                pointers = [builder.bitcast(p, _BYTES) for p in (part, first, amount, step)]
                numbers = [ir.Constant(_WORD, 1)] * 2 + [builder.call(ask, [])]
                builder.call(run, [*pointers, passed_on, *numbers])
        return context.get_dummy_value()

    return types.void(body, layer, start, items, chunks, arguments), generate


def _part(
    context: Any, module: Any, result: Any, argument_types: tuple[Any, ...], shared: Any
) -> Any:
    """Add the function that does a range of chunks to a module."""
    part = ir.Function(module, _PART, name=module.get_unique_name("part"))
    part.linkage = "internal"
    builder = ir.IRBuilder(part.append_basic_block())
    first = builder.ptrtoint(builder.load(part.args[0]), _WORD)
    amount = builder.load(part.args[1])
    data = builder.bitcast(part.args[3], shared.as_pointer())
    begin, items, chunks, bound = (
        builder.load(cgutils.gep_inbounds(builder, data, 0, field)) for field in range(4)
    )
    arguments = cgutils.unpack_tuple(builder, bound)
    with cgutils.for_range(builder, amount) as loop:
        chunk = builder.add(first, loop.index)
        after = builder.add(chunk, ir.Constant(_WORD, 1))
        start, stop = (
            builder.add(begin, builder.sdiv(builder.mul(number, items), chunks))
            for number in (chunk, after)
        )
        # A loop does not raise: there is nobody here to whom an exception could go.
        context.call_internal_no_propagate(
            builder, result.fndesc, types.none(*argument_types), [start, stop, *arguments]
        )
    builder.ret_void()
    return part
