"""Checkpoints: all that training needs to go on, in files that are complete or not there.

A checkpoint is a folder with ``tensors.safetensors`` (every array) and ``state.json`` (everything
else, and the digests of both). It is written under a temporary name, flushed to the disk and then
renamed; only then does ``manifest.json`` point at it. So a process may end at any moment: what the
manifest names is complete. Reading runs no code: there are only numbers, text and JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.files import sync, write_atomically
from fastconv.geometry import as_int
from fastconv.nn.files import safetensors

# Names of this module's own folders: nothing else is ever read or removed.
_NAME = re.compile(r"step-\d{8,}(-\d+)?")
_BEGUN = re.compile(r"\.step-\d{8,}(-\d+)?\.\d+\.tmp")
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_FORMAT = 1


class Checkpoints:
    """A folder of checkpoints: the last few that training wrote.

    Parameters
    ----------
    folder : str or path-like
        Made if it is not there. It should be for this training alone.
    every : int, optional
        Write one after so many batches too, not only at the end of every epoch.
    keep : int
        How many to keep; 2 at least, so that there is one to go back to.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> checkpoints.write({"epoch": 3, "weights": np.ones(2)}, step=30)
    >>> checkpoints.names()
    ['step-00000030']
    >>> checkpoints.read()["weights"]
    array([1., 1.])
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, every: int | None = None, keep: int = 2
    ) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"checkpoint must be a folder or Checkpoints, got {folder!r}")
        self.folder = Path(folder)
        self.every = None if every is None else as_int("every", every, 1)
        self.keep = as_int("keep", keep, 2)
        self._damaged: set[str] = set()

    def prepare(self) -> None:
        """Make the folder; whatever would keep checkpoints from being written is an error now."""
        safetensors()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(
                f"checkpoint must be a folder, or the name of a new one, got {str(self.folder)!r}, "
                "where a file is in the way"
            ) from None

    def names(self) -> list[str]:
        """Return the names of the finished checkpoints, the newest last."""
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            names = manifest["checkpoints"]
            if not (isinstance(names, list) and names):
                raise ValueError
            if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
                raise ValueError
        except FileNotFoundError:
            return self._found()
        except (ValueError, KeyError, TypeError):
            found = self._found()
            warnings.warn(
                f"the list {str(self.folder / _MANIFEST)!r} is damaged: using the checkpoints "
                f"found beside it, {', '.join(found) or 'none'}",
                stacklevel=2,
            )
            return found
        return list(names)

    def _found(self) -> list[str]:
        found = (path.parent.name for path in self.folder.glob(f"step-*/{_STATE}"))
        return sorted(name for name in found if _NAME.fullmatch(name))

    def read(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None if nothing was ever written.

        A damaged checkpoint is named in a warning, and the one before it is read.

        Raises
        ------
        ValueError
            If there are checkpoints, and all of them are damaged.
        """
        names, wrong = self.names(), []
        for name in reversed(names):
            try:
                state = _read(self.folder / name)
            except (
                *(FileNotFoundError, NotADirectoryError),
                *(ValueError, KeyError, TypeError),
            ) as error:  # any other OSError says nothing of what is on the disk
                wrong.append(f"{name}: {error}")
                self._damaged.add(name)
                warnings.warn(
                    f"checkpoint {str(self.folder / name)!r} is damaged ({error}): "
                    "using the one before it",
                    stacklevel=2,
                )
            else:
                return state
        self._damaged.clear()
        if wrong:
            raise ValueError(
                f"checkpoint must have one that is whole, in {str(self.folder)!r} all are "
                "damaged; resume=False begins anew:\n  " + "\n  ".join(wrong)
            )
        return None

    def write(self, state: dict[str, Any], step: int, *, forget: bool = False) -> None:
        """Add a checkpoint, and drop the oldest ones.

        Parameters
        ----------
        state : dict
            Of dicts, lists, tuples, arrays, numbers and text.
        step : int
            For its name: how many batches there were.
        forget : bool
            Drop all earlier ones.
        """
        self.prepare()
        # What is damaged does not count, or it would take the place of what is whole.
        whole = [name for name in self.names() if name not in self._damaged]
        kept = [] if forget else whole[1 - self.keep :]
        name, again = f"step-{step:08d}", 1
        while name in kept or (self.folder / name).exists():
            if name not in kept and not forget:  # finished, but never named by the manifest
                shutil.rmtree(self.folder / name)
                break
            name, again = f"step-{step:08d}-{again}", again + 1
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            _write(temporary, state)
            os.replace(temporary, self.folder / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(self.folder)
        manifest = json.dumps({"format": _FORMAT, "checkpoints": [*kept, name]}, indent=1)
        write_atomically(
            self.folder / _MANIFEST, lambda file: file.write_text(manifest, encoding="utf-8")
        )
        self._damaged.discard(name)
        self._clear({*kept, name})

    def _clear(self, keep: set[str]) -> None:
        """Remove what the manifest does not name: older checkpoints, and unfinished ones."""
        finished = set(self._found()) - keep
        begun = (path.name for path in self.folder.glob(".step-*.tmp"))
        for name in (*finished, *(name for name in begun if _BEGUN.fullmatch(name))):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.glob(f".{_MANIFEST}.*.tmp.json"):
            path.unlink(missing_ok=True)


def _write(folder: Path, state: dict[str, Any]) -> None:
    tensors: dict[str, Any] = {}
    tree = json.dumps(_encode(state, "", tensors))
    content = safetensors().save(tensors)
    whole = {
        "format": _FORMAT,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "state_sha256": hashlib.sha256(tree.encode()).hexdigest(),
        "state": json.loads(tree),
    }
    folder.mkdir()
    for name, part in ((_TENSORS, content), (_STATE, json.dumps(whole).encode())):
        (folder / name).write_bytes(part)
        sync(folder / name)
    sync(folder)


def _read(folder: Path) -> dict[str, Any]:
    whole = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if whole["format"] != _FORMAT:
        raise ValueError(f"its format is {whole['format']!r}, known is {_FORMAT}")
    content = (folder / _TENSORS).read_bytes()
    tree = json.dumps(whole["state"]).encode()
    for name, part, wanted in (
        (_TENSORS, content, whole["tensors_sha256"]),
        (_STATE, tree, whole["state_sha256"]),
    ):
        if hashlib.sha256(part).hexdigest() != wanted:
            raise ValueError(f"{name} is not as it was written")
    state: dict[str, Any] = _decode(whole["state"], safetensors().load(content))
    return state


def _encode(value: Any, path: str, tensors: dict[str, Any]) -> Any:
    """Return `value` as JSON can hold it, with its arrays put into `tensors`."""

    def inner(items: Iterable[tuple[Any, Any]]) -> list[Any]:
        return [_encode(item, f"{path}.{key}".lstrip("."), tensors) for key, item in items]

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        while path in tensors:
            path += "'"
        tensors[path] = np.array(value, order="C")
        return {"tensor": path, "scalar": isinstance(value, np.generic)}
    if isinstance(value, dict):
        return {"dict": [[*pair] for pair in zip(value, inner(value.items()), strict=True)]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: inner(enumerate(value))}
    raise TypeError(f"a state must hold numbers, text, arrays, lists and dicts, got {value!r}")


def _decode(value: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        array = tensors[value["tensor"]]
        return array[()] if value["scalar"] else array
    if "dict" in value:
        return {key: _decode(item, tensors) for key, item in value["dict"]}
    if "tuple" in value:
        return tuple(_decode(item, tensors) for item in value["tuple"])
    return [_decode(item, tensors) for item in value["list"]]
