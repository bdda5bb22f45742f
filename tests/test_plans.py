"""Plans give the bits that `conv2d` gives, into the memory they are told to, and explain."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from cases import CONV_CASES, ConvCase, make_inputs, make_integer_inputs
from checks import assert_identical, refused, same_integers
from numpy.typing import DTypeLike
from reference import Array

import fastconv

CASE = ConvCase("plan", (2, 4, 7, 9), (6, 2, 3, 2), stride=(2, 1), padding=1, groups=2)


def fitting(algorithm: str, case: ConvCase = CASE) -> ConvCase:
    """Return the case, or one like it that an algorithm for few geometries takes."""
    channels, weight_shape = case.input_shape[1], case.weight_shape
    filters = -(-weight_shape[0] // channels) * channels
    change = dataclasses.replace
    one_group = change(case, weight_shape=(weight_shape[0], channels, *weight_shape[2:]), groups=1)
    depthwise = change(case, weight_shape=(filters, 1, *weight_shape[2:]), groups=channels)
    square = change(case, weight_shape=(*weight_shape[:2], 3, 3), stride=1)
    taken = [each for each in (case, one_group, depthwise, square) if takes(algorithm, each)]
    return taken[0]


def takes(algorithm: str, case: ConvCase) -> bool:
    """Return whether an algorithm takes a case."""
    try:
        make_plan(case, algorithm=algorithm)
    except ValueError:
        return False
    return True


def make_plan(case: ConvCase = CASE, dtype: DTypeLike = np.float32, **options: Any) -> Any:
    """Plan a case with its standard normal data."""
    data = make_inputs(case, dtype)
    return fastconv.plan_conv2d(case.input_shape, data.weight, data.bias, *case.geometry, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["auto", *fastconv.algorithms()])
def test_same_bits_as_conv2d(algorithm: str, case: ConvCase, dtype: DTypeLike) -> None:
    data = make_inputs(case, dtype, seed=1)
    arguments = data.weight, data.bias, *case.geometry
    try:
        plan = fastconv.plan_conv2d(case.input_shape, *arguments, algorithm=algorithm)
    except ValueError as error:
        refusal = str(error)
        assert algorithm in refusal
        with pytest.raises(ValueError, match=algorithm):
            fastconv.conv2d(data.x, *arguments, algorithm=algorithm)
        return
    expected = fastconv.conv2d(data.x, *arguments, algorithm=algorithm)
    assert expected.shape == case.output_shape
    assert_identical(plan(data.x), expected, dtype)

    # What was in the memory before must not matter.
    out = np.full(case.output_shape, np.nan, dtype)
    assert plan(data.x, out=out) is out
    assert_identical(out, expected, dtype)
    # Nor what an earlier call has left in the plan's workspace.
    other = make_inputs(case, dtype, seed=2).x
    plan(other)
    assert_identical(plan(data.x), expected, dtype)


def test_without_bias() -> None:
    data = make_integer_inputs(CASE)
    plan = fastconv.plan_conv2d(CASE.input_shape, data.weight, None, *CASE.geometry)
    expected = reference.conv2d(data.x, data.weight, None, *CASE.geometry)
    assert_identical(plan(data.x), expected, np.float32)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_attributes(algorithm: str) -> None:
    planned = 0
    for case in CONV_CASES:
        try:
            plan = make_plan(case, algorithm=algorithm)
        except ValueError:
            continue
        planned += 1
        assert plan.algorithm == algorithm
        assert isinstance(plan.workspace_bytes, int)
        assert plan.workspace_bytes >= 0
    assert planned


def test_auto_names_what_it_chose() -> None:
    assert make_plan().algorithm in fastconv.algorithms()


def test_explain_names_every_algorithm() -> None:
    for algorithm in ("auto", "naive"):
        plan = make_plan(algorithm=algorithm)
        lines = plan.explain().splitlines()
        for name in fastconv.algorithms():
            assert any(name in line.split() for line in lines), name


def test_weights_are_copied() -> None:
    data = make_integer_inputs(CASE)
    weight, bias = data.weight.copy(), data.bias.copy()
    plan = fastconv.plan_conv2d(CASE.input_shape, weight, bias, *CASE.geometry)
    expected = plan(data.x)
    weight[...], bias[...] = 100, 100
    assert_identical(plan(data.x), expected, np.float32)


def test_results_are_separate_arrays() -> None:
    plan, data = make_plan(), make_inputs(CASE)
    first = plan(data.x)
    kept = first.copy()
    second = plan(data.x * 2)
    assert not np.shares_memory(first, second)
    assert_identical(first, kept, np.float32)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_one_plan_in_several_threads(algorithm: str) -> None:
    case = fitting(algorithm, ConvCase("threads", (2, 3, 24, 25), (5, 3, 3, 3), padding=1))
    try:
        plan = make_plan(case, algorithm=algorithm)
    except ValueError:
        return
    images = [make_inputs(case, seed=seed).x for seed in range(12)]
    expected = [plan(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for actual, wanted in zip(pool.map(plan, images), expected, strict=True):
            assert_identical(actual, wanted, np.float32)


@pytest.mark.parametrize("algorithm", fastconv.algorithms())
def test_one_plan_in_several_threads_with_residuals(algorithm: str) -> None:
    """Each thread has other inputs; the number of fastconv's own threads changes meanwhile."""
    case = ConvCase("threads", (1, 3, 20, 25), (5, 3, 3, 3), stride=(1, 2), padding=1)
    case = fitting(algorithm, case)
    data = make_integer_inputs(case)
    plan = fastconv.plan_conv2d(
        *(case.input_shape, data.weight, data.bias, *case.geometry),
        activation=("clip", -50, 20),
        algorithm=algorithm,
    )
    work = []
    for seed in range(12):
        x = make_integer_inputs(case, seed=seed).x
        residual = np.random.default_rng(seed).integers(-9, 10, case.output_shape)
        convolved = reference.conv2d(x, data.weight, data.bias, *case.geometry)
        expected = np.clip(convolved + residual, -50, 20)
        work.append((x, residual.astype(np.float32), expected, 1 + seed % 3))

    def run(number: int) -> None:
        x, residual, expected, threads = work[number % len(work)]
        fastconv.set_num_threads(threads)
        for _ in range(5):
            same_integers(algorithm)(plan(x, residual=residual), expected, np.float32)

    before = fastconv.get_num_threads()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, range(4 if algorithm == "reference" else 48)))
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 4, 7, 9), (2, 4, 9, 7), (2, 3, 7, 9), (4, 7, 9)])
def test_other_input_shape_is_refused(shape: tuple[int, ...]) -> None:
    with refused("x", shape):
        make_plan()(np.zeros(shape, np.float32))


