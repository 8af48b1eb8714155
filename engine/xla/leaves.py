"""How the leaves of a state go into a checkpoint, and how they come back, from an earlier version of eos too.

A state is a NamedTuple of arrays, numbers, further states, and dicts of them by name; `pack` names every leaf by its path, so a checkpoint
is a plain npz file that says what it holds. `unpack` takes the leaves of a state by their names: those it does not know are ignored, and
where one is missing, or of an earlier shape, the state's own declaration says what stands in for it:

    probe: Annotated[Array, Earlier(lambda leaves: np.zeros_like(leaves["theta"]))]  # (p,)

`leaves` are those of the same state in the checkpoint, by their paths from there. A default of the NamedTuple does as well. What a field
of the type Any holds depends on the run: the caller says what it is, by the field's name.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Leaves = Mapping[str, np.ndarray]
Kinds = Mapping[str, Any]
"""What fields of the type Any hold: a tree to take after, or the state's kind; by name where a dict holds several."""


Put = Callable[[Any], Array]
"""An array of the host, or one of jax, as it lies on the devices."""


class Earlier(NamedTuple):
    """How a leaf, or a state in a state, is had from a checkpoint written before it was what it is."""

    made: Callable[[Leaves], Any] | None = None
    """What it would have been, from the other leaves of its state."""
    names: tuple[str, ...] = ()
    """Those it had before, the newest first."""
    fitted: Callable[[Any, Leaves], Any] | None = None
    """What becomes of the array there is, of its shape now or an earlier one, or of the state."""


def pack(state: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every leaf of a state by its dotted path."""
    return {path: plain(leaf) for path, leaf in _leaves(state, prefix)}


def plain(leaf: Any) -> np.ndarray:
    """A leaf as numpy has it, which knows no keys of random numbers: of one, its data."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def shapes(state: Any, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by its path; no array is moved for it."""
    return {path: np.shape(leaf) for path, leaf in _leaves(state, prefix)}


def _leaves(state: Any, prefix: str) -> list[tuple[str, Any]]:
    parts = _parts(state)
    if parts is None:
        return [(prefix.removesuffix("."), state)]
    return [leaf for name, part in parts.items() for leaf in _leaves(part, f"{prefix}{name}.")]


def _parts(state: Any) -> dict[str, Any] | None:
    """What a state, a dict, a tuple or another node of a tree consists of, by name; None for a leaf."""
    if hasattr(state, "_asdict"):
        return dict(state._asdict())
    if isinstance(state, Mapping):
        return {str(name): part for name, part in state.items()}
    if isinstance(state, tuple | list):
        return {str(k): part for k, part in enumerate(state)}
    return None if jax.tree_util.all_leaves([state]) else _parts_of_node(state)


def _parts_of_node(state: Any) -> dict[str, Any]:
    """What a node that jax takes apart consists of, None too: that is nothing to jax."""
    parts, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda each: each is not state)
    return {_path(keys): part for keys, part in parts}


def _path(keys: tuple[Any, ...]) -> str:
    """The path of a leaf in a tree, as `_leaves` has it."""
    return ".".join(str(next(getattr(key, name) for name in ("name", "key", "idx") if hasattr(key, name))) for key in keys)


