"""Networks of torchvision and others, with random weights, exported to ONNX by PyTorch.

Statistics of normalizations are not those of a new network, of which folding could get wrong what
no output shows.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


@functools.cache
def models() -> Any:
    """Return torchvision's models; builds without its compiled part lack two operators."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, arguments in (("nms", "Tensor a, Tensor b, float c"), ("qnms", "Tensor a")):
        with contextlib.suppress(RuntimeError):  # it is there
            library.define(f"{name}({arguments}) -> Tensor")
    import torchvision.models

    models.library = library  # type: ignore[attr-defined]
    return torchvision.models


class UNet(nn.Module):
    """Two levels, with a bilinear and a transposed step up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.block(3, 8), self.block(8, 16), self.block(16, 32)])
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.transposed = nn.ConvTranspose2d(16, 8, 2, 2)
        self.middle, self.last = self.block(48, 16), self.block(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(channels: int, filters: int) -> nn.Sequential:
        """Return two convolutions."""
        layers = [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(filters, filters, 3, padding=1))

    def forward(self, x: Any) -> Any:
        """Return two numbers a pixel."""
        one = self.down[0](x)
        two = self.down[1](nn.functional.max_pool2d(one, 2))
        three = self.down[2](nn.functional.max_pool2d(two, 2))
        middle = self.middle(torch.cat([self.up(three), two], 1))
        return self.head(self.last(torch.cat([self.transposed(middle), one], 1)))


class Detector(nn.Module):
    """A head as YOLO's: three scales, boxes around a grid, scores; all but the suppression."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(self.block(3, 8), self.block(8, 16))
        self.deeper = self.block(16, 32)
        self.mix = self.block(48, 16, 1)
        self.heads = nn.ModuleList([nn.Conv2d(n, 4 + classes, 1) for n in (16, 32)])

    @staticmethod
    def block(channels: int, filters: int, stride: int = 2) -> nn.Sequential:
        """Return a convolution with what follows it."""
        conv = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(filters), nn.SiLU())

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return boxes (n, count, 4), by their centers, and scores (n, classes, count)."""
        coarse = self.deeper(fine := self.stem(x))
        spread = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fine = self.mix(torch.cat([spread, fine], 1))
        boxes, scores = [], []
        for stride, head, y in zip((4, 8), self.heads, (fine, coarse), strict=True):
            y = head(y)
            n, _, h, w = y.shape
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack([columns, rows]).to(y.dtype).view(1, 2, h * w)
            y = y.view(n, -1, h * w)
            center = (y[:, :2].sigmoid() * 2 - 0.5 + grid) * stride
            size = (y[:, 2:4].sigmoid() * 2) ** 2 * stride
            boxes.append(torch.cat([center, size], 1))
            scores.append(y[:, 4:].sigmoid())
        return torch.cat(boxes, 2).transpose(1, 2), torch.cat(scores, 2)


#: Networks by name: what makes one, and the height and width of its input.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: models().resnet18(), 64),
    "resnet50": (lambda: models().resnet50(), 64),
    "mobilenet_v2": (lambda: models().mobilenet_v2(), 64),
    "mobilenet_v3_small": (lambda: models().mobilenet_v3_small(), 64),
    "mobilenet_v3_large": (lambda: models().mobilenet_v3_large(), 64),
    "efficientnet_b0": (lambda: models().efficientnet_b0(), 64),
    "squeezenet1_1": (lambda: models().squeezenet1_1(), 64),
    "densenet121": (lambda: models().densenet121(), 64),
    "inception_v3": (lambda: models().inception_v3(init_weights=False, transform_input=True), 96),
    "shufflenet_v2_x1_0": (lambda: models().shufflenet_v2_x1_0(), 64),
    "unet": (UNet, 48),
    "detector": (Detector, 64),
}


def network(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    """Return a network in evaluation, and an input."""
    torch.manual_seed(seed)
    make, size = NETWORKS[name]
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():  # statistics near those of its activations, so that no layer dies out
        momenta = {m: m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
        for module in momenta:
            module.train().momentum = 1.0
        model(torch.randn(4, 3, size, size))
        for module, momentum in momenta.items():
            module.eval().momentum = momentum
            module.running_mean += (
                0.1 * module.running_var.sqrt() * torch.randn_like(module.running_mean)
            )
            module.running_var *= torch.empty_like(module.running_var).uniform_(0.7, 1.4)
    return model, x


def exported(model: nn.Module, x: Any) -> bytes:
    """Return the ONNX file of a network for images of any size, with nothing fused or folded."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            *(model, (x,), file),
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}},
        )
    return file.getvalue()


def wanted(model: nn.Module, x: Any) -> list[np.ndarray[Any, Any]]:
    """Return what PyTorch computes in float64."""
    with torch.no_grad():
        found = model.double()(x.double())
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
