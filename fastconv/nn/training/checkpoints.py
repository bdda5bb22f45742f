"""Checkpoints: all that training needs to go on, in files that are complete or not there.

A checkpoint is written under a temporary name, flushed to the disk and then renamed; only then does
``manifest.json`` point at it. So a process may end at any moment: what the manifest names is
complete. `fastconv.nn.training.checkpoint_files` tells what is in one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from fastconv.core.geometry import as_int
from fastconv.nn.model_files import safetensors
from fastconv.nn.training import checkpoint_files
from fastconv.nn.training.state_schema import check
from fastconv.runtime.atomic_files import sync, write_atomically

# Names of this module's own folders: nothing else is ever read or removed.
_NAME = re.compile(r"step-[0-9]{8,20}(-[0-9]{1,9})?")
_BEGUN = re.compile(rf"\.{_NAME.pattern}\.\d+\.tmp")
_MANIFEST = "manifest.json"


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
    >>> import numpy as np, tempfile
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
        found = self._found()
        return [name for name in self._known() if name in found]

    def _known(self) -> list[str]:
        """Return the checkpoints that the manifest names; if one is missing, all there are too."""
        found, path = self._found(), self.folder / _MANIFEST
        if not path.exists():
            return found
        try:
            manifest = checkpoint_files.read_json(path)
            check(manifest, {"checkpoints": [str], ...: object}, _MANIFEST)
            listed = set(manifest["checkpoints"])
            if not listed or not all(map(_NAME.fullmatch, listed)):
                raise ValueError(f"{_MANIFEST} must name checkpoints, got {sorted(listed)!r:.60}")
        except ValueError as error:
            warnings.warn(
                f"the list {str(path)!r} is damaged ({error}): using the checkpoints found beside "
                f"it, {', '.join(found) or 'none'}",
                stacklevel=3,
            )
            return found
        return sorted(listed if listed <= {*found} else listed.union(found), key=_age)

    def _found(self) -> list[str]:
        found = (path.parent.name for path in self.folder.glob(f"step-*/{checkpoint_files.STATE}"))
        return sorted((name for name in found if _NAME.fullmatch(name)), key=_age)

    def read(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None if nothing was ever written.

        A checkpoint that is missing or damaged is named in a warning, and the one before it is
        read.

        Raises
        ------
        ValueError
            If there are checkpoints, and none of them is whole.
        OSError
            If the disk does not answer, which says nothing of what is on it.
        """
        newest = self.newest()
        return None if newest is None else newest[1]

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the folder of the newest state that is whole, and the state, as `read` does."""
        wrong = []
        for name in reversed(self._known()):
            folder = self.folder / name
            try:
                return folder, checkpoint_files.read(folder)
            except ValueError as error:
                reason = f"is damaged ({error})" if folder.is_dir() else "is missing"
                wrong.append(f"{name} {reason}")
                self._damaged.add(name)
                warnings.warn(
                    f"checkpoint {str(folder)!r} {reason}: using the one before it", stacklevel=3
                )
        self._damaged.clear()
        if wrong:
            raise ValueError(
                f"checkpoint must have one that is whole, in {str(self.folder)!r} none is; "
                "resume=False begins anew:\n  " + "\n  ".join(wrong)
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
            checkpoint_files.write(temporary, state)
            os.replace(temporary, self.folder / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(self.folder)
        manifest = json.dumps(
            {"format": checkpoint_files.FORMAT, "checkpoints": [*kept, name]}, indent=1
        )
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


def _age(name: str) -> list[int]:
    """Return what sorts names of checkpoints, the oldest first."""
    return [int(number) for number in name.split("-")[1:]]
