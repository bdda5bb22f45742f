"""Folders of pictures, with one sub-folder for each class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastconv.core.arguments import Array
from fastconv.core.geometry import IntPair, as_pair
from fastconv.data.data_errors import DataError
from fastconv.runtime.optional_packages import require

# Only formats whose readers start no other program, as that of PostScript does.
_FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
#: Three channels, or one of gray: Pillow's names.
ImageMode: TypeAlias = Literal["RGB", "L"]
_CHANNELS: dict[ImageMode, int] = {"RGB": 3, "L": 1}
_MAX_PIXELS = 1 << 26


def load_image_folder(
    folder: str | os.PathLike[str], size: IntPair, mode: ImageMode = "RGB"
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Load pictures whose sub-folder is their class: ``folder/cat/1.jpg``, ``folder/dog/2.png``.

    Parameters
    ----------
    folder : path
        Classes and files are sorted by name. Hidden files, and files whose suffix is not .png,
        .jpg, .jpeg, .bmp, .gif, .webp, .tif, .tiff, .ppm, .pgm or .pbm, are skipped.
    size : int or (int, int)
        Height and width to which every picture is resized, bilinearly.
    mode : "RGB" or "L"
        Three channels, or one of gray. Transparency is dropped.

    Returns
    -------
    images : ndarray, (N, C, H, W), float32
        In [0, 1], rotated upright by their EXIF orientation.
    labels : ndarray, (N,), int64
        The index of the class in `classes`.
    classes : list of str
        The names of the sub-folders.

    Raises
    ------
    DataError
        For a picture that cannot be read (its path is named) or has more than 67 million pixels,
        for a class without pictures, and for a folder without classes.
    OSError
        For a folder that is missing.
    ModuleNotFoundError
        Without Pillow.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("day", "night"):
    ...         Path(folder, name).mkdir()
    ...         color = "white" if name == "day" else "black"
    ...         Image.new("RGB", (40, 30), color).save(Path(folder, name, "1.png"))
    ...     images, labels, classes = load_image_folder(folder, size=2, mode="L")
    >>> images[:, 0, 0], labels, classes
    (array([[1., 1.],
           [0., 0.]], dtype=float32), array([0, 1]), ['day', 'night'])
    """
    if mode not in _CHANNELS:
        raise ValueError(f"mode must be 'RGB' or 'L', got {mode!r}")
    height, width = as_pair("size", size, 1)
    require("PIL.Image", "load_image_folder", "data")
    root = Path(folder)
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
    folders.sort(key=lambda path: path.name)
    if not folders:
        raise DataError(f"{root}: holds no sub-folders, right is one for each class")
    files = [(label, file) for label, kind in enumerate(folders) for file in _pictures(kind)]
    images = np.empty((len(files), _CHANNELS[mode], height, width), np.float32)
    for index, (_, file) in enumerate(files):
        pixels = read_picture(file, (width, height), mode)
        images[index] = pixels.reshape(height, width, -1).transpose(2, 0, 1)
    images /= 255
    labels = np.array([label for label, _ in files], np.int64)
    return images, labels, [kind.name for kind in folders]


def _pictures(kind: Path) -> list[Path]:
    found = [path for path in kind.iterdir() if path.suffix.lower() in _FORMATS and path.is_file()]
    found = sorted((p for p in found if p.name[0] != "."), key=lambda path: path.name)
    if not found:
        suffixes = ", ".join(_FORMATS)
        raise DataError(f"{kind}: holds no pictures, right is at least one file ({suffixes})")
    return found


def read_picture(file: Path, size: tuple[int, int], mode: str, crop: float | None = None) -> Array:
    """Return the pixels of a picture in 0 ... 255 as `mode`, resized to width and height.

    With `crop` the proportions stay: the result shows the centre, that share of the largest part of
    the picture which has the proportions of `size`.
    """
    from PIL import Image, ImageOps

    with open(file, "rb") as stream:  # an OSError is about the file, not the picture
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(stream, formats=sorted(set(_FORMATS.values()))) as picture:
                    _check_pixels(*picture.size)  # from the header, before decoding
                    upright = ImageOps.exif_transpose(picture)
                    converted = _as_bytes(upright).convert(mode)
                    box = None if crop is None else _centre(converted.size, size, crop)
                    resized = converted.resize(size, Image.Resampling.BILINEAR, box)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{file}: is too large a picture: {error}") from None
        except Exception as error:  # readers raise various errors for damaged pictures
            raise DataError(f"{file}: cannot be read as a picture: {error}") from error
    return np.asarray(resized)


def _centre(
    picture: tuple[int, int], size: tuple[int, int], crop: float
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the centre of a picture."""
    scale = crop * min(have / wanted for have, wanted in zip(picture, size, strict=True))
    width, height = (scale * wanted for wanted in size)
    left, top = (picture[0] - width) / 2, (picture[1] - height) / 2
    return left, top, left + width, top + height


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise ValueError(
            f"it has {width} x {height} pixels by its header, right is at most {_MAX_PIXELS:,}"
        )


def _as_bytes(picture: Any) -> Any:
    """Return a picture of 16-bit gray as one of bytes: Pillow would clip at 255, not divide."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("it holds floating-point numbers, right are integers")
    if not picture.mode.startswith("I"):
        return picture
    deep = np.asarray(picture)
    if deep.min() < 0 or deep.max() > 65535:
        raise ValueError("it holds more than 16 bits a pixel")
    return Image.fromarray(np.round(deep / 257).astype(np.uint8))