def unpack(kind: type, leaves: Leaves, prefix: str = "", kinds: Kinds | None = None, put: Put = jnp.asarray) -> Any:
    """The state of this kind in the leaves, each `put` on the device. Raises ValueError when a leaf is missing and nothing says what it
    would have been."""
    hints, values = get_type_hints(kind, include_extras=True), {}
    for name in kind._fields:  # type: ignore[attr-defined]
        hint, earlier = _declared(hints[name])
        path = next((path for each in (name, *earlier.names) if _holds(leaves, path := prefix + each)), None)
        if path is None:
            values[name] = _typed(hint, _made(kind, name, earlier, leaves, prefix), put)
        elif hasattr(hint, "_fields"):
            state = unpack(hint, leaves, f"{path}.", kinds, put)
            values[name] = earlier.fitted(state, _of(leaves, prefix)) if earlier.fitted else state
        elif get_origin(hint) is dict:
            inner = get_args(hint)[1]
            given = (kinds or {}).get(name, {})
            named = {each: given.get(each) if inner is Any else inner for each in _names(leaves, f"{path}.")}
            values[name] = {each: _named(one, leaves, f"{path}.{each}", kinds, put) for each, one in named.items() if one is not None}
        elif hint is Any:
            values[name] = _like((kinds or {}).get(name), leaves, path, put)
        else:
            leaf = leaves[path]
            values[name] = _typed(hint, earlier.fitted(leaf, _of(leaves, prefix)) if earlier.fitted else leaf, put)
    return kind(**values)


def _named(kind: Any, leaves: Leaves, path: str, kinds: Kinds | None, put: Put) -> Any:
    """What a dict holds under a name."""
    return unpack(kind, leaves, f"{path}.", kinds, put) if hasattr(kind, "_fields") else _typed(kind, leaves[path], put)


def _like(template: Any, leaves: Leaves, path: str, put: Put) -> Any:
    """A tree like another one, of the leaves that are there."""

    def leaf(where: str, like: Any) -> Any:
        if where not in leaves:
            raise ValueError(f"it has no {where}, and nothing says what that would have been")
        given = put(leaves[where])
        return jax.random.wrap_key_data(given, impl=jax.random.key_impl(like)) if _is_key(like) else given

    named, structure = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree.unflatten(structure, [leaf(f"{path}.{_path(keys)}".removesuffix("."), like) for keys, like in named])


def _names(leaves: Leaves, prefix: str) -> list[str]:
    """The names under a path, in the order of the checkpoint."""
    return list(dict.fromkeys(path.removeprefix(prefix).split(".")[0] for path in leaves if path.startswith(prefix)))


def _declared(hint: Any) -> tuple[Any, Earlier]:
    """A field's type, and what its declaration says of earlier checkpoints."""
    if get_origin(hint) is not Annotated:
        return hint, Earlier()
    kind, *metadata = get_args(hint)
    return kind, next((each for each in metadata if isinstance(each, Earlier)), Earlier())


def _holds(leaves: Leaves, path: str) -> bool:
    """Whether there is a leaf at this path, or a state of leaves."""
    return path in leaves or any(each.startswith(f"{path}.") for each in leaves)


def _of(leaves: Leaves, prefix: str) -> Leaves:
    """The leaves of one state by their paths from there."""
    return {path.removeprefix(prefix): leaf for path, leaf in leaves.items() if path.startswith(prefix)}


def _made(kind: type, name: str, earlier: Earlier, leaves: Leaves, prefix: str) -> Any:
    if earlier.made is not None:
        return earlier.made(_of(leaves, prefix))
    if name in kind._field_defaults:  # type: ignore[attr-defined]
        return kind._field_defaults[name]  # type: ignore[attr-defined]
    nothing = _nothing(_declared(get_type_hints(kind, include_extras=True)[name])[0])
    if nothing is not None:
        return nothing
    raise ValueError(f"it has no {prefix}{name}, and nothing says what that would have been")


def _nothing(hint: Any) -> Any | None:
    """What leaves no leaf behind: a dict of nothing, or a state of such dicts alone; None for all else."""
    if get_origin(hint) is dict:
        return {}
    if not hasattr(hint, "_fields"):
        return None
    parts = [_nothing(_declared(each)[0]) for each in get_type_hints(hint, include_extras=True).values()]
    return None if any(part is None for part in parts) else hint(*parts)


def _typed(hint: Any, value: Any, put: Put) -> Any:
    """A leaf as its state has it: a number of Python, a numpy array, an array on the device; a state or a dict as it is."""
    if hint in (int, float):
        return hint(value)
    return value if hint is np.ndarray or hasattr(value, "_fields") or isinstance(value, dict) else put(value)
