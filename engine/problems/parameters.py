"""The parameters that a flat θ is made of: the name and shape of each, and the way there and back."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.tree_util import GetAttrKey

from engine.base.errors import UserError, meant
from engine.problems.problem import Problem
from engine.xla.shares import numbers

WHOLE = "theta"
"""The name of θ where it is one array of its own."""


class Parameter(NamedTuple):
    """One array of the tree of parameters."""

    name: str
    """The path of its keys, `Dense_0.kernel`."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def parameters(problem: Problem, size: int) -> tuple[Parameter, ...]:
    """The parameters of a problem with θ (p,), in the order that θ has them in. Raises UserError where its `unravel` does more than
    take θ apart, or two parameters come to one name.
    """
    return of_unravel(problem.unravel, numbers(size, problem.shares), problem.label)


def of_unravel(unravel: Callable[[Array], Any], size: int, label: str) -> tuple[Parameter, ...]:
    """The parameters that a function makes of θ (p,): see `parameters`."""
    order = np.arange(size, dtype=np.float64)
    leaves = jax.tree_util.tree_leaves_with_path(unravel(jax.numpy.asarray(order)))
    known = tuple(Parameter(_name(path), np.shape(leaf)) for path, leaf in leaves)
    if not np.array_equal(np.concatenate([np.ravel(leaf) for _, leaf in leaves]), order):
        raise UserError(f"{label}: its unravel does not take θ apart in order, so its parameters cannot be told by name")
    if len({each.name for each in known}) < len(known):
        raise UserError(f"{label}: two of its parameters come to one name: {', '.join(sorted(each.name for each in known))[:200]}")
    return known


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by the names that parameters have."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: tuple[Any, ...]) -> str:
    """The keys of a path, joined; nnx has the array of a parameter in a field `value`, which says nothing."""
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    words = [str(next((getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)), key)) for key in path]
    return ".".join(words) or WHOLE


def fitted(given: Any, expected: Any, where: str) -> Any:
    """A tree of parameters, or one that has them under `params`, in the structure of the one expected. Raises UserError, as `joined`."""
    leaves, structure = jax.tree.flatten(expected)
    known = tuple(Parameter(name, np.shape(leaf)) for name, leaf in by_name(expected).items())
    inner = given["params"] if isinstance(given, Mapping) and set(given) == {"params"} and "params" not in expected else given
    vector = joined(known, by_name(inner), where)
    return jax.tree.unflatten(structure, [np.asarray(each) for each in named(known, vector).values()]) if leaves else expected


def named(known: tuple[Parameter, ...], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """An array (…, p) taken apart: (…, *shape) for each parameter, by name."""
    ends = np.cumsum([each.size for each in known])
    parts = np.split(vectors, ends[:-1], axis=-1)
    rows = vectors.shape[:-1]
    return {each.name: np.ascontiguousarray(part).reshape(*rows, *each.shape) for each, part in zip(known, parts, strict=True)}


def joined(known: tuple[Parameter, ...], given: Mapping[str, Any], where: str) -> np.ndarray:
    """θ (p,) in float64 of arrays by name. Raises UserError, beginning with `where` they are from, for a name that is missing or too many,
    and for an array of another shape or of no numbers.
    """
    expected, missing = {each.name: each for each in known}, [each for each in known if each.name not in given]
    if missing or len(given) > len(known):
        others = [name for name in given if name not in expected]
        said = [f"no {each.name} {each.shape}{meant(each.name, others)}" for each in missing[:MOST_SAID]]
        said += [f"{name} {np.shape(given[name])} is none of them{meant(name, list(expected))}" for name in others[:MOST_SAID]]
        raise UserError(f"{where}: does not hold these parameters: {'; '.join(said)}. Expected {_listed(known)}")
    arrays = []
    for each in known:
        array = np.asarray(given[each.name])
        if array.shape != each.shape:
            raise UserError(f"{where}: {each.name} is of shape {array.shape}; expected {each.shape}{_turned(array.shape, each.shape)}")
        if not np.issubdtype(array.dtype, np.floating) and array.dtype.kind != "V":
            raise UserError(f"{where}: {each.name} is of the format {array.dtype}; expected floating-point numbers")
        arrays.append(array.astype(np.float64).ravel())
    return np.concatenate(arrays)


MOST_SAID = 3
"""Parameters that an error names of each kind of fault."""
MOST_LISTED = 12


def _listed(known: tuple[Parameter, ...]) -> str:
    names = ", ".join(f"{each.name} {each.shape}" for each in known[:MOST_LISTED])
    return names + (f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else "")


def _turned(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What a shape that is the other way round may be."""
    return "; PyTorch has it the other way round: engine.from_torch_state turns it" if sorted(given) == sorted(expected) else ""
