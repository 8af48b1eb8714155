"""Where a loss leaves the number format of θ: an operation that gives fewer digits than θ has, on a way from θ to the loss.

A loss in float64 says little of what it was computed in: a module with a `dtype` of its own casts to float32 and back, and no derivative
disagrees. So the operations themselves are gone through, as jax traced them, and inside those that hold others. What counts is a float
that depends on θ through floats: data may be cast as they like, and so may what whole numbers and truth values say of θ.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine.xla.known_jax import unknown

try:
    from jax.extend import core
except ImportError as error:
    raise unknown(error, "the search for what narrows a number") from None

JAX, ENGINE = Path(jax.__file__).parent, Path(__file__).parents[1]
FLAX = JAX.parent / "flax"
MODULES = re.compile(r"/flax/(linen|nnx)/")
BODIES = (core.Jaxpr, core.ClosedJaxpr)


class Narrowed(NamedTuple):
    """The operation that first gave fewer digits, or more."""

    operation: core.JaxprEqn
    format: str


Off = Callable[[int], bool]
"""Whether so many digits are other than those of θ."""
Known = Narrowed | bool
"""Of a value: whether it depends on θ, or that its digits have become others on the way."""


def narrowed(function: Callable[[Array], Array], theta: jax.ShapeDtypeStruct) -> str:
    """Where a function of θ computes with fewer digits than θ has, in a sentence; empty where it does not."""
    return _where(function, theta, lambda digits: digits < jnp.finfo(theta.dtype).nmant)


def widened(function: Callable[[Array], Array], theta: jax.ShapeDtypeStruct) -> str:
    """Where it computes with more."""
    return _where(function, theta, lambda digits: digits > jnp.finfo(theta.dtype).nmant)


def _where(function: Callable[[Array], Array], theta: jax.ShapeDtypeStruct, off: Off) -> str:
    """The first operation whose digits are off, in a sentence; empty where there is none."""
    given = _through(jax.make_jaxpr(function)(theta).jaxpr, [True], off)
    lost = next((known for known in given if isinstance(known, Narrowed)), None)
    return "" if lost is None else f"{_named(lost)} computes in {lost.format} where θ is {theta.dtype}"


def _through(body: core.Jaxpr | core.ClosedJaxpr, given: Sequence[Known], off: Off) -> list[Known]:
    """What is known of the results of operations, from what is known of their arguments."""
    body = body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
    known: dict[Any, Known] = dict(zip(body.invars, given, strict=True))

    def of(value: Any) -> Known:
        return False if isinstance(value, core.Literal) else known.get(value, False)

    for operation in body.eqns:
        known |= zip(operation.outvars, _results(operation, [of(value) for value in operation.invars], off), strict=True)
    return [of(value) for value in body.outvars]


def _results(operation: core.JaxprEqn, given: list[Known], off: Off) -> list[Known]:
    name, params = operation.primitive.name, operation.params
    if name == "scan":
        constants, carried = params["num_consts"], params["num_carry"]
        return _repeated(params["jaxpr"], given, constants, carried, off)
    if name == "while":
        return _repeated(params["body_jaxpr"], given[params["cond_nconsts"] :], params["body_nconsts"], len(operation.outvars), off)
    if name == "cond":
        return [_joined(each) for each in zip(*(_through(branch, given[1:], off) for branch in params["branches"]), strict=True)]
    for body in params.values():
        if isinstance(body, BODIES) and _counts(body) == (len(given), len(operation.outvars)):
            return _through(body, given, off)
    known = _joined(given)
    return [_result(operation, value.aval, known, off) for value in operation.outvars]


def _result(operation: core.JaxprEqn, value: Any, known: Known, off: Off) -> Known:
    format = getattr(value, "dtype", None)
    if format is None or not jnp.issubdtype(format, jnp.inexact):
        return False
    kept = operation.params["mantissa_bits"] if operation.primitive.name == "reduce_precision" else jnp.finfo(format).nmant
    if known is True and off(kept):
        return Narrowed(operation, str(format) if off(jnp.finfo(format).nmant) else f"{kept + 1} bits")
    return known


def _repeated(body: Any, given: list[Known], constants: int, carried: int, off: Off) -> list[Known]:
    """Of a loop: what one turn makes of what is carried is what the next begins with."""
    while True:
        made = _through(body, given, off)
        onward = [_joined(pair) for pair in zip(given[constants:][:carried], made, strict=False)]
        if onward == given[constants:][:carried]:
            return made
        given = [*given[:constants], *onward, *given[constants + carried :]]


def _joined(given: Sequence[Known]) -> Known:
    return next((known for known in given if isinstance(known, Narrowed)), any(given))


def _counts(body: Any) -> tuple[int, int]:
    inner = body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
    return len(inner.invars), len(inner.outvars)


def _named(lost: Narrowed) -> str:
    """The operation by what asked for it, with its place in the code of others: `nnx.Embed (convert_element_type, mine.py, line 9)`."""
    operation, trace = lost.operation.primitive.name, lost.operation.source_info.traceback
    frames: list[Any] = list(trace.frames) if trace is not None else []
    inside = next((k for k, frame in enumerate(frames) if JAX not in Path(frame.file_name).parents), len(frames))
    outside = [(frame, f"{frame.file_name}, line {frame.line_num}") for frame in frames[inside:]]
    modules = [
        (f"{library[1]}.{frame.function_name.removesuffix('.__call__')}", at) for frame, at in outside
        if (library := MODULES.search(frame.file_name)) and frame.function_name.endswith(".__call__")
    ]  # fmt: skip
    own = [at for frame, at in outside if not {JAX, FLAX, ENGINE} & {*Path(frame.file_name).parents}]
    if modules:
        by, at = modules[0]
        return f"{by} ({operation}, {own[0] if own else at})"
    public = [frame.function_name for frame in frames[:inside] if "<locals>" not in frame.function_name and "/_src/n" in frame.file_name]
    named = [operation, *own[:1]]
    return f"{public[-1].lstrip('_')} ({', '.join(named)})" if public else f"{named[0]}{f' ({named[1]})' if own else ''}"
