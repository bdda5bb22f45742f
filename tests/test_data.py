"""Digits, IDX files and OpenML; and what damaged files are answered with."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from checks import assert_identical, refused
from sklearn import datasets

from fastconv import data
from fastconv.data import DataError

CODES = {"u1": 8, "i1": 9, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """Return `array` as an IDX file, written from the format's description."""
    kind = array.dtype.str[1:]
    header = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def middles(size: int) -> np.ndarray:
    """Return where the middles of pixels lie in an image of width 1."""
    return (np.arange(size) + 0.5) / size


# Digits -------------------------------------------------------------------------------------------


def test_digits() -> None:
    images, labels = data.load_digits()
    source = datasets.load_digits()
    assert_identical(images, source.images[:, np.newaxis] / 16, "float32")
    assert_identical(labels, source.target, "int64")
    assert images.min() == 0
    assert images.max() == 1
    assert data.load_digits(dtype="float64")[0].dtype == np.float64


def test_digits_resized() -> None:
    images, _ = data.load_digits(size=(28, 20))
    assert images.shape == (1797, 1, 28, 20)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    # Bilinear between the middles of pixels: one axis after the other.
    for image, small in zip(images[:5, 0], data.load_digits()[0][:5, 0], strict=True):
        rows = np.stack([np.interp(middles(28), middles(8), column) for column in small.T], 1)
        expected = np.stack([np.interp(middles(20), middles(8), row) for row in rows])
        np.testing.assert_allclose(image, expected, atol=1e-6)
    with refused("size", 0):
        data.load_digits(size=0)
    with refused("dtype", "int64"):
        data.load_digits(dtype=int)


# IDX ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0, 4)])
def test_idx_of_every_type(tmp_path: Path, kind: str, shape: tuple[int, ...], packed: bool) -> None:
    array = rng().integers(-100 * (kind != "u1"), 100, shape).astype(kind)
    content = idx_bytes(array)
    # Its name says nothing about whether it is compressed.
    path = tmp_path / "array.idx"
    path.write_bytes(gzip.compress(content) if packed else content)
    read = data.read_idx(path)
    assert_identical(read, array, kind)
    assert read.dtype.isnative
    assert read.flags.writeable


IMAGES = idx_bytes(rng().integers(0, 256, (4, 3, 5)).astype("u1"))
PACKED = gzip.compress(IMAGES)
DAMAGED_CHECKSUM = PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:]

