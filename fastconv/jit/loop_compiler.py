"""Loops that Python calls: machine code for each combination of argument types, kept in the store.

Numba's dispatcher selects by argument types, and asks a compiler for unknown ones. Here that
returns one library with the loop, without wrappers of its own, its launch, and the wrapper that
takes Python objects.
"""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numba
from numba import _dynfunc
from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Flags, compile_extra, compile_result
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined, unused-ignore]
from numba.core.environment import Environment
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.runtime import rtsys

from fastconv.jit import kernel_cache
from fastconv.jit.kernel_cache import StoredKernel
from fastconv.jit.parallel_loop import PARAMETERS, add_launch
from fastconv.jit.stored_code import addresses


def loop_dispatcher(
    function: Callable[..., None], name: str, parallel: bool, options: Mapping[str, Any]
) -> Any:
    """Return the dispatcher of a function, or of its launch if it is to run in `parallel`.

    `options` are Numba's.
    """

    def launch(*arguments):  # type: ignore[no-untyped-def]
        """Provide a signature; it is never called."""

    entry: Callable[..., None] = function
    if parallel:
        loop_parameters = list(inspect.signature(function).parameters.values())[2:]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        first = [inspect.Parameter(parameter, kind) for parameter in PARAMETERS]
        launch.__signature__ = inspect.Signature([*first, *loop_parameters])  # type: ignore[attr-defined]
        launch.__module__ = function.__module__
        entry = launch
    dispatcher = _dispatcher(entry, _LoopCompiler, options)
    dispatcher._compiler.loop, dispatcher._compiler.name = function, name
    return dispatcher


def inner_dispatcher(function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Return a dispatcher that only other loops may call."""
    return _dispatcher(function, _InnerCompiler, options)


def _dispatcher(
    function: Callable[..., Any], kind: type[_Compiler], options: Mapping[str, Any]
) -> Any:
    dispatcher = numba.njit(function, **options)
    target, pipeline = dispatcher.targetdescr, dispatcher._compiler.pipeline_class
    dispatcher._compiler = kind(function, target, dispatcher.targetoptions, {}, pipeline)
    return dispatcher


def is_compiled(dispatcher: Any, args: tuple[Any, ...]) -> bool:
    """Return whether the machine code for these types is in this process or in the store."""
    compiler = dispatcher._compiler
    return args in dispatcher.overloads or kernel_cache.exists(compiler.name, compiler.key(args))


def is_claimed(dispatcher: Any, args: tuple[Any, ...]) -> bool:
    """Return whether another process is compiling the machine code for these types."""
    compiler = dispatcher._compiler
    return kernel_cache.is_claimed(compiler.name, compiler.key(args))


class _Compiler(_FunctionCompiler):  # type: ignore[misc]
    """Compiles a function for given argument types, for a dispatcher."""

    def _lowered(self, function: Any, args: Any, return_type: Any, library: Any) -> Any:
        """Compile a function to LLVM IR in a library, without wrappers."""
        flags = Flags()
        self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
        typing, context = self.targetdescr.typing_context, self.targetdescr.target_context
        return compile_extra(typing, context, function, args, return_type, flags, {}, library)

    def _entry(self, address: int) -> Any:
        """Return a Python function for the wrapper at an address."""
        name = self.py_func.__name__
        module = sys.modules[self.py_func.__module__]
        doc = f"compiled wrapper for {name!r}"
        return _dynfunc.make_function(module, name, doc, address, _environment(), ())


class _InnerCompiler(_Compiler):
    """The compiler of functions that are linked into their callers, without machine code."""

    def _compile_core(self, args: Any, return_type: Any) -> Any:
        context = self.targetdescr.target_context
        library = _InnerLibrary(context.codegen(), self.py_func.__name__)
        result = self._lowered(self.py_func, args, return_type, library)
        result = result._replace(entry_point=self._entry(0))
        context.insert_user_function(result.entry_point, result.fndesc, [library])
        return result


class _InnerLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Optimized LLVM IR to be linked with that of callers."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _LoopCompiler(_Compiler):
    """The compiler of loops that Python calls: machine code is read from the store or added."""

    loop: Callable[..., None]
    name: str

    def key(self, args: tuple[Any, ...]) -> str:
        """Return the store's key for some types: everything but the build."""
        return repr((args, self.targetdescr.target_context.codegen().magic_tuple()))

    def _compile_core(self, args: Any, return_type: Any) -> Any:
        context = self.targetdescr.target_context
        # Loading needs Numba's runtime symbols only. `context.refresh()` would also import
        # everything the compiler knows, which takes longer than all the rest of a first call.
        rtsys.initialize(context)
        entry, *environments = addresses(
            self.name, self.key(args), lambda: self._machine_code(args)
        )
        for pointer in environments:
            ctypes.c_void_p.from_address(pointer).value = id(_environment())
        return self._result(entry, args)

    def _machine_code(self, args: Any) -> StoredKernel:
        """Compile the loop, its launch and its wrapper as one library."""
        context = self.targetdescr.target_context
        library = context.codegen().create_library(self.name)
        library.enable_object_caching()
        parallel = self.loop is not self.py_func
        loop_args = (types.int64, types.int64, *args[len(PARAMETERS) :]) if parallel else args
        try:
            loop = self._lowered(self.loop, loop_args, types.none, library)
        except FileNotFoundError as error:  # Numba asks for the working folder's name
            raise FileNotFoundError(
                "fastconv cannot compile kernels, because the working folder has been deleted: "
                "change to one that exists, e.g. os.chdir('/')"
            ) from error
        entry = add_launch(context, library, loop, self.name) if parallel else loop.fndesc
        environment = loop.environment
        context.create_cpython_wrapper(library, entry, environment, None, release_gil=True)
        library.finalize()
        environments = [environment, *loop._find_referenced_environments()]
        if library.has_dynamic_globals or any(each.consts for each in environments):
            raise RuntimeError(f"the kernel {self.name} must not use Python objects")
        names = sorted({entry.env_name, *(each.env_name for each in environments)})
        code = library._get_compiled_object()
        return StoredKernel((entry.llvm_cpython_wrapper_name, *names), code)

    def _result(self, entry: int, args: Any) -> Any:
        """Return a compile result with the fields that Numba's dispatcher needs."""
        name = self.py_func.__name__
        descriptor = PythonFunctionDescriptor(
            *(True, self.loop.__module__, name, name, "", None, types.none, None, (), ()),
            argtypes=args,
            mangler=lambda name, *_, **__: name,  # it is never linked
        )
        return compile_result(
            target_context=self.targetdescr.target_context,
            typing_context=self.targetdescr.typing_context,
            signature=types.none(*args),
            entry_point=self._entry(entry),
            fndesc=descriptor,
            objectmode=False,
        )


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Return the environment of all kernels, which Numba requires; it has no constants."""
    return Environment({})
