"""Sentences for names that do not exist: the keyword, attribute or option that was probably meant.

They are worked out only once an error is certain.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# Other libraries' names of arguments: the first of ours that the function has is meant.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("strides", "window_strides"), ("stride",)),
    **dict.fromkeys(("dilation_rate", "rhs_dilation", "rate"), ("dilation", "p")),
    **dict.fromkeys(("feature_group_count", "group", "num_groups"), ("groups",)),
    **dict.fromkeys(("input", "inputs", "images", "lhs", "X"), ("x", "cols", "input_shape")),
    **dict.fromkeys(("filters", "filter", "kernel", "w", "rhs"), ("weight", "out_channels")),
    **dict.fromkeys(("b", "use_bias"), ("bias",)),
    **dict.fromkeys(("pad", "pads"), ("padding",)),
    **dict.fromkeys(("pool_size", "ksize", "window_shape"), ("kernel_size",)),
    **dict.fromkeys(("units", "num_classes"), ("out_features",)),
    **dict.fromkeys(("lr", "max_lr", "learning_rate"), ("lr", "learning_rate")),
    **dict.fromkeys(("epsilon", "alpha"), ("eps", "negative_slope")),
    **dict.fromkeys(("seed", "generator", "random_state"), ("rng", "random_state", "seed")),
    **dict.fromkeys(("validation_data", "validation_split"), ("validation",)),
    **dict.fromkeys(("verbose", "verbosity"), ("progress",)),
    "axis": ("dim",),
}
# Arguments of others that have no counterpart, and what to do without them.
_NO_ARGUMENTS = {
    **dict.fromkeys(
        ("data_format", "dimension_numbers"),
        "images are (N, C, H, W) and weights (K, C / groups, R, S); NHWC images are "
        "x.transpose(0, 3, 1, 2), Keras's weights weight.transpose(3, 2, 0, 1)",
    ),
    "kernel_size": "the size of the kernel is that of weight, (K, C / groups, R, S)",
    "inplace": "leave it out",
    "device": "leave it out, everything runs on the CPU",
    "dtype": "it follows from the arrays; model.astype('float64') converts a model",
    "metrics": "leave it out, the loss and the accuracy are always reported",
    "activation": "add the activation as a layer, such as nn.ReLU()",
    "kernel_initializer": "the functions of fastconv.nn.init set weights",
}
# Other libraries' names, without case, that are not near enough to ours.
_ATTRIBUTES = {
    "dense": "fastconv.nn.Linear",
    "averagepooling2d": "fastconv.nn.AvgPool2d",
    "globalaveragepooling2d": "fastconv.nn.AdaptiveAvgPool2d(1)",
    "globalmaxpooling2d": "fastconv.nn.AdaptiveMaxPool2d(1)",
    "depthwiseconv2d": "fastconv.nn.Conv2d(..., groups=in_channels)",
    "separableconv2d": "fastconv.nn.DepthwiseSeparableConv2d",
    "unfold": "fastconv.im2col",
    "fold": "fastconv.col2im",
    "dataloader": "fastconv.data.batches",
    "functional": "a function of fastconv itself, such as fastconv.conv2d",
    "optim": "fastconv.nn, where the optimizers are",
    "tensor": "numpy.asarray: fastconv takes NumPy's arrays",
    "nograd": "model.eval(), which keeps nothing for gradients",
}
# Methods of models elsewhere, and what does their work here.
_METHODS = {
    **dict.fromkeys(("fit", "train_on_batch"), "call fastconv.nn.fit(model, x, y)"),
    **dict.fromkeys(("predict", "evaluate"), "call model.eval()(x), then argmax(axis=1)"),
    "compile": "give loss and optimizer to fastconv.nn.fit",
    **dict.fromkeys(("to", "cuda", "cpu"), "leave it out, everything runs on the CPU"),
    **dict.fromkeys(("float", "double", "half"), "call model.astype('float32') or 'float64'"),
    "add": "call model.append(layer)",
    **dict.fromkeys(("save", "save_weights"), "call fastconv.nn.save(model, path)"),
    **dict.fromkeys(("load", "load_weights"), "call fastconv.nn.load(model, path)"),
}


def nearest(word: Any, known: Iterable[str]) -> str | None:
    """Return the known name that a word is most similar to, if any is.

    >>> nearest("SAME", ("same", "valid"))
    'same'
    """
    plain = {_plain(name): name for name in reversed(tuple(known))}
    close = difflib.get_close_matches(_plain(word), plain) if isinstance(word, str) else ()
    return plain[close[0]] if close else None


# What others call a value, and its name here.
_OTHER_VALUES = {"swish": "silu"}


def did_you_mean(argument: str, value: Any, known: Iterable[str]) -> str:
    """Return ": did you mean ...?", or nothing where no known value is similar to `value`."""
    known = tuple(known)
    other = _OTHER_VALUES.get(_plain(value)) if isinstance(value, str) else None
    name = other if other in known else nearest(value, known)
    return f": did you mean {argument}={name!r}?" if name else ""


def _plain(word: str) -> str:
    return word.casefold().replace("_", "").replace("-", "").replace(" ", "")


# Arguments -------------------------------------------------------------------------------------


class NoOthers(TypedDict):
    """The type of ``**unknown`` in a function that explains unknown arguments itself."""


def unexpected(function: Callable[..., Any], names: Iterable[str], owner: str = "") -> TypeError:
    """Return the error for keyword arguments that a function, or the class `owner`, lacks."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    has = [p.name for p in parameters if p.kind not in kinds and p.name != "self"]
    texts = [f"{name!r}: {_argument_hint(name, has)}" for name in names]
    what = "an unexpected keyword argument" if len(texts) == 1 else "unexpected keyword arguments"
    return TypeError(f"{owner or function.__name__}() got {what} {'; '.join(texts)}")


