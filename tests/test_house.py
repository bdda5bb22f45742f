"""The house stands: imports go one way, importing is cheap, public names are documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import operator
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent

# From the top of the house to its ground. A module may import from its own level and below.
LEVELS = (
    ("cli", "__main__", "typing"),
    ("bench",),
    ("estimator",),
    ("onnx",),
    ("nn",),
    ("graph",),
    ("data", "plots"),
    ("api",),
    ("select",),
    ("pooling.pool_registry",),
    ("convolution", "dense", "pooling"),
    ("kernels",),
    ("codegen",),
    ("jit",),
    ("runtime",),
    ("core",),
)
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def level_of(module: str) -> int:
    inner = module.removeprefix("fastconv").removeprefix(".")
    best, length = -1, -1
    for level, rooms in enumerate(LEVELS):
        for room in rooms:
            if (inner == room or inner.startswith(f"{room}.")) and len(room) > length:
                best, length = level, len(room)
    assert best >= 0, f"{module} has no level: give it one above"
    return best


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in submodules if is_module(name)} or {node.module or ""}
    return {name for name in found if name.split(".")[0] == "fastconv"}


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    name = module_name(path)
    if name == "fastconv":
        return  # the face of the package, above everything
    for imported in imports_of(path) - {"fastconv"}:
        assert level_of(imported) >= level_of(name), f"{name} imports {imported} from above"


def test_no_circles() -> None:
    graph = {module_name(path): imports_of(path) for path in SOURCES}
    finished: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in finished:
            for imported in graph.get(name, set()) - {"fastconv"}:
                visit(imported, (*above, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_the_lower_levels_do_not_import_each_other_by_accident() -> None:
    # The checker itself must be able to fail.
    assert level_of("fastconv.kernels.naive_loops") > level_of("fastconv.api.conv2d")
    assert "fastconv.select.plan" in imports_of(PACKAGE / "api" / "conv2d.py")


def loaded_by(*programs: str) -> list[set[str]]:
    """Return the modules that are loaded after each of several programs, run in a row."""
    lines = ["import sys", *(f"{each}\nprint(*sys.modules)" for each in programs)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        **{"capture_output": True, "text": True, "check": True, "timeout": 60},
    )
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_importing_loads_no_numba() -> None:
    heavy = {"numba", "llvmlite", "scipy", "sklearn", "matplotlib", "rich", "typer", "torch"}
    light = ("import fastconv", "fastconv.Conv2dProblem", "fastconv.data.batches")
    for loaded in loaded_by(*light):
        assert not heavy & loaded
    plots, layers, conv2d = loaded_by(
        "import fastconv; fastconv.plots", "fastconv.nn.Conv2d", "fastconv.conv2d"
    )
    assert not {"matplotlib", "sklearn"} & plots
    assert not {"torch", "safetensors"} & layers
    assert "numba" in conv2d


def public_names() -> list[str]:
    return list(fastconv.__all__)


def names_in_modules() -> list[str]:
    """Return the public names of public modules, such as ``data.load_digits``."""
    modules = [name for name in public_names() if inspect.ismodule(getattr(fastconv, name))]
    return [f"{name}.{inner}" for name in modules for inner in getattr(fastconv, name).__all__]


def test_public_names_are_all_there() -> None:
    for name in public_names():
        assert getattr(fastconv, name) is not None
    assert set(public_names()) <= set(dir(fastconv))
    with pytest.raises(AttributeError, match="no_such_name"):
        fastconv.no_such_name  # noqa: B018
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    imported = (
        alias.asname for node in stub if isinstance(node, ast.ImportFrom) for alias in node.names
    )
    declared = (node.name for node in stub if isinstance(node, ast.FunctionDef | ast.ClassDef))
    assert {*imported, *declared} - {None} == {*public_names()}


@pytest.mark.parametrize("name", [*public_names(), *names_in_modules()])
def test_public_docstrings_are_complete(name: str) -> None:
    thing = operator.attrgetter(name)(fastconv)
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()[0]) > 10
    assert ">>>" in text, "there is no example"
    if inspect.isfunction(thing):
        parameters = inspect.signature(thing).parameters
        if parameters:
            assert "Parameters\n----------" in text
            assert "Raises\n------" in text
        assert "Examples\n--------" in text
        section = text.partition("Parameters\n")[2].partition("\nReturns")[0]
        for parameter in parameters:
            assert re.search(rf"\b{parameter}\b", section), f"{parameter} is not described"


def test_the_package_can_be_looked_at_without_optional_packages() -> None:
    program = """
