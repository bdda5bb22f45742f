"""Folders of pictures, one a class; and what damaged files are answered with."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from checks import assert_identical, refused
from PIL import Image
from test_data import rng

from fastconv import data
from fastconv.data import DataError


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
