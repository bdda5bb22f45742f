"""Loops that Python calls: machine code for each combination of argument types, kept in the store.

Numba's dispatcher chooses by the arguments' types and passes on what it does not know yet. Here it
gets machine code of one function instead of Numba's three: the loop, without wrappers of its own;
its launch; and the wrapper that takes Python objects.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numba
from numba import _dynfunc
from numba.core import types
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
    """Return what Python calls: the function itself, or its launch if it is to run in `parallel`.

    `options` are Numba's.
    """

    def launch(*arguments):  # type: ignore[no-untyped-def]
        """Stand for the machine code: only its signature is ever read."""

    entry: Callable[..., None] = function
    if parallel:
        loop_parameters = list(inspect.signature(function).parameters.values())[2:]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        first = [inspect.Parameter(parameter, kind) for parameter in PARAMETERS]
        launch.__signature__ = inspect.Signature([*first, *loop_parameters])  # type: ignore[attr-defined]
        launch.__module__ = function.__module__
        entry = launch
    dispatcher = numba.njit(entry, **options)
    compiler = dispatcher._compiler
    dispatcher._compiler = _LoopCompiler(
        entry, compiler.targetdescr, dispatcher.targetoptions, {}, compiler.pipeline_class
    )
    dispatcher._compiler.loop, dispatcher._compiler.name = function, name
    return dispatcher


def is_compiled(dispatcher: Any, args: tuple[Any, ...]) -> bool:
    """Return whether the machine code for these types is in this process or in the store."""
    compiler = dispatcher._compiler
    return args in dispatcher.overloads or kernel_cache.exists(compiler.name, compiler.key(args))


def is_claimed(dispatcher: Any, args: tuple[Any, ...]) -> bool:
    """Return whether another process is compiling the machine code for these types."""
    compiler = dispatcher._compiler
    return kernel_cache.is_claimed(compiler.name, compiler.key(args))


class _LoopCompiler(_FunctionCompiler):  # type: ignore[misc]
    """What a dispatcher asks for the machine code for some argument types."""

    loop: Callable[..., None]
    name: str

    def key(self, args: tuple[Any, ...]) -> str:
        """Return what the machine code for some types depends on besides the build."""
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
        typing, context = self.targetdescr.typing_context, self.targetdescr.target_context
        flags = Flags()
        self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
        library = context.codegen().create_library(self.name)
        library.enable_object_caching()
        parallel = self.loop is not self.py_func
        loop_args = (types.int64, types.int64, *args[len(PARAMETERS) :]) if parallel else args
        loop = compile_extra(
            *(typing, context, self.loop, loop_args, types.none, flags, {}, library)
        )
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
        """Return what Numba makes of a compilation, as far as its dispatcher asks for it."""
        name = self.py_func.__name__
        descriptor = PythonFunctionDescriptor(
            *(True, self.loop.__module__, name, name, "", None, types.none, None, (), ()),
            argtypes=args,
            mangler=lambda name, *_, **__: name,  # nothing is linked with it
        )
        doc = f"compiled wrapper for {self.name!r}"
        function = _dynfunc.make_function(
            descriptor.lookup_module(), name, doc, entry, _environment(), ()
        )
        return compile_result(
            target_context=self.targetdescr.target_context,
            typing_context=self.targetdescr.typing_context,
            signature=types.none(*args),
            entry_point=function,
            fndesc=descriptor,
            objectmode=False,
        )


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Return the environment of all kernels: Numba asks for one, none has constants."""
    return Environment({})
