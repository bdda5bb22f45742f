"""Models as safetensors files, which hold names, shapes and numbers, and no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from fastconv.nn.module import Module
from fastconv.runtime.atomic_files import write_atomically
from fastconv.runtime.optional_packages import require

M = TypeVar("M", bound=Module)

# How a zip archive begins, which torch.save writes, and a pickle of protocol 2 to 5.
_PICKLES = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
_CONVERT = (
    "it is never read, because reading it may run code. With PyTorch, convert it once: "
    "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
)


def save(model: Module, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters and buffers to a safetensors file.

    The file is complete or not there: it is written under another name and then renamed. Where
    `path` is a link, its target is replaced. PyTorch's ``safetensors.torch.load_file`` reads it,
    with the names and layouts that its layers expect.

    Parameters
    ----------
    model : Module
    path : str or path-like
        A file there is replaced.

    Raises
    ------
    ImportError
        Without the package safetensors.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> model = nn.Linear(3, 2)
    >>> nn.save(model, path)
    >>> nn.load(model, path)
    Linear(in_features=3, out_features=2, bias=True)
    """
    content: bytes = safetensors().save(model.state_dict(), metadata={"format": "pt"})
    write_atomically(Path(path), lambda file: file.write_bytes(content))


def load(model: M, path: str | os.PathLike[str], strict: bool = True) -> M:
    """Read a model's parameters and buffers from a safetensors file; return the model.

    Nothing in the file is ever executed.

    Parameters
    ----------
    model : Module
        Built as the saved one was, here or in PyTorch.
    path : str or path-like
    strict : bool
        Whether missing and unknown names are an error.

    Raises
    ------
    ImportError
        Without the package safetensors.
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged, or does not fit the model: every missing, unknown or misshapen
        name is listed. The model is then as it was. If it is a ``.pt``, ``.pth`` or ``.bin`` file
        of PyTorch's, which holds a pickle: how to convert it.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> trained = nn.Linear(3, 2)
    >>> nn.save(trained, path)
    >>> model = nn.load(nn.Linear(3, 2), path)
    >>> bool((model.weight.value == trained.weight.value).all())
    True
    """
    content = Path(path).read_bytes()
    try:
        state = read_tensors(content)
    except ValueError as error:
        wanted = "path must be a safetensors file of arrays that NumPy has types for"
        if content.startswith(_PICKLES):
            raise ValueError(
                f"{wanted}, {os.fspath(path)!r} is a pickle, as torch.save writes it: {_CONVERT}"
            ) from None
        raise ValueError(
            f"{wanted}, {os.fspath(path)!r} is damaged or something else: {error}"
        ) from error
    try:
        model.load_state_dict(state, strict)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from None
    return model


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays in a safetensors file; ValueError if it is damaged or something else."""
    reader = safetensors()
    try:
        tensors: dict[str, NDArray[Any]] = reader.load(content)
    except Exception as error:  # of many kinds, some of them the package's own
        raise ValueError(str(error)) from error
    return tensors


def safetensors() -> Any:
    """Return the functions of safetensors for NumPy."""
    return require("safetensors.numpy", "saving and loading models", "nn")
