"""One checkpoint on disk: a folder with a state, in files with digests that show damage.

``tensors.safetensors`` holds every array, ``state.json`` everything else and the digests of both.
Reading runs no code: there are only numbers, text and JSON. Nothing in the files is trusted: what
`write` has not written raises ValueError.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.model_files import read_tensors, safetensors
from fastconv.nn.training.state_schema import check
from fastconv.runtime.atomic_files import sync

#: The file without which a folder is no checkpoint.
STATE = "state.json"
#: The format that is written, and the only one that is read.
FORMAT = 2

_TENSORS = "tensors.safetensors"
# More levels than any state needs, and far fewer than Python's stack has.
_MAX_DEPTH = 64
_Key = str | int | float | bool | None


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write a state into a new folder, and wait for the disk.

    It may hold numbers, text, arrays, lists, tuples and dicts, nested at most 64 levels deep; for
    all else TypeError or ValueError is raised.
    """
    tensors: dict[str, Any] = {}
    tree, package = json.dumps(_encode(state, "", tensors, 0)), safetensors()
    try:
        content = package.save(tensors)
    except Exception as error:  # the package's own
        raise TypeError(f"a state must hold arrays of numbers: {error}") from None
    whole = {
        "format": FORMAT,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "state_sha256": hashlib.sha256(tree.encode()).hexdigest(),
        "state": json.loads(tree),
    }
    folder.mkdir()
    for name, part in ((_TENSORS, content), (STATE, json.dumps(whole).encode())):
        (folder / name).write_bytes(part)
        sync(folder / name)
    sync(folder)


def read(folder: Path) -> dict[str, Any]:
    """Return the state in a folder.

    ValueError says which file is missing or damaged; OSError is about the disk, not the content.
    """
    whole = read_json(folder / STATE)
    schema = {"format": object, "tensors_sha256": str, "state_sha256": str, "state": dict}
    if isinstance(whole, dict) and whole.get("format", FORMAT) != FORMAT:
        raise ValueError(f"{STATE} has the format {whole['format']!r:.60}, known is {FORMAT}")
    check(whole, schema, STATE)
    content = _content(folder / _TENSORS)
    try:
        tree = json.dumps(whole["state"]).encode()
    except RecursionError:
        raise ValueError(f"{STATE} is nested too deeply") from None
    for name, part, wanted in (
        (_TENSORS, content, whole["tensors_sha256"]),
        (STATE, tree, whole["state_sha256"]),
    ):
        if hashlib.sha256(part).hexdigest() != wanted:
            raise ValueError(f"{name} has been changed")
    try:
        tensors = read_tensors(content)
    except ValueError as error:
        raise ValueError(f"{_TENSORS} holds no arrays that NumPy can hold: {error}") from None
    state = _decode(whole["state"], tensors, 0)
    if not isinstance(state, dict):
        raise ValueError(f"{STATE} must hold a dict, got a {type(state).__name__}")
    return state


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; ValueError if it is missing, no file, or not JSON."""
    content = _content(path)
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # not text, not JSON, or nested too deeply
        raise ValueError(f"{path.name} is not JSON: {error}") from None


def _content(path: Path) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait
            return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path.name} is missing") from None
    raise ValueError(f"{path.name} is not a file")


def _encode(value: Any, path: str, tensors: dict[str, Any], depth: int) -> Any:
    """Return `value` as JSON, its arrays added to `tensors` and replaced by their names."""

    def inner(items: Iterable[tuple[Any, Any]]) -> list[Any]:
        if depth == _MAX_DEPTH:
            raise ValueError(f"a state must be nested at most {_MAX_DEPTH} levels deep, got more")
        return [
            _encode(item, f"{path}.{key}".lstrip("."), tensors, depth + 1) for key, item in items
        ]

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        while path in tensors:
            path += "'"
        tensors[path] = np.array(value, order="C")
        return {"tensor": path, "scalar": isinstance(value, np.generic)}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, _Key):
                raise TypeError(f"a state must have numbers or text as keys, got {key!r}")
        return {"dict": [[*pair] for pair in zip(value, inner(value.items()), strict=True)]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: inner(enumerate(value))}
    raise TypeError(f"a state must hold numbers, text, arrays, lists and dicts, got {value!r}")


def _decode(value: Any, tensors: dict[str, Any], depth: int) -> Any:
    """Return what `_encode` was given; ValueError for anything that it does not return."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > _MAX_DEPTH:
        raise ValueError(f"{STATE} is nested more than {_MAX_DEPTH} levels deep")
    check(value, {...: object}, "a part of the state")
    if "tensor" in value:
        check(value, {"tensor": str, "scalar": bool}, "an array in the state")
        array = tensors.get(value["tensor"])
        if array is None or (value["scalar"] and array.ndim):
            raise ValueError(f"{_TENSORS} does not hold {value['tensor']!r:.60} as {STATE} has it")
        return array[()] if value["scalar"] else array
    if "dict" in value:
        check(value, {"dict": [(_Key, object)]}, "a dict in the state")
        pairs = [(key, _decode(item, tensors, depth + 1)) for key, item in value["dict"]]
        decoded = dict(pairs)
        if len(decoded) < len(pairs):
            raise ValueError(f"{STATE} has a key twice in {', '.join(map(repr, decoded)):.60}")
        return decoded
    kind = "tuple" if "tuple" in value else "list"
    check(value, {kind: [object]}, f"a {kind} in the state")
    items = [_decode(item, tensors, depth + 1) for item in value[kind]]
    return tuple(items) if kind == "tuple" else items
