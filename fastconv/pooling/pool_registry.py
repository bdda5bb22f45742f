"""The list of pooling algorithms, fastest first; "auto" takes the first."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fastconv.core.hints import did_you_mean
from fastconv.pooling.compiled_pooling import Jit
from fastconv.pooling.pool_algorithm import PoolAlgorithm
from fastconv.pooling.reference_pooling import Reference
from fastconv.pooling.strided_pooling import Windows

ALGORITHMS: tuple[PoolAlgorithm, ...] = (Jit(), Windows(), Reference())
FASTEST = ALGORITHMS[0]

#: The same names for type checkers: what a user may pass as `algorithm`.
PoolAlgorithmName: TypeAlias = Literal["auto", "jit", "windows", "reference"]


def pool_algorithms() -> tuple[str, ...]:
    """Return the names of the pooling algorithms, fastest first.

    Examples
    --------
    >>> pool_algorithms()
    ('jit', 'windows', 'reference')
    """
    return tuple(algorithm.name for algorithm in ALGORITHMS)


def find(name: str) -> PoolAlgorithm:
    """Return the algorithm of that name; ValueError if there is none."""
    if isinstance(name, str):
        for algorithm in ALGORITHMS:
            if name in ("auto", algorithm.name):
                return algorithm
    known = ("auto", *pool_algorithms())
    names, hint = ", ".join(map(repr, known)), did_you_mean("algorithm", name, known)
    raise ValueError(f"algorithm must be one of {names}, got {name!r}{hint}")
