"""Measured times, kept on disk by ``fastconv tune`` and followed by `algorithm="auto"`.

A measurement is one line of JSON: on which processor and by which build of fastconv, with how many
threads, for what problem in what direction, and how many seconds each algorithm took. It holds the
times of all, not only the fastest, so that it answers for either precision.

Lines are only ever appended, each by a single write that begins with the line's end before it.
Several processes may therefore write at once, and one that is killed amid a write spoils no line
but its own. (That is what local file systems of POSIX systems promise; on Windows and on network
drives, tune with one process at a time.) Of several lines on one problem the last one counts.

Nothing in the file is trusted to be more than numbers and names: what is no measurement is left
out with a warning, what was measured elsewhere does not apply, and an algorithm that refuses the
problem is never run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import fastconv
from fastconv.core.arguments import as_flag
from fastconv.core.conv_problem import DIRECTIONS, Conv2dProblem, Direction
from fastconv.jit.kernel_cache import build_key, cache_folder
from fastconv.runtime import cpu
from fastconv.select.conv_registry import algorithms

#: Environment variable that names another file.
FILE_VARIABLE = "FASTCONV_TUNING_FILE"
#: Environment variable, "on" or "off": whether measurements are followed to start with.
SWITCH_VARIABLE = "FASTCONV_TUNING"
#: A file larger than this is none of ours: measuring ten thousand problems makes less.
LARGEST_FILE = 16 * 2**20
#: Nor is one with more damaged lines than this: reading millions of them would take a minute.
MOST_DAMAGED = 1000
# No call takes that many seconds.
_DAY = 86400

_SOURCES = Path(__file__).parent.parent / "convolution"
_PROBLEM_FIELDS = tuple(field.name for field in dataclasses.fields(Conv2dProblem))

# What a measurement is found by: the problem as JSON, the direction, the threads.
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Measurement:
    """The seconds that each of several algorithms took for a problem."""

    problem: Conv2dProblem
    direction: Direction
    threads: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Table:
    """The measurements of a file that hold for this processor and this build.

    Attributes
    ----------
    times : mapping
        Seconds of each algorithm.
    others : int
        How many measurements were made elsewhere.
    damaged : tuple of str
        What is wrong with the lines that are no measurements.
    """

    times: Mapping[_Key, Mapping[str, float]]
    others: int = 0
    damaged: tuple[str, ...] = ()

    def seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> Mapping[str, float]:
        """Return the measured time of each algorithm; empty if the problem was not measured."""
        return self.times.get((_as_text(_fields(problem)), direction, threads), {})

    @property
    def complaint(self) -> str | None:
        """What the user should know about a file that cannot be followed as it is."""
        if self.damaged:
            count = len(self.damaged)
            return f"damaged lines are left out ({count} of them, the first is {self.damaged[0]})"
        if self.others and not self.times:
            return (
                f"all {self.others} measurements in it are of another processor or of another "
                "version of fastconv"
            )
        return None


# Whether, and from where -----------------------------------------------------------------

# None: there are no measurements, or they are not wanted.
_table: Table | None = None
_unread = True


def tuning_file() -> Path:
    """Return where measurements are kept (it need not exist yet).

    Raises
    ------
    RuntimeError
        If there is no home folder to keep it in.
    """
    chosen = os.environ.get(FILE_VARIABLE)
    return Path(chosen).expanduser() if chosen else cache_folder() / "tuning.jsonl"


def current() -> Table | None:
    """Return the measurements to follow, None without any; the file is read at the first call."""
    if _unread:
        set_tuning(_wanted_to_start_with())
    return _table


def set_tuning(on: bool) -> None:
    """Set whether ``algorithm="auto"`` follows what ``fastconv tune`` has measured.

    Where it does, the algorithm and with it the rounding of results may differ from one number of
    threads to another, and from one computer to another. Switched off, they follow from the
    problem alone. The starting value is the environment variable ``FASTCONV_TUNING``, "on" or
    "off", else on.

    Parameters
    ----------
    on : bool
        False to choose by estimates alone, True to follow measurements; that reads the file
        again.

    Raises
    ------
    TypeError
        If `on` is neither.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.set_tuning(False)
    """
    global _table, _unread
    table, complaint = _load() if as_flag("on", on) else (None, None)
    # First this, then the warning: it may be made an error, and must not come back at every call.
    _table, _unread = table, False
    if complaint is not None:
        warnings.warn(
            f"fastconv's tuning file {complaint}. Mend or remove it, or set {SWITCH_VARIABLE}=off; "
            "'fastconv tune' measures anew.",
            RuntimeWarning,
            stacklevel=2,
        )


def _wanted_to_start_with() -> bool:
    text = os.environ.get(SWITCH_VARIABLE, "").strip()
    if text not in ("", "on", "off"):
        raise ValueError(
            f"environment variable {SWITCH_VARIABLE} must be 'on' or 'off', got {text!r}"
        )
    return text != "off"


# Reading ---------------------------------------------------------------------------------


def _load() -> tuple[Table | None, str | None]:
    """Return what the file holds, if it is there, and what is wrong with it."""
    try:
        path = tuning_file()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):  # the usual case: nothing was ever measured
        return None, None
    except (OSError, RuntimeError) as error:  # nor is this of interest but where a file was named
        return None, f"cannot be read: {error}" if os.environ.get(FILE_VARIABLE) else None
    try:
        table = read(path)
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {error}"
    complaint = table.complaint and f"{path}: {table.complaint}"
    return (table if table.times else None), complaint


def read(path: Path) -> Table:
    """Read a file of measurements.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it can be no such file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{path} is not a file")
    if status.st_size > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE // 2**20} MiB")
    with open(path, "rb") as file:
        try:
            return _parse(file)
        except ValueError as error:
            raise ValueError(f"{path} is no file of measurements: {error}") from None


