"""Layers that the tests of `fastconv.nn` go through: a name, arguments, and an input shape.

The names and arguments are PyTorch's, so that the same case builds the layer there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reference import Array

from fastconv import nn

Case = tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]


def case(name: str, *arguments: Any, shape: tuple[int, ...], **options: Any) -> Case:
    """Return the case of ``name(*arguments, **options)`` with an input of that shape."""
    return name, arguments, options, shape


CASES: list[Case] = [
    case("Conv2d", 3, 4, 3, shape=(2, 3, 6, 5)),
    case("Conv2d", 3, 4, 3, 2, 1, shape=(2, 3, 7, 6)),
    case("Conv2d", 4, 6, (3, 2), (1, 2), (2, 1), (2, 1), 2, False, shape=(2, 4, 7, 8)),
    case("Conv2d", 4, 4, 3, padding="same", groups=4, shape=(2, 4, 5, 6)),
    case("Conv2d", 2, 3, (2, 4), padding="same", dilation=2, shape=(1, 2, 8, 9)),
    case("Conv2d", 5, 3, 1, padding="valid", shape=(3, 5, 4, 4)),
    case("Conv2d", 3, 4, 3, padding=1, padding_mode="reflect", shape=(2, 3, 6, 5)),
    case("Conv2d", 3, 4, (5, 3), 2, (4, 3), padding_mode="replicate", shape=(2, 3, 2, 3)),
    case("Conv2d", 2, 3, 3, (1, 2), (4, 5), padding_mode="reflect", shape=(1, 2, 5, 6)),
    case("Conv2d", 2, 4, 3, 1, (4, 5), 2, 2, False, "circular", shape=(2, 2, 4, 5)),
    *(
        case("Conv2d", 2, 3, (2, 4), padding="same", padding_mode=mode, shape=(2, 2, 4, 5))
        for mode in ("reflect", "replicate", "circular")
    ),
    case("Conv2d", 3, 2, 3, padding="valid", padding_mode="circular", shape=(1, 3, 4, 5)),
    case("Conv2d", 3, 4, 3, 2, 1, shape=(3, 7, 6)),
    case("Conv2d", 4, 2, 3, padding=2, groups=2, padding_mode="reflect", shape=(4, 7, 6)),
    case("ConvTranspose2d", 3, 4, 3, 2, 1, 1, shape=(3, 4, 5)),
    # No tap reaches what is left of the output.
    case("ConvTranspose2d", 2, 3, 1, 5, 1, 4, shape=(2, 2, 1, 1)),
    case("ConvTranspose2d", 3, 4, 3, shape=(2, 3, 4, 5)),
    case("ConvTranspose2d", 3, 4, 3, 2, 1, 1, shape=(2, 3, 4, 5)),
    case("ConvTranspose2d", 4, 6, (2, 3), (3, 2), (0, 1), (2, 1), 2, False, 1, shape=(2, 4, 4, 3)),
    case("ConvTranspose2d", 2, 2, 3, 1, 0, 2, 1, True, 3, shape=(1, 2, 4, 5)),
    case("ConvTranspose2d", 2, 4, 2, 3, 2, 2, 2, True, (2, 1), shape=(2, 2, 5, 4)),
    case("Linear", 7, 5, shape=(4, 7)),
    case("Linear", 7, 5, False, shape=(2, 3, 7)),
    case("BatchNorm2d", 4, shape=(3, 4, 5, 6)),
    case("BatchNorm2d", 3, 1e-3, 0.3, shape=(2, 3, 4, 4)),
    case("BatchNorm2d", 3, momentum=None, shape=(2, 3, 4, 4)),
    case("BatchNorm2d", 3, affine=False, shape=(2, 3, 4, 4)),
    case("BatchNorm2d", 2, shape=(9, 2, 90, 100)),
    case("ReLU", shape=(2, 3, 4, 5)),
    case("ReLU", shape=(70_000,)),
    case("LeakyReLU", shape=(2, 3, 4, 5)),
    case("LeakyReLU", 0.3, shape=(70_000,)),
    case("SiLU", shape=(2, 3, 4, 5)),
    case("SiLU", shape=(70_000,)),
    case("Softmax", 1, shape=(3, 5)),
    case("Softmax", -1, shape=(2, 3, 4, 5)),
    case("MaxPool2d", 2, shape=(2, 3, 6, 7)),
    case("MaxPool2d", 3, 2, 1, shape=(2, 3, 7, 8)),
    case("MaxPool2d", (2, 3), 1, (1, 0), (1, 2), ceil_mode=True, shape=(1, 2, 6, 8)),
    case("MaxPool2d", 3, 2, 1, 1, False, True, shape=(3, 7, 8)),
    case("MaxPool2d", 6, 3, 2, shape=(2, 3, 7, 8)),
    case("AvgPool2d", 2, shape=(2, 3, 6, 7)),
    case("AvgPool2d", 3, 2, 1, shape=(2, 3, 7, 8)),
    case("AvgPool2d", (3, 2), 2, 1, True, False, shape=(2, 3, 7, 8)),
    case("AvgPool2d", 3, 2, 1, False, True, 5, shape=(3, 7, 8)),
    case("AdaptiveAvgPool2d", 1, shape=(2, 3, 6, 7)),
    case("AdaptiveAvgPool2d", (3, 4), shape=(2, 3, 7, 6)),
    case("AdaptiveAvgPool2d", (None, 2), shape=(3, 4, 5)),
    case("AdaptiveMaxPool2d", 1, shape=(2, 3, 6, 7)),
    case("AdaptiveMaxPool2d", (3, 4), shape=(2, 3, 7, 6)),
    case("AdaptiveMaxPool2d", (2, None), shape=(3, 4, 5)),
    case("Flatten", shape=(2, 3, 4, 5)),
    case("Flatten", 2, 3, shape=(2, 3, 4, 5)),
    case("Flatten", 0, 1, shape=(2, 3, 4)),
    case("Dropout", 0.0, shape=(3, 4)),
    case("Dropout2d", 0.0, shape=(2, 3, 4, 5)),
    *(
        case(name, shape=shape)
        for name in ("Sigmoid", "Tanh", "GELU", "ReLU6", "Hardtanh", "Hardsigmoid", "Hardswish")
        for shape in ((2, 3, 4, 5), (70_000,))
    ),
    case("GELU", "tanh", shape=(2, 3, 4, 5)),
    case("Hardtanh", -0.5, 2.0, shape=(3, 4)),
    case("ELU", shape=(2, 3, 4, 5)),
    case("ELU", 0.3, shape=(70_000,)),
    case("PReLU", shape=(2, 3, 4, 5)),
    case("PReLU", shape=(7,)),
    case("PReLU", 3, shape=(2, 3, 4, 5)),
    case("PReLU", 3, 0.1, shape=(4, 3)),
    case("BatchNorm1d", 4, shape=(6, 4)),
    case("BatchNorm1d", 3, 1e-3, None, False, shape=(2, 3, 5)),
    case("GroupNorm", 2, 4, shape=(3, 4, 5, 6)),
    case("GroupNorm", 1, 3, 1e-3, shape=(2, 3, 7)),
    case("GroupNorm", 6, 6, affine=False, shape=(2, 6, 4, 4)),
    case("GroupNorm", 2, 6, shape=(4, 6)),
    case("LayerNorm", 5, shape=(2, 3, 4, 5)),
    case("LayerNorm", (3, 4, 5), 1e-3, shape=(2, 3, 4, 5)),
    case("LayerNorm", [4, 5], 1e-5, True, False, shape=(2, 3, 4, 5)),
    case("LayerNorm", (2, 1), shape=(3, 2, 1)),
    case("LayerNorm", 6, elementwise_affine=False, shape=(3, 6)),
    case("Upsample", (7, 5), shape=(2, 3, 4, 6)),
    case("Upsample", None, 2, shape=(2, 3, 4, 5)),
    case("Upsample", None, (1.7, 0.6), shape=(2, 3, 7, 6)),
    case("Upsample", None, 1.7, "nearest", None, True, shape=(1, 2, 7, 6)),
    case("Upsample", 6, mode="bilinear", shape=(2, 3, 4, 5)),
    case("Upsample", (9, 1), None, "bilinear", True, shape=(2, 3, 4, 5)),
    case("Upsample", None, 2, "bilinear", False, shape=(2, 3, 4, 1)),
    case("Upsample", None, (2.3, 0.7), "bilinear", shape=(1, 2, 5, 6)),
    case("Upsample", None, 2.3, "bilinear", True, shape=(1, 2, 5, 6)),
    case("Upsample", None, 2.3, "bilinear", False, True, shape=(1, 2, 5, 6)),
    case("PixelShuffle", 2, shape=(2, 12, 3, 4)),
    case("PixelShuffle", 3, shape=(9, 3, 4)),
    case("PixelUnshuffle", 2, shape=(2, 3, 6, 4)),
    case("PixelUnshuffle", 3, shape=(2, 6, 3)),
    case("ChannelShuffle", 3, shape=(2, 6, 3, 4)),
    case("ZeroPad2d", 2, shape=(2, 3, 4, 5)),
    case("ZeroPad2d", (0, 1, 2, 3), shape=(3, 4, 5)),
    case("Identity", shape=(2, 3)),
]


def name_of(case: Case) -> str:
    """Return a case as a test's name."""
    name, arguments, options, shape = case
    words = [*map(str, arguments), *(f"{k}={v}" for k, v in options.items())]
    return f"{name}({', '.join(words)})-{'x'.join(map(str, shape))}"


