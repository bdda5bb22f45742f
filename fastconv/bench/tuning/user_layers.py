"""A user's own layers, from a table or a list in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastconv.bench.bench_errors import BenchError
from fastconv.bench.suites import Layer
from fastconv.core.geometry import as_int

# What must be there and what need not be, as in a suite; N is how many images at a time.
_REQUIRED = ("C", "K", "H", "W", "R", "S")
_DEFAULTS = {"stride": 1, "padding": 0, "groups": 1, "count": 1, "N": 1}
_COLUMNS = ("id", *_REQUIRED, *_DEFAULTS)


def load_shapes(path: Path) -> tuple[Layer, ...]:
    """Return the layers that a file describes; `BenchError` says which line describes none.

    A CSV file with the columns of a suite, or a JSON file with a list of objects that have them as
    fields: C, K, H, W, R, S and, where the default is not meant, id, stride, padding, groups,
    count and N.
    """
    readers = {".csv": _csv_rows, ".json": _json_rows}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise BenchError(f"--model-shapes must end in .csv or .json, got {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"--model-shapes cannot be read from {str(path)!r}: {error}") from None
    layers = []
    for where, row in read(text, path):
        try:
            layers.append(_layer(path.name, where, row))
        except (ValueError, TypeError) as error:
            raise BenchError(f"{path}, {where}: {error}") from None
    if not layers:
        raise BenchError(f"{path} describes no layer")
    return tuple(layers)


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = csv.reader(io.StringIO(text))
    try:
        rows = [(table.line_num, cells) for cells in table]
    except csv.Error as error:
        raise BenchError(f"{path}, line {table.line_num}: {error}") from None
    names = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in _REQUIRED if name not in names]
    if missing or len({*names}) < len(names):
        needed = ",".join(_REQUIRED)
        raise BenchError(f"{path}, line 1 must name each column once, {needed} at least: {names}")
    for number, cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"line {number}"
        if len(cells) != len(names):
            raise BenchError(f"{path}, {where}: {len(names)} columns are named, got {len(cells)}")
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
        yield where, {name: cell for name, cell in row.items() if cell}


def _json_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise BenchError(f"{path} must hold a list of objects, got {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BenchError(f"{path}, entry {number} must be an object, got {row!r:.80}")
        yield f"entry {number}", row


def _layer(file: str, where: str, row: Mapping[str, Any]) -> Layer:
    for name in row:
        if name not in _COLUMNS:
            raise ValueError(f"{name!r} must be one of {', '.join(_COLUMNS)}")
    for name in _REQUIRED:
        if name not in row:
            raise ValueError(f"{name} is missing")
    numbers = {
        name: _whole(name, row.get(name, _DEFAULTS.get(name))) for name in (*_REQUIRED, *_DEFAULTS)
    }
    identity = row.get("id", where)
    layer = Layer(file, str(identity), batch=numbers.pop("N"), **numbers)
    layer.problem()  # whether its sizes fit each other
    return layer


def _whole(name: str, value: Any) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, got {value!r:.80}") from None
    return as_int(name, value, 0 if name == "padding" else 1)
