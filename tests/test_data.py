"""Loading, dividing and augmenting images; and what damaged files are answered with."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from checks import assert_identical, refused
from PIL import Image
from sklearn import datasets, model_selection

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


# Folders of pictures ------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with two classes of pictures, and files that are none."""
    folder = tmp_path / "pictures"
    for kind, color in {"sky": (0, 0, 255), "grass": (0, 255, 0), ".hidden": (9, 9, 9)}.items():
        (folder / kind).mkdir(parents=True)
        for name in ("b.png", "a.PNG"):
            Image.new("RGB", (12, 9), color).save(folder / kind / name)
        (folder / kind / "notes.txt").write_text("no picture")
        (folder / kind / ".thumbnail.png").write_text("no picture either")
    (folder / "readme.png").write_text("not in a class")
    return folder


def test_folders(pictures: Path) -> None:
    images, labels, classes = data.load_image_folder(pictures, (4, 6))
    assert classes == ["grass", "sky"]
    assert_identical(labels, np.array([0, 0, 1, 1]), "int64")
    assert images.shape == (4, 3, 4, 6)
    assert images.dtype == np.float32
    assert images.mean((2, 3)).tolist() == [[0, 1, 0]] * 2 + [[0, 0, 1]] * 2
    gray, _, _ = data.load_image_folder(pictures, 5, mode="L")
    assert gray.shape == (4, 1, 5, 5)
    assert gray[0].mean() == pytest.approx(0.587, abs=0.003)


def only(folder: Path, picture: Image.Image, name: str = "1.png", **options: object) -> Path:
    """Put one picture into a new folder with one class."""
    (folder / "kind").mkdir(parents=True)
    picture.save(folder / "kind" / name, **options)
    return folder


def test_kinds_of_pictures(tmp_path: Path) -> None:
    row = np.linspace(0, 1, 6)
    deep = Image.fromarray(np.round(row * 65535).astype("u2")[np.newaxis])
    plain = Image.fromarray(np.round(row * 255).astype("u1")[np.newaxis])
    kinds = {
        "deep": (deep, "1.png"),
        "transparent": (plain.convert("LA"), "1.png"),
        "palette": (plain.convert("P"), "1.gif"),
        "tiff": (plain, "1.tif"),
        "pgm": (plain, "1.pgm"),
    }
    for name, (picture, file) in kinds.items():
        folder = only(tmp_path / name, picture, file)
        images, _, _ = data.load_image_folder(folder, (1, 6), "L")
        np.testing.assert_allclose(images[0, 0, 0], row, atol=0.004, err_msg=name)
    exif = Image.Exif()
    exif[0x0112] = 8  # the camera was turned: the file's right edge is the top
    folder = only(tmp_path / "turned", plain, exif=exif)
    images, _, _ = data.load_image_folder(folder, (6, 1), "L")
    np.testing.assert_allclose(images[0, 0, :, 0], row[::-1], atol=0.004)


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that says it has this size, and has next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))


def truncated_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng().integers(0, 256, (64, 64), "u1")).save(stream, "JPEG")
    return stream.getvalue()[:1500]


