"""New arrays in memory that earlier results no longer need.

Fresh memory is cleared by the operating system, a page at a time, when it is first written: on
results of some megabytes that takes as long as a small convolution. So blocks of memory are
kept, and a block that no array uses any more is used again. Python knows which those are: an array
holds a reference to its block, and so does every view of it.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict, deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Smaller arrays come from NumPy: their memory is reused by the allocator.
LEAST_BYTES = 2**16
#: Blocks beyond this many bytes together are not kept.
MOST_BYTES = 2**28
_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
# Blocks of one size that are looked at before a new one is made.
_TRIES = 16

# By size, the one used longest ago first. A block that is looked at is out of its queue meanwhile,
# so that no two threads find it at once.
_blocks: OrderedDict[int, deque[NDArray[np.uint8]]] = OrderedDict()
# Without its global lock Python counts references otherwise.
_COUNTS = sys.version_info < (3, 13) or sys._is_gil_enabled()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialized array, as ``numpy.empty``; large ones begin at a cache line."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < LEAST_BYTES or size > MOST_BYTES or not _COUNTS:
        return np.empty(shape, kind)
    block = _unused(size)
    if block is None:
        _make_room(size)
        block = np.empty(size + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    # Views of a view refer to the array that owns the memory: to the block.
    array = block[start : start + size].view(kind).reshape(shape)
    _blocks.setdefault(size, deque()).append(block)
    with suppress(KeyError):  # another thread has made room meanwhile
        _blocks.move_to_end(size)
    return array


def held_bytes() -> int:
    """Return how much memory is kept, in use or not."""
    return sum(size * len(queue) for size, queue in list(_blocks.items()))


def release() -> None:
    """Give up all blocks; those in use live as long as their arrays."""
    _blocks.clear()


def _unused(size: int) -> NDArray[np.uint8] | None:
    """Take a block of that size that nobody looks at out of its queue."""
    queue = _blocks.get(size)
    if queue is None:
        return None
    for _ in range(min(_TRIES, len(queue))):
        try:
            held = [queue.popleft()]
        except IndexError:  # other threads look at all of them
            return None
        if _references(held) == _ALONE:
            # A user who made all of a result read-only may have reached its block.
            return held[0] if held[0].flags.writeable else None
        queue.append(held[0])
    return None


def _references(held: list[NDArray[np.uint8]]) -> int:
    """Return how many references there are to the only array of a list.

    `map` asks, and not a line of Python: some versions of the interpreter count what its own lines
    hold, others do not.
    """
    return next(map(sys.getrefcount, held))


# Of an array that nothing but such a list refers to: the list's, and those of the question.
_ALONE = _references([np.empty(1, np.uint8)])


def _make_room(size: int) -> None:
    """Give up blocks, of sizes used longest ago first, until one more may be kept."""
    held = held_bytes()
    for other, queue in list(_blocks.items()):
        if held + size <= MOST_BYTES:
            return
        _blocks.pop(other, None)
        held -= other * len(queue)
