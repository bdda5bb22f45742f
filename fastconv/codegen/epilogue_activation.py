"""Activations as vector code, on sums in registers: the forms of `fastconv.core.activation`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.integers import counted
from fastconv.codegen.vector import I64, Vectors, index, phis
from fastconv.core.activation import CLAMP, HARD_SWISH, LEAKY, SILU


def activate(vector: Vectors, form: Any, total: Any, low: Any, high: Any, slope: Any) -> Any:
    """Return the activation of `total`; `form` is known only at run time."""
    builder = vector.builder
    done = builder.append_basic_block("activated")
    clamp = builder.append_basic_block("clamp")
    switch = builder.switch(form, clamp)
    results = []

    def finish(value: Any) -> None:
        results.append((builder.block, [value]))
        builder.branch(done)

    builder.position_at_end(clamp)
    finish(vector.clamp(total, low, high))
    forms: dict[int, Callable[[], Any]] = {
        LEAKY: lambda: leaky(vector, total, slope),
        SILU: lambda: silu(vector, total),
        HARD_SWISH: lambda: hard_swish(vector, total),
    }
    for number, write in forms.items():
        block = builder.append_basic_block(f"form{number}")
        switch.add_case(ir.Constant(I64, number), block)
        builder.position_at_end(block)
        finish(write())
    builder.position_at_end(done)
    return phis(builder, *results)[0]


def activated(vector: Vectors, sums: Iterable[Any], numbers: Any, form: Any) -> list[Any]:
    """Return the activation of each vector; `numbers` points to the activation's parameters.

    Sums that are only clamped stay in registers. Other activations go through memory, so that
    their code exists once.
    """
    builder, sums = vector.builder, list(sums)
    low, high, slope = (
        vector.broadcast(builder.load(vector.at(numbers, number))) for number in range(3)
    )
    kept = cgutils.alloca_once(builder, vector.type, size=index(len(sums)))
    results = []
    with builder.if_else(builder.icmp_signed("==", form, index(CLAMP))) as (then, otherwise):
        with then:
            results.append((builder.block, [vector.clamp(total, low, high) for total in sums]))
        with otherwise:
            pointers = [vector.at(kept, number) for number in range(len(sums))]
            for total, pointer in zip(sums, pointers, strict=True):
                builder.store(total, pointer)
            with counted(builder, 0, len(sums)) as number:
                pointer = vector.at(kept, number)
                total = activate(vector, form, builder.load(pointer), low, high, slope)
                builder.store(total, pointer)
            results.append((builder.block, [builder.load(pointer) for pointer in pointers]))
    return phis(builder, *results)


def leaky(vector: Vectors, y: Any, slope: Any) -> Any:
    """Return ``y if y >= 0 else slope * y``."""
    builder = vector.builder
    negative = builder.fcmp_ordered("<", y, vector.zero)
    return builder.select(negative, builder.fmul(y, slope), y)


def hard_swish(vector: Vectors, y: Any) -> Any:
    """Return ``y * min(max(y + 3, 0), 6) / 6``."""
    builder = vector.builder
    gate = vector.clamp(builder.fadd(y, vector.all(3.0)), vector.zero, vector.all(6.0))
    return builder.fmul(y, builder.fdiv(gate, vector.all(6.0)))


def silu(vector: Vectors, y: Any) -> Any:
    """Return ``y / (1 + exp(-y))``."""
    builder = vector.builder
    power = exponential(vector, builder.fsub(vector.zero, y))
    return builder.fdiv(y, builder.fadd(vector.all(1.0), power))


def exponential(vector: Vectors, y: Any) -> Any:
    """Return ``exp(y)``: infinity above and 0 below what the type can hold, NaN for NaN.

    With y = n ln 2 + r and abs(r) <= ln 2 / 2, exp(y) = 2**n exp(r). The series of exp(r) is
    summed until its terms are below the last bit; r is exact to more bits than the type has,
    because ln 2 is subtracted in two parts. Source: W. J. Cody, W. Waite, "Software manual for
    the elementary functions", 1980, chapter 6.
    """
    builder, single = vector.builder, isinstance(vector.element, ir.FloatType)
    largest, terms, fraction = (104.0, 8, 23) if single else (746.0, 14, 52)
    # The leading part of ln 2 has so few bits that n times it is exact.
    leading, trailing = 709 / 2**10, 7.643680599453094172e-4
    is_nan = builder.fcmp_unordered("uno", y, y)
    original, y = y, vector.clamp(y, vector.all(-largest), vector.all(largest))
    y = builder.select(is_nan, vector.zero, y)  # NaN cannot be converted to an integer
    shift = vector.all(1.5 * 2.0**fraction)  # adding and subtracting it rounds to an integer
    n = builder.fsub(vector.multiply_add(y, vector.all(1 / math.log(2)), shift), shift)
    r = vector.multiply_add(n, vector.all(-leading), y)
    r = vector.multiply_add(n, vector.all(-trailing), r)
    series = vector.all(1 / math.factorial(terms - 1))
    for term in reversed(range(terms - 1)):
        series = vector.multiply_add(series, r, vector.all(1 / math.factorial(term)))
    # Two factors, since 2**n alone may overflow or underflow.
    bits = ir.VectorType(ir.IntType(32 if single else 64), vector.lanes)
    exponent_shift = ir.Constant(bits, [fraction] * vector.lanes)
    bias = ir.Constant(bits, [127 if single else 1023] * vector.lanes)
    whole = builder.fptosi(n, bits)
    half = builder.ashr(whole, ir.Constant(bits, [1] * vector.lanes))
    for part in (half, builder.sub(whole, half)):
        exponent = builder.shl(builder.add(part, bias), exponent_shift)
        factor = builder.bitcast(exponent, vector.type)
        series = builder.fmul(series, factor)
    return builder.select(is_nan, original, series)