import inspect, pydoc, sys
optional = {"sklearn", "scipy", "matplotlib", "PIL", "rich", "typer", "safetensors", "tqdm", "onnx"}
sys.modules |= dict.fromkeys(optional)  # none of them can be imported
import fastconv
from fastconv import *
assert {name for name, _ in inspect.getmembers(fastconv)} >= {*fastconv.__all__}
assert "CNNClassifier" in pydoc.render_doc(fastconv)
for name in fastconv.__all__:
    pydoc.render_doc(f"fastconv.{name}")
try:
    CNNClassifier()
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CNNClassifier needs scikit-learn 1.6 or newer")
    assert done.stdout.endswith(': python -m pip install "fastconv[sklearn]"\n')


# Methods that no user calls: the package does, or a class of the user's that overrides them.
OF_THE_PACKAGE = {
    *("algorithm", "check", "extra_repr", "flops", "forget", "freeze", "images", "keep_output"),
    *("padding_of", "prepare", "newest", "problem", "reads", "stages", "thaw"),  # for other rooms
    *("backward_fused", "forward_relu", "fuse", "padded", "scale_and_shift"),  # fused layers
    *("columns_of_tap", "result_shape", "rows_of_tap"),  # what algorithms ask of a problem
}


def methods_without_example(kind: type) -> list[str]:
    """Return the public methods of a class that none of its examples calls or defines.

    An example may stand in the method, in its class or one of the bases; those of modules also in
    `fastconv.nn`. A method that overrides another is shown where that is.
    """
    pages = [inspect.getdoc(base) or "" for base in kind.__mro__]
    if issubclass(kind, fastconv.nn.Module):
        pages.append(fastconv.nn.__doc__)
    lines = [line for page in pages for line in page.splitlines() if line[:3] in (">>>", "...")]
    found = []
    for name, value in vars(kind).items():
        own = inspect.unwrap(getattr(value, "__func__", value))
        inherited = any(hasattr(base, name) for base in kind.__mro__[1:])
        if not inspect.isfunction(own) or name[0] == "_" or inherited or name in OF_THE_PACKAGE:
            continue
        shown = any(re.search(rf"(\.|def ){name}\(", line) for line in lines)
        if not shown and ">>>" not in (own.__doc__ or ""):
            found.append(name)
    return found


def test_methods_have_examples() -> None:
    things = map(operator.attrgetter(*public_names(), *names_in_modules()), [fastconv])
    kinds = [thing for thing in next(things) if inspect.isclass(thing)]
    assert len(kinds) > 40
    missing = {kind.__name__: methods_without_example(kind) for kind in kinds}
    assert not {name: methods for name, methods in missing.items() if methods}


def test_methods_without_example_are_found() -> None:
    class Shown:
        """A class.

        >>> Shown().called()
        """

        def called(self) -> None: ...
        def forgotten(self) -> None: ...

    class Child(Shown):
        def called(self) -> None: ...
        def own(self) -> None:
            """>>> Child().own()."""

    assert methods_without_example(Shown) == ["forgotten"]
    assert methods_without_example(Child) == []


def test_dir_shows_public_names_only() -> None:
    for name in ("", ".nn", ".nn.models", ".onnx", ".data", ".plots", ".typing"):
        module = importlib.import_module(f"fastconv{name}")
        shown = {each for each in dir(module) if not each.startswith("__")}
        assert shown == set(module.__all__), name


