"""A PyTorch state dict in a flax nnx module of the same make: by the names of the parameters, each turned as flax has it.

PyTorch keeps the weight of a linear layer as (out, in) and of a convolution as (out, in, *spatial), flax as (in, out) and (*spatial, in,
out). Beyond the weights the two are the same only where the module says so: what a state dict does not hold cannot be compared here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from engine.base.errors import UserError, meant

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalisation keeps beside its parameters."""
MOST_SAID = 3

Module = TypeVar("Module")


class _Place(NamedTuple):
    """Where a parameter of a module is to be had from."""

    parameter: Any
    torch_name: str
    axes: tuple[int, ...] | None
    """Those of the PyTorch array, in flax's order; None where they are the same."""
    shown: str


def from_torch_state(module: Module, state_dict: Mapping[str, Any]) -> Module:
    """The nnx module with the parameters of a PyTorch `state_dict()`, in its number format; the same object, for `from_flax`.

    Submodules have the same attribute names and order on both sides: `layers.0.weight` is `layers[0]` of an `nnx.List`, and item 0 of a
    `nnx.Sequential` called `layers`. Linear and convolution weights are transposed, an embedding's `weight` is its `embedding`, a norm's
    its `scale`; a parameter of the module's own has the same name and shape. Values are tensors, or arrays as safetensors gives them.

    No weight tells the rest: give `epsilon=1e-5` to norms (flax has 1e-6), padding to convolutions (flax has "SAME", PyTorch none), the
    exact `jax.nn.gelu(x, approximate=False)`; and flatten images as (channels, height, width), for flax has channels last. Raises
    UserError for a name that one side lacks, another shape, and batch normalisation, whose running statistics have no place here.
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise UserError(f"{type(module).__name__}: expected a flax nnx module of the same make as the PyTorch one; linen takes params=…")
    statistics = [name for name in state_dict if name.rpartition(".")[2] in STATISTICS]
    if statistics:
        raise UserError(
            f"{statistics[0]}: of batch normalisation, whose running statistics PyTorch reads; from_flax takes those of all examples "
            "instead, which is another model: fold them into the layer before, or use GroupNorm or LayerNorm"
        )
    places = list(_places(module))
    names = [place.torch_name for place in places]
    missing, unknown = [name for name in names if name not in state_dict], [name for name in state_dict if name not in names]
    if missing or unknown:
        said = [f"no {name}{meant(name, unknown)}" for name in missing[:MOST_SAID]]
        said += [f"{name} {tuple(np.shape(state_dict[name]))} is none of the module{meant(name, names)}" for name in unknown[:MOST_SAID]]
        raise UserError(f"state_dict: does not go with {type(module).__name__}: {'; '.join(said)}. The module has {', '.join(names)[:600]}")
    arrays = [_array(place.torch_name, state_dict[place.torch_name]) for place in places]
    for place, array in zip(places, arrays, strict=True):
        expected = place.parameter[...].shape
        turned = array if place.axes is None else _turned(place, array, len(expected))
        if turned.shape != expected:
            back = tuple(expected[place.axes.index(k)] for k in range(len(expected))) if place.axes is not None else expected
            raise UserError(f"state_dict: {place.torch_name} is of shape {array.shape}; {place.shown} {expected} expects {back}")
    for place, array in zip(places, arrays, strict=True):  # after all of them go: a module is changed whole or not at all
        place.parameter.set_value(jnp.asarray(array if place.axes is None else np.transpose(array, place.axes)))
    return module


def _turned(place: _Place, array: np.ndarray, dimensions: int) -> np.ndarray:
    if array.ndim != dimensions:
        raise UserError(f"state_dict: {place.torch_name} is of shape {array.shape}; {place.shown} has {dimensions} dimensions")
    assert place.axes is not None
    return np.transpose(array, place.axes)


def _array(name: str, given: Any) -> np.ndarray:
    """A tensor, or an array, as an array of floats."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        given = given.float() if str(given.dtype) == "torch.bfloat16" else given
    array = np.asarray(given)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"state_dict: {name} is of the format {array.dtype}; expected floating-point numbers")
    return array


def _places(module: Any) -> Iterator[_Place]:
    """Every parameter of a module, with its name in PyTorch. Raises UserError for a layer that PyTorch has in another form."""
    from flax import nnx

    for path, layer in nnx.iter_modules(module):
        own = {name: each for name, each in vars(layer).items() if isinstance(each, nnx.Param)}
        if isinstance(layer, nnx.BatchNorm):
            raise UserError(f"{_dotted(path)}: batch normalisation, whose running statistics are not brought over; use nnx.GroupNorm")
        if own and isinstance(layer, nnx.LinearGeneral | nnx.Einsum | nnx.ConvTranspose):
            kind = type(layer).__name__
            raise UserError(f"{_dotted(path)}: nnx.{kind}, whose weights PyTorch has in other forms; use nnx.Linear or nnx.Conv")
        prefix = _torch_path(module, path)
        for name, parameter in own.items():
            weight, axes = name, None
            if isinstance(layer, nnx.Linear | nnx.Conv) and name == "kernel":
                weight, count = "weight", parameter[...].ndim
                axes = (*range(2, count), 1, 0)
            elif (isinstance(layer, nnx.Embed) and name == "embedding") or (_is_norm(layer) and name == "scale"):
                weight = "weight"
            yield _Place(parameter, ".".join([*prefix, weight]), axes, _dotted((*path, name)))


def _is_norm(layer: Any) -> bool:
    from flax import nnx

    return isinstance(layer, nnx.LayerNorm | nnx.GroupNorm | nnx.RMSNorm)


def _torch_path(module: Any, path: tuple[Any, ...]) -> list[str]:
    """The keys that lead to a layer, as PyTorch has them: those in a Sequential stand in it by their number alone."""
    from flax import nnx

    keys, node = list[str](), module
    for key in path:
        inside = isinstance(node, nnx.Sequential) and key == "layers"
        node = node[key] if isinstance(key, int) or not hasattr(node, str(key)) else getattr(node, key)
        if not inside:
            keys.append(str(key))
    return keys


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
