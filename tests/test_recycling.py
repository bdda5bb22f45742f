"""Memory of results is used again, but never while anything still looks at it."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.runtime import output_memory

SHAPE = (4, 8, 64, 64)


@pytest.fixture(autouse=True)
def no_blocks() -> Iterator[None]:
    output_memory.release()
    yield
    output_memory.release()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_is_used_again() -> None:
    first = output_memory.empty(SHAPE, np.float32)
    place = address(first)
    assert (first.shape, first.dtype, place % 64) == (SHAPE, np.float32, 0)
    assert first.flags.c_contiguous
    assert first.flags.writeable
    del first
    assert address(output_memory.empty(SHAPE, np.float32)) == place
    again = output_memory.empty((SHAPE[0] * SHAPE[1], *SHAPE[2:]), np.int32)  # as many bytes
    assert address(again) == place


@pytest.mark.parametrize(
    "look",
    [
        lambda a: a,
        lambda a: a[1:, ..., ::2],
        lambda a: a.reshape(-1)[5:].view(np.uint8),
        memoryview,
        lambda a: np.broadcast_to(a[:1], (9, *a.shape[1:])),
        lambda a: np.asarray(a, copy=False).T,
    ],
)
def test_memory_that_something_looks_at_is_left_alone(look: object) -> None:
    assert callable(look)
    array = output_memory.empty(SHAPE, np.float32)
    array[...] = 7
    kept, place = look(array), address(array)
    del array
    for _ in range(3):
        other = output_memory.empty(SHAPE, np.float32)
        assert address(other) != place
        other[...] = 0
    assert np.asarray(kept).any()
    del kept
    assert place in {address(output_memory.empty(SHAPE, np.float32)) for _ in range(4)}


def test_a_result_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 64, 64)), rng.standard_normal((8, 4, 3, 3))
    results = [fastconv.conv2d(x * k, weight) for k in range(4)]
    for k, result in enumerate(results):
        np.testing.assert_allclose(result, k * results[1], rtol=1e-12, atol=1e-12)


def test_small_and_huge_arrays_are_not_kept() -> None:
    small = output_memory.empty((10,), np.float32)
    huge = output_memory.empty((output_memory.MOST_BYTES + 1,), np.uint8)
    assert small.base is huge.base is None
    assert output_memory.held_bytes() == 0
    assert output_memory.empty((0, 3), np.float64).shape == (0, 3)


def test_no_more_is_kept_than_the_limit() -> None:
    alive = [output_memory.empty((2**25 + k,), np.uint8) for k in range(20)]
    assert 0 < output_memory.held_bytes() <= output_memory.MOST_BYTES
    places = [(address(a), address(a) + a.size) for a in alive]
    assert all(
        one[1] <= two[0] for one, two in zip(sorted(places), sorted(places)[1:], strict=False)
    )


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_interpreters_that_count_otherwise(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    count = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda array: count(array) + more)
    spec = importlib.util.spec_from_file_location("another", output_memory.__file__)
    assert spec is not None
    assert spec.loader is not None
    another = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(another)
    first = another.empty(SHAPE, np.float32)
    place = address(first)
    assert address(another.empty(SHAPE, np.float32)) != place
    del first
    assert place in {address(another.empty(SHAPE, np.float32)) for _ in range(2)}


def test_a_block_made_read_only_is_not_used_again() -> None:
    array = output_memory.empty(SHAPE, np.float32)
    assert array.base is not None
    array.base.flags.writeable = False  # type: ignore[union-attr]
    del array
    for _ in range(2):
        assert output_memory.empty(SHAPE, np.float32).flags.writeable


def test_blocks_given_up_meanwhile_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class GivenUp(OrderedDict[int, deque[np.ndarray]]):
        def setdefault(self, key: int, default: Any = None) -> Any:
            queue = super().setdefault(key, default)
            self.clear()
            return queue

    monkeypatch.setattr(output_memory, "_blocks", GivenUp())
    assert output_memory.empty(SHAPE, np.float32).shape == SHAPE
    assert output_memory.held_bytes() == 0


def test_threads_get_memory_of_their_own() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(2000):
            array = output_memory.empty((2**17,), np.uint8)
            array[::4096] = number
            other = output_memory.empty((2**17,), np.uint8)
            other[::4096] = 255
            if (array[::4096] != number).any():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
