"""A small constant matrix times vectors, as straight-line code with few instructions.

Rows and columns of Winograd's matrices come in pairs, one for a point p and one for -p. The two
differ only in signs, so one sum and one difference serve both.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

from fastconv.codegen.vector import Vectors

Row = Sequence[Fraction]
ZERO = Fraction(0)


def times(vector: Vectors, matrix: Sequence[Row], values: Sequence[Any]) -> list[Any]:
    """Return ``[sum(a * value for a, value in zip(row, values)) for row in matrix]``."""
    matrix, values = _pair_columns(vector, [list(row) for row in matrix], list(values))
    results: list[Any] = [None] * len(matrix)
    for (i, one), (j, two) in combinations(enumerate(matrix), 2):
        if results[i] is None and results[j] is None and _opposite(one, two):
            equal = [a if a == b else ZERO for a, b in zip(one, two, strict=True)]
            other = [a if a != b else ZERO for a, b in zip(one, two, strict=True)]
            factor = abs(next(a for a in other if a))
            even = _sum(vector, equal, values)
            odd = _sum(vector, [a / factor for a in other], values)
            results[i] = _plus(vector, even, factor, odd)
            results[j] = _plus(vector, even, -factor, odd)
    return [
        _sum(vector, row, values) if result is None else result
        for row, result in zip(matrix, results, strict=True)
    ]


def _opposite(a: Row, b: Row) -> bool:
    """Return whether two rows of at least three terms differ only in some of their signs."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x or y]
    if any(abs(x) != abs(y) for x, y in pairs) or len(pairs) < 3:
        return False
    return 0 < sum(x == y for x, y in pairs) < len(pairs)


def _pair_columns(
    vector: Vectors, matrix: list[list[Fraction]], values: list[Any]
) -> tuple[list[list[Fraction]], list[Any]]:
    """Replace pairs of values whose columns differ only in signs by their sum and difference."""
    builder = vector.builder
    for i, j in combinations(range(len(values)), 2):
        signs = [(row[i] == row[j], row[i] == -row[j]) for row in matrix if row[i] or row[j]]
        equal, opposite = (sum(kind) for kind in zip(*signs, strict=True)) if signs else (0, 0)
        if min(equal, opposite) >= 1 and equal + opposite == len(signs) >= 3:
            total = builder.fadd(values[i], values[j])
            values[i], values[j] = total, builder.fsub(values[i], values[j])
            for row in matrix:
                row[i], row[j] = (
                    (row[i], Fraction(0)) if row[i] == row[j] else (Fraction(0), row[i])
                )
    return matrix, values


def _sum(vector: Vectors, row: Row, values: Sequence[Any]) -> Any:
    """Return ``sum(a * value)``, starting with a value whose factor is 1 if there is one."""
    terms = [(a, value) for a, value in zip(row, values, strict=True) if a]
    terms.sort(key=lambda term: (term[0] != 1, abs(term[0]) == 1))
    first, total = terms[0]
    if first != 1:
        total = vector.builder.fmul(vector.all(float(first)), total)
    for a, value in terms[1:]:
        total = _plus(vector, total, a, value)
    return total


def _plus(vector: Vectors, total: Any, a: Fraction, value: Any) -> Any:
    """Return ``total + a * value``."""
    if a == 1:
        return vector.builder.fadd(total, value)
    if a == -1:
        return vector.builder.fsub(total, value)
    return vector.multiply_add(value, vector.all(float(a)), total)
