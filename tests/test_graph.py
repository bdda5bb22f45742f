"""Graphs: passes keep what is computed, memory is shared without harm, networks run anywhere."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from graph_cases import FLOAT, Builder, residual_network
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.graph.compiled import CompiledNetwork
from fastconv.graph.ir import Graph, Value
from fastconv.graph.memory_plan import ALIGNMENT, plan_memory, storage_roots
from fastconv.graph.network import Network
from fastconv.graph.operators import operator_list
from fastconv.graph.passes import PASSES, optimize
from fastconv.graph.specialize import specialize

SHAPE = (2, 3, 12, 10)


def plainly(graph: Graph, x: Any) -> list[Any]:
    """Return what a specialized graph computes, node by node, without passes or an arena."""
    found: dict[int, Any] = {id(graph.inputs[0]): x}

    def array(value: Value | None) -> Any:
        if value is None:
            return None
        return found[id(value)] if value.constant is None else value.constant

    for node in graph.nodes:
        results = operator_list.of(node).compute(node, [array(value) for value in node.inputs])
        results = results if isinstance(results, tuple) else (results,)
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None:
                found[id(value)] = result
    return [array(value) for value in graph.outputs]


def images(seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def near(actual: Any, wanted: Any) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_all_passes_together() -> None:
    graph, x = residual_network(), images()
    plain = specialize(graph, {"x": SHAPE})
    wanted = plainly(plain, x)
    fused = optimize(plain.copy())
    assert [node.operator for node in fused.nodes].count("Conv") == 4
    assert not {"BatchNormalization", "Relu", "Add", "MaxPool"} & {n.operator for n in fused.nodes}
    near(plainly(fused, x)[0], wanted[0])
    near(CompiledNetwork(fused).run([x])[0], wanted[0])


@pytest.mark.parametrize("left_out", [each.name for each in PASSES])
def test_each_pass_may_be_left_out(left_out: str) -> None:
    plain, x = specialize(residual_network(), {"x": SHAPE}), images()
    near(plainly(optimize(plain.copy(), frozenset({left_out})), x)[0], plainly(plain, x)[0])


def test_what_others_read_is_not_fused() -> None:
    b = Builder()
    y = b.conv(b.x, 3, 4)
    z = b.node("Relu", y)
    graph = specialize(b.done(y, z), {"x": SHAPE})
    before = plainly(graph, images())
    after = plainly(optimize(graph), images())
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    assert len(graph.nodes) == 2


def test_constants_are_computed_once() -> None:
    b = Builder()
    size = b.node("Shape", b.x)
    rest = b.node(
        "Concat", b.graph.constant(np.array([2])), b.graph.constant(np.array([-1])), axis=0
    )
    graph = b.done(b.node("Reshape", b.x, rest), size)
    found = specialize(graph, {"x": SHAPE})
    assert [node.operator for node in found.nodes] == ["Reshape"]
    flat, shape = Network(graph)(images())
    assert flat.shape == (2, 360)
    assert shape.tolist() == list(SHAPE)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_two_living_values_share_memory(data: st.DataObject) -> None:
    b = Builder()
    values = [b.x]
    for _ in range(data.draw(st.integers(1, 14))):
        first = data.draw(st.sampled_from(values))
        operator = data.draw(
            st.sampled_from(["Abs", "Neg", "Add", "Flatten", "Identity", "Concat"])
        )
        second = data.draw(st.sampled_from(values)) if operator == "Add" else first
        if operator == "Add":
            values.append(b.node("Add", first, second))
        elif operator == "Concat":
            values.append(b.node("Concat", first, first, axis=0))
        else:
            values.append(b.node(operator, first))
    outputs = data.draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3))
    try:
        graph = specialize(b.done(*outputs), {"x": (2, 3)})
    except ValueError:  # shapes that do not broadcast
        return
    plan, roots = plan_memory(graph), storage_roots(graph)
    living: dict[int, tuple[int, int]] = {}
    for step, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            key = id(roots[id(value)])
            if key in plan.offsets:
                begin, _ = living.get(key, (step, step))
                living[key] = begin, step
    blocks = {
        id(v): (plan.offsets[id(v)], plan.offsets[id(v)] + v.nbytes)
        for v in graph.values()
        if id(v) in plan.offsets
    }
    for one, (a0, a1) in living.items():
        assert blocks[one][0] % ALIGNMENT == 0
        assert blocks[one][1] <= plan.nbytes
        for two, (b0, b1) in living.items():
            if one != two and a0 <= b1 and b0 <= a1:
                assert blocks[one][1] <= blocks[two][0] or blocks[two][1] <= blocks[one][0]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for one, two in zip(CompiledNetwork(graph).run([x]), plainly(graph, x), strict=True):
        np.testing.assert_array_equal(one, two)


def test_results_are_the_callers_own() -> None:
    b = Builder()
    network = Network(b.done(b.x, b.node("Identity", b.x), b.node("Neg", b.x)))
    x = np.ones(3, np.float32)
    same, view, negative = network(x)
    for array in (same, view):
        array[...] = 7
    np.testing.assert_array_equal(x, 1)
    again = network(x)[2]
    negative[...] = 5
    np.testing.assert_array_equal(again, -1)


def test_several_callers_and_processes() -> None:
    network, inputs = Network(residual_network()), [images(seed) for seed in range(8)]
    wanted = [network(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(lambda _: [network(x) for x in inputs], range(8)):
            assert all(np.array_equal(a, b) for a, b in zip(results, wanted, strict=True))
    twin = pickle.loads(pickle.dumps(network))
    assert np.array_equal(twin(inputs[0]), wanted[0])


def test_deep_networks_are_copied_to_other_processes() -> None:
    b = Builder()
    y = b.x
    for _ in range(3000):
        y = b.node("Neg", y)
    x = np.ones((1, 2), np.float32)
    network = Network(b.done(b.node("Add", y, b.graph.constant(x))))
    twin = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(twin(x), network(x))
    np.testing.assert_array_equal(twin(x), 2)


def test_wrong_inputs() -> None:
    network = Network(residual_network())
    for arguments, named, words in (
        ((), {}, "missing: x"),
        ((images(), images()), {}, "takes 1 input"),
        ((), {"y": images()}, "the network's inputs are x"),
        ((images().astype(complex),), {}, "must be float32"),
    ):
        with pytest.raises(TypeError, match=words):
            network(*arguments, **named)
    with pytest.raises(ValueError, match=r"conv.*channels"):
        network(np.zeros((1, 4, 8, 8), np.float32))
    assert network.compiled_for(SHAPE).graph.inputs[0].dtype == FLOAT
