"""The list of pooling algorithms, fastest first; "auto" takes the first."""

from __future__ import annotations

from fastconv.pooling.base import PoolAlgorithm
from fastconv.pooling.jit import Jit
from fastconv.pooling.reference import Reference
from fastconv.pooling.windows import Windows

ALGORITHMS: tuple[PoolAlgorithm, ...] = (Jit(), Windows(), Reference())
FASTEST = ALGORITHMS[0]


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
    names = ", ".join(repr(known) for known in ("auto", *pool_algorithms()))
    raise ValueError(f"algorithm must be one of {names}, got {name!r}")
