"""Writing results: never half a file, and no surprise after an hour of measuring."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv.bench import bench_plot
from fastconv.bench.bench_errors import BenchError
from fastconv.bench.results import LayerResult, Record
from fastconv.runtime.atomic_files import write_atomically


@dataclass(frozen=True)
class Targets:
    """Where the results go beside the screen."""

    json: Path | None = None
    csv: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Raise `BenchError` for a target that cannot be written: now, not after measuring."""
        if self.plot is not None:
            bench_plot.check_plot(self.plot)
        taken: dict[Path, str] = {}
        for name, path in vars(self).items():
            if path is not None:
                check_target(f"--{name}", path)
                other = taken.setdefault(path.resolve(), name)
                if other != name:
                    raise BenchError(f"--{name} and --{other} must name two files, got {path}")

    def write(self, header: dict[str, Any], results: Sequence[LayerResult]) -> Iterator[Path]:
        """Write each file, and yield its path."""
        records = [record for result in results for record in result.records]
        if self.json is not None:
            write_json(self.json, header, records)
            yield self.json
        if self.csv is not None:
            write_csv(self.csv, records)
            yield self.csv
        if self.plot is not None:
            bench_plot.write_plot(self.plot, header, results)
            yield self.plot


def check_target(option: str, path: Path) -> None:
    """Raise `BenchError` unless a file can be written to `path`.

    A folder or a device in its place, a folder that does not exist, or one that must not be
    written to.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise BenchError(f"{option} must name a file, got {str(path)!r}")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise BenchError(f"{option} cannot be written to {str(path)!r}: {error.strerror}") from None


def write_json(path: Path, header: dict[str, Any], records: Sequence[Record]) -> None:
    """Write ``{"header": ..., "records": [...]}``; what is not a number becomes null."""
    content = {"header": header, "records": [dataclasses.asdict(record) for record in records]}
    save_json(path, content)


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary; what is not a number becomes null."""
    text = json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """Write one line a record under a line of names; unknown values are empty."""
    names = [field.name for field in dataclasses.fields(Record)]

    def write(file: Path) -> None:
        with open(file, "w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, names)
            table.writeheader()
            table.writerows(_finite(dataclasses.asdict(record)) for record in records)

    write_atomically(path, write)


def _finite(value: Any) -> Any:
    """Return `value` with None for every NaN and infinity in it: JSON knows neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