def test_out_of_wrong_shape_or_type_is_refused() -> None:
    plan, x = make_plan(), make_inputs(CASE).x
    n, k, oh, ow = CASE.output_shape
    for shape in ((n, k, oh, ow + 1), (n, k, ow, oh), (n, k, oh * ow), (n * k * oh * ow,)):
        with refused("out", shape):
            plan(x, out=np.empty(shape, np.float32))
    for dtype in ("float64", "float16", "int32", ">f4"):
        with refused("out", np.dtype(dtype)):
            plan(x, out=np.empty(CASE.output_shape, dtype))
    with refused("out", "list"):
        plan(x, out=np.zeros(CASE.output_shape, np.float32).tolist())


def test_out_that_cannot_be_written_as_is_is_refused() -> None:
    plan, x = make_plan(), make_inputs(CASE).x
    n, k, oh, ow = CASE.output_shape
    read_only = np.empty(CASE.output_shape, np.float32)
    read_only.flags.writeable = False
    spaced = np.empty((n, k, oh, 2 * ow), np.float32)[..., ::2]
    fortran = np.empty(CASE.output_shape, np.float32, order="F")
    repeated = np.broadcast_to(np.float32(0), CASE.output_shape)
    raw = np.empty(read_only.nbytes + 1, np.uint8)[1:]
    unaligned = raw.view(np.float32).reshape(CASE.output_shape)
    assert not unaligned.flags.aligned
    for out in (read_only, spaced, fortran, repeated, unaligned):
        before = out.copy()
        with pytest.raises((ValueError, TypeError), match=r"\bout\b"):
            plan(x, out=out)
        np.testing.assert_array_equal(out, before)


def test_out_that_overlaps_the_input_is_refused() -> None:
    shape = (1, 2, 4, 4)
    plan = fastconv.plan_conv2d(shape, np.ones((2, 2, 1, 1), np.float32))
    memory = np.zeros(3 * 32, np.float32)
    x = memory[32:64].reshape(shape)
    for start in (32, 1, 31, 33, 63):
        out = memory[start : start + 32].reshape(shape)
        with pytest.raises(ValueError, match=r"\bout\b.*\bx\b"):
            plan(x, out=out)
    # Neighbours in one block of memory do not overlap.
    for start in (0, 64):
        out = memory[start : start + 32].reshape(shape)
        assert plan(x, out=out) is out


