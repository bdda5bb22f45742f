"""Vector primitives for packing: clear and copy rows, transpose and gather blocks.

Targets and sources are addresses. A copy may write up to one vector beyond the end of a row:
targets are buffers with that much room, filled from front to back. Reads stay within the row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.codegen.integers import Integer, counted, integer_at, pointer_to
from fastconv.codegen.vector import Vectors


def clear_row(vector: Vectors, target: Any, count: Any) -> None:
    """Emit ``target[:count] = 0``."""
    builder, count = vector.builder, Integer(vector.builder, count)
    with counted(builder, 0, count, vector.lanes) as k:
        to, left = pointer_to(vector, target, k), count - k
        with builder.if_else(left.compare(">=", vector.lanes)) as (whole, partly):
            with whole:
                vector.store(vector.zero, to)
            with partly:
                vector.store(vector.zero, to, vector.first(left.value))


def copy_row(vector: Vectors, target: Any, row: Any, width: Any, across: Any, step: int) -> None:
    """Emit ``target[k] = row[left + k * distance]`` for k below `count`, with zero padding.

    The row has columns 0 to `width`; ``left, distance, count = across``. `distance` equals `step`,
    1 or 2, unless `step` is 0.
    """
    builder = vector.builder
    width, left, distance, count = (Integer(builder, number) for number in (width, *across))
    with counted(builder, 0, count, vector.lanes if step else 1) as k:
        to, column = pointer_to(vector, target, k), left + k * (step or distance)
        if step:
            _copy_vector(vector, to, row, column, width, step)
        else:
            inside = builder.icmp_unsigned("<", column.value, width.value)
            with builder.if_else(inside) as (exists, outside):
                with exists:
                    builder.store(builder.load(pointer_to(vector, row, column)), to)
                with outside:
                    builder.store(ir.Constant(vector.element, 0.0), to)


def _copy_vector(vector: Vectors, to: Any, row: Any, first: Any, width: Any, step: int) -> None:
    """Copy every `step`-th element from `first` on, with masked loads at the ends of the row."""
    builder = vector.builder
    parts = [first + part * vector.lanes for part in range(step)]
    sources = [pointer_to(vector, row, part) for part in parts]
    end = first + step * vector.lanes
    inside = builder.and_(first.compare(">=", 0), end.compare("<=", width))
    with builder.if_else(inside) as (whole, partly):
        with whole:
            vector.store(_even_elements(vector, [vector.load(source) for source in sources]), to)
        with partly:
            masks = [vector.within(part.value, width.value) for part in parts]
            both = zip(sources, masks, strict=True)
            vector.store(_even_elements(vector, [vector.load(*pair) for pair in both]), to)


def copy_part(vector: Vectors, target: Any, source: Any, count: Any, wide: Any) -> None:
    """Emit ``target[k] = source[k]`` for k below `wide`, 0 from `count` on; at most `lanes`."""
    present, wanted = (vector.first(Integer(vector.builder, n).value) for n in (count, wide))
    loaded = vector.load(pointer_to(vector, source), present)
    vector.store(loaded, pointer_to(vector, target), wanted)


def transpose_block(
    vector: Vectors, target: Any, to_row: Any, block: Any, counts: Any, step: int = 1
) -> None:
    """Emit ``target[numbers[c], r] = source[r, c * step]`` for r below `wide`, c below `columns`.

    Here ``source, of_row, numbers = block`` and ``rows, columns, wide = counts``. `numbers` is the
    address of row indices (int64); `to_row` and `of_row` are row strides in elements. If the source
    has fewer `rows` than `wide`, zeros are written. At most `lanes` rows and columns are
    transposed. `step` is 1 or 2.
    """
    builder, lanes, (source, of_row, numbers) = vector.builder, vector.lanes, block
    rows, columns, wide = (Integer(builder, number) for number in counts)

    def store(column: Any, c: int, mask: Any = None) -> None:
        to = pointer_to(vector, target, integer_at(builder, numbers, c) * to_row)
        vector.store(column, to, mask)

    # The usual block is whole and needs no masks. Memory after the last column of a row may not
    # exist.
    narrow, full = vector.first(wide.value), wide.compare(">=", lanes)
    inside = builder.and_(rows.compare(">=", lanes), columns.compare(">=", lanes + step - 1))
    with builder.if_else(inside) as (whole, partly):
        with whole:
            transposed = _transposed(vector, source, of_row, step)
            with builder.if_else(full) as (unmasked, masked):
                with unmasked:
                    _each(store, transposed)
                with masked:
                    _each(store, transposed, narrow)
        with partly:
            for c, column in enumerate(
                _part_transposed(vector, source, of_row, rows, columns, step)
            ):
                with builder.if_then(columns.compare(">", c)):
                    store(column, c, narrow)


def _each(store: Any, block: list[Any], *mask: Any) -> None:
    for c, column in enumerate(block):
        store(column, c, *mask)


def transpose_some(vector: Vectors, target: Any, to_row: Any, block: Any, counts: Any) -> None:
    """Do what `transpose_block` does, but skip columns whose row index is negative.

    Blocks are rarely whole here, so all loads and stores are masked.
    """
    builder, (source, of_row, numbers) = vector.builder, block
    rows, columns, wide = (Integer(builder, number) for number in counts)
    mask = vector.first(wide.value)
    for c, column in enumerate(_part_transposed(vector, source, of_row, rows, columns)):
        with builder.if_then(columns.compare(">", c)):
            number = integer_at(builder, numbers, c)
            with builder.if_then(number.compare(">=", 0)):
                vector.store(column, pointer_to(vector, target, number * to_row), mask)


def gather_block(
    vector: Vectors, target: Any, to_row: Any, source: Any, offsets: Any, rows: Any, columns: Any
) -> None:
    """Emit ``target[r, c] = source[offsets[c] + r]`` for r below `rows` and c below `columns`.

    `offsets` is the address of int64 offsets, `to_row` the row stride of the target in elements.
    At most `lanes` rows and columns are written; `lanes` offsets are always read, and `lanes`
    elements at each of them.
    """
    builder, lanes = vector.builder, vector.lanes
    rows, columns = Integer(builder, rows), Integer(builder, columns)
    found = [integer_at(builder, offsets, c) for c in range(lanes)]
    block = vector.transpose([vector.load(pointer_to(vector, source, each)) for each in found])
    targets = [pointer_to(vector, target, Integer(builder, to_row) * r) for r in range(lanes)]
    inside = builder.and_(rows.compare(">=", lanes), columns.compare(">=", lanes))
    with builder.if_else(inside) as (whole, partly):
        with whole:
            for row, to in zip(block, targets, strict=True):
                vector.store(row, to)
        with partly:
            mask = vector.first(columns.value)
            for r, row in enumerate(block):
                with builder.if_then(rows.compare(">", r)):
                    vector.store(row, targets[r], mask)


def _transposed(vector: Vectors, source: Any, of_row: Any, step: int) -> list[Any]:
    """Return the columns of a whole block."""
    block = []
    for r in range(vector.lanes):
        start = Integer(vector.builder, of_row) * r
        parts = [start + part * vector.lanes for part in range(step)]
        loaded = [vector.load(pointer_to(vector, source, part)) for part in parts]
        block.append(_even_elements(vector, loaded))
    return vector.transpose(block)


def _part_transposed(
    vector: Vectors, source: Any, of_row: Any, rows: Any, columns: Any, step: int = 1
) -> list[Any]:
    """Return the columns of a partial block of `rows` rows and `columns` columns, zero-padded."""
    builder, lanes = vector.builder, vector.lanes
    end = columns * step - (step - 1)
    present = [vector.first((end - part * lanes).value) for part in range(step)]
    none = vector.first(Integer(builder, 0).value)
    block = []
    for r in range(lanes):
        start, wanted = Integer(builder, of_row) * r, rows.compare(">", r)
        masks = [builder.select(wanted, mask, none) for mask in present]
        parts = [pointer_to(vector, source, start + part * lanes) for part in range(step)]
        loaded = [vector.load(*pair) for pair in zip(parts, masks, strict=True)]
        block.append(_even_elements(vector, loaded))
    return vector.transpose(block)


def _even_elements(vector: Vectors, loaded: list[Any]) -> Any:
    """Return the even elements of two vectors, or one vector unchanged."""
    if len(loaded) == 1:
        return loaded[0]
    return vector.shuffle(loaded[0], loaded[1], range(0, 2 * vector.lanes, 2))
