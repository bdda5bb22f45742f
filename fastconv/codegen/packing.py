"""What packing is made of: rows of elements cleared and copied, blocks transposed, by vectors.

Copying may write up to one vector beyond the end of a row: targets are buffers with that much room,
filled from front to back. What is read is never exceeded. Targets and sources are addresses.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastconv.codegen.integers import Integer, counted
from fastconv.codegen.vector import I64, Vectors, index


def _pointers(vector: Vectors, *addresses: Any) -> list[Any]:
    element = vector.element.as_pointer()
    builder = vector.builder
    return [builder.inttoptr(Integer(builder, address).value, element) for address in addresses]


def _values(vector: Vectors, *numbers: Any) -> list[Any]:
    return [Integer(vector.builder, number).value for number in numbers]


def clear_row(vector: Vectors, target: Any, count: Any) -> None:
    """Write ``target[:count] = 0``."""
    builder, (to,), (count,) = vector.builder, _pointers(vector, target), _values(vector, count)
    with counted(builder, 0, count, vector.lanes) as k:
        left = builder.sub(count, k.value)
        whole = builder.icmp_signed(">=", left, index(vector.lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                vector.store(vector.zero, vector.at(to, k.value))
            with otherwise:
                vector.store_masked(vector.zero, vector.at(to, k.value), vector.first(left))


def copy_row(
    vector: Vectors,
    target: Any,
    row: Any,
    width: Any,
    left: Any,
    distance: Any,
    count: Any,
    step: int,
) -> None:
    """Write ``target[k] = row[left + k * distance]`` for k below `count`, 0 where that is outside.

    The row has the columns 0 to `width`. `distance` is `step`, 1 or 2, unless that is 0.
    """
    builder, (to, of) = vector.builder, _pointers(vector, target, row)
    width, left, distance = _values(vector, width, left, distance)
    with counted(builder, 0, count, vector.lanes if step else 1) as k:
        if step:
            first = builder.add(left, builder.mul(k.value, index(step)))
            _copy_vector(vector, vector.at(to, k.value), of, first, width, step)
        else:
            column = builder.add(left, builder.mul(k.value, distance))
            inside = builder.icmp_unsigned("<", column, width)
            with builder.if_else(inside) as (then, otherwise):
                with then:
                    builder.store(builder.load(vector.at(of, column)), vector.at(to, k.value))
                with otherwise:
                    zero = ir.Constant(vector.element, 0.0)
                    builder.store(zero, vector.at(to, k.value))


def _copy_vector(vector: Vectors, to: Any, of: Any, first: Any, width: Any, step: int) -> None:
    """Copy every `step`-th element from `first` on; where the row ends within, by mask."""
    builder = vector.builder
    parts = [builder.add(first, index(part * vector.lanes)) for part in range(step)]
    end = builder.add(first, index(step * vector.lanes))
    whole = builder.and_(
        builder.icmp_signed(">=", first, index(0)), builder.icmp_signed("<=", end, width)
    )
    with builder.if_else(whole) as (then, otherwise):
        with then:
            loaded = [vector.load(vector.at(of, part)) for part in parts]
            vector.store(_every(vector, loaded), to)
        with otherwise:
            masks = [vector.within(part, width) for part in parts]
            loaded = [
                vector.load_masked(vector.at(of, part), mask)
                for part, mask in zip(parts, masks, strict=True)
            ]
            vector.store(_every(vector, loaded), to)


def copy_part(vector: Vectors, target: Any, source: Any, count: Any, wide: Any) -> None:
    """Write ``target[k] = source[k]`` for k below `wide`, 0 from `count` on; at most `lanes`."""
    to, of = _pointers(vector, target, source)
    count, wide = _values(vector, count, wide)
    loaded = vector.load_masked(of, vector.first(count))
    vector.store_masked(loaded, to, vector.first(wide))


def transpose_block(
    vector: Vectors,
    target: Any,
    to_row: Any,
    source: Any,
    of_row: Any,
    places: Any,
    rows: Any,
    columns: Any,
    wide: Any,
    step: int = 1,
) -> None:
    """Write ``target[places[c], r] = source[r, c * step]`` for r below `wide`, c below `columns`.

    `places` is the address of row numbers (int64), `to_row` and `of_row` are elements from row to
    row. The source has `rows` rows, which may be fewer than `wide`: then zeros are written. No more
    than `lanes` of each are looked at. `step` is 1 or 2.
    """
    builder, lanes, (to, of) = vector.builder, vector.lanes, _pointers(vector, target, source)
    to_row, of_row, places, rows, columns, wide = _values(
        vector, to_row, of_row, places, rows, columns, wide
    )
    places = builder.inttoptr(places, I64.as_pointer())
    whole_store = builder.icmp_signed(">=", wide, index(lanes))
    narrow = vector.first(wide)

    def keep(column: Any, c: int, masked: bool) -> None:
        row = builder.mul(to_row, builder.load(builder.gep(places, [index(c)])))
        if masked:
            vector.store_masked(column, vector.at(to, row), narrow)
        else:
            vector.store(column, vector.at(to, row))

    # The usual block is whole, and then needs no masks. What follows the last column of a row may
    # not be there.
    whole = builder.and_(
        builder.icmp_signed(">=", rows, index(lanes)),
        builder.icmp_signed(">=", columns, index(lanes + step - 1)),
    )
    with builder.if_else(whole) as (then, otherwise):
        with then:
            starts = [vector.at(of, builder.mul(of_row, index(r))) for r in range(lanes)]
            loaded = [
                [vector.load(vector.at(start, index(part * lanes))) for part in range(step)]
                for start in starts
            ]
            transposed = vector.transpose([_every(vector, parts) for parts in loaded])
            with builder.if_else(whole_store) as (straight, by_mask):
                for branch, masked in ((straight, False), (by_mask, True)):
                    with branch:
                        for c, column in enumerate(transposed):
                            keep(column, c, masked)
        with otherwise:
            for c, column in enumerate(_part_transposed(vector, of, of_row, rows, columns, step)):
                with builder.if_then(builder.icmp_signed("<", index(c), columns)):
                    keep(column, c, True)


def transpose_some(
    vector: Vectors,
    target: Any,
    to_row: Any,
    source: Any,
    of_row: Any,
    places: Any,
    rows: Any,
    columns: Any,
    wide: Any,
) -> None:
    """Do what `transpose_block` does, but leave out columns whose place is negative.

    Blocks are taken to be seldom whole.
    """
    builder, (to, of) = vector.builder, _pointers(vector, target, source)
    to_row, of_row, places, rows, columns, wide = _values(
        vector, to_row, of_row, places, rows, columns, wide
    )
    places, mask = builder.inttoptr(places, I64.as_pointer()), vector.first(wide)
    for c, column in enumerate(_part_transposed(vector, of, of_row, rows, columns)):
        with builder.if_then(builder.icmp_signed("<", index(c), columns)):
            place = builder.load(builder.gep(places, [index(c)]))
            with builder.if_then(builder.icmp_signed(">=", place, index(0))):
                vector.store_masked(column, vector.at(to, builder.mul(to_row, place)), mask)


def gather_block(
    vector: Vectors, target: Any, to_row: Any, source: Any, places: Any, rows: Any, columns: Any
) -> None:
    """Write ``target[r, c] = source[places[c] + r]`` for r below `rows` and c below `columns`.

    `places` is the address of offsets (int64), `to_row` are elements from row to row of the target.
    No more than `lanes` of each are looked at; so many elements of the source are read at each
    place, and so many places.
    """
    builder, lanes, (to, of) = vector.builder, vector.lanes, _pointers(vector, target, source)
    to_row, places, rows, columns = _values(vector, to_row, places, rows, columns)
    places = builder.inttoptr(places, I64.as_pointer())
    found = [builder.load(builder.gep(places, [index(c)])) for c in range(lanes)]
    transposed = vector.transpose([vector.load(vector.at(of, place)) for place in found])
    whole = builder.and_(
        builder.icmp_signed(">=", rows, index(lanes)),
        builder.icmp_signed(">=", columns, index(lanes)),
    )
    with builder.if_else(whole) as (then, otherwise):
        with then:
            for r, row in enumerate(transposed):
                vector.store(row, vector.at(to, builder.mul(to_row, index(r))))
        with otherwise:
            mask = vector.first(columns)
            for r, row in enumerate(transposed):
                with builder.if_then(builder.icmp_signed("<", index(r), rows)):
                    vector.store_masked(row, vector.at(to, builder.mul(to_row, index(r))), mask)


def _part_transposed(
    vector: Vectors, of: Any, of_row: Any, rows: Any, columns: Any, step: int = 1
) -> list[Any]:
    """Return the columns of a block of which so many rows and columns exist, zeros beyond.

    Of each row every element is a column, or every second one.
    """
    builder, lanes = vector.builder, vector.lanes
    end = builder.sub(builder.mul(columns, index(step)), index(step - 1))
    there = [vector.first(builder.sub(end, index(part * lanes))) for part in range(step)]
    none = vector.first(index(0))
    block = []
    for r in range(lanes):
        wanted = builder.icmp_signed("<", index(r), rows)
        start = vector.at(of, builder.mul(of_row, index(r)))
        parts = [
            vector.load_masked(
                vector.at(start, index(part * lanes)), builder.select(wanted, there[part], none)
            )
            for part in range(step)
        ]
        block.append(_every(vector, parts))
    return vector.transpose(block)


def _every(vector: Vectors, loaded: list[Any]) -> Any:
    """Return every second element of two vectors; one vector as it is."""
    if len(loaded) == 1:
        return loaded[0]
    return vector.shuffle(loaded[0], loaded[1], range(0, 2 * vector.lanes, 2))
