"""``fastconv run``: a picture into a network, and what comes out."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.bench_errors import BenchError, require
from fastconv.bench.cli_arguments import file_named
from fastconv.bench.network_commands import by_input, load_network
from fastconv.bench.number_text import percent
from fastconv.bench.result_files import check_target
from fastconv.graph.memory_plan import check_bytes
from fastconv.graph.step_description import sizes
from fastconv.runtime.atomic_files import write_atomically

Array = NDArray[Any]

# How far probabilities may add up to another number than one.
_ROUNDING = 1e-3
# A picture's pixel takes so many in one channel: as a byte, and three times as a float64.
_BYTES = 25
# So many numbers of an output are shown.
_SHOWN = 5


@dataclass(frozen=True)
class Preparing:
    """How a picture becomes an input.

    Attributes
    ----------
    side : int
        Height and width where the model leaves them free.
    crop : float
        The share of the picture's shorter side that the centre crop keeps.
    mean, std : str
        One number a channel, with commas, or one for all; of pixels in 0 ... 1.
    """

    side: int
    crop: float
    mean: str
    std: str

    def check(self) -> None:
        """Raise `BenchError` for options that mean nothing."""
        if not 0 < self.crop <= 1:
            raise BenchError(f"--crop must be more than 0 and at most 1, got {self.crop}")
        if not all(_floats("--std", self.std)):
            raise BenchError(f"--std must not be 0, got {self.std!r}")
        _floats("--mean", self.mean)

    def image(self, file: Path, declared: Sequence[int | str] | None) -> Array:
        """Return a picture as (1, C, H, W)."""
        require("PIL.Image", "fastconv run with pictures")
        from fastconv.data.folders import read_picture

        shape = declared or (1, 3, "", "")
        free = {0: 1, 1: 3, 2: self.side, 3: self.side}
        if len(shape) != 4:
            raise BenchError(_no_image(shape))
        N, C, H, W = (s if isinstance(s, int) else free[axis] for axis, s in enumerate(shape))
        if N != 1 or C not in (1, 3):
            raise BenchError(_no_image(shape))
        check_bytes(_BYTES * C * H * W, f"a picture of {W} x {H} pixels")
        pixels = read_picture(file, (W, H), "RGB" if C == 3 else "L", self.crop)
        image = pixels.reshape(H, W, C).transpose(2, 0, 1) / 255
        return ((image - self._channels("mean", C)) / self._channels("std", C))[np.newaxis]

    def _channels(self, name: str, channels: int) -> Array:
        numbers = _floats(f"--{name}", getattr(self, name))
        if channels == 1 and len(numbers) == 3:  # of gray, what the colours have on average
            numbers = [sum(numbers) / 3]
        if len(numbers) not in (1, channels):
            raise BenchError(
                f"--{name} must be one number, or one for each of {channels} channels, got "
                f"{getattr(self, name)!r}"
            )
        return np.array(numbers).reshape(-1, 1, 1)


def _no_image(shape: Sequence[int | str]) -> str:
    return (
        f"a picture fits inputs (1, C, H, W) of 1 or 3 channels, the model wants {tuple(shape)}: "
        "give an array in a file .npy"
    )


def _floats(option: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise BenchError(f"{option} must be numbers with commas, got {text!r}")
    return numbers


def run_network(
    model: str,
    inputs: Sequence[str],
    preparing: Preparing,
    labels: str | None,
    top: int,
    output: str | None,
) -> None:
    """Run a model once, print its outputs and save them."""
    preparing.check()
    target = file_named("--output", output)
    if target is not None:
        if target.suffix != ".npz":
            raise BenchError(f"--output must name a file .npz, got {output!r}")
        check_target("--output", target)
    named = file_named("--labels", labels)
    names = None if named is None else _lines(named)
    network = load_network(model)
    files = by_input("--input", inputs, network.inputs)
    missing = [name for name in network.inputs if name not in files]
    if missing:
        raise BenchError(f"an --input is needed for {', '.join(missing)}")
    declared = network.declared_shapes
    arrays = [_array(Path(files[name]), declared[name], preparing) for name in network.inputs]
    wanted = network.input_dtypes
    arrays = [
        array.astype(dtype) if dtype.kind == "f" else array
        for array, dtype in zip(arrays, wanted, strict=True)
    ]
    found = network(*arrays)
    results = dict(
        zip(network.outputs, found if isinstance(found, tuple) else (found,), strict=True)
    )
    classes = {name: _probabilities(result) for name, result in results.items()}
    if names is not None:
        _check_labels(names, classes)
    for name, result in results.items():
        _show(name, result, classes[name], names, top)
    if target is not None:
        _save(target, results)
        print(f"wrote {target}")


def _array(file: Path, declared: Sequence[int | str] | None, preparing: Preparing) -> Array:
    """Return what a file holds: an array, or a picture."""
    if not file.is_file():
        raise BenchError(f"there is no file {str(file)!r}")
    if file.suffix != ".npy":
        return preparing.image(file, declared)
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise BenchError(f"{str(file)!r} holds no array: {error}") from None


def _lines(file: Path) -> list[str]:
    """Return the labels in a file, one a line."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"--labels cannot be read: {error}") from None


def _probabilities(result: Array) -> Array | None:
    """Return (N, classes), after a softmax if need be; None if an output holds no scores."""
    rank = result.ndim
    if rank < 2 or result.dtype.kind != "f" or result.shape[1] < 2 or not result.size:
        return None
    if any(size > 1 for size in result.shape[2:]):
        return None
    scores = result.reshape(result.shape[:2]).astype(np.float64)
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=_ROUNDING):
        return scores
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _check_labels(labels: list[str], classes: dict[str, Array | None]) -> None:
    """Raise `BenchError` unless there is a label for each class."""
    counts = {name: found.shape[1] for name, found in classes.items() if found is not None}
    if not counts:
        raise BenchError("--labels are for scores (N, classes), but the model has none")
    for name, count in counts.items():
        if len(labels) != count:
            raise BenchError(
                f"--labels must have a line for each of {count} classes of {name!r}, got "
                f"{len(labels)}"
            )


def _show(
    name: str, result: Array, probabilities: Array | None, labels: list[str] | None, top: int
) -> None:
    """Print an output: the most probable classes, or a few numbers."""
    print(f"{name}  {sizes(result.shape)} {result.dtype}")
    if probabilities is None:
        numbers = result.reshape(-1)[:_SHOWN]
        more = " ..." if result.size > _SHOWN else ""
        print(f"  {' '.join(f'{number:.5g}' for number in numbers)}{more}")
        return
    for index, row in enumerate(probabilities):
        if len(probabilities) > 1:
            print(f"  image {index}")
        for label in np.argsort(-row, kind="stable")[:top]:
            title = f"class {label}" if labels is None else labels[label]
            print(f"  {percent(float(row[label])):>6}  {title}")


def _save(path: Path, results: dict[str, Array]) -> None:
    """Write arrays under their names, whatever these are: `numpy.savez` keeps some for itself."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in results.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    write_atomically(path, write)
