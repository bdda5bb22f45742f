"""SIMD vectors: the LLVM instructions that kernels are made of.

An instance emits instructions through an LLVM builder. The docstring of each method gives its
meaning in Python; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.runtime import cpu

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def index(value: int) -> Any:
    """Return a constant for addresses and counts."""
    return ir.Constant(I64, value)


def number(value: Any) -> Any:
    """Return the LLVM value of a Python integer or an `Integer`."""
    return index(value) if isinstance(value, int) else getattr(value, "value", value)


def prefetch(builder: Any, pointer: Any, level: int = 1, write: bool = False) -> None:
    """Prefetch the cache line at `pointer` into the caches from `level` on.

    Any address is allowed.
    """
    anything = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [anything, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    # Read or write, locality, data cache.
    options = [ir.Constant(I32, value) for value in (int(write), 4 - level, 1)]
    builder.call(function, [builder.bitcast(pointer, anything), *options])


def vectors(builder: Any, bits: int, lanes: int) -> Vectors:
    """Return vectors of the floating-point type with `bits` bits."""
    return Vectors(builder, NUMBER_TYPES[bits].operand, lanes)


def updated_if(
    builder: Any, condition: Any, values: Sequence[Any], update: Callable[[], Sequence[Any]]
) -> list[Any]:
    """Return ``update() if condition else values``, with a branch at run time."""
    before = builder.block
    with builder.if_then(condition):
        updated = update()
        after = builder.block
    return phis(builder, (before, values), (after, updated))


def phis(builder: Any, *sources: tuple[Any, Iterable[Any]]) -> list[Any]:
    """Return phi nodes: from pairs (block, values) the values of the block just left."""
    nodes = [builder.phi(value.type) for value in sources[0][1]]
    for source in sources:
        add_source(nodes, *source)
    return nodes


def add_source(nodes: Sequence[Any], block: Any, values: Iterable[Any]) -> None:
    """Let phi nodes have these values where control comes from a block."""
    for node, value in zip(nodes, values, strict=True):
        node.add_incoming(value, block)


class Vectors:
    """Vectors of `lanes` elements of one type.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Receives the instructions.
    element : llvmlite.ir.Type
        ``ir.FloatType()``, ``ir.DoubleType()``, or an integer type, which has no arithmetic.
    lanes : int
        Elements of a vector; a power of two.
    """

    def __init__(self, builder: Any, element: Any, lanes: int) -> None:
        self.builder = builder
        self.element = element
        self.lanes = lanes
        self.type = ir.VectorType(element, lanes)
        self.undefined = ir.Constant(self.type, ir.Undefined)
        self.zero = ir.Constant(self.type, None)
        self._mask_type = ir.VectorType(I1, lanes)
        kind = {"float": "f32", "double": "f64"}.get(str(element), str(element))
        self.bits, self._suffix = int(kind[1:]), f"v{lanes}{kind}"

    def at(self, pointer: Any, *offsets: Any) -> Any:
        """Return ``pointer + sum(offsets)``, counted in elements."""
        for offset in offsets:
            pointer = self.builder.gep(pointer, [number(offset)])
        return pointer

    def load(self, pointer: Any, mask: Any = None, otherwise: Any = None) -> Any:
        """Return ``[memory[pointer + i] if mask[i] else otherwise[i] for i in range(lanes)]``.

        Without `mask` all elements are loaded, without `otherwise` masked elements are 0.
        """
        typed = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(typed, align=self.bits // 8)
        arguments = [self.type.as_pointer(), I32, self._mask_type, self.type]
        load = self._declare(f"llvm.masked.load.{self._suffix}.p0", self.type, arguments)
        other = self.zero if otherwise is None else otherwise
        return self.builder.call(load, [typed, ir.Constant(I32, self.bits // 8), mask, other])

    def store(self, vector: Any, pointer: Any, mask: Any = None) -> None:
        """Do ``memory[pointer + i] = vector[i]``, where ``mask[i]``; access no other memory."""
        typed = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(vector, typed, align=self.bits // 8)
            return
        arguments = [self.type, self.type.as_pointer(), I32, self._mask_type]
        store = self._declare(f"llvm.masked.store.{self._suffix}.p0", ir.VoidType(), arguments)
        self.builder.call(store, [vector, typed, ir.Constant(I32, self.bits // 8), mask])

    def mask(self, wanted: Sequence[bool]) -> Any:
        """Return ``wanted``, a constant."""
        return ir.Constant(self._mask_type, [int(each) for each in wanted])

    def first(self, count: Any) -> Any:
        """Return the mask ``[i < count for i in range(lanes)]``."""
        lane_numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(lane_numbers.type, ir.Undefined)
        one = self.builder.insert_element(undefined, number(count), ir.Constant(I32, 0))
        counts = self.shuffle(one, undefined, [0] * self.lanes)
        return self.builder.icmp_signed("<", lane_numbers, counts)

    def within(self, start: Any, size: Any) -> Any:
        """Return ``[0 <= start + i < size for i in range(lanes)]``, for numbers below 2**31."""
        integer = ir.IntType(self.bits)
        lanes = ir.Constant(ir.VectorType(integer, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(lanes.type, ir.Undefined)

        def spread(value: Any) -> Any:
            value = number(value)
            value = self.builder.trunc(value, integer) if self.bits < 64 else value
            one = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
            return self.shuffle(one, undefined, [0] * self.lanes)

        # As an unsigned integer, a negative number is very large.
        return self.builder.icmp_unsigned("<", self.builder.add(lanes, spread(start)), spread(size))

    def all(self, value: float) -> Any:
        """Return ``[value] * lanes``, a constant."""
        return ir.Constant(self.type, [value] * self.lanes)

    def broadcast(self, scalar: Any) -> Any:
        """Return ``[scalar] * lanes``."""
        one = self.builder.insert_element(self.undefined, scalar, ir.Constant(I32, 0))
        return self.shuffle(one, self.undefined, [0] * self.lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``: one instruction, rounded once, where the processor has one."""
        if not cpu.describe().instructions.fma:  # the fused form would be a slow library call
            return self.builder.fadd(self.builder.fmul(a, b), c)
        fma = self._declare(f"llvm.fma.{self._suffix}", self.type, [self.type] * 3)
        return self.builder.call(fma, [a, b, c])

    def dot(self, a: Any, b: Any, accumulator: Any) -> Any:
        """Return `accumulator` plus the products of a and b, summed within each lane.

        With one number per lane this is ``a * b + accumulator``.
        """
        return self.multiply_add(a, b, accumulator)

    def barrier(self, vector: Any) -> Any:
        """Return `vector`; later loads are not moved before its computation.

        Without this compiler barrier LLVM hoists the loads of a whole step and spills registers.
        """
        function = ir.FunctionType(self.type, [self.type])
        return self.builder.asm(function, "", "=v,0,~{memory}", [vector], True)

    def clamp(self, a: Any, low: Any, high: Any) -> Any:
        """Return ``min(max(a, low), high)``; NaN stays NaN."""
        builder = self.builder
        a = builder.select(builder.fcmp_ordered("<", a, low), low, a)
        return builder.select(builder.fcmp_ordered(">", a, high), high, a)

    def shuffle(self, a: Any, b: Any, picks: Sequence[int]) -> Any:
        """Return ``[(a + b)[i] for i in picks]``, where a and b are lists."""
        mask = ir.Constant(ir.VectorType(I32, len(picks)), list(picks))
        return self.builder.shuffle_vector(a, b, mask)

    def pick(self, vectors: Sequence[Any], picks: Sequence[int]) -> Any:
        """Return ``[sum(vectors, [])[i] for i in picks]``, where vectors are lists."""
        lanes = self.lanes
        if len(vectors) == 1:
            return self.shuffle(vectors[0], self.undefined, picks)
        picked, left = vectors[0], list(picks)
        for vector in vectors[1:]:
            # Elements of later vectors are filled in by later shuffles.
            picked = self.shuffle(picked, vector, [i if i < 2 * lanes else 0 for i in left])
            left = [k if i < 2 * lanes else i - lanes for k, i in enumerate(left)]
        return picked

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Return ``list(zip(*rows))`` of `lanes` vectors: element j of row i goes to (j, i).

        Blocks of 1, 2, 4, ... elements are exchanged between pairs of rows, log2(lanes) times.
        """
        vectors, size = list(rows), 1
        while size < self.lanes:
            low = [i if not i & size else self.lanes + i - size for i in range(self.lanes)]
            high = [i + size if not i & size else self.lanes + i for i in range(self.lanes)]
            for i in range(self.lanes):
                if not i & size:
                    pair = vectors[i], vectors[i + size]
                    vectors[i] = self.shuffle(*pair, low)
                    vectors[i + size] = self.shuffle(*pair, high)
            size *= 2
        return vectors

    def sums(self, vectors: Sequence[Any]) -> Any:
        """Return ``[sum(vector) for vector in vectors]``, zero-padded; at most `lanes` vectors.

        Pairs of vectors are merged: half of the elements are partial sums of the first, half of the
        second.
        """
        some, size = [*vectors, *[self.zero] * (self.lanes - len(vectors))], 1
        while size < self.lanes:
            low = [i if not i & size else self.lanes + i - size for i in range(self.lanes)]
            high = [i + size if not i & size else self.lanes + i for i in range(self.lanes)]
            some = [
                self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high))
                for a, b in zip(some[::2], some[1::2], strict=True)
            ]
            size *= 2
        return some[0]

    def deinterleave(self, vectors: Sequence[Any]) -> list[Any]:
        """Return ``[memory[k::m] for k in range(m)]`` of m contiguous vectors, m a power of 2."""
        if len(vectors) == 1:
            return list(vectors)
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        every = range(0, 2 * self.lanes, 2)
        even = self.deinterleave([self.shuffle(a, b, every) for a, b in pairs])
        odd = self.deinterleave([self.shuffle(a, b, [i + 1 for i in every]) for a, b in pairs])
        return [vector for pair in zip(even, odd, strict=True) for vector in pair]

    def interleave(self, vectors: Sequence[Any]) -> list[Any]:
        """Return the vectors whose `deinterleave` gives `vectors`."""
        if len(vectors) == 1:
            return list(vectors)
        even, odd = self.interleave(vectors[::2]), self.interleave(vectors[1::2])
        half = self.lanes // 2
        low = [i // 2 + i % 2 * self.lanes for i in range(self.lanes)]
        high = [i + half for i in low]
        pairs = list(zip(even, odd, strict=True))
        return [self.shuffle(*pair, picks) for pair in pairs for picks in (low, high)]

    @property
    def line(self) -> int:
        """Elements per cache line."""
        return 512 // self.bits

    def _declare(self, name: str, returned: Any, arguments: list[Any]) -> Any:
        signature = ir.FunctionType(returned, arguments)
        return cgutils.get_or_insert_function(self.builder.module, signature, name)
