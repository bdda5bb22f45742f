"""Convolutional networks to build, train and run: PyTorch's names, NumPy's arrays, no autograd.

A layer is a small class with parameters, ``forward(x)`` and ``backward(grad)``, as in a textbook.
Images are (N, C, H, W), or (C, H, W) for a single one where PyTorch's layer takes it, of float32
unless the model is converted by ``model.astype("float64")``.

Building and training
---------------------
>>> import numpy as np
>>> from fastconv import nn
>>> rng = np.random.default_rng(0)
>>> model = nn.Sequential(
...     nn.Conv2d(1, 8, 3, padding=1, rng=rng),
...     nn.BatchNorm2d(8),
...     nn.ReLU(),
...     nn.Residual(
...         nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, rng=rng), nn.BatchNorm2d(8)),
...     ),
...     nn.ReLU(),
...     nn.AdaptiveAvgPool2d(1),
...     nn.Flatten(),
...     nn.Linear(8, 2, rng=rng),
... )
>>> x = rng.standard_normal((16, 1, 8, 8), dtype=np.float32)
>>> target = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
>>> loss = nn.CrossEntropyLoss()
>>> optimizer = nn.AdamW(model.parameters(), lr=0.05)
>>> schedule = nn.CosineAnnealingLR(optimizer, T_max=20)
>>> for _ in range(20):
...     value = loss(model(x), target)
...     model.zero_grad()
...     _ = model.backward(loss.backward())
...     _ = nn.clip_grad_norm_(model.parameters(), 1.0)
...     optimizer.step()
...     schedule.step()
>>> value < 0.1
True

`forward` keeps what `backward` needs, and `backward` uses it up: one of each in turn. Do not write
to an input in between; outputs that `backward` needs are read-only. Gradients are summed in
``parameter.grad`` until ``zero_grad()``. Set ``model[0].input_grad = False`` to save the time for
the gradient of the images, which training does not need. Every random number comes from the
generators given as ``rng``. Invalid arguments raise TypeError or ValueError, naming the argument.

Training with `fit`
-------------------
`fit` is such a loop, with validation, callbacks and checkpoints. Arrays are converted to the
model's dtype batch by batch; a last batch of one sample joins the one before. All random numbers
follow from `seed`, epoch and batch, except those of layers such as `Dropout`. Layers frozen by
``eval(keep=True)`` stay in evaluation mode. A schedule steps after every epoch, or after every
batch if its attribute ``per_batch`` is true. With "auto", progress is a bar of tqdm on a terminal,
otherwise one line an epoch. Checkpoints are written after every epoch and as `Checkpoints` says;
with the same arguments and data, training goes on from the last one to bitwise identical results.

Evaluation
----------
A model begins in training mode: `Dropout` drops, and `BatchNorm2d` uses the batch's own statistics.
Call ``model.eval()`` before you predict; `fit` has done so. It keeps nothing for `backward`, uses
running statistics, and fuses: batch normalization, activation and 2 x 2 max pooling go into the
convolution before them, an activation after a residual block into its sum.
``model.eval(keep=True)`` fuses nothing and allows `backward`. A layer in a model on which it was
called stays in evaluation mode when the model is trained.

>>> model.eval()(x).argmax(axis=1).shape
(16,)
>>> model.train().training
True

Looking inside
--------------
``print(model)`` and ``print(model.summary((1, 1, 8, 8)))`` show layers, shapes and costs.
Parameters, and buffers such as running means, have PyTorch's names.

>>> [name for name, _ in model.named_parameters()][:4]
['0.weight', '0.bias', '1.weight', '1.bias']
>>> [name for name, _ in model.named_buffers()][:2], len(list(model.buffers()))
(['1.running_mean', '1.running_var'], 6)
>>> [name for name, _ in model.named_modules()][3:6], len(list(model.modules()))
(['2', '3', '3.body'], 12)
>>> [type(layer).__name__ for _, layer in model.named_children()][:3]
['Conv2d', 'BatchNorm2d', 'ReLU']
>>> nn.Sequential(nn.Linear(8, 2)).load_state_dict(model[-1:].state_dict())
Keys(missing_keys=(), unexpected_keys=())
>>> model.astype("float64").dtype
dtype('float64')

Changes of parameters are noticed, whether by an optimizer, `load_state_dict` or a write to
``parameter.data``: see `Parameter`.

Files
-----
``nn.save(model, path)`` and ``nn.load(model, path)`` write and read safetensors files with
PyTorch's names and layouts. ``model.load_state_dict`` takes PyTorch's ``state_dict`` as it is.
``fastconv.onnx.save(model, path, input_shape)`` writes the whole network, for other libraries.

Contents
--------
- Layers: `Conv2d`, `ConvTranspose2d`, `DepthwiseSeparableConv2d`, `Linear`; composed by
  `Sequential`, `Residual`, `Concat`, or a `Module` of your own
- Activations: `ReLU`, `LeakyReLU`, `PReLU`, `ReLU6`, `Hardtanh`, `Hardsigmoid`, `Hardswish`, `ELU`,
  `Sigmoid`, `Tanh`, `SiLU`, `GELU`, `Softmax`
- Normalization: `BatchNorm2d`, `BatchNorm1d`, `GroupNorm`, `LayerNorm`; `Dropout`, `Dropout2d`
- Pooling: `MaxPool2d`, `AvgPool2d`, `AdaptiveAvgPool2d`, `AdaptiveMaxPool2d`, `MaxUnpool2d`
- Shapes: `Flatten`, `Identity`, `Upsample`, `PixelShuffle`, `PixelUnshuffle`, `ChannelShuffle`,
  `ZeroPad2d`
- Networks: the functions of `fastconv.nn.models`, such as ``nn.models.resnet18()``
- Losses: `CrossEntropyLoss`, `MSELoss`
- Optimizers: `SGD`, `Adam`, `AdamW`; schedules `StepLR`, `CosineAnnealingLR`, `OneCycleLR`;
  `clip_grad_norm_`, `clip_grad_value_`
- Initial weights: the functions of `fastconv.nn.init`
- Training: `fit` with `History`, `EarlyStopping`, `BestCheckpoint`, `CSVLog`, a `Callback` of your
  own, which gets a `Run`; `Checkpoints`
"""