def _argument_hint(name: str, has: list[str]) -> str:
    meant = next((ours for ours in _ARGUMENTS.get(name, ()) if ours in has), None)
    if meant is None and name in _NO_ARGUMENTS:
        return _NO_ARGUMENTS[name]
    meant = meant or nearest(name, has)
    if meant:
        return f"did you mean {meant}?"
    return f"its arguments are {', '.join(has)}" if has else "it takes none"


def explained(thing: T) -> T:
    """Return a function or class of a public module whose refusals of keywords name the right ones.

    A class is changed in place. A function is wrapped, which takes 0.2 us a call, but for one that
    has ``**unknown: Unpack[NoOthers]``: it raises `unexpected` itself.
    """
    if isinstance(thing, type) and "__init__" in vars(thing):
        thing.__init__ = _explained(thing.__init__)  # type: ignore[misc]
    if not isinstance(thing, types.FunctionType) or hasattr(thing, "__wrapped__"):
        return thing
    signature = inspect.signature(thing)
    if "unknown" in signature.parameters:
        shown = [p for name, p in signature.parameters.items() if name != "unknown"]
        thing.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return thing
    wrapped = _explained(thing)
    setattr(sys.modules[thing.__module__], thing.__name__, wrapped)  # where pickle looks for it
    return wrapped


def _explained(function: F) -> F:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except TypeError as error:
            # Only where the call itself was refused: no frame is below this one.
            below = error.__traceback__ is not None and error.__traceback__.tb_next
            unknown = named.keys() - inspect.signature(function).parameters.keys()
            if below or not unknown:
                raise
        owner = type(given[0]).__name__ if function.__name__ == "__init__" else ""
        raise unexpected(function, [name for name in named if name in unknown], owner)

    return cast(F, call)


# Attributes ------------------------------------------------------------------------------------


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """Return the error for a name that a module lacks; `known` are dotted names, nearest first."""
    paths: dict[str, str] = {}
    for path in known:
        paths.setdefault(path.rpartition(".")[2], path)
    meant = paths.get(name) or _ATTRIBUTES.get(_plain(name))
    meant = meant or paths.get(nearest(name, paths) or "")
    hint = f": did you mean {meant}?" if meant else ""
    text = f"module {module!r} has no attribute {name!r}{hint}"
    return AttributeError(text, name=name, obj=None)  # Python then adds no name of its own


class Hinting:
    """Base of models, which tells what does the work of methods that others' models have."""

    @_explained
    def __init__(self) -> None:  # object's own says only that it takes no arguments
        super().__init__()

    if not TYPE_CHECKING:  # with it, a type checker would believe in every name

        def __getattr__(self, name: str) -> Any:
            if name in _METHODS:
                text = f"{type(self).__name__!r} object has no attribute {name!r}: {_METHODS[name]}"
                raise AttributeError(text)
            return object.__getattribute__(self, name)  # raises what it raised before
