"""Numbers by name, as kernels receive them: one argument instead of many."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def frozen_record(numbers: Mapping[str, int]) -> NDArray[Any]:
    """Return integers as a read-only array of one record with those fields.

    >>> int(frozen_record({"H": 3, "W": 4})[0].W)
    4
    """
    record = np.array([tuple(numbers.values())], _dtype(tuple(numbers)))
    record.flags.writeable = False
    return record


@lru_cache(maxsize=8)
def _dtype(names: tuple[str, ...]) -> np.dtype[Any]:
    return np.dtype((np.record, [(name, np.int64) for name in names]))
