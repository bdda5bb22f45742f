"""ONNX files in and out: `load` makes a network of one, `save` writes a model of `fastconv.nn`.

ONNX is a format for networks that most libraries write or read: ``torch.onnx.export`` makes files
for `load`; ONNX Runtime, OpenVINO and OpenCV run what `save` writes. Both need the package onnx:
``python -m pip install "fastconv[onnx]"``.

Examples
--------
>>> import tempfile
>>> import numpy as np
>>> import fastconv
>>> from fastconv import nn
>>> path = tempfile.mkdtemp() + "/model.onnx"
>>> fastconv.onnx.save(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), path, ("N", 1, 2, 2))
>>> fastconv.onnx.load(path)(np.zeros((5, 1, 2, 2), np.float32)).shape
(5, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastconv.core import hints
from fastconv.core.public_names import public_names
from fastconv.onnx.read_model import load
from fastconv.onnx.write_model import save

__all__ = ["load", "save"]

for _name in __all__:
    globals()[_name] = hints.explained(globals()[_name])


def __dir__() -> list[str]:
    return public_names(globals())


if not TYPE_CHECKING:  # with it, a type checker would believe in every name

    def __getattr__(name: str) -> Any:
        raise hints.no_attribute(__name__, name, [f"{__name__}.{known}" for known in __all__])