@pytest.mark.parametrize("folder", ["benchmarks", "docs/examples"])
def test_programs_import_what_exists(folder: str) -> None:
    for path in (PACKAGE.parent / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastconv"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    known = hasattr(module, alias.name) or is_module(f"{node.module}.{alias.name}")
                    assert known, f"{path}: {node.module} has no {alias.name}"


def test_no_name_stands_in_two_folders() -> None:
    names = [path.name for path in SOURCES if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), path
    assert len(path.read_text().splitlines()) <= 400, f"{path} is a room too large"


# What one function may have: lines, docstring included, levels of nested blocks, and arguments.
MOST_LINES, MOST_LEVELS, MOST_ARGUMENTS = 79, 4, 10

BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.TryStar, ast.Match)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield every function below a node, with its name inside the module."""
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, ast.ClassDef | Function):
            name = f"{prefix}.{node.name}".removeprefix(".")
        if isinstance(node, Function):
            yield name, node
        yield from functions_of(node, name)


def lines_of(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def levels_of(node: ast.AST) -> int:
    """Return how deep blocks are nested; functions inside begin anew, an elif is no level."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef):
            is_elif = (
                isinstance(node, ast.If) and [child] == node.orelse and isinstance(child, ast.If)
            )
            own = isinstance(child, BLOCKS) and not is_elif
            deepest = max(deepest, own + levels_of(child))
    return deepest


def arguments_of(name: str, function: Function) -> int:
    """Return how many arguments there are, but for a public function's that must be named."""
    given = function.args
    positional = [each.arg for each in (*given.posonlyargs, *given.args)]
    names = [part for part in name.split(".") if part != "__init__"]
    hidden = any(part.startswith("_") for part in names)
    return (
        len(positional) - (positional[:1] in (["self"], ["cls"])) + hidden * len(given.kwonlyargs)
    )


def too_large(source: str) -> dict[str, tuple[int, int, int]]:
    """Return lines, levels and arguments of the functions that have too many of one."""
    found = {
        name: (lines_of(function), levels_of(function), arguments_of(name, function))
        for name, function in functions_of(ast.parse(source))
    }
    limits = (MOST_LINES, MOST_LEVELS, MOST_ARGUMENTS)
    return {name: has for name, has in found.items() if any(map(operator.gt, has, limits))}


def test_functions_are_small() -> None:
    found = {
        f"{module_name(path).removeprefix('fastconv.')}.{name}": sizes
        for path in SOURCES
        for name, sizes in too_large(path.read_text()).items()
    }
    assert not found, f"lines, levels, arguments: {found}"


def test_large_functions_are_found() -> None:
    nested = "def f():\n if 1:\n  pass\n elif 2:\n  for i in x:\n   with y:\n    try:\n"
    inner = "     pass\n    finally:\n     while {}:\n      pass\n"
    assert list(too_large(nested + inner.format(1))) == ["f"]
    assert not too_large(nested + inner.format("1").replace("while 1:\n ", "x = 1\n").rstrip(" "))
    assert not too_large("def f():\n" + " x\n" * (MOST_LINES - 1))
    assert list(too_large("class A:\n def f():\n" + "  x\n" * MOST_LINES)) == ["A.f"]
    ten = ", ".join(f"a{i}" for i in range(10))
    assert not too_large(f"class A:\n def f(self, {ten}, *, named): ...")
    assert list(too_large(f"class A:\n def _f(self, {ten}, *, named): ...")) == ["A._f"]
    assert list(too_large(f"def f(one, {ten}): ...")) == ["f"]


DOCTESTED = [
    module_name(path)
    for path in SOURCES
    if ">>>" in path.read_text() and module_name(path) != "fastconv"
]


@pytest.mark.parametrize("name", DOCTESTED)
def test_examples_in_docstrings(name: str) -> None:
    if name.startswith("fastconv.onnx"):
        pytest.importorskip("onnx")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_module_can_be_imported_alone() -> None:
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "fastconv.")]
    names = [name for name in names if not name.endswith("__main__")]
    names = [name for name in names if level_of(name) > level_of("fastconv.bench")]
    # Each begins without any other; NumPy and Numba, which take the time, are loaded once.
    program = f"""
import functools, importlib, importlib.machinery as machinery, sys
# Sources are read, and compiled, once.
machinery.SourceFileLoader.get_code = functools.cache(machinery.SourceFileLoader.get_code)
for name in {names}:
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "fastconv"]:
        del sys.modules[loaded]
    importlib.import_module(name)
print("all")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "all", done.stderr


def test_loops_mean_the_same_without_the_compiler() -> None:
    program = """
