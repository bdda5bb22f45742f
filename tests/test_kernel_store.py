"""One file of the store of compiled kernels: what is no kernel of ours is never run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv.jit import compiler, emitter, kernel_cache, machine_code

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions as on POSIX systems")

KEPT = kernel_cache.StoredKernel(("symbol",), bytes(range(256)) * 8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for kernels that is still to be made."""
    folder = tmp_path / "above" / "kernels"
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(folder))
    monkeypatch.setattr(kernel_cache, "_warned", set())
    return folder


@pytest.fixture
def file(folder: Path) -> Path:
    """Return the file of a kernel that was just written."""
    kernel_cache.write("name", "key", KEPT)
    assert kernel_cache.read("name", "key") == KEPT
    assert kernel_cache.read("name", "another key") is None
    (file,) = folder.glob("*/*.kernel")
    return file


def expect_refusal(reason: str) -> None:
    kernel_cache._warned.clear()
    with pytest.warns(RuntimeWarning, match=reason) as warnings:
        assert [kernel_cache.read("name", "key") for _ in range(2)] == [None, None]
    assert len(warnings) == 1


def expect_refusal_and_another(reason: str) -> None:
    """Check that a file is not used, and that another takes its place."""
    expect_refusal(reason)
    kernel_cache.write("name", "key", KEPT)
    assert kernel_cache.read("name", "key") == KEPT


def test_any_change_of_a_file_is_noticed(file: Path) -> None:
    whole, random = file.read_bytes(), np.random.default_rng(0)
    for number in range(1000):
        at, changed = int(random.integers(len(whole))), bytearray(whole)
        match number % 4:
            case 0:
                changed[at] ^= 1 << int(random.integers(8))
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = random.bytes(int(random.integers(1, 40)))
            case 3:
                del changed[at : at + int(random.integers(1, 40))]
        file.write_bytes(changed)
        expect_refusal("the file is damaged")
    expect_refusal_and_another("the file is damaged")


def test_a_file_is_no_other_than_its_name_says(file: Path) -> None:
    # That of another processor, say, or of another kernel.
    kernel_cache.write("another", "key", KEPT)
    kernel_cache.write("name", "another key", KEPT)
    for other in file.parent.glob("*.kernel"):
        if other != file:
            file.write_bytes(other.read_bytes())
            expect_refusal("the file is that of another kernel")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["MARK"],)


def test_forged_files_run_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    pickled, nested = pickle.dumps(Trap()), b"[" * 100_000
    identity = kernel_cache._identity("name", "key")
    wrong = ([1], [], [""], ["\0"], ["\ud800"], {"a": "b"}, "name", None)
    forged = [json.dumps({**identity, "symbols": symbols}).encode() for symbols in wrong]
    others = b"{}", b"[]", b"1", b'{"symbols": 1}', b"\xff"
    for header in (pickled, nested, *forged, *others):
        body = len(header).to_bytes(4, "little") + header + pickled
        file.write_bytes(kernel_cache._MAGIC + hashlib.sha256(body).digest() + body)
        expect_refusal("its header is not one of a kernel|the file is that of another kernel")
    file.write_bytes(hashlib.sha256(pickled).digest() + pickled)
    expect_refusal_and_another("the file is damaged")
    assert not (tmp_path / "mark").exists()


@posix
@pytest.mark.parametrize("what", ["link", "pipe", "folder", "shared", "foreign", "huge"])
def test_only_files_of_ones_own_are_used(what: str, file: Path, tmp_path: Path) -> None:
    reason = "it is not a regular file"
    if what == "shared":
        file.chmod(0o666)
        reason = "others may write to it"
    elif what == "foreign":
        try:
            os.chown(file, os.getuid() + 4321, -1)
        except PermissionError:
            pytest.skip("only root can give files away")
        reason = "it belongs to another user"
    elif what == "huge":
        os.truncate(file, 1 << 40)  # takes no room on the disk
        reason = "it has 1099511627776 bytes"
    else:
        moved = file.rename(tmp_path / file.name)
        makers = {"link": lambda: file.symlink_to(moved), "pipe": lambda: os.mkfifo(file)}
        makers.get(what, file.mkdir)()
    if what == "folder":  # nothing takes its place
        expect_refusal(reason)
    else:
        expect_refusal_and_another(reason)


@posix
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o707, "foreign"])
def test_a_folder_others_may_change_is_not_used(depth: int, mode: int | str, file: Path) -> None:
    changed = file.parents[depth]
    if mode == "foreign":
        try:
            os.chown(changed, os.getuid() + 4321, -1)
        except PermissionError:
            pytest.skip("only root can give folders away")
        expect_refusal(f"{changed} belongs to another user.*{kernel_cache.CACHE_VARIABLE}")
        return
    changed.chmod(int(mode))
    if mode == 0o1777 and depth > 0:  # where nobody can rename what is another's, as in /tmp
        assert kernel_cache.read("name", "key") == KEPT
    else:
        before = file.read_bytes()
        expect_refusal(f"others may write to {changed}.*{kernel_cache.CACHE_VARIABLE}")
        kernel_cache.write("name", "key", kernel_cache.StoredKernel((), b"other"))
        assert file.read_bytes() == before
    changed.chmod(0o700)
    assert kernel_cache.read("name", "key") == KEPT  # a folder is looked at each time


@posix
def test_a_new_folder_in_one_like_tmp(folder: Path) -> None:
    folder.parent.mkdir()
    folder.parent.chmod(0o1777)
    kernel_cache.write("name", "key", KEPT)
    assert kernel_cache.read("name", "key") == KEPT


def test_a_folder_that_cannot_be_written_to_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert kernel_cache.read("name", "key") == KEPT
    with pytest.warns(RuntimeWarning, match="it cannot be written to"):
        kernel_cache.write("another", "key", KEPT)
    assert list(file.parent.iterdir()) == [file]


def test_code_that_cannot_be_loaded_is_compiled_anew(folder: Path) -> None:
    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        """Emit a function that does nothing."""

    name, key = "nothing", repr((1, compiler.target()))
    kernel_cache.write(name, key, KEPT)
    before = machine_code.loaded_kernels()
    with pytest.warns(RuntimeWarning, match="the object code"):
        address = emitter.emitted_address(name, ["number"], emit)
    assert emitter.emitted_address(name, ["number"], emit) == address
    assert machine_code.loaded_kernels() == before + 1  # once a process
    kept = kernel_cache.read(name, key)
    assert kept is not None
    assert kept != KEPT
    assert all(machine_code.load(kept.code, *kept.symbols))
    with pytest.raises(ValueError, match="must have the symbols"):
        machine_code.load(kept.code, "another")


@posix
def test_links_on_the_way_are_followed_and_looked_at(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, links = tmp_path / "shared", tmp_path / "links"
    shared.mkdir()
    links.mkdir()
    (shared / "link").symlink_to(file.parent.parent)
    (links / "good").symlink_to("../shared/link")
    (links / "round").symlink_to("round")
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(links / "good"))
    assert kernel_cache.read("name", "key") == KEPT
    shared.chmod(0o777)
    expect_refusal(f"others may write to {shared}")
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(links / "round"))
    expect_refusal("Too many levels of symbolic links")


@posix
def test_new_folders_are_for_their_user_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        kernel_cache.write("name", "key", KEPT)
    finally:
        os.umask(before)
    made = [path for path in (folder.parent, *folder.parent.rglob("*")) if path.is_dir()]
    assert len(made) == 3
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_relative_folders_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, "kernels")
    expect_refusal("it is a relative path")
    assert list(tmp_path.iterdir()) == []