DAMAGES = {
    "empty": (b"", "begins with nothing"),
    "text": (b"<html>not found</html>", "begins with 3c 68 74 6d, right is 00 00"),
    "pickle": (b"\x80\x04\x95cos\nsystem\n", "is no IDX file"),
    "unknown type": (b"\0\0\x0a\x01" + bytes(20), "right is 00 00, a type"),
    "no dimensions": (b"\0\0\x08\0", "has 0 dimensions"),
    "200 dimensions": (b"\0\0\x08\xc8" + bytes(4 * 200), "has 200 dimensions"),
    "half a header": (IMAGES[:10], "ends within its header of 16 bytes"),
    "truncated": (IMAGES[:-1], r"76 bytes, but the file is 75 bytes"),
    "too long": (IMAGES + b"\0", "goes on"),
    "sizes beyond the data": (
        b"\0\0\x0e\x04" + b"\xff" * 16 + bytes(100),
        r"\(4294967295, 4294967295, 4294967295, 4294967295\) of float64 .* is 120 bytes",
    ),
    "impossible shape": (b"\0\0\x08\x04" + bytes(4) + b"\xff" * 12, "impossible shape"),
    "half of gzip": (PACKED[: len(PACKED) // 2], "gzip data is damaged"),
    "gzip's header alone": (PACKED[:9], "gzip data is damaged"),
    "wrong checksum": (DAMAGED_CHECKSUM, "gzip data is damaged"),
    "noise after gzip's header": (PACKED[:10] + b"\xff" * 50, "gzip data is damaged"),
    "gzip of half": (gzip.compress(IMAGES[:-1]), "ends after 75 bytes"),
    "gzip of more": (gzip.compress(IMAGES + b"\0"), "goes on"),
    "gzip of text": (gzip.compress(b"hello, world"), "begins with 68 65 6c 6c"),
    "gzip of sizes beyond": (
        gzip.compress(b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3),
        "can unpack to at most",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_idx_files(tmp_path: Path, name: str) -> None:
    content, message = DAMAGES[name]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            data.read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")


def test_every_cut_and_every_flipped_bit_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    for stop in range(len(PACKED)):
        path.write_bytes(PACKED[:stop])
        with pytest.raises(DataError):
            data.read_idx(path)
    for place in range(len(PACKED)):
        path.write_bytes(PACKED[:place] + bytes([PACKED[place] ^ 0x10]) + PACKED[place + 1 :])
        with suppress(DataError):  # anything else would be a bug
            data.read_idx(path)


def test_a_bomb_whose_header_tells_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    size = 1 << 24
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", size) + bytes(size)))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"can unpack to at most 1,000,000 bytes"):
        data.read_idx(path, max_bytes=1_000_000)
    assert data.read_idx(path).shape == (size,)


def test_idx_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        data.read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="must be a file"):
        data.read_idx(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
        with pytest.raises(DataError, match="must be a file"):
            data.read_idx(tmp_path / "pipe")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize(
    ("split", "start", "prefix"),
    [("train", "train", ""), ("test", "t10k", ""), ("test", "test", "emnist-letters-")],
)
def test_idx_folders(
    tmp_path: Path, split: str, start: str, prefix: str, separator: str, suffix: str
) -> None:
    pixels = rng().integers(0, 256, (6, 4, 5)).astype("u1")
    classes = rng().integers(0, 10, 6).astype("u1")
    pack = gzip.compress if suffix else bytes
    name = f"{prefix}{start}-{{}}{separator}idx{{}}-ubyte{suffix}"
    (tmp_path / name.format("images", 3)).write_bytes(pack(idx_bytes(pixels)))
    (tmp_path / name.format("labels", 1)).write_bytes(pack(idx_bytes(classes)))
    images, labels = data.load_idx(tmp_path, split, prefix=prefix)
    assert_identical(images, pixels[:, np.newaxis].astype("f4") / np.float32(255), "float32")
    assert_identical(labels, classes, "int64")
    other = "test" if split == "train" else "train"
    with pytest.raises(FileNotFoundError, match=r"images\.idx3-ubyte\.gz") as caught:
        data.load_idx(tmp_path, other, prefix=prefix)
    assert str(tmp_path) in str(caught.value)


def test_idx_folders_that_do_not_fit(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"

    def write(pixels: np.ndarray, classes: np.ndarray) -> None:
        images.write_bytes(idx_bytes(pixels))
        labels.write_bytes(idx_bytes(classes))

    good = np.zeros((3, 2, 2), "u1")
    write(good, np.zeros(4, "u1"))
    with pytest.raises(DataError, match=r"holds 3 images, but .* holds 4 labels") as caught:
        data.load_idx(tmp_path)
    assert str(images) in str(caught.value)
    assert str(labels) in str(caught.value)
    write(good.astype("f4"), np.zeros(3, "u1"))
    with pytest.raises(DataError, match=r"holds float32 of shape \(3, 2, 2\).*uint8"):
        data.load_idx(tmp_path)
    write(good[0], np.zeros(2, "u1"))
    with pytest.raises(DataError, match=r"shape \(N, H, W\)"):
        data.load_idx(tmp_path)
    write(good, np.zeros((3, 1), "u1"))
    with pytest.raises(DataError, match=r"holds uint8 of shape \(3, 1\), right are labels"):
        data.load_idx(tmp_path)
    with refused("split", "'val'"):
        data.load_idx(tmp_path, "val")


# OpenML -------------------------------------------------------------------------------------------


class Found:
    """What scikit-learn's fetch_openml returns."""

    def __init__(self, rows: np.ndarray, target: np.ndarray) -> None:
        self.data, self.target = rows, target


def serve(monkeypatch: pytest.MonkeyPatch, found: Found | Exception) -> None:
    def fetch(*_: object, **__: object) -> Found:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(datasets, "fetch_openml", fetch)


def test_openml(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rng().integers(0, 256, (5, 12)).astype(float)
    target = np.array(["3", "1", "3", "0", "9"], object)
    serve(monkeypatch, Found(rows[:, :9], target))
    images, labels = data.fetch_openml("digits")
    assert_identical(images, (rows[:, :9] / 255).astype("f4").reshape(5, 1, 3, 3), "float32")
    assert_identical(labels, np.array([3, 1, 3, 0, 9]), "int64")
    serve(monkeypatch, Found(rows, np.array(["dog", "cat", "dog", "ape", "ape"], object)))
    images, labels = data.fetch_openml("animals", shape=(3, 2, 2))
    assert images.shape == (5, 3, 2, 2)
    assert_identical(labels, np.array([2, 1, 2, 0, 0]), "int64")
    with pytest.raises(DataError, match=r"12 numbers a row.*\(1, 3, 3\)"):
        data.fetch_openml("animals")
    with pytest.raises(DataError, match="maximum=16"):
        data.fetch_openml("animals", shape=(3, 2, 2), maximum=16)
    serve(monkeypatch, Found(rows * np.nan, target))
    with pytest.raises(DataError, match="nan to nan"):
        data.fetch_openml("animals", shape=(3, 2, 2))


def test_openml_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, URLError("Temporary failure in name resolution"))
    with pytest.raises(ConnectionError, match=r"'mnist_784'.*name resolution.*load_digits"):
        data.fetch_openml("mnist_784")


# What it needs ------------------------------------------------------------------------------------


def test_what_is_missing_is_named() -> None:
    program = """
import sys
sys.modules["sklearn"] = sys.modules["PIL"] = None
from fastconv import data
for load in (data.load_digits, lambda: data.load_image_folder(".", 4)):
    try:
        load()
    except ModuleNotFoundError as error:
        print(error)
data.train_test_split(range(5), range(5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("load_digits needs sklearn")
    assert second.startswith("load_image_folder needs PIL")
    assert first.endswith(': python -m pip install "fastconv[data]"')
