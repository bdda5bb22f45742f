"""The folder of checkpoints: the last few states of a training, each complete or not there.

A checkpoint is written under a temporary name, flushed to the disk and then renamed; only then is
it listed in ``manifest.json``. So a process may end at any moment: what the manifest lists is
complete. `fastconv.nn.training.checkpoint_files` reads and writes a single one.
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
_UNFINISHED = re.compile(rf"\.{_NAME.pattern}\.\d+\.tmp")
_MANIFEST = "manifest.json"


class Checkpoints:
    """A folder of checkpoints: the last few that training wrote.

    Parameters
    ----------
    folder : str or path-like
        Created if missing. Use a folder for one training only.
    every : int, optional
        Write one after so many batches too, not only at the end of every epoch.
    keep : int
        How many to keep; at least 2, so that there is one before the newest.

    Notes
    -----
    `fit` goes on from a checkpoint to bitwise identical results, if the arguments and the data are
    the same; only `epochs`, `progress`, `every` and `keep` may change. It refuses one of another
    training, saying what differs: names and shapes of the model's state, layers frozen by
    ``eval(keep=True)``, loss, optimizer, schedule and their settings, `clip_norm`, `batch_size`,
    `shuffle`, `seed`, and the data. Arrays up to 64 MiB are compared as a whole, of larger ones
    evenly spaced rows. Not compared are the batches that an iterable yields, what functions
    compute, and arguments that a loss or schedule of your own does not keep under their names.

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
        self.folder: Path = Path(folder)
        self.every: int | None = None if every is None else as_int("every", every, 1)
        self.keep: int = as_int("keep", keep, 2)
        self._damaged: set[str] = set()

    def prepare(self) -> None:
        """Create the folder, so that errors are raised before training."""
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
        """Return the names in the manifest; if one is missing, also all that are found."""
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
        """Return the newest undamaged state, or None if nothing was ever written.

        A checkpoint that is missing or damaged is named in a warning, and the one before it is
        read.

        Raises
        ------
        ValueError
            If there are checkpoints, and all of them are damaged.
        OSError
            If the disk fails, whatever is on it.
        """
        newest = self.newest()
        return None if newest is None else newest[1]

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the folder and the state of the newest undamaged checkpoint, as `read` does."""
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
                f"checkpoint must have one that is not damaged, in {str(self.folder)!r} all are; "
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
            For its name: the number of batches so far.
        forget : bool
            Drop all earlier ones.
        """
        self.prepare()
        # Damaged ones do not count among those to keep.
        whole = [name for name in self.names() if name not in self._damaged]
        kept = [] if forget else whole[1 - self.keep :]
        name, again = f"step-{step:08d}", 1
        while name in kept or (self.folder / name).exists():
            if name not in kept and not forget:  # finished, but not in the manifest
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
        """Remove what the manifest does not list: older checkpoints, and unfinished ones."""
        finished = set(self._found()) - keep
        unfinished = (path.name for path in self.folder.glob(".step-*.tmp"))
        for name in (*finished, *(name for name in unfinished if _UNFINISHED.fullmatch(name))):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.glob(f".{_MANIFEST}.*.tmp.json"):
            path.unlink(missing_ok=True)


def _age(name: str) -> list[int]:
    """Return the sort key of a name: its numbers, the oldest first."""
    return [int(number) for number in name.split("-")[1:]]
