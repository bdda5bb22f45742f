"""ONNX's own cases of every operator: run as written, and those of float32 in float64 as well.

``python tests/test_onnx_backend.py`` prints how many run and, for each that does not, the reason.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
import warnings
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import TensorProto, numpy_helper

import fastconv.onnx
from fastconv.graph.operators import operator_list
from fastconv.onnx.node_checks import REPLACED

_SMALL = r"(BFLOAT16|FLOAT8\w*|FLOAT4\w*|U?INT4|U?INT2|STRING)"
#: Cases that do not run, by a pattern of their whole name, and why.
NOT_RUN = {
    rf"test_cast(like)?_(no_saturate_)?({_SMALL}_to_\w+|\w+_to_{_SMALL})(_expanded)?": (
        "NumPy has no such type"
    ),
    r"test_cast(like)?_e8m0_\w+": "NumPy has no such type",
    r"test_\w+_(bfloat16|bf16)(_\w+)?": "NumPy has no such type",
    r"test_equal_string(_broadcast)?": "strings are no numbers",
    r"test_(average|max)pool_3d_\w+|test_convtranspose_3d": "three spatial axes",
    r"test_training_dropout(_default)?(_mask)?": "training, by ONNX's own random numbers",
    r"test_identity_(sequence|opt)|test_if_(seq|opt)": "sequences and optional values",
    r"test_if|test_affine_grid_3d_align_corners_expanded": (
        "a condition on elements: it would need both graphs at run time"
    ),
    r"test_not_[234]d": "its operator set is 1; 7 is the first that is read",
}
#: Operators whose results have a type of their own, whatever the inputs have.
OWN_TYPES = {"Cast", "CastLike", "Constant", "ConstantOfShape"}
NAMES = [name for name in operator_list.operators() if name != "Silu"] + sorted(REPLACED)
Case = tuple[str, Any, list[Any], list[Any]]


def known(model: Any) -> bool:
    return all(
        node.op_type in REPLACED or operator_list.find(node.op_type) is not None
        for node in model.graph.node
    )


@functools.cache
def cases() -> dict[str, list[Case]]:
    """Return the cases that use known operators alone, by the operator whose file has them."""
    from onnx.backend.test.case import node as package
    from onnx.reference.ops import op_pool_common

    modules = {
        each.name.replace("_", ""): each.name for each in pkgutil.iter_modules(package.__path__)
    }
    modules["range"] = modules["rangeop"]
    pool = op_pool_common.pool

    def quickly(padded: Any, shape: Any, *others: Any, **named: Any) -> Any:
        # The reference takes seconds for images of three axes, which do not run.
        return np.zeros(1) if len(shape) == 5 else pool(padded, shape, *others, **named)

    found = defaultdict(list)
    op_pool_common.pool = quickly
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in NAMES:
                if (module := modules.get(name.lower())) is None:
                    continue
                first = len(package._NodeTestCases)
                importlib.import_module(f"{package.__name__}.{module}")
                for case in package._NodeTestCases[first:]:
                    if known(case.model):
                        ((inputs, outputs),) = case.data_sets
                        found[name].append((case.name, case.model, arrays(inputs), arrays(outputs)))
    finally:
        op_pool_common.pool = pool
    return dict(found)


def arrays(values: Any) -> list[Any]:
    return [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]


def check(case: Case, rtol: float = 1e-3, atol: float = 1e-7) -> None:
    """Run one case and compare types, shapes and numbers."""
    _, model, inputs, outputs = case
    results = fastconv.onnx.load(model.SerializeToString())(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    for actual, wanted in zip(results, outputs, strict=True):
        assert actual.dtype == wanted.dtype
        assert actual.shape == wanted.shape
        np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=atol)


def in_float64(case: Case) -> Case | None:
    """Return the case with float64 for float32, if it has one operator and no type of its own."""
    name, model, inputs, outputs = case
    (node, *more) = model.graph.node
    floats = any(array.dtype == np.float32 for array in inputs)
    if more or not floats or node.op_type in OWN_TYPES:
        return None
    twin = type(model).FromString(model.SerializeToString())
    for info in twin.graph.input:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    wide = [
        [array.astype(np.float64) if array.dtype == np.float32 else array for array in each]
        for each in (inputs, outputs)
    ]
    return f"{name} in float64", twin, *wide


def reason(name: str) -> str | None:
    """Return why a case does not run."""
    return next((why for each, why in NOT_RUN.items() if re.fullmatch(each, name)), None)


@pytest.mark.parametrize("operator", NAMES)
def test_operator(operator: str) -> None:
    for case in cases().get(operator, []):
        if reason(case[0]) is None:
            check(case)
            twin = in_float64(case)
            if twin is not None:
                check(twin)
            continue
        with pytest.raises((ValueError, TypeError)):
            check(case)


def test_all_reasons_are_needed_and_nearly_all_operators_have_cases() -> None:
    names = [case[0] for group in cases().values() for case in group]
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, name) for name in names), pattern
    assert len(names) == len(set(names))
    assert set(NAMES) - set(cases()) == set()
    assert sum(reason(name) is None for name in names) > 800


def main() -> None:
    """Print what runs."""
    groups = cases()
    names = [case[0] for group in groups.values() for case in group]
    run = [case for group in groups.values() for case in group if reason(case[0]) is None]
    for case in run:
        check(case)
    wide = [twin for case in run if (twin := in_float64(case)) is not None]
    for case in wide:
        check(case)
    print(f"onnx {onnx.__version__}: {len(run)} cases of {len(groups)} operators pass")
    print(f"{len(wide)} of them in float64 too")
    left_out = Counter((reason(name), name) for name in names if reason(name))
    for why, name in sorted(left_out):  # type: ignore[type-var]
        print(f"not run: {name}: {why}")


if __name__ == "__main__":
    main()
