"""The on-disk store of compiled kernels.

Numba's own cache keys a function by the file it stands in and keeps an index that two
processes can overwrite with entries pointing at each other's code. Here a kernel's machine
code is one file whose name is a hash of everything it depends on: the kernel, its argument
types, the processor, the versions, and all sources that kernels are made from. Files are
complete or absent, so any number of processes may start cold at once.

Machine code is code: a folder that others may write to is not used. (Only the folder itself is
looked at: whoever may rename its parents can still put another in its place.)
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

#: Environment variable that names another folder for compiled kernels.
CACHE_VARIABLE = "FASTCONV_CACHE_DIR"

_PACKAGE = Path(__file__).resolve().parent.parent
# Everything that decides what a kernel is compiled to: also files that it only imports.
_SOURCES = ("kernels/*.py", "codegen/*.py", "problem.py", "activation.py", "cpu.py")
_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return the folder for this user's compiled kernels (it need not exist yet)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "fastconv" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastconv"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastconv"


@lru_cache(maxsize=1)
def build_key() -> str:
    """Return a short hash of the kernel sources and of every version that matters."""
    digest = hashlib.sha256()
    versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag)
    digest.update(repr(versions).encode())
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def usable_folder() -> Path | None:
    """Return the folder for this build's kernels, made if need be; None if there cannot be one."""
    folder = Path(os.environ.get(CACHE_VARIABLE, "the user's cache folder"))
    try:
        folder = cache_folder() / build_key()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = None if _is_private(folder) else "others may write to it"
        if reason is None:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        reason = str(error)
    if reason is not None:
        warnings.warn(
            f"fastconv cannot keep compiled kernels in {folder} ({reason}): every process will "
            f"compile them anew. Set {CACHE_VARIABLE} to a folder of your own.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return folder


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (os.getuid(), 0) and not others_write


class KernelCache(_Cache):  # type: ignore[misc]
    """The store as Numba's dispatcher wants to see it, for one kernel."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def cache_path(self) -> str:
        """Where the files are."""
        return str(usable_folder() or "")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for these argument types, or None."""
        path = self._path(sig, target_context.codegen())
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:  # damaged: compile and write it anew
            return None
        # Loading needs Numba's runtime symbols only. `target_context.refresh()` would also import
        # everything the compiler knows, which takes longer than all the rest of a first call.
        rtsys.initialize(target_context)
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever it is, it is not a kernel: compile and write it anew
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the compiled kernel, atomically; a full or vanished disk is no error."""
        path = self._path(sig, data.codegen)
        if path is None or data.library.has_dynamic_globals or data.lifted:
            return
        payload = dumps(data._reduce())
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return

    def _path(self, sig: Any, codegen: Any) -> Path | None:
        folder = usable_folder()
        if folder is None:
            return None
        key = hashlib.sha256(repr((self._name, sig, codegen.magic_tuple())).encode())
        return folder / f"{self._name}-{key.hexdigest()[:32]}.kernel"

    def enable(self) -> None:
        """Do nothing: the store is always on."""

    def disable(self) -> None:
        """Do nothing: the store is always on."""

    def flush(self) -> None:
        """Do nothing: `fastconv warmup --clear` empties the folder."""