def _parse(lines: Iterable[bytes]) -> Table:
    times: dict[_Key, Mapping[str, float]] = {}
    others, damaged = 0, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if _is_of_here(record):
                key, seconds = _measured(record)
                times[key] = seconds
            else:
                others += 1
        except (ValueError, RecursionError) as error:
            damaged.append(f"line {number}: {error}")
            if len(damaged) > MOST_DAMAGED:
                raise ValueError(
                    f"more than {MOST_DAMAGED} of its lines are no measurements, the first is "
                    f"{damaged[0]}"
                ) from None
    return Table(times, others, tuple(damaged))


def _is_of_here(record: Any) -> bool:
    """Return whether a record was made on this processor and by this build.

    Nothing else of it is looked at before: another version may write other things.
    """
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    for name in ("processor", "build"):
        if not isinstance(record.get(name), str):
            raise ValueError(f"{name} must be text, got {record.get(name)!r:.80}")
    return (record["processor"], record["build"]) == (processor(), build())


def _measured(record: Mapping[str, Any]) -> tuple[_Key, Mapping[str, float]]:
    problem, direction = record.get("problem"), record.get("direction")
    threads, seconds = record.get("threads"), record.get("seconds")
    if not isinstance(problem, dict) or problem.keys() != {*_PROBLEM_FIELDS}:
        raise ValueError(f"problem must have the fields of a Conv2dProblem, got {problem!r:.80}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r:.80}")
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads must be a whole number of at least 1, got {threads!r:.80}")
    if not isinstance(seconds, dict) or not seconds:
        raise ValueError(f"seconds must hold a time for each algorithm, got {seconds!r:.80}")
    known = algorithms(direction)
    for name, time in seconds.items():
        if name not in known:
            raise ValueError(f"seconds names {name!r:.80}, which is no algorithm for {direction}")
        if type(time) not in (int, float) or not 0 < time < _DAY:
            raise ValueError(f"seconds of {name} must be between 0 and a day, got {time!r:.80}")
    return (_as_text(problem), direction, threads), seconds


# Writing ---------------------------------------------------------------------------------


def append(path: Path, measurement: Measurement) -> None:
    """Add a measurement to a file, which is made if it is not there.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    record = {
        "fastconv": fastconv.__version__,
        "build": build(),
        "processor": processor(),
        "threads": measurement.threads,
        "direction": measurement.direction,
        "problem": _fields(measurement.problem),
        "seconds": dict(measurement.seconds),
    }
    # The line's end comes first: it also ends what a killed process has left half written.
    line = ("\n" + json.dumps(record, allow_nan=False)).encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        if os.write(handle, line) < len(line):
            raise OSError(f"no space left for {path}")
    finally:
        os.close(handle)


# What a measurement belongs to -----------------------------------------------------------


@lru_cache(maxsize=1)
def build() -> str:
    """Return a short hash of what decides how fast algorithms are, beside the processor."""
    digest = hashlib.sha256(f"{build_key()} {np.__version__}".encode())
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's name and the instructions that kernels are made of."""
    here = cpu.describe()
    return f"{here.name}, {here.instructions.name}"


def _fields(problem: Conv2dProblem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in _PROBLEM_FIELDS}


def _as_text(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)