def build(case: Case, module: Any = nn) -> Any:
    """Build the layer of a case, here or in PyTorch."""
    name, arguments, options, _ = case
    return getattr(module, name)(*arguments, **options)


def scramble(model: nn.Module, rng: np.random.Generator) -> None:
    """Give every parameter and every statistic a value that no layer begins with."""
    state: dict[str, Array] = {}
    for name, value in model.state_dict().items():
        drawn = np.asarray(rng.standard_normal(value.shape) * 0.5)
        if "running_var" in name:
            drawn = np.abs(drawn) + 0.5
        if "num_batches" in name:
            drawn = np.asarray(7)
        state[name] = drawn.astype(value.dtype)
    model.load_state_dict(state)


def small_net(rng: np.random.Generator | int = 0) -> nn.Sequential:
    """Return a network with every kind of step that evaluation fuses."""
    rng = np.random.default_rng(rng)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, rng=rng),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(
            nn.Sequential(
                nn.Conv2d(8, 12, 3, 2, 1, rng=rng),
                nn.BatchNorm2d(12),
                nn.LeakyReLU(0.1),
                nn.Conv2d(12, 12, 3, padding=1, bias=False, rng=rng),
                nn.BatchNorm2d(12),
            ),
            nn.Sequential(nn.Conv2d(8, 12, 1, 2, bias=False, rng=rng), nn.BatchNorm2d(12)),
        ),
        nn.ReLU(),
        nn.Sequential(nn.DepthwiseSeparableConv2d(12, 10, 3, padding=1, rng=rng), nn.SiLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.0, rng=rng),
        nn.Linear(10, 5, rng=rng),
    )


def images(shape: tuple[int, ...] = (2, 3, 12, 10), dtype: Any = np.float32) -> Array:
    """Return random images."""
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def scrambled(model: nn.Module, dtype: Any = np.float32) -> nn.Module:
    """Return a model of a dtype, with the values of `scramble`."""
    scramble(model.astype(dtype), np.random.default_rng(2))
    return model


def assert_fused_right(model: nn.Module, x: Array) -> None:
    """Assert that evaluation, fused, returns what the layers return one by one."""
    wanted = model.eval(keep=True)(x)
    model.eval()
    tolerance = 2e-6 if x.dtype == np.float32 else 1e-14
    largest = np.abs(wanted).max(initial=0)
    for _ in range(2):
        actual = model(x)
        assert actual.dtype == x.dtype
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * largest)
