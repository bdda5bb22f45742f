"""Files and folders that nobody but their user can change: where machine code may be kept.

A folder is only as safe as the folders above it: whoever may write to one of them can replace it.
So every folder of its path is checked, from the home folder on, or from the root for a path that is
not below the home folder; so is each link. Systems without POSIX permissions are not checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_POSIX = hasattr(os, "getuid")
_MOST_LINKS = 40  # as many as Linux follows
_OPEN = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)


def folder_refusal(folder: Path) -> str | None:
    """Return why files in `folder` are not safe from others, None if they are.

    The folder may be still to be made.

    Raises
    ------
    OSError
        If the path to the folder cannot be followed.
    """
    if not folder.is_absolute():
        return "it is a relative path, which means another folder in another working folder"
    if not _POSIX:
        return None
    path = list(_folders_of_path(folder))
    made = folder.exists()
    with contextlib.suppress(ValueError, RuntimeError):  # not below it, or there is none
        path = path[path.index(Path.home()) :]
    for each in path:
        status = each.stat()
        if status.st_uid not in (os.getuid(), 0):
            return f"{each} belongs to another user"
        # In a sticky folder nobody can rename what is another's, but anybody can make a file.
        shared = status.st_mode & stat.S_ISVTX and not (made and each == path[-1])
        if not shared and _others_may_write(status):
            return f"others may write to {each}"
    return None


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each for this user alone."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            folder.mkdir(mode=0o700)


def read_private_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of this user or root that others cannot write to.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no such file, or has more than `most` bytes.
    """
    _check_file(path.lstat(), most)  # before it is opened: a device may act on that
    handle = os.open(path, _OPEN)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        _check_file(status, most)
        return file.read(status.st_size)


def _check_file(status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if _POSIX and status.st_uid not in (os.getuid(), 0):
        raise ValueError("it belongs to another user")
    if _POSIX and _others_may_write(status):
        raise ValueError("others may write to it")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size} bytes, more than {most}")


def _folders_of_path(folder: Path) -> Iterator[Path]:
    """Yield each folder on the path to `folder`, as far as they exist."""
    here, links = Path(folder.anchor), 0
    yield here
    names = list(reversed(folder.parts[1:]))
    while names:
        name = names.pop()
        if name == "..":
            here = here.parent
            continue
        step = here / name
        try:
            status = step.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(status.st_mode):
            here = step
            yield here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(step))
        if status.st_uid not in (os.getuid(), 0):
            raise PermissionError(f"the link {step} belongs to another user")
        target = Path(os.readlink(step))
        if target.is_absolute():
            here = Path(target.anchor)
            target = target.relative_to(here)
        names.extend(reversed(target.parts))


def _others_may_write(status: os.stat_result) -> bool:
    # A group may have members that no list shows, and an access list looks like a group's rights.
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
