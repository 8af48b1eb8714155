"""Where θ starts when a specification names a file: the parameters of a snapshot, of another program, or of a run's checkpoint.

A file holds arrays by the names of the parameters, as `engine.problems.parameters` has them, or all of them under `params`. Only numbers
are read: nothing is unpickled or executed.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from engine.base import folders
from engine.base.errors import UserError, first_line
from engine.base.files import open_plain
from engine.problems.parameters import Parameter, by_name, joined, of_unravel
from engine.record.safe_read import NoTensorsError, read_tensors
from engine.record.snapshots import THETA, split
from engine.xla.shares import Shares, laid_out, numbers

FIELD = "[problem] start"
WRAPPED = "params."
"""What begins the names of a tree that has the parameters under `params`, as flax's own variables do."""
IN_CHECKPOINT = ("state.coupled.descent.theta", "state.theta")
"""Where θ is among the leaves of a run's checkpoint, by its phase."""


def started(
    start: str, unravel: Callable[[Array], Any], theta: Array, label: str, shares: Shares | None = None
) -> tuple[Array, dict[str, Any]]:
    """θ (p,) in float64 as the file or folder `start` has it, for a problem that would start at `theta`, in `shares` where that is; and
    what that was, for the record. Raises UserError where it cannot be read, or is of other parameters."""
    path = folders.absolute(start, FIELD)
    given, where, size = read(path), f"{FIELD} = {path}", numbers(theta.size, shares)
    if isinstance(given, np.ndarray):
        if given.shape != (size,):
            raise UserError(f"{where}: its θ has {given.size} numbers; expected {size}, as {label} has")
        vector = given.astype(np.float64)
    else:
        vector = joined(known := of_unravel(unravel, size, label), _unwrapped(given, known), where)
    if not np.isfinite(vector).all():
        wrong = int((~np.isfinite(vector)).sum())
        raise UserError(f"{where}: {wrong} of its {vector.size} numbers are not finite; nothing could start there")
    return laid_out(vector, shares), {"start_file": str(path), "start_sha256": sha256(vector.tobytes()).hexdigest()}


def _unwrapped(given: Mapping[str, np.ndarray], known: tuple[Parameter, ...]) -> Mapping[str, np.ndarray]:
    """The arrays that are under `params`, where none of the names expected is there without."""
    inner = {name.removeprefix(WRAPPED): array for name, array in given.items() if name.startswith(WRAPPED)}
    return inner if inner and not any(each.name in given for each in known) else given


def read(path: Path) -> Mapping[str, np.ndarray] | np.ndarray:
    """The arrays of a file or folder by name; θ alone where it is a run's checkpoint. Raises UserError."""
    try:
        if path.is_dir():
            return _orbax(path)
        if path.suffix == ".safetensors":
            tensors = read_tensors(path, follow=True)
            snapshot = split(tensors.arrays, tensors.words)
            if snapshot is not None and THETA not in snapshot.parts:
                raise UserError(f"{FIELD} = {path}: a snapshot that holds no parameters, only {', '.join(snapshot.parts)}")
            return tensors.arrays if snapshot is None else snapshot.parts[THETA]
        if path.suffix == ".npz":
            return _npz(path)
    except (OSError, NoTensorsError) as error:
        raise UserError(f"{FIELD} = {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    raise UserError(f"{FIELD} = {path}: expected a file .safetensors or .npz, or the folder of an orbax checkpoint")


def _npz(path: Path) -> Mapping[str, np.ndarray] | np.ndarray:
    try:
        with open_plain(path, follow=True) as handle, np.load(handle, allow_pickle=False) as arrays:
            at = next((name for name in IN_CHECKPOINT if name in arrays.files and "phase" in arrays.files), None)
            return arrays[at] if at is not None else {name: arrays[name] for name in arrays.files}
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have errors of their own for damaged bytes
        raise UserError(f"{FIELD} = {path}: not an npz file of numbers ({first_line(error)})") from None


def _orbax(path: Path) -> Mapping[str, np.ndarray]:
    try:
        import orbax.checkpoint as orbax
    except ImportError:
        how = "pip install orbax-checkpoint, or give a .safetensors file"
        raise UserError(f"{FIELD} = {path}: a folder, which orbax reads; {how}") from None
    try:
        with orbax.StandardCheckpointer() as reader:
            tree = reader.restore(path)
    except Exception as error:  # of orbax and of what it is made of, several kinds
        raise UserError(f"{FIELD} = {path}: not an orbax checkpoint of a tree of arrays ({first_line(error)})") from None
    arrays = by_name(tree)
    if arrays and all(name.endswith(".value") for name in arrays):  # as nnx has each of its parameters
        arrays = {name.removesuffix(".value"): array for name, array in arrays.items()}
    return arrays
