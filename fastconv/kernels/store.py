"""The store of compiled kernels: one file for each, in a folder that only its user can change.

Numba's own cache keys a function by the file it stands in, keeps an index that two processes can
overwrite with entries pointing at each other's code, and reads pickles, which may run anything.
Here a file holds object code and a plain JSON header, nothing else. Its name is a hash of all that
the code depends on: the kernel, its argument types, the processor, the versions and all sources
that kernels are made from. The header says the same in full, and a digest covers both, so a file
under another's name is no kernel. Files are complete or absent: any number of processes may start
cold at once.

Machine code is code. It is read only from regular files that belong to this user or to root, in
folders that nobody else can write to, up to the home folder or the root. The digest finds damage,
not malice: whoever can write such a file could change this program too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba

from fastconv.private import folder_refusal, make_private_folder, read_private_file

#: Environment variable that names another folder for compiled kernels.
CACHE_VARIABLE = "FASTCONV_CACHE_DIR"

_PACKAGE = Path(__file__).resolve().parent.parent
# Everything that decides what a kernel is compiled to: also files that it only imports.
_SOURCES = ("kernels/*.py", "codegen/*.py", "problem.py", "activation.py", "cpu.py")
_MAGIC = b"fastconv kernel 2\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 4
# No kernel comes near it.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class StoredKernel:
    """What is kept of a kernel.

    Attributes
    ----------
    symbols : dict of str to str
        The names in the object code by which it is used.
    code : bytes
        Object code, as the linker of LLVM's just-in-time compiler reads it.
    """

    symbols: dict[str, str]
    code: bytes


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


def usable_folder() -> Path | None:
    """Return the folder for this build's kernels, made if need be; None if there cannot be one.

    The folder is looked at anew in each call: that takes microseconds, loading a kernel far more.
    """
    reason = why_nothing_is_kept()
    if reason is None:
        return cache_folder() / build_key()
    _warn_once(f"{reason} Until then, every process compiles them anew.")
    return None


def why_nothing_is_kept() -> str | None:
    """Return why compiled kernels cannot be kept, and what to do; None if they can."""
    folder = Path(os.environ.get(CACHE_VARIABLE, "the user's cache folder"))
    try:
        folder = cache_folder() / build_key()
        reason = folder_refusal(folder)
        if reason is None:
            make_private_folder(folder)
            reason = None if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written to"
    except (OSError, RuntimeError, ValueError) as error:  # no home folder; a name no system has
        reason = str(error)
    if reason is None:
        return None
    return (
        f"fastconv cannot keep compiled kernels in {folder} ({reason}): "
        f"set {CACHE_VARIABLE} to a folder of your own."
    )


def read(name: str, key: str) -> StoredKernel | None:
    """Return the kernel `name` that was compiled for `key`, None if it must be compiled.

    `key` says in full what the machine code depends on besides the build.
    """
    path = _path(name, key)
    if path is None:
        return None
    try:
        content = read_private_file(path, _MOST_BYTES)
        return _decoded(content, _identity(name, key))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _warn_once(f"fastconv compiles the kernel {path} anew: {_reason(error)}.")
        return None


def write(name: str, key: str, kernel: StoredKernel) -> None:
    """Keep a compiled kernel. A full or vanished disk is no error."""
    path = _path(name, key)
    if path is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_encoded(kernel, _identity(name, key)))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _path(name: str, key: str) -> Path | None:
    folder = usable_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(f"{name}\0{key}".encode()).hexdigest()
    return folder / f"{name}-{digest[:32]}.kernel"


def _identity(name: str, key: str) -> dict[str, str]:
    return {"build": build_key(), "name": name, "key": key}


def _encoded(kernel: StoredKernel, identity: dict[str, str]) -> bytes:
    header = json.dumps({**identity, "symbols": kernel.symbols}).encode()
    body = len(header).to_bytes(_LENGTH_BYTES, "little") + header + kernel.code
    return _MAGIC + hashlib.sha256(body).digest() + body


def _decoded(content: bytes, identity: dict[str, str]) -> StoredKernel:
    """Return what a file holds; ValueError says why it does not hold the kernel `identity`."""
    magic, rest = content[: len(_MAGIC)], content[len(_MAGIC) :]
    digest, body = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise ValueError("the file is damaged")
    length = int.from_bytes(body[:_LENGTH_BYTES], "little")
    header, code = body[_LENGTH_BYTES:][:length], body[_LENGTH_BYTES + length :]
    try:
        fields: Any = json.loads(header)
        symbols = dict(fields.pop("symbols"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("its header is not one of a kernel") from None
    if fields != identity:
        raise ValueError("the file is that of another kernel")
    if not code or not all(isinstance(symbol, str) for symbol in symbols.values()):
        raise ValueError("its header is not one of a kernel")
    return StoredKernel(symbols, code)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)
