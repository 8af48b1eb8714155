"""How the leaves of a state go into a checkpoint, and how they come back, from an earlier version of eos too.

A state is a NamedTuple of arrays, numbers and further states; `pack` names every leaf by its path, so a checkpoint is a plain npz
file that says what it holds. `unpack` takes the leaves of a state by their names: those it does not know are ignored, and where one
is missing, or of an earlier shape, the state's own declaration says what stands in for it:

    probe: Annotated[Array, Earlier(lambda leaves: np.zeros_like(leaves["theta"]))]  # (p,)

`leaves` are those of the same state in the checkpoint, by their paths from there. A default of the NamedTuple does as well.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import jax.numpy as jnp
import numpy as np

Leaves = Mapping[str, np.ndarray]


class Earlier(NamedTuple):
    """How a leaf, or a state in a state, is had from a checkpoint written before it was what it is."""

    made: Callable[[Leaves], Any] | None = None
    """What it would have been, from the other leaves of its state."""
    names: tuple[str, ...] = ()
    """Those it had before, the newest first."""
    fitted: Callable[[np.ndarray, Leaves], Any] | None = None
    """What becomes of the array there is, of its shape now or an earlier one."""


def pack(state: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every leaf of a state by its dotted path."""
    leaves: dict[str, np.ndarray] = {}
    for name, value in zip(state._fields, state, strict=True):
        if hasattr(value, "_fields"):
            leaves |= pack(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = np.asarray(value)
    return leaves


def shapes(state: Any, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The shape of every leaf by its path; no array is moved for it."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in zip(state._fields, state, strict=True):
        found |= shapes(value, f"{prefix}{name}.") if hasattr(value, "_fields") else {prefix + name: np.shape(value)}
    return found


def unpack(kind: type, leaves: Leaves, prefix: str = "") -> Any:
    """The state of this kind in the leaves. Raises ValueError when a leaf is missing and nothing says what it would have been."""
    hints, values = get_type_hints(kind, include_extras=True), {}
    for name in kind._fields:  # type: ignore[attr-defined]
        hint, earlier = _declared(hints[name])
        found = next((path for each in (name, *earlier.names) if _holds(leaves, path := prefix + each)), None)
        if found is None:
            values[name] = _typed(hint, _made(kind, name, earlier, leaves, prefix))
        elif hasattr(hint, "_fields"):
            values[name] = unpack(hint, leaves, f"{found}.")
        else:
            leaf = leaves[found]
            values[name] = _typed(hint, earlier.fitted(leaf, _of(leaves, prefix)) if earlier.fitted else leaf)
    return kind(**values)


def _declared(hint: Any) -> tuple[Any, Earlier]:
    """A field's type, and what its declaration says of earlier checkpoints."""
    if get_origin(hint) is not Annotated:
        return hint, Earlier()
    kind, *said = get_args(hint)
    return kind, next((each for each in said if isinstance(each, Earlier)), Earlier())


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
    raise ValueError(f"it has no {prefix}{name}, and nothing says what that would have been")


def _typed(hint: Any, value: Any) -> Any:
    """A leaf as its state has it: a number of Python, a numpy array, an array on the device; a state as it is."""
    if hint in (int, float):
        return hint(value)
    return value if hint is np.ndarray or hasattr(value, "_fields") else jnp.asarray(value)
