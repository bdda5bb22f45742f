"""Measured times, kept on disk by ``fastconv tune`` and followed by `algorithm="auto"`.

A measurement is one line of JSON: on which processor and by which build of fastconv, with how many
threads, for what problem in what direction, and how many seconds each algorithm took. It holds the
times of all, not only the fastest, so that it answers for either precision.

Lines are only appended, each by a single write that begins with a newline. So several processes may
write at once, and a process that is killed during a write damages only its own line. (Local POSIX
file systems guarantee that; on Windows and on network drives, tune with one process at a time.) If
a problem has several lines, the last one counts.

The file is not trusted: lines that are not measurements are skipped with a warning, measurements
from other machines do not apply, and an algorithm that refuses the problem never runs.
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
#: Environment variable, "on" or "off": whether measurements are used initially.
SWITCH_VARIABLE = "FASTCONV_TUNING"
#: A larger file is refused: ten thousand measurements are smaller.
LARGEST_FILE = 16 * 2**20
#: A file with more damaged lines is refused: reading millions of them would take a minute.
MOST_DAMAGED = 1000
# No call takes that many seconds.
_DAY = 86400

_SOURCES = Path(__file__).parent.parent / "convolution"
_PROBLEM_FIELDS = tuple(field.name for field in dataclasses.fields(Conv2dProblem))

# The key of a measurement: the problem as JSON, the direction, the threads.
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Measurement:
    """The measured seconds of several algorithms for a problem."""

    problem: Conv2dProblem
    direction: Direction
    threads: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Table:
    """The measurements of a file that apply to this processor and this build.

    Attributes
    ----------
    times : mapping
        Seconds of each algorithm.
    others : int
        The number of measurements that do not apply.
    damaged : tuple of str
        What is wrong with the damaged lines.
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
        """A warning about a file that cannot be used, or only in part."""
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

# None: there are no measurements, or they are switched off.
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
    """Return the measurements in use, None without any; the first call reads the file."""
    if _unread:
        set_tuning(_initially_on())
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
    # Set this before the warning, which may be turned into an error and must not repeat.
    _table, _unread = table, False
    if complaint is not None:
        warnings.warn(
            f"fastconv's tuning file {complaint}. Mend or remove it, or set {SWITCH_VARIABLE}=off; "
            "'fastconv tune' measures anew.",
            RuntimeWarning,
            stacklevel=2,
        )


def _initially_on() -> bool:
    text = os.environ.get(SWITCH_VARIABLE, "").strip()
    if text not in ("", "on", "off"):
        raise ValueError(
            f"environment variable {SWITCH_VARIABLE} must be 'on' or 'off', got {text!r}"
        )
    return text != "off"


# Reading ---------------------------------------------------------------------------------


def _load() -> tuple[Table | None, str | None]:
    """Return the table of the file, if it exists, and a warning."""
    try:
        path = tuning_file()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):  # the usual case: nothing was ever measured
        return None, None
    except (OSError, RuntimeError) as error:  # reported only if the user named a file
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
        If it is not a file of measurements.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
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

    The rest of a record is checked only then, because other versions may have other fields.
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
    """Append a measurement to a file, which is created if missing.

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
    # The newline comes first, to end a line that a killed process has left incomplete.
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
    """Return a short hash of everything that decides speed, except the processor."""
    digest = hashlib.sha256(f"{build_key()} {np.__version__}".encode())
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's name and the instruction set of the kernels."""
    here = cpu.describe()
    return f"{here.name}, {here.instructions.name}"


def _fields(problem: Conv2dProblem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in _PROBLEM_FIELDS}


def _as_text(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)
