"""Addresses in kernels: of arrays, and of machine code to call."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


@intrinsic  # type: ignore[misc, unused-ignore]
def call(typingctx, address, arguments):  # type: ignore[no-untyped-def]
    """Call the machine code at `address` with a tuple of 64-bit integers."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        integer = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [integer] * len(arguments))
        code = builder.inttoptr(values[0], function.as_pointer())
        count = len(arguments)
        builder.call(code, [builder.extract_value(values[1], i) for i in range(count)])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


@intrinsic  # type: ignore[misc, unused-ignore]
def address(typingctx, array):  # type: ignore[no-untyped-def]
    """Return the address of a record or of an array's first element, as a signed integer."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        data = values[0]
        if not isinstance(array, types.Record):
            data = context.make_array(array)(context, builder, data).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), generate


@intrinsic  # type: ignore[misc, unused-ignore]
def integer_at(typingctx, address, number):  # type: ignore[no-untyped-def]
    """Return element `number` of an array of int64 that begins at `address`."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        array = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(array, [values[1]]))

    return types.int64(types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def record_at(typingctx, address, layout):  # type: ignore[no-untyped-def]
    """Return the record of type `layout`, a constant, at `address`."""
    record = layout.dtype

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.inttoptr(values[0], context.get_value_type(record))

    return record(types.int64, layout), generate