BAD_PICTURES = {
    "empty": (b"", "cannot be read as a picture"),
    "text": (b"<html>", "cannot be read as a picture"),
    "truncated": (truncated_jpeg(), "truncated"),
    "large": (png_of(9000, 9000), "9000 x 9000 pixels by its header"),
    "larger": (png_of(10_000, 10_000), "too large"),
    "huge": (png_of(60_000, 60_000), "too large"),
    "shorter than it says": (png_of(3000, 3000), "cannot be read as a picture"),
    # Reading PostScript would start another program.
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_unreadable_pictures_are_named(pictures: Path, name: str) -> None:
    content, message = BAD_PICTURES[name]
    path = pictures / "sky" / "c.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load_image_folder(pictures, 4)
    assert str(caught.value).startswith(f"{path}: ")


def test_folders_that_do_not_fit(pictures: Path, tmp_path: Path) -> None:
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no pictures"):
        data.load_image_folder(pictures, 4)
    with pytest.raises(DataError, match=r"sky: holds no sub-folders"):
        data.load_image_folder(pictures / "sky", 4)
    with pytest.raises(FileNotFoundError):
        data.load_image_folder(tmp_path / "nothing", 4)
    with refused("mode", "'CMYK'"):
        data.load_image_folder(pictures, 4, "CMYK")
    with refused("size", 0):
        data.load_image_folder(pictures, (0, 4))


# Dividing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("size", [0.2, 0.33, 0.5, 25, 100])
@pytest.mark.parametrize("seed", [0, 42, 7])
def test_splits_are_those_of_scikit_learn(size: float, seed: int, stratify: bool) -> None:
    labels = rng(seed).integers(0, 7, 211)
    images = np.arange(211 * 2).reshape(211, 2)
    ours = data.train_test_split(images, labels, size, seed, stratify)
    theirs = model_selection.train_test_split(
        images,
        labels,
        test_size=size,
        random_state=seed,
        stratify=labels if stratify else None,
    )
    for one, other in zip(ours, theirs, strict=True):
        assert_identical(one, other, other.dtype)


def test_splits_refused() -> None:
    four = np.arange(4)
    for size in (0, 4, 1.0, -0.5, 0.99, float("nan")):
        with refused("test_size", size):
            data.train_test_split(four, four, size)
    with refused("test_size", True):
        data.train_test_split(four, four, True)
    with refused("labels", "4 and 3"):
        data.train_test_split(four, four[:3])
    with refused("labels", "once"):
        data.train_test_split(four, [0, 0, 1, 2], stratify=True)
    with refused("test_size", 1):
        data.train_test_split(four, [0, 0, 1, 1], 1, stratify=True)


def test_batches() -> None:
    images, labels = np.arange(10) * 10, np.arange(10)
    parts = list(data.batches(images, labels, 4))
    assert [part.tolist() for _, part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert np.shares_memory(parts[0][0], images)
    assert len(list(data.batches(images, labels, 4, drop_last=True))) == 2
    assert len(list(data.batches(images, labels, 5, drop_last=True))) == 2
    generator = rng()
    first, second = (list(data.batches(images, labels, 4, generator)) for _ in range(2))
    for epoch in (first, second):
        assert all((part == 10 * own).all() for part, own in epoch)
        assert sorted(np.concatenate([own for _, own in epoch])) == list(range(10))
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    again = list(data.batches(images, labels, 4, rng()))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


def test_batches_refused_at_once() -> None:
    with refused("batch_size", 0):
        data.batches([1], [1], 0)
    with refused("batch_size", 1.5):
        data.batches([1], [1], 1.5)
    with refused("rng", 42):
        data.batches([1], [1], 1, 42)
    with refused("images", "2 and 1"):
        data.batches([1, 2], [1], 1)


# Augmentation -------------------------------------------------------------------------------------


def test_shift_moves_each_image_by_itself() -> None:
    images = rng().random((200, 2, 6, 7), np.float32)
    before = images.copy()
    moved = data.shift(images, (1, 2), rng())
    np.testing.assert_array_equal(images, before)
    assert moved.dtype == np.float32
    seen = set()
    for old, new in zip(images, moved, strict=True):
        for down in range(-1, 2):
            for right in range(-2, 3):
                expected = np.zeros_like(old)
                top, left = max(down, 0), max(right, 0)
                part = old[:, max(-down, 0) : 6 - top, max(-right, 0) : 7 - left]
                expected[:, top : top + part.shape[1], left : left + part.shape[2]] = part
                if np.array_equal(new, expected):
                    seen.add((down, right))
    assert len(seen) == 15
    np.testing.assert_array_equal(data.shift(images, 0, rng()), images)


def test_flip() -> None:
    images = rng().random((400, 2, 3, 4))
    before = images.copy()
    flipped = data.flip(images, rng())
    np.testing.assert_array_equal(images, before)
    mirrored = (flipped == images[..., ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(data.flip(images, rng(), 0), images)
    np.testing.assert_array_equal(data.flip(images, rng(), 1), images[..., ::-1])
    assert not np.shares_memory(data.flip(images, rng(), 0), images)


def test_augment_is_its_steps() -> None:
    images = rng().random((20, 1, 8, 8))
    augment = data.Augment([partial(data.shift, most=2), data.flip])
    generator = rng(5)
    expected = data.flip(data.shift(images, 2, generator), generator)
    np.testing.assert_array_equal(augment(images, rng(5)), expected)
    assert not np.shares_memory(data.Augment([])(images, rng()), images)
    assert "shift" in repr(augment)


def test_augmentation_refused() -> None:
    images = np.zeros((2, 1, 4, 5))
    with refused("most", 4):
        data.shift(images, 4, rng())
    with refused("most", -1):
        data.shift(images, -1, rng())
    with refused("p", 1.5):
        data.flip(images, rng(), 1.5)
    with refused("rng", 3):
        data.flip(images, 3)
    with refused("images", "(1, 4, 5)"):
        data.flip(images[0], rng())
    with refused("steps", "'flip'"):
        data.Augment(["flip"])
    with pytest.raises(ValueError, match="must return 2 images"):
        data.Augment([lambda images, rng: images[:1]])(images, rng())


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
    assert first.endswith("which is not installed: pip install 'fastconv[data]'")