def test_bad_arguments_are_refused_when_planning() -> None:
    weight = np.zeros((6, 2, 3, 2), np.float32)
    with refused("weight", (6, 2, 3, 2)):
        fastconv.plan_conv2d((2, 3, 7, 9), weight)
    with refused("bias", (5,)):
        fastconv.plan_conv2d((2, 2, 7, 9), weight, np.zeros(5))
    with refused("input_shape", (2, 7)):
        fastconv.plan_conv2d((2, 7), weight)
    with refused("input_shape", "7.5"):
        fastconv.plan_conv2d((2, 2, 7.5, 9), weight)
    with refused("stride", 0):
        fastconv.plan_conv2d((2, 2, 7, 9), weight, stride=0)
    with refused("algorithm", "fastest"):
        fastconv.plan_conv2d((2, 2, 7, 9), weight, algorithm="fastest")


def test_problems_and_plans_can_be_pickled() -> None:
    problem = fastconv.Conv2dProblem.from_shapes((2, 3, 8, 8), (4, 3, 3, 3), padding=1)
    assert problem.record.flags.writeable is False
    again = pickle.loads(pickle.dumps(problem))
    assert again == problem
    assert hash(again) == hash(problem)
    assert again.record.flags.writeable is False
    weight = np.random.default_rng(0).standard_normal(problem.weight_shape)
    plan = fastconv.plan_conv2d(problem.input_shape, weight, padding=1, activation="relu")
    x = np.random.default_rng(1).standard_normal(problem.input_shape)
    other = pickle.loads(pickle.dumps(plan))
    assert np.array_equal(other(x), plan(x))
    assert other.explain() == plan.explain()
    assert "* " in plan.explain()


UNPICKLED = """
import pickle, sys, numpy as np, fastconv
plans, x, residuals = pickle.load(sys.stdin.buffer)
assert fastconv.get_num_threads() == 3
done = [plan(x, residual=residual) for plan, residual in zip(plans, residuals)]
pickle.dump(done, sys.stdout.buffer)
"""


def test_plans_pickled_under_another_number_of_threads() -> None:
    case = ConvCase("pickle", (2, 6, 30, 31), (36, 3, 3, 3), stride=(1, 2), padding=1, groups=2)
    data = make_inputs(case)
    cases = {a: fitting(a, case) for a in fastconv.algorithms() if a != "reference"}
    plans = [
        make_plan(each, algorithm=algorithm, activation=("leaky_relu", 0.1))
        for algorithm, each in cases.items()
    ]
    rng = np.random.default_rng(1)
    residuals = [
        rng.standard_normal(each.output_shape).astype(np.float32) for each in cases.values()
    ]

    def run(some: Any) -> list[Array]:
        return [plan(data.x, residual=added) for plan, added in zip(some, residuals, strict=True)]

    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(1)
        expected = run(plans)
        stored = pickle.dumps((plans, data.x, residuals))
        fastconv.set_num_threads(2)
        here = run(pickle.loads(stored)[0])
    finally:
        fastconv.set_num_threads(before)
    done = subprocess.run(
        [sys.executable, "-c", UNPICKLED],
        input=stored,
        env={**os.environ, "FASTCONV_NUM_THREADS": "3"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for wanted, local, elsewhere in zip(expected, here, pickle.loads(done.stdout), strict=True):
        assert_identical(local, wanted, np.float32)
        assert_identical(elsewhere, wanted, np.float32)


def test_copies_of_plans() -> None:
    data, plan = make_inputs(CASE), make_plan(activation="silu")
    expected = plan(data.x)
    for again in (copy.copy(plan), copy.deepcopy(plan)):
        assert_identical(again(data.x), expected, np.float32)


COMPILED = """
import numpy as np, fastconv
from fastconv.bench.suites import load_suite
from fastconv.jit.kernel_cache import usable_folder
fastconv.set_num_threads(2)
for layer in load_suite("resnet50"):
    p = layer.problem()
    weight = np.ones(p.weight_shape, np.float32)
    plan = fastconv.plan_conv2d(
        p.input_shape, weight, None, p.stride, p.padding, p.dilation, p.groups, activation="relu"
    )
    plan(np.ones(p.input_shape, np.float32))
print(*sorted(path.name.rpartition("-")[0] for path in usable_folder().iterdir()))
"""


def test_few_kernels_serve_a_whole_network(tmp_path: Path) -> None:
    """Each takes a while to compile, once: the first run of a network is to start soon."""
    # One after the other: Winograd's method adds its own to those of plain sums.
    for precision, most in (("highest", 12), ("high", 22)):
        done = subprocess.run(
            [sys.executable, "-c", COMPILED],
            env={
                **os.environ,
                "FASTCONV_CACHE_DIR": str(tmp_path),
                "FASTCONV_PRECISION": precision,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        kernels = done.stdout.split()
        assert any(name.startswith("conv-over-") for name in kernels)
        assert len(kernels) <= most, kernels
