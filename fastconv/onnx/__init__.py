"""ONNX files in and out: `load` makes a `fastconv.graph` network of one."""

from __future__ import annotations

from fastconv.onnx.read_model import load

__all__ = ["load"]
