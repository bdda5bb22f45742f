"""The store of compiled kernels: shared by processes, safe against damage, never in the way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.jit import compiler, emitter, kernel_cache, machine_code
from fastconv.runtime.private_files import read_private_file

posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions as on POSIX systems")

CONVOLVE = """
import numpy as np, fastconv
x = np.arange(2 * 3 * 9 * 9, dtype=np.float32).reshape(2, 3, 9, 9)
w = np.ones((6, 1, 3, 3), np.float32)
names = fastconv.algorithms()
results = [fastconv.conv2d(x, w, padding=1, groups=3, algorithm=a) for a in names]
# Those that transform do not come out exactly.
assert all(np.array_equal(np.rint(y), results[-1]) for y in results)
y, where = fastconv.max_pool2d(x, 2, return_indices=True)
assert (fastconv.max_pool2d_grad(y, where, x.shape) > 0).sum() == y.size
print("right")
"""

# With few kernels, loops and machine code with an address, for processes that must compile theirs.
FEW = """
import numpy as np, fastconv
fastconv.set_num_threads(1)
x = np.ones((2, 3, 9, 9), np.float32)
assert (fastconv.im2col(x, 2) == 1).all() and (fastconv.max_pool2d(x, 2) == 1).all()
print("right")
"""

# Not so few, for a store whose files are damaged; all are needed.
SOME = """
import numpy as np, fastconv
fastconv.set_num_threads(1)
for dtype in ("f4", "f8"):
    x = np.ones((2, 3, 9, 9), dtype)
    assert (fastconv.im2col(x, 2) == 1).all() and (fastconv.max_pool2d(x, 2) == 1).all()
print("right")
"""


def convolve(folder: Path, program: str = CONVOLVE, **more: str) -> tuple[str, str]:
    environment = {**os.environ, "FASTCONV_CACHE_DIR": str(folder), **more}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip(), done.stderr


def kernels_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*")}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that three processes began to fill at once, and one filled."""
    folder = tmp_path_factory.mktemp("kernels")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: convolve(folder, FEW), range(3)))
    assert results == [("right", "")] * 3
    assert convolve(folder) == ("right", "")
    return folder


def test_a_filled_store_is_used_and_not_written(filled: Path) -> None:
    before = kernels_in(filled)
    assert len(before) >= 6
    assert all(name.endswith(".kernel") for name in before)  # no temporary file is left
    no_compiler = "import numba.core.compiler; numba.core.compiler.compile_extra = None"
    assert convolve(filled, no_compiler + CONVOLVE) == ("right", "")
    assert kernels_in(filled) == before


def test_files_that_are_no_kernels_are_compiled_anew(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    assert convolve(folder, SOME) == ("right", "")
    paths = sorted(folder.glob("*/*.kernel"))
    originals = [path.read_bytes() for path in paths]
    assert len(paths) >= 4
    for number, (path, whole) in enumerate(zip(paths, originals, strict=True)):
        others = originals[(number + 1) % len(paths)]
        path.write_bytes([others, whole[:-1], b"", others][number % 4])
    damaged = kernels_in(folder)
    out, errors = convolve(folder, SOME)
    assert out == "right"
    # All have been replaced by whole ones, which are used.
    mended = kernels_in(folder)
    assert not set(damaged.items()) & set(mended.items())
    assert errors.count("RuntimeWarning: ") == len(paths)
    assert all(f"{path} anew: the file is " in errors for path in paths)
    assert convolve(folder, SOME) == ("right", "")
    assert kernels_in(folder) == mended


# One file, looked at more closely -----------------------------------------------------------------

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


# The folder in whole processes --------------------------------------------------------------------


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    blocker = tmp_path / "a file"
    blocker.write_text("in the way")
    out, errors = convolve(blocker / "kernels", FEW)
    assert out == "right"
    assert errors.count("RuntimeWarning") == 1


def test_who_waits_for_the_compiler_is_told_once(tmp_path: Path) -> None:
    out, errors = convolve(tmp_path / "kernels", FEW, FASTCONV_QUIET="")
    assert out == "right"
    (line,) = errors.splitlines()
    assert line.startswith("fastconv: compiling kernels for this machine, once")
    assert convolve(tmp_path / "kernels", FEW, FASTCONV_QUIET="") == ("right", "")


def test_other_sources_other_kernels(filled: Path, tmp_path: Path) -> None:
    # A copy of the package with one edited kernel source must not take the old kernels.
    package = Path(fastconv.__file__).parent
    shutil.copytree(package, tmp_path / "fastconv")
    with (tmp_path / "fastconv/kernels/naive_loops.py").open("a") as source:
        source.write("\n# edited\n")
    folder = tmp_path / "kernels"
    shutil.copytree(filled, folder)
    before = {path.name for path in folder.iterdir()}
    assert convolve(folder, FEW, PYTHONPATH=str(tmp_path))[0] == "right"
    assert len({path.name for path in folder.iterdir()} - before) == 1


def test_other_sources_other_kernels_in_a_zip_file(tmp_path: Path) -> None:
    package = tmp_path / "fastconv"
    shutil.copytree(Path(fastconv.__file__).parent, package, ignore=lambda *_: ["__pycache__"])
    program = "from fastconv.jit import kernel_cache; print(kernel_cache.build_key())"
    keys = []
    for edit in ("", "\n# edited\n"):
        with (package / "kernels/naive_loops.py").open("a") as source:
            source.write(edit)
        packed = shutil.make_archive(
            str(tmp_path / f"packed{len(keys)}"), "zip", tmp_path, "fastconv"
        )
        for path in (packed, str(tmp_path)):
            done = subprocess.run(
                [sys.executable, "-P", "-c", program],
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
            keys.append(done.stdout)
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    tracemalloc.start()
    try:
        assert read_private_file(file, 1 << 28) == b"content"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@posix
def test_read_only_package_folder(filled: Path, tmp_path: Path) -> None:
    package = tmp_path / "fastconv"
    shutil.copytree(Path(fastconv.__file__).parent, package, ignore=lambda *_: ["__pycache__"])
    before = sorted(package.rglob("*"))
    for path in (package, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    program = "import fastconv; print(fastconv.__file__)" + CONVOLVE
    options = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    out, errors = convolve(filled, program, **options)
    for path in (package, *before):
        path.chmod(0o755)
    assert out.split() == [str(package / "__init__.py"), "right"]
    assert errors == ""
    assert sorted(package.rglob("*")) == before  # also if this user may write anywhere


def test_variants_of_one_kernel_are_never_mixed_up(tmp_path: Path) -> None:
    # Machine code that two processes stored must not meet under one name in a third.
    (tmp_path / "variants.py").write_text(
        """
import numpy as np
from fastconv.jit.compiler import RangeKernel

def adder(number):
    def add(start, stop, out):
        for i in range(start, stop):
            out[i] = number
    return RangeKernel(add, str(number))

def results(*numbers):
    out = np.zeros((len(numbers), 4), np.int64)
    for number, row in zip(numbers, out):
        adder(number)(4, row)
        adder(number).on(1, 1, row)
    return out.tolist()
"""
    )
    folder, path = tmp_path / "kernels", {"PYTHONPATH": str(tmp_path), "FASTCONV_NUM_THREADS": "2"}
    for numbers in ("3", "5", "3, 5", "5, 3"):
        out, _ = convolve(folder, f"import variants; print(variants.results({numbers}))", **path)
        assert out == str([[int(number)] * 4 for number in numbers.split(",")])
