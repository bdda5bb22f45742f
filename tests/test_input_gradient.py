"""Input gradients as convolutions: phases, threads, what is not finite, rounding errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import reference
from cases import CONV_CASES, ConvCase, make_inputs, make_integer_inputs
from checks import assert_identical, same_integers
from numpy.typing import DTypeLike

import fastconv
from fastconv.convolution.input_grad.stride_phases import has_gaps, phases
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.select.conv_registry import ALGORITHMS

BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}
NAMES = ("implicit_gemm", "direct", "depthwise", "winograd_2x2", "winograd_4x4")

# Phases of every kind, bands, parts and tiles with something left over of each.
AWKWARD = (
    ConvCase("plain", (2, 37, 23, 41), (19, 37, 3, 3), padding=1),
    ConvCase("cropped", (2, 18, 9, 20), (33, 18, 3, 3), padding=((4, 3), (5, 4))),
    ConvCase("halved", (2, 19, 31, 43), (35, 19, 3, 3), 2, 1),
    ConvCase("gaps", (1, 67, 13, 29), (40, 67, 1, 1), (3, 4)),
    ConvCase("wide_step", (1, 5, 9, 131), (9, 5, 2, 7), (1, 4), (0, 3)),
    ConvCase("tall_step", (1, 5, 131, 9), (9, 5, 7, 2), (9, 1), (3, 1)),
    ConvCase("dilated", (1, 7, 33, 35), (18, 7, 3, 5), (2, 4), (2, 6), (3, 2)),
    ConvCase("grouped", (2, 30, 17, 19), (51, 10, 5, 5), 2, 2, groups=3),
    ConvCase("depthwise", (2, 21, 13, 29), (21, 1, 3, 3), 1, 1, groups=21),
    ConvCase("depthwise_halved", (2, 21, 33, 70), (21, 1, 5, 3), 2, (2, 1), groups=21),
    ConvCase("widened", (1, 22, 15, 37), (11, 2, 3, 3), (1, 2), 1, groups=11),
    ConvCase("five", (2, 6, 23, 37), (20, 6, 5, 5), padding=2),
)


def problem_of(case: ConvCase, dtype: DTypeLike = np.float32) -> Conv2dProblem:
    return Conv2dProblem.from_shapes(
        case.input_shape, case.weight_shape, *case.geometry, np.dtype(dtype).name
    )


#: Algorithms with the cases they take.
BOTH = [
    pytest.param(name, case, id=f"{name}-{case.name}")
    for name in NAMES
    for case in AWKWARD
    if BY_NAME[name].input_grad.refusal(problem_of(case)) is None
]


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


def gradient(case: ConvCase, *arrays: np.ndarray, algorithm: str = "auto") -> np.ndarray:
    return fastconv.conv2d_input_grad(
        case.input_shape, *arrays, *case.geometry, algorithm=algorithm
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "case"), BOTH)
def test_awkward_cases_with_any_number_of_threads(
    name: str, case: ConvCase, dtype: DTypeLike
) -> None:
    data = make_integer_inputs(case, dtype)
    expected = reference.conv2d_input_grad(
        case.input_shape, data.weight, data.grad_output, *case.geometry
    )
    normal, results = make_inputs(case, dtype), []
    for count in (1, 2, 8):
        fastconv.set_num_threads(count)
        actual = gradient(case, data.weight, data.grad_output, algorithm=name)
        same_integers(name)(actual, expected, dtype)
        results.append(gradient(case, normal.weight, normal.grad_output, algorithm=name).tobytes())
    assert all(result == results[0] for result in results)


def test_every_algorithm_takes_its_cases() -> None:
    taken = {
        name: [case.values[1].name for case in BOTH if case.values[0] == name] for name in NAMES
    }
    assert taken["implicit_gemm"] == taken["direct"]
    assert set(taken["direct"]) == {case.name for case in AWKWARD}
    assert set(taken["depthwise"]) == {"depthwise", "depthwise_halved", "widened"}
    for name in ("winograd_2x2", "winograd_4x4"):
        assert {"plain", "cropped", "five"} <= set(taken[name])


@pytest.mark.parametrize("case", [*CONV_CASES, *AWKWARD], ids=lambda case: case.name)
def test_phases_share_pixels_and_taps(case: ConvCase) -> None:
    problem = problem_of(case)
    pixels = np.zeros((problem.H, problem.W), int)
    taps = np.zeros((problem.R, problem.S), int)
    for phase in phases(problem):
        rows = phase.down.first + phase.stride[0] * np.arange(phase.problem.OH)
        columns = phase.across.first + phase.stride[1] * np.arange(phase.problem.OW)
        pixels[np.ix_(rows, columns)] += 1  # an index beyond the image would raise
        own = phase.window(problem.R, problem.S)
        taps += own >= 0
        assert sorted(own[own >= 0]) == list(range(phase.problem.R * phase.problem.S))
        assert phase.problem.stride == (1, 1)
    assert pixels.max(initial=0) <= 1
    assert taps.max(initial=0) <= 1
    assert has_gaps(problem) == (pixels.min() == 0)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), list(itertools.product(range(1, 6), repeat=3))
)
def test_a_phase_reads_what_the_convolution_wrote(kernel: int, stride: int, dilation: int) -> None:
    """Row h meets tap r at output row (h + top - r * dilation) / stride, if that is whole."""
    top = (kernel * dilation) // 2
    size = max(23, dilation * (kernel - 1) + 1)
    problem = Conv2dProblem.from_shapes(
        (1, 1, size, 1), (1, 1, kernel, 1), (stride, 1), (top, 0), (dilation, 1)
    )
    met = {
        (h, r, (h + top - r * dilation) // stride)
        for h, r in itertools.product(range(size), range(kernel))
        if (h + top - r * dilation) % stride == 0
    }
    found = set()
    for phase in phases(problem):
        p, place = phase.problem, phase.window(kernel, 1).reshape(-1)
        for t, r in itertools.product(range(p.OH), range(kernel)):
            if place[r] >= 0:
                row = t + int(place[r]) * p.dilation[0] - p.padding[0][0]
                found.add((phase.down.first + t * stride, r, row))
    inside = range(problem.OH)
    assert {m for m in met if m[2] in inside} == {f for f in found if f[2] in inside}
    assert sum(phase.down.taps for phase in phases(problem)) <= kernel
    assert len(phases(problem)) <= stride // math.gcd(stride, dilation)


@pytest.mark.parametrize(
    ("name", "case"), [b for b in BOTH if not str(b.values[0]).startswith("winograd")]
)
def test_what_is_not_finite_stays_where_it_belongs(name: str, case: ConvCase) -> None:
    """Margins of a gradient are no products: zero times infinity must not appear there."""
    rng = np.random.default_rng(4)
    fastconv.set_num_threads(2)
    data = make_integer_inputs(case)
    for array in (data.grad_output, data.weight):
        clean = array.copy()
        array.reshape(-1)[rng.integers(0, array.size, 3)] = np.nan, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            expected = reference.conv2d_input_grad(
                case.input_shape, data.weight, data.grad_output, *case.geometry
            )
            actual = gradient(case, data.weight, data.grad_output, algorithm=name)
        assert_identical(actual, expected, np.float32)
        array[...] = clean


def test_refusals_say_what_is_computed() -> None:
    weight, grad = np.ones((4, 1, 3, 3), np.float32), np.ones((1, 4, 3, 3), np.float32)
    with pytest.raises(ValueError, match="a horizontal stride of at most 4, got"):
        fastconv.conv2d_input_grad((1, 1, 13, 13), weight, grad, 5, algorithm="direct")
    with pytest.raises(ValueError, match="as a convolution of the output's gradient it needs one"):
        fastconv.conv2d_input_grad((1, 1, 5, 5), weight, grad, algorithm="depthwise")
    with pytest.raises(ValueError, match="needs stride 1"):
        fastconv.conv2d_input_grad((1, 1, 7, 7), weight, grad, 2, algorithm="winograd_4x4")


def test_precision_holds_for_gradients() -> None:
    shape, weight = (8, 128, 28, 28), np.ones((128, 128, 3, 3), np.float32)
    problem = Conv2dProblem.from_shapes(shape, weight.shape, padding=1)
    from fastconv.select.choice import choose

    with fastconv.at_precision("high"):
        assert choose(problem, "input_grad").name.startswith("winograd")
    with fastconv.at_precision("highest"):
        assert choose(problem, "input_grad").name == "implicit_gemm"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["implicit_gemm", "direct"])
def test_rounding_errors_beside_pytorch(name: str, stride: int) -> None:
    """Gradients err about as much as PyTorch's, at the worst half again as much."""
    torch = pytest.importorskip("torch")
    case = ConvCase("deep", (1, 40, 27, 27), (512, 40, 3, 3), stride, 1)
    data = make_inputs(case)
    exact = reference.conv2d_input_grad(
        case.input_shape, data.weight, data.grad_output, *case.geometry
    )
    ours = gradient(case, data.weight, data.grad_output, algorithm=name)
    tensors = torch.from_numpy(data.weight), torch.from_numpy(data.grad_output)
    theirs = torch.nn.grad.conv2d_input(case.input_shape, *tensors, stride, 1).numpy()
    our_error, their_error = (np.abs(y.astype(float) - exact) for y in (ours, theirs))
    assert np.sqrt((our_error**2).mean()) <= 1.25 * np.sqrt((their_error**2).mean())
    assert our_error.max() <= 1.5 * their_error.max()


@pytest.mark.parametrize("name", NAMES)
def test_scratch_memory_is_bounded(name: str) -> None:
    for case in (*CONV_CASES, *AWKWARD):
        problem = problem_of(case)
        if BY_NAME[name].input_grad.refusal(problem) is None:
            assert 0 <= BY_NAME[name].input_grad.workspace_bytes(problem) <= 4 * 2**20
