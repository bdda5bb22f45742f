"""Sizes that no computer holds are refused at once; unusual sizes that are fine are computed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import reference
from cases import ConvCase, make_integer_inputs
from checks import assert_identical

import fastconv

LARGEST = 2**31 - 1

# What is asked for, and the argument that the refusal must name.
TOO_LARGE = {
    f"conv2d(x, w, padding={10**12})": "padding",
    f"conv2d(x, w, padding={LARGEST})": "padding",
    f"conv2d(x, w, padding=(0, {10**11}))": "padding",
    f"im2col(x, 3, padding={10**9})": "padding",
    f"col2im(x[0], ({LARGEST}, {LARGEST}), 1, stride={LARGEST})": "output_size",
    f"conv_transpose2d(x, t, stride={LARGEST})": "stride",
    f"conv_transpose2d(x, t, dilation={LARGEST})": "dilation",
    f"conv2d_input_grad((1, 4, {LARGEST}, {LARGEST}), w, g, stride=2**30)": "input_shape",
    f"max_pool2d_grad(g, i, (1, 6, {LARGEST}, {LARGEST}))": "input_shape",
    f"avg_pool2d_grad(g[..., :1, :1], (1, 6, {LARGEST}, {LARGEST}), {LARGEST})": "input_shape",
    f"adaptive_avg_pool2d(x, {LARGEST})": "output_size",
    f"adaptive_avg_pool2d(x, {10**9})": "output_size",
    f"adaptive_avg_pool2d_grad(g, (1, 6, {LARGEST}, {LARGEST}))": "input_shape",
}

SCRIPT = """
import resource
import numpy as np
from fastconv import *
# Enough for the library and its threads; a mistake here must not take the machine down.
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
x, w, t = np.zeros((1, 4, 5, 5)), np.zeros((6, 4, 3, 3)), np.zeros((4, 2, 2, 2))
g, i = np.zeros((1, 6, 2, 2)), np.zeros((1, 6, 2, 2), int)
for request in {requests}:
    try:
        outcome = f"gave {{eval(request)}}"
    except (ValueError, TypeError) as error:
        outcome = str(error)
    except MemoryError as error:
        outcome = f"MemoryError: {{error}}"
    print(outcome.replace("\\n", " "), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Make all requests in one process of limited memory, and return what each said."""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(requests=list(TOO_LARGE))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(zip(TOO_LARGE, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize(("request_", "argument"), TOO_LARGE.items(), ids=list(TOO_LARGE))
def test_refused_at_once(request_: str, argument: str, outcomes: dict[str, str]) -> None:
    outcome = outcomes[request_]
    assert not outcome.startswith(("gave", "MemoryError"))
    assert argument in outcome


# A stride or a dilation costs nothing when nothing lies that far.
FINE = (
    ConvCase("stride", (1, 2, 4, 5), (3, 2, 3, 3), stride=LARGEST),
    ConvCase("dilation", (1, 2, 4, 5), (3, 2, 1, 1), dilation=LARGEST),
    ConvCase("padding_and_stride", (1, 2, 4, 5), (3, 2, 2, 2), stride=400, padding=700),
)


@pytest.mark.parametrize("case", FINE, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_large_but_fine(algorithm: str, case: ConvCase) -> None:
    data = make_integer_inputs(case)
    try:
        actual = fastconv.conv2d(data.x, data.weight, None, *case.geometry, algorithm=algorithm)
    except ValueError as error:
        refusal = str(error)
        assert algorithm in refusal
        return
    expected = reference.conv2d(data.x, data.weight, None, *case.geometry)
    assert_identical(actual, expected, np.float32)


def test_numpy_integers_are_integers() -> None:
    case = ConvCase("plain", (2, 4, 6, 7), (6, 2, 3, 2), 2, ((1, 0), (2, 1)), (1, 2), 2)
    data = make_integer_inputs(case)
    expected = reference.conv2d(data.x, data.weight, None, *case.geometry)
    actual = fastconv.conv2d(
        data.x,
        data.weight,
        stride=np.int64(2),
        padding=np.array([[1, 0], [2, 1]], np.uint8),
        dilation=np.array([1, 2], np.int16),
        groups=np.int32(2),
    )
    assert_identical(actual, expected, np.float32)
    shape = np.array(case.input_shape)
    grad = fastconv.conv2d_input_grad(shape, data.weight, data.grad_output, *case.geometry)
    assert grad.shape == case.input_shape
    assert fastconv.max_pool2d(data.x, np.int8(2), [np.int64(1), 2]).shape == (2, 4, 5, 3)