from typing import TYPE_CHECKING, Any

from fastconv.core import hints
from fastconv.core.public_names import public_names
from fastconv.nn import init, models
from fastconv.nn.layers.activation_layers import (
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    PReLU,
    ReLU,
    ReLU6,
)
from fastconv.nn.layers.batch_norm import BatchNorm1d, BatchNorm2d
from fastconv.nn.layers.containers import Concat, DepthwiseSeparableConv2d, Residual, Sequential
from fastconv.nn.layers.conv_layers import Conv2d, ConvTranspose2d
from fastconv.nn.layers.dropout_layers import Dropout, Dropout2d
from fastconv.nn.layers.group_norm import GroupNorm, LayerNorm
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.layers.pooling_layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Flatten,
    MaxPool2d,
    MaxUnpool2d,
)
from fastconv.nn.layers.rearranging_layers import (
    ChannelShuffle,
    Identity,
    PixelShuffle,
    PixelUnshuffle,
    ZeroPad2d,
)
from fastconv.nn.layers.smooth_activations import ELU, GELU, Sigmoid, SiLU, Softmax, Tanh
from fastconv.nn.layers.upsampling_layer import Upsample
from fastconv.nn.model_files import load, save
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.nn.summary import Summary
from fastconv.nn.training.callbacks import BestCheckpoint, Callback, CSVLog, EarlyStopping, Run
from fastconv.nn.training.checkpoints import Checkpoints
from fastconv.nn.training.fit import fit
from fastconv.nn.training.history import History
from fastconv.nn.training.losses import CrossEntropyLoss, Loss, MSELoss
from fastconv.nn.training.lr_schedules import CosineAnnealingLR, OneCycleLR, Schedule, StepLR
from fastconv.nn.training.optimizer_base import Optimizer
from fastconv.nn.training.optimizers import SGD, Adam, AdamW, clip_grad_norm_, clip_grad_value_

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BestCheckpoint",
    "CSVLog",
    "Callback",
    "ChannelShuffle",
    "Checkpoints",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "CosineAnnealingLR",
    "CrossEntropyLoss",
    "DepthwiseSeparableConv2d",
    "Dropout",
    "Dropout2d",
    "EarlyStopping",
    "Flatten",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "History",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "MaxUnpool2d",
    "Module",
    "OneCycleLR",
    "Optimizer",
    "PReLU",
    "Parameter",
    "PixelShuffle",
    "PixelUnshuffle",
    "ReLU",
    "ReLU6",
    "Residual",
    "Run",
    "Schedule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "StepLR",
    "Summary",
    "Tanh",
    "Upsample",
    "ZeroPad2d",
    "clip_grad_norm_",
    "clip_grad_value_",
    "fit",
    "init",
    "load",
    "models",
    "save",
]

for _name in __all__:
    globals()[_name] = hints.explained(globals()[_name])


def __dir__() -> list[str]:
    return public_names(globals())


if not TYPE_CHECKING:  # with it, a type checker would believe in every name

    def __getattr__(name: str) -> Any:
        raise hints.no_attribute(__name__, name, [f"{__name__}.{known}" for known in __all__])
