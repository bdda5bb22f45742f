"""Well-known networks, with the names of torchvision's parameters.

Each function returns a `Sequential` with new random weights, drawn from the distributions that
torchvision uses. A ``state_dict`` of torchvision's network of that name loads as it is; so does a
safetensors file of it. `mobilenet_v1` and `unet`, which torchvision does not have, have the names
of its `mobilenet_v2`, and of the usual PyTorch implementation.

Images are (N, in_channels, H, W). Networks for ImageNet expect 224 x 224, RGB between 0 and 1, from
which the mean (0.485, 0.456, 0.406) is subtracted, divided by (0.229, 0.224, 0.225).

Examples
--------
>>> import numpy as np
>>> from fastconv import nn
>>> model = nn.models.resnet18(num_classes=10, rng=0).eval()
>>> model(np.zeros((1, 3, 64, 64), np.float32)).shape
(1, 10)

Part of a network gives features, and a new last layer is learned for other classes:

>>> model[:-2](np.zeros((1, 3, 64, 64), np.float32)).shape
(1, 512, 1, 1)
>>> model.fc = nn.Linear(512, 5)
"""

from typing import TYPE_CHECKING, Any

from fastconv.core import hints
from fastconv.core.public_names import public_names
from fastconv.nn.models.mobilenet import mobilenet_v1, mobilenet_v2
from fastconv.nn.models.resnet import resnet18, resnet34, resnet50
from fastconv.nn.models.squeezenet import squeezenet1_0, squeezenet1_1
from fastconv.nn.models.unet import unet
from fastconv.nn.models.vgg import vgg11, vgg11_bn, vgg16, vgg16_bn

__all__ = [
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet1_0",
    "squeezenet1_1",
    "unet",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
]

for _name in __all__:
    globals()[_name] = hints.explained(globals()[_name])


def __dir__() -> list[str]:
    return public_names(globals())


if not TYPE_CHECKING:  # with it, a type checker would believe in every name

    def __getattr__(name: str) -> Any:
        raise hints.no_attribute(__name__, name, [f"{__name__}.{known}" for known in __all__])
