"""What processes of the benchmark are doing, and that none of them is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fastconv.bench.peers.peer_base import Runtime
from fastconv.bench.peers.peer_process import Worker


@contextmanager
def nobody_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Watch that nobody leaves a process behind."""
    started: list[Worker] = []
    begin = Worker.__init__

    def spy(self: Worker, runtime: Runtime) -> None:
        begin(self, runtime)
        started.append(self)

    monkeypatch.setattr(Worker, "__init__", spy)
    yield
    assert not [each.runtime.name for each in started if each.alive]
    groups = {each.pid for each in started}
    end = time.monotonic() + 5
    while groups & groups_alive():  # what a worker has started is not ours to wait for
        assert time.monotonic() < end
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """Return the state of a process: T is stopped, Z is dead."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def groups_alive() -> set[int]:
    """Return the numbers of all process groups with somebody alive, none where one cannot tell."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, group = file.read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found.add(int(group))
    return found


def alive(pid: int) -> bool:
    """Return whether a process is there and not merely waiting for somebody to take note."""
    try:
        return state_of(pid) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
