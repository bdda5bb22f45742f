"""Typical mistakes raise errors that say what would be right; what can be taken is taken."""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import nn

RNG = np.random.default_rng(0)
X = RNG.random((4, 3, 8, 9), dtype=np.float32)
W = RNG.random((5, 3, 2, 2), dtype=np.float32)
NHWC, KERAS = X.transpose(0, 2, 3, 1), W.transpose(2, 3, 1, 0)
LABELS = np.array([0, 1, 2, 1])
LOGITS = np.zeros((4, 3), np.float32)
ToNCHW, ToKCRS = r"x.transpose(0, 3, 1, 2)", r"weight.transpose(3, 2, 0, 1)"


def model() -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 9, 3, rng=0))


def fit(x: Any = X, y: Any = LABELS, **options: Any) -> Any:
    return nn.fit(model(), x, y, epochs=1, progress="silent", **options)


def conv2d(x: Any = X, weight: Any = W, *arguments: Any, **named: Any) -> Any:
    return fastconv.conv2d(x, weight, *arguments, **named)


def of(module: Any, name: str) -> Callable[[], Any]:
    return lambda: getattr(module, name)


Row = tuple[Callable[[], Any], type[Exception], tuple[str, ...]]
MISTAKES: dict[str, Row] = {
    # Layouts and shapes.
    "NHWC": (lambda: conv2d(NHWC), ValueError, ("x looks like N H W C", ToNCHW)),
    "HWC": (lambda: conv2d(NHWC[0]), ValueError, ("x.transpose(2, 0, 1)",)),
    "RSCK": (lambda: conv2d(X, KERAS), ValueError, ("R S C K", ToKCRS)),
    "NHWC, RSCK": (lambda: conv2d(NHWC, KERAS), ValueError, (ToNCHW, ToKCRS)),
    "KRSC": (
        lambda: conv2d(X, W.transpose(0, 2, 3, 1)),
        ValueError,
        ("weight.transpose(0, 3, 1, 2)",),
    ),
    "NHWC by groups": (
        lambda: conv2d(NHWC, W[:3, :1], groups=3),
        ValueError,
        (ToNCHW,),
    ),
    "NHWC to a plan": (
        lambda: fastconv.plan_conv2d(NHWC.shape, W),
        ValueError,
        ("input_shape looks like N H W C: (4, 3, 8, 9)",),
    ),
    "NHWC to a layer": (lambda: nn.Conv2d(3, 5, 2)(NHWC), ValueError, (ToNCHW,)),
    "HWC to a layer": (lambda: nn.Conv2d(3, 5, 2)(NHWC[0]), ValueError, ("x.transpose(2, 0, 1)",)),
    "NHWC transposed": (
        lambda: fastconv.conv_transpose2d(NHWC, W.transpose(1, 0, 2, 3)),
        ValueError,
        (ToNCHW,),
    ),
    "gray image": (lambda: conv2d(X[0, 0]), ValueError, ("x[np.newaxis]",)),
    "one filter": (lambda: conv2d(X, W[0]), ValueError, ("weight[np.newaxis]",)),
    "2-D kernel": (lambda: conv2d(X, W[0, 0]), ValueError, ("weight[np.newaxis, np.newaxis]",)),
    "array as shape": (
        lambda: fastconv.plan_conv2d(X, W),
        TypeError,
        ("input_shape", "ndarray of shape (4, 3, 8, 9)"),
    ),
    "groups": (lambda: conv2d(groups=2), ValueError, ("groups=2", "C=3", "divisible by 1")),
    "images of two sizes": (
        lambda: conv2d([X[0], X[1, :, 2:]]),
        ValueError,
        ("x", "regular", "one size"),
    ),
    # Elements.
    "complex": (lambda: conv2d(X.astype(complex)), TypeError, ("complex128", "x.real", "x.imag")),
    "objects": (lambda: conv2d(X.astype(object)), TypeError, ("x.astype('float32')",)),
    "path": (lambda: conv2d("image.png"), TypeError, ("'image.png'", "load the image")),
    "nothing": (lambda: conv2d(None), TypeError, ("x", "None")),
    # Arguments.
    "bias=False": (lambda: conv2d(bias=False), ValueError, ("bias", "None", "output channel")),
    "bias=True": (lambda: conv2d(bias=True), ValueError, ("bias", "None", "output channel")),
    "scalar bias": (lambda: conv2d(bias=0.5), ValueError, ("bias", "one number for each")),
    "stride as bias": (lambda: conv2d(X, W, 2), ValueError, ("bias", "stride comes after")),
    "plan, bias=False": (
        lambda: fastconv.plan_conv2d(X.shape, W, bias=False),
        ValueError,
        ("bias", "None"),
    ),
    "SAME": (lambda: conv2d(padding="SAME"), ValueError, ("'SAME'", "did you mean padding='same'")),
    "VALID": (lambda: conv2d(padding="VALID"), ValueError, ("did you mean padding='valid'",)),
    "sam": (lambda: nn.Conv2d(3, 5, 2, padding="sam"), ValueError, ("padding='same'",)),
    "stride": (lambda: conv2d(stride=0), ValueError, ("stride", "between 1", "0")),
    "algorithm": (
        lambda: conv2d(algorithm="winograd4x4"),
        ValueError,
        ("did you mean algorithm='winograd_4x4'",),
    ),
    "pool algorithm": (
        lambda: fastconv.max_pool2d(X, 2, algorithm="window"),
        ValueError,
        ("did you mean algorithm='windows'",),
    ),
    "missing groups": (
        lambda: conv2d(X, np.ones((6, 1, 2, 2))),
        ValueError,
        ("did you mean groups=3?",),
    ),
    "swish": (lambda: conv2d(activation="swish"), ValueError, ("activation='silu'",)),
    "activation": (lambda: conv2d(activation="ReLU"), ValueError, ("activation='relu'",)),
    "direction": (
        lambda: fastconv.algorithms("input_gradient"),
        ValueError,
        ("did you mean direction='input_grad'",),
    ),
    "precision": (
        lambda: fastconv.set_precision("low"),
        ValueError,
        ("'low'", "'high' permits every algorithm"),
    ),
    "padding_mode": (
        lambda: nn.Conv2d(3, 5, 2, padding_mode="zero"),
        ValueError,
        ("padding_mode='zeros'",),
    ),
    # Names of arguments.
    "strides": (
        lambda: conv2d(strides=2),
        TypeError,
        (
            "conv2d()",
            "'strides': did you mean str",
        ),
    ),
    "dilation_rate": (lambda: conv2d(dilation_rate=2), TypeError, ("did you mean dilation?",)),
    "rhs_dilation": (lambda: conv2d(rhs_dilation=2), TypeError, ("did you mean dilation?",)),
    "data_format": (lambda: conv2d(data_format="NHWC"), TypeError, ("(N, C, H, W)", ToNCHW)),
    "kernel_size": (lambda: conv2d(kernel_size=2), TypeError, ("weight, (K, C / groups, R, S)",)),
    "two names": (
        lambda: conv2d(strides=2, pad=1),
        TypeError,
        ("'strides': did you mean stride?", "'pad': did you mean padding?"),
    ),
    "far name": (lambda: conv2d(qqq=1), TypeError, ("'qqq'", "arguments are x, weight, bias")),
    "input": (
        lambda: fastconv.max_pool2d(input=X, kernel_size=2),
        TypeError,
        ("max_pool2d()", "did you mean x?"),
    ),
    "pool_size": (
        lambda: fastconv.avg_pool2d(X, pool_size=2),
        TypeError,
        ("did you mean kernel_size?",),
    ),
    "algorithms": (
        lambda: fastconv.plan_conv2d(X.shape, W, algorithms="fft"),
        TypeError,
        ("did you mean algorithm?",),
    ),
    "layer, strides": (lambda: nn.Conv2d(3, 5, 2, strides=2), TypeError, ("Conv2d()", "stride?")),
    "layer, use_bias": (lambda: nn.Conv2d(3, 5, 2, use_bias=False), TypeError, ("mean bias?",)),
    "layer, filters": (
        lambda: nn.Conv2d(filters=5, kernel_size=2),
        TypeError,
        ("did you mean out_channels?",),
    ),
    "layer, device": (lambda: nn.Linear(3, 5, device="cpu"), TypeError, ("leave it out", "CPU")),
    "layer, rate": (lambda: nn.Dropout(rate=0.5), TypeError, ("Dropout()", "did you mean p?")),
    "inplace": (lambda: nn.ReLU(inplace=True), TypeError, ("ReLU()", "'inplace': leave it out")),
    "optimizer, learning_rate": (
        lambda: nn.SGD(model().parameters(), learning_rate=1),
        TypeError,
        ("SGD()", "did you mean lr?"),
    ),
    "fit, verbose": (lambda: fit(verbose=0), TypeError, ("fit()", "did you mean progress?")),
    "fit, validation_data": (
        lambda: fit(validation_data=(X, LABELS)),
        TypeError,
        ("did you mean validation?",),
    ),
    # Names of things.
    "fastconv.Conv2d": (of(fastconv, "Conv2d"), AttributeError, ("fastconv.nn.Conv2d?",)),
    "fastconv.conv_2d": (of(fastconv, "conv_2d"), AttributeError, ("fastconv.conv2d?",)),
    "fastconv.load_digit": (
        of(fastconv, "load_digit"),
        AttributeError,
        ("fastconv.data.load_digits?",),
    ),
    "fastconv.functional": (of(fastconv, "functional"), AttributeError, ("fastconv.conv2d",)),
    "fastconv.unfold": (of(fastconv, "unfold"), AttributeError, ("fastconv.im2col?",)),
    "nn.Conv2D": (of(nn, "Conv2D"), AttributeError, ("fastconv.nn.Conv2d?",)),
    "nn.Dense": (of(nn, "Dense"), AttributeError, ("fastconv.nn.Linear?",)),
    "nn.MaxPooling2D": (of(nn, "MaxPooling2D"), AttributeError, ("fastconv.nn.MaxPool2d?",)),
    "nn.LazyLinear": (of(nn, "LazyLinear"), AttributeError, ("fastconv.nn.Linear?",)),
    "nn.BatchNormalization": (
        of(nn, "BatchNormalization"),
        AttributeError,
        ("fastconv.nn.BatchNorm2d?",),
    ),
    "model.fit": (
        lambda: model().fit(X, LABELS),
        AttributeError,
        ("fastconv.nn.fit(model, x, y)",),
    ),
    "model.predict": (lambda: model().predict(X), AttributeError, ("model.eval()(x)",)),
    "model.to": (lambda: model().to("cuda"), AttributeError, ("leave it out",)),
    # Networks.
    "list of layers": (
        lambda: nn.Sequential([nn.Flatten(), nn.ReLU()]),
        TypeError,
        ("Sequential(*layers)",),
    ),
    "class as layer": (lambda: nn.Sequential(nn.ReLU), TypeError, ("did you mean ReLU()?",)),
    "model as parameters": (
        lambda: nn.Adam(model()),
        TypeError,
        ("params", "model.parameters()", "got Sequential"),
    ),
    "method as parameters": (
        lambda: nn.Adam(model().parameters),
        TypeError,
        ("params", "model.parameters()", "got method"),
    ),
    "optimizer by name": (
        lambda: fit(optimizer="adam"),
        TypeError,
        ("optimizer", "nn.Adam(model.parameters())"),
    ),
    "loss by name": (lambda: fit(loss="mse"), TypeError, ("loss", "nn.CrossEntropyLoss()")),
    "x as model": (lambda: nn.fit(X, LABELS), TypeError, ("model", "ndarray of shape")),
    "backward alone": (
        lambda: nn.CrossEntropyLoss().backward(),
        RuntimeError,
        ("loss(model(x), target)",),
    ),
    "float labels": (
        lambda: nn.CrossEntropyLoss()(LOGITS, LABELS.astype(float)),
        ValueError,
        ("target.astype(int)",),
    ),
    "labels in a column": (lambda: fit(y=LABELS[:, None]), ValueError, ("target.reshape((4,))",)),
    "labels from 1": (lambda: fit(y=LABELS + 1), ValueError, ("1 .. 3", "more outputs", "unique")),
    "words as labels": (lambda: fit(y=list("abca")), TypeError, ("y", "np.unique")),
    "column of MSELoss": (
        lambda: nn.MSELoss()(LOGITS[:, :1], LOGITS[:, 0]),
        ValueError,
        ("target.reshape((4, 1))",),
    ),
    "pixels to a layer": (
        lambda: nn.Conv2d(3, 5, 2)((255 * X).astype(np.uint8)),
        TypeError,
        ("x.astype('float32')", "scale it as for training"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_the_sentence_that_solves_them(mistake: str) -> None:
    call, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind
    for word in words:
        assert word in str(caught.value)


TENSORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "requires_grad": (lambda x: x.requires_grad_(), "x.detach()"),
    "other device": (lambda x: x.to("meta"), "x.cpu()"),
    "bfloat16": (lambda x: x.bfloat16(), "x.float()"),
}


@pytest.mark.parametrize("mistake", TENSORS)
def test_tensors_of_torch(mistake: str) -> None:
    torch = pytest.importorskip("torch")
    spoil, hint = TENSORS[mistake]
    with pytest.raises(TypeError, match=r"\bx must ") as caught:
        conv2d(spoil(torch.tensor(X)))
    assert hint in str(caught.value)


def test_types_that_numpy_only_knows_by_name() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match=r"bfloat16: convert it first, x\.astype\('float32'\)"):
        conv2d(X.astype(ml_dtypes.bfloat16))


# What is taken ----------------------------------------------------------------------------------


class OnlyDlpack:
    """Has no way to NumPy but DLPack's."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_what_has_only_dlpack() -> None:
    np.testing.assert_array_equal(conv2d(OnlyDlpack(X), OnlyDlpack(W)), conv2d())
    assert len(fit(OnlyDlpack(X), OnlyDlpack(LABELS))) == 1


def test_images_of_pillow() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = (255 * NHWC[0]).astype(np.uint8)
    with pytest.raises(ValueError, match=r"x\.transpose\(2, 0, 1\)"):
        conv2d(image.fromarray(pixels))
    gray, filters = image.fromarray(pixels[..., 0]), W[:, :1]
    expected = conv2d(pixels[np.newaxis, ..., 0], filters)
    np.testing.assert_array_equal(conv2d([gray], filters), expected)


def test_half_precision_is_returned_as_it_came() -> None:
    half = [array.astype(np.float16) for array in (X, W)]
    y = conv2d(*half)
    assert y.dtype == np.float16
    computed = conv2d(*(array.astype(np.float32) for array in half))
    np.testing.assert_array_equal(y, computed.astype(np.float16))


def test_one_hot_labels() -> None:
    loss, logits = nn.CrossEntropyLoss(), RNG.standard_normal((4, 3))
    assert loss(logits, np.eye(3, dtype=int)[LABELS]) == pytest.approx(loss(logits, LABELS))


# Pixels that were not scaled --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_that_were_not_scaled(dtype: Any) -> None:
    with pytest.warns(UserWarning, match="x / 255") as caught:
        fit((255 * X).astype(dtype))
    assert [warning.filename for warning in caught] == [__file__]


def test_other_numbers_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(X)
        fit((2 * X).astype(np.uint8))
        fit(1000 * (X - 0.5))
        fit((255 * X).astype(np.uint8), augment=lambda x, rng: x / 255)


# What must stay as it was -----------------------------------------------------------------------


def test_signatures_show_no_helper() -> None:
    assert list(inspect.signature(fastconv.conv2d).parameters) == [
        *("x", "weight", "bias", "stride", "padding", "dilation", "groups"),
        *("activation", "algorithm"),
    ]
    assert "**" not in str(inspect.signature(fastconv.max_pool2d))
    assert list(inspect.signature(nn.Dropout).parameters) == ["p", "rng"]
    assert list(inspect.signature(nn.ReLU).parameters) == []


def test_functions_and_layers_can_be_pickled() -> None:
    for function in (fastconv.conv2d, fastconv.max_pool2d, nn.fit):
        assert pickle.loads(pickle.dumps(function)) is function
    layer = pickle.loads(pickle.dumps(nn.Conv2d(3, 5, 2, rng=0)))
    assert layer(X).shape == (4, 5, 7, 8)


def test_errors_from_inside_are_not_explained_away() -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            nn.Linear(**{"in_features": 3, "out_features": 3, "wide": width})

        @property
        def size(self) -> int:
            return self.absent

    with pytest.raises(TypeError, match=r"Linear\(\) got .*'wide'"):
        Net(width=3)
    with pytest.raises(TypeError, match=r"Conv2d.*missing 1 required.*'kernel_size'"):
        nn.Conv2d(3, 5)
    with pytest.raises(AttributeError, match="absent"):
        Net.__new__(Net).size  # noqa: B018
    assert not hasattr(nn.ReLU(), "absent")
    assert not hasattr(fastconv, "__wrapped__")


def test_no_layout_is_guessed_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="must have C") as caught:
        fastconv.conv2d(np.ones((4, 3, 32, 32)), np.ones((16, 1, 3, 3)))
    assert "looks like" not in str(caught.value)
