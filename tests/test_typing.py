"""Types: names are those of the run time, the stub fits the sources, checkers see what happens."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import operator
import re
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import fastconv
import fastconv.typing
from fastconv.core import activation, conv_problem, geometry, precision
from fastconv.core.cached import cached_property
from fastconv.nn import init
from fastconv.nn.layers import padding_modes

FOLDER = Path(__file__).parent
EXAMPLES, MISTAKES = FOLDER / "typing_examples.py", FOLDER / "typing_mistakes.py"
STUB = ast.parse(Path(fastconv.__file__).with_suffix(".pyi").read_text())


# Names -----------------------------------------------------------------------------------


def test_names_are_those_of_the_run_time() -> None:
    names = fastconv.typing
    for direction, literal in (
        ("forward", names.ForwardAlgorithm),
        ("input_grad", names.InputGradAlgorithm),
        ("weight_grad", names.WeightGradAlgorithm),
    ):
        assert get_args(literal) == ("auto", *fastconv.algorithms(direction))
    assert get_args(names.PoolAlgorithmName) == ("auto", *fastconv.pool_algorithms())
    assert get_args(names.Direction) == conv_problem.DIRECTIONS
    assert get_args(names.Precision) == precision.PRECISIONS
    assert get_args(names.NamedPadding) == geometry.NAMED_PADDING
    assert get_args(names.PaddingMode) == padding_modes.PADDING_MODES
    alone = {*get_args(activation.ActivationName)}
    with_numbers = {get_args(part)[0] for part in get_args(names.ActivationLike) if get_args(part)}
    assert alone | {get_args(name)[0] for name in with_numbers if get_args(name)} == {
        *activation.ACTIVATIONS
    }
    for name in alone:
        activation.as_activation(name)
    assert {*get_args(init.Nonlinearity)} == {*init._GAINS, "leaky_relu"}


# The stub --------------------------------------------------------------------------------

# What overloads tell apart has other types there, and no default.
TOLD_APART = {"direction", "need", "out", "return_indices"}


def functions_of(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions of the stub, each overload by itself, and methods of its classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node.body, f"{node.name}.")


def parameters_of(node: ast.FunctionDef) -> dict[str, str]:
    """Return each parameter as it is written, and whether it must be named."""
    given = node.args
    missing = len(given.args) - len(given.defaults)
    defaults = [*[None] * missing, *given.defaults, *given.kw_defaults]
    pairs = zip([*given.args, *given.kwonlyargs], defaults, strict=True)
    return {
        arg.arg: f"{ast.unparse(arg)} = {ast.unparse(default) if default else 'nothing'}"
        + ", named" * (arg in given.kwonlyargs)
        for arg, default in pairs
    }


@pytest.mark.parametrize("name", dict(functions_of(STUB.body)))
def test_the_stub_has_the_parameters_of_the_sources(name: str) -> None:
    function = operator.attrgetter(name)(fastconv)
    if not inspect.isfunction(function):
        assert isinstance(function, property | cached_property)
        return
    (source,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    wanted = parameters_of(source)
    overloads = [parameters_of(node) for each, node in functions_of(STUB.body) if each == name]
    for given in overloads:
        assert [*given] == [each for each in wanted if each in given]
        assert wanted.keys() - given.keys() <= TOLD_APART
    for parameter in wanted.keys() - TOLD_APART:
        kinds = {given[parameter] for given in overloads}
        assert wanted[parameter] in kinds
        arrays = {kind for kind in kinds if "NDArray" in kind}
        assert kinds - arrays == {wanted[parameter]}


def test_editors_find_the_docstrings() -> None:
    # They look for what the stub declares in __init__.py, which loads names when first used.
    block = next(n for n in ast.parse(inspect.getsource(fastconv)).body if isinstance(n, ast.If))
    imported = {alias.name: n.module for n in block.body for alias in n.names}
    assert imported.keys() == {
        n.name for n in STUB.body if isinstance(n, ast.FunctionDef | ast.ClassDef)
    }
    for name, module in imported.items():
        assert module == f"fastconv.{fastconv._HOME_OF[name]}"


# What happens ----------------------------------------------------------------------------


def check_type(value: Any, kind: Any) -> Any:
    """Raise AssertionError unless a value is what type checkers are told."""
    origin, args = typing.get_origin(kind), get_args(kind)
    if origin is np.ndarray:
        (scalar,) = get_args(args[1])
        assert type(value) is np.ndarray
        assert scalar is Any or value.dtype == scalar, f"{value.dtype} is not {scalar}"
    else:
        assert isinstance(value, origin or kind)
    return value


def test_examples_do_what_type_checkers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typing, "assert_type", check_type)
    monkeypatch.delitem(sys.modules, "typing_examples", raising=False)
    examples = importlib.import_module("typing_examples")
    for part in (examples.convolve, examples.plan, examples.pool, examples.compare):
        part()
    examples.layer(np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 3, 3), np.float32))
    examples.train(tmp_path)
    examples.estimate()
    with pytest.raises(AssertionError, match="float32 is not"):
        check_type(np.ones(1, np.float32), np.typing.NDArray[np.float64])


# What type checkers say ------------------------------------------------------------------


def mypy(*files: Path) -> dict[tuple[str, int], str]:
    """Return the errors that mypy finds, by file and line."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    # With the project's settings, so that its cache is used.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", *map(str, files)]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return {(Path(file).name, int(line)): text for file, line, text in lines}


def pyright(*files: Path) -> dict[tuple[str, int], str]:
    """Return the errors that pyright finds, by file and line."""
    if find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    python = ["--pythonpath", sys.executable]
    command = [sys.executable, "-m", "pyright", "--outputjson", *python, *map(str, files)]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1): found["message"]
        for found in json.loads(done.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_tell_right_from_wrong(checker: Any) -> None:
    errors = checker(EXAMPLES, MISTAKES)
    wrong = {
        (MISTAKES.name, number): line
        for number, line in enumerate(MISTAKES.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert len(wrong) > 40
    assert not {place: text for place, text in errors.items() if place not in wrong}
    assert not {place: line for place, line in wrong.items() if place not in errors}
