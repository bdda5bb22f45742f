"""The store of compiled kernels, in whole processes: shared, mended, never in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastconv
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
