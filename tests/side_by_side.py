"""Processes that tests wait for, as many at a time as there are cores, each once in a session."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fastconv.runtime import threads

T = TypeVar("T")

#: Longer than any process may take.
PATIENCE_SECONDS = 900


def selected(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """Return the values of a parameter that selected tests of the module have."""
    return [
        item.callspec.params[parameter]
        for item in request.session.items
        if item.path == request.path
        and hasattr(item, "callspec")
        and parameter in item.callspec.params
    ]


@contextmanager
def side_by_side(
    request: pytest.FixtureRequest, values: Iterable[str], run: Callable[[str], T]
) -> Iterator[dict[str, Future[T]]]:
    """Begin ``run(value)`` for each value.

    Workers of pytest-xdist that got different tests of one module share what was run, which must
    be something that can be pickled.
    """
    folder = Path(request.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / f"side_by_side_{request.path.stem}"
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(threads.available_cores()) as pool:
        try:
            yield {value: pool.submit(_once, folder / value, value, run) for value in values}
        finally:
            pool.shutdown(cancel_futures=True)


def _once(path: Path, value: str, run: Callable[[str], T]) -> T:
    """Run, or wait for the worker that does."""
    result, part = path.with_suffix(".result"), path.with_suffix(".part")
    try:
        path.with_suffix(".begun").touch(exist_ok=False)
    except FileExistsError:
        end = time.monotonic() + PATIENCE_SECONDS
        while not result.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{value} was begun by another worker and did not end") from None
            time.sleep(0.1)
        found: T = pickle.loads(result.read_bytes())
        return found
    found = run(value)
    part.write_bytes(pickle.dumps(found))
    part.rename(result)
    return found
