"""The store of compiled kernels: one file each, in a folder that only its user can change.

Numba's own cache identifies a function by its source file, has an index that two processes can
overwrite with entries pointing at each other's code, and reads pickles, which may run anything.
Here a file holds only object code and a JSON header. Its name is a hash of everything that the code
depends on: the kernel, its argument types, the processor, the versions and all sources of kernels.
The header says the same in full, and a digest covers both, so a renamed file is not accepted. Files
are complete or absent: any number of processes may start cold at once.

Machine code is code. It is read only from regular files that belong to this user or to root, in
folders that no one else can write to, up to the home folder or the root. The digest detects damage,
not malice: anyone who can write such a file could change this program too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import llvmlite
import numba

from fastconv.runtime.private_files import folder_refusal, make_private_folder, read_private_file

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Environment variable that names another folder for compiled kernels.
CACHE_VARIABLE = "FASTCONV_CACHE_DIR"

# All sources that kernels depend on, imported ones too: folders, and how their files begin.
_SOURCES = (("kernels", ""), ("codegen", ""), ("jit", ""), ("core", ""), ("runtime", "cpu."))
_MAGIC = b"fastconv kernel 2\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 4
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Far above the size of any kernel.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class StoredKernel:
    """The content of a stored kernel.

    Attributes
    ----------
    symbols : tuple of str
        The symbols in the object code that are used, that of the function first.
    code : bytes
        Object code for the linker of LLVM's just-in-time compiler.
    """

    symbols: tuple[str, ...]
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
    """Return a short hash of the kernel sources and of the relevant versions."""
    digest = hashlib.sha256()
    versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag)
    digest.update(repr(versions).encode())
    for folder, begin in _SOURCES:
        # They may be in a zip file, or be kept as byte code only.
        entries = (resources.files("fastconv") / folder).iterdir()
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(begin) and entry.name.endswith((".py", ".pyc")):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def usable_folder(writing: bool = True) -> Path | None:
    """Return the folder for this build's kernels, created if necessary; None if it is unusable.

    The folder is checked in each call: that takes microseconds, loading a kernel far more. For
    reading it need neither exist nor be writable.
    """
    reason = why_nothing_is_kept(writing)
    if reason is None:
        return cache_folder() / build_key()
    _warn_once(f"{reason} Until then, every process compiles them anew.")
    return None


def why_nothing_is_kept(writing: bool = True) -> str | None:
    """Return why compiled kernels cannot be kept, and what to do; None if they can."""
    folder = Path(os.environ.get(CACHE_VARIABLE, "the user's cache folder"))
    try:
        folder = cache_folder() / build_key()
        reason = folder_refusal(folder)
        if reason is None and writing:
            make_private_folder(folder)
            reason = folder_refusal(folder)  # another user may have been faster
            if reason is None and not os.access(folder, os.W_OK | os.X_OK):
                reason = "it cannot be written to"
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
    folder = usable_folder(writing=False)
    if folder is None:
        return None
    path = folder / _file_name(name, key)
    try:
        return _decoded(read_private_file(path, _MOST_BYTES), _identity(name, key))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        refuse(name, key, str(error))
        return None


def exists(name: str, key: str) -> bool:
    """Return whether there is a file for a kernel, valid or not."""
    folder = usable_folder(writing=False)
    return folder is not None and (folder / _file_name(name, key)).exists()


# Two processes that need the same kernel compile it once -----------------------------------

#: Longer than the compilation of any kernel: after that, a waiting process compiles it too.
_MOST_SECONDS_OF_WAITING = 30.0
_SECONDS_BETWEEN_LOOKS = 0.005


@contextmanager
def claim(name: str, key: str) -> Iterator[None]:
    """Hold the claim to compile a kernel, after waiting for another process that holds it.

    The operating system releases the claim of a process that ends for any reason. Where files
    cannot be locked, there are no claims, and kernels may be compiled more than once.
    """
    with contextlib.ExitStack() as stack:
        folder = usable_folder() if fcntl else None
        if folder is not None:
            path = folder / f"{_file_name(name, key)}.claim"
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
                stack.callback(os.close, handle)
                end = time.monotonic() + _MOST_SECONDS_OF_WAITING
                while not _locked(handle) and time.monotonic() < end:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                stack.callback(_remove, path)
        yield


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the folder may have vanished, or be read-only by now
        path.unlink()


def is_claimed(name: str, key: str) -> bool:
    """Return whether another process is compiling a kernel now."""
    folder = usable_folder(writing=False)
    if fcntl is None or folder is None:
        return False
    try:
        handle = os.open(folder / f"{_file_name(name, key)}.claim", os.O_RDWR | _NO_LINK)
    except OSError:
        return False
    try:
        return not _locked(handle)
    except OSError:  # files cannot be locked there
        return False
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Try to lock a file for this process alone."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Files --------------------------------------------------------------------------------------


def refuse(name: str, key: str, reason: str) -> None:
    """Warn that a kernel's file is not used."""
    path = cache_folder() / build_key() / _file_name(name, key)
    _warn_once(f"fastconv compiles the kernel {path} anew: {reason}.")


def write(name: str, key: str, kernel: StoredKernel) -> None:
    """Store a compiled kernel. A full or missing disk is not an error."""
    folder = usable_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_encoded(kernel, _identity(name, key)))
            os.replace(temporary, folder / _file_name(name, key))
        except BaseException:
            os.unlink(temporary)
            raise


def _file_name(name: str, key: str) -> str:
    digest = hashlib.sha256(f"{name}\0{key}".encode()).hexdigest()
    return f"{name}-{digest[:32]}.kernel"


def _identity(name: str, key: str) -> dict[str, str]:
    return {"build": build_key(), "name": name, "key": key}


def _encoded(kernel: StoredKernel, identity: dict[str, str]) -> bytes:
    header = json.dumps({**identity, "symbols": kernel.symbols}).encode()
    body = len(header).to_bytes(_LENGTH_BYTES, "little") + header + kernel.code
    return _MAGIC + hashlib.sha256(body).digest() + body


def _decoded(content: bytes, identity: dict[str, str]) -> StoredKernel:
    """Return the kernel in a file; ValueError says why it is not the kernel `identity`."""
    magic, rest = content[: len(_MAGIC)], content[len(_MAGIC) :]
    digest, body = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise ValueError("the file is damaged")
    length = int.from_bytes(body[:_LENGTH_BYTES], "little")
    header, code = body[_LENGTH_BYTES:][:length], body[_LENGTH_BYTES + length :]
    try:
        fields: Any = json.loads(header)
        symbols = fields.pop("symbols")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("its header is not one of a kernel") from None
    if fields != identity:
        raise ValueError("the file is that of another kernel")
    if not (code and symbols and isinstance(symbols, list) and all(map(_is_symbol, symbols))):
        raise ValueError("its header is not one of a kernel")
    return StoredKernel(tuple(symbols), code)


def _is_symbol(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isprintable() and name != ""


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)
