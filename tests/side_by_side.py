"""Processes that tests ask for, as many at a time as there are cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

from fastconv.runtime import threads

T = TypeVar("T")


@contextmanager
def side_by_side(
    request: pytest.FixtureRequest, parameter: str, run: Callable[[str], T]
) -> Iterator[dict[str, Future[T]]]:
    """Begin ``run(value)`` for each value of a parameter that selected tests of a module have."""
    values = [
        item.callspec.params[parameter]
        for item in request.session.items
        if item.path == request.path
        and hasattr(item, "callspec")
        and parameter in item.callspec.params
    ]
    with ThreadPoolExecutor(threads.available_cores()) as pool:
        try:
            yield {value: pool.submit(run, value) for value in values}
        finally:
            pool.shutdown(cancel_futures=True)