import numpy as np, fastconv
rng = np.random.default_rng(0)
x, w = rng.integers(-3, 4, (2, 4, 6, 7)), rng.integers(-3, 4, (6, 2, 3, 2))
options = dict(stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2)
loops = ("reference", "naive", "im2col_jit")
for name in loops:
    y = fastconv.conv2d(x, w, algorithm=name, **options)
    dx = fastconv.conv2d_input_grad(x.shape, w, y, algorithm=name, **options)
    dw = fastconv.conv2d_weight_grad(x, w.shape, y, algorithm=name, **options)
    first = [y, dx, dw] if name == "reference" else first
    assert all(map(np.array_equal, first, [y, dx, dw])), name
for name in fastconv.pool_algorithms():
    y, where = fastconv.max_pool2d(x, 3, 2, 1, return_indices=True, algorithm=name)
    dx = fastconv.max_pool2d_grad(y, where, x.shape, algorithm=name)
    mean = fastconv.avg_pool2d(4 * x, 2, algorithm=name)
    dmean = fastconv.avg_pool2d_grad(4 * mean, x.shape, 2, algorithm=name)
    five = fastconv.adaptive_max_pool2d(x, 5, algorithm=name)
    far = fastconv.avg_pool2d(4 * x, 2, dilation=3, algorithm=name)
    dfar = fastconv.avg_pool2d_grad(4 * far, x.shape, 2, dilation=3, algorithm=name)
    found = [y, where, dx, mean, dmean, five, far, dfar]
    first = found if name == fastconv.pool_algorithms()[0] else first
    assert all(map(np.array_equal, first, found)), name
back = fastconv.max_unpool2d(y, where, 3, 2, 1, x.shape)
assert np.array_equal(fastconv.max_unpool2d_grad(back, where), y)
norm = fastconv.nn.BatchNorm2d(4)
normalized, axes = norm(x.astype(np.float32)), (0, 2, 3)
assert np.allclose(normalized.mean(axes), 0, atol=1e-6)
assert np.allclose(normalized.var(axes), 1, atol=1e-3)
assert np.allclose(norm.backward(np.ones_like(normalized)), 0, atol=1e-5)
assert np.allclose(fastconv.nn.GELU()(np.ones(2)), 0.8413447, atol=1e-7)
larger = fastconv.nn.Upsample(scale_factor=2, mode="bilinear")
corners = larger(x.astype(float))[:, :, ::11, ::13]
assert np.array_equal(corners, x[:, :, ::5, ::6])
assert larger.backward(np.ones((2, 4, 12, 14))).sum() == 2 * 4 * 12 * 14
import numba
assert numba.config.DISABLE_JIT
print("right")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "right", done.stderr[-2000:]


def test_attributes_are_computed_without_a_lock() -> None:
    # That of Python 3.11 holds a lock, which a fork would leave locked in the child for ever.
    found = [path for path in SOURCES if takes_locked_attributes(path.read_text())]
    assert [path.name for path in found] == ["cached.py"]
    for source in (
        "from functools import (\n    cache,\n    cached_property,\n)",
        "import functools as f\n\n@f.cached_property\ndef one(self): ...",
    ):
        assert takes_locked_attributes(source)
    assert not takes_locked_attributes("from fastconv.core.cached import cached_property")


def takes_locked_attributes(source: str) -> bool:
    """Return whether a module takes `cached_property` from functools, in whatever way."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "functools"
    }
    return any(
        (
            isinstance(node, ast.ImportFrom)
            and node.module == "functools"
            and "cached_property" in {alias.name for alias in node.names}
        )
        or (
            isinstance(node, ast.Attribute)
            and node.attr == "cached_property"
            and isinstance(node.value, ast.Name)
            and node.value.id in names
        )
        for node in nodes
    )
