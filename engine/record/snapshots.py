"""Snapshots of a run: its parameters at a step, a tensor each by its name, and what belongs to them, in a safetensors file.

The parameters have their own names in it, `Dense_0.kernel`, so that any program that reads such files has them; eigenvectors are
`eigenvectors/Dense_0.kernel`, all k of them in one tensor (k, …), and θ† is `constrained/Dense_0.kernel`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.base import atomic
from engine.base.errors import UserError, one_of
from engine.base.files import sync
from engine.record.reader import Run, step_of
from engine.record.safe_read import NoTensorsError, read_tensors

FORMAT = 1
THETA = "theta"
FACTS = "eos"
"""Under which a file says what it is, as JSON: one text, for several would be written in any order."""


def tensor_name(part: str, parameter: str) -> str:
    """How a file calls a parameter of one of its parts."""
    return parameter if part == THETA else f"{part}/{parameter}"


def save_snapshot(run: Run, step: int, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Path:
    """Write arrays by the names that a file has for them, with what is to be known of them: whole and on the disk, or not there."""
    from safetensors.numpy import save

    place = run.path / "snapshots"
    place.mkdir(mode=0o700, exist_ok=True)
    final = place / f"step-{step:09d}.safetensors"
    body = save(dict(arrays), {FACTS: json.dumps({"format": FORMAT, "step": step, **facts}, ensure_ascii=False)})
    with atomic.write(final, nested=True, durable=True) as handle:
        handle.write(body)
    sync(place)
    return final


class Contents(NamedTuple):
    """A snapshot, read."""

    parts: dict[str, dict[str, np.ndarray]]
    """The arrays of each part by the names of the parameters, in the order that θ has them in."""
    facts: dict[str, Any]


class Snapshot(NamedTuple):
    """A snapshot of a run on disk: `load()` gives its parameters, `load("eigenvectors")` and `load("constrained")` what else it holds."""

    step: int
    path: Path

    def load(self, part: str = THETA) -> dict[str, np.ndarray]:
        """Arrays by the names of the parameters, in θ's order; those of `eigenvectors` are (k, …), one for each. `engine.unravel` makes a
        tree of them. Raises UserError where the snapshot does not hold that part, or cannot be read.
        """
        parts = contents(self.path).parts
        if part not in parts:
            raise UserError(f"{self.path}: holds no {part[:40]!a}; it has {one_of(parts)}. [recording] snapshots says what a run keeps")
        return parts[part]

    def vector(self, part: str = THETA) -> np.ndarray:
        """The same as one array: θ, (p,), or (k, p) for `eigenvectors`."""
        arrays = list(self.load(part).values())
        if part == "eigenvectors":
            return np.concatenate([each.reshape(len(each), -1) for each in arrays], axis=1)
        return np.concatenate([each.ravel() for each in arrays])

    @property
    def facts(self) -> dict[str, Any]:
        """What else the file says: `learning_rate`, `names` of the parameters, and `eigenvalues` with their `residuals`."""
        return contents(self.path).facts


def snapshots_of(run: Run) -> list[Snapshot]:
    """The snapshots of a run, the oldest first."""
    return [Snapshot(step_of(path.name), path) for path in run.snapshots()]


def contents(path: Path) -> Contents:
    """What a snapshot holds. Raises UserError where it cannot be read, or eos has not written it."""
    try:
        tensors = read_tensors(path)
        known = split(tensors.arrays, tensors.words)
    except (OSError, NoTensorsError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if known is None:
        raise UserError(f"{path}: not a snapshot that eos has written")
    return known


def split(arrays: Mapping[str, np.ndarray], words: Mapping[str, str]) -> Contents | None:
    """The arrays of a file by parts, each in θ's order; None where the file is no snapshot of a run."""
    try:
        facts = json.loads(words[FACTS])
        names, parts = facts["names"], facts["parts"]
        if int(facts["format"]) > FORMAT:
            return None
        return Contents({part: {name: arrays[tensor_name(part, name)] for name in names} for part in parts}, facts)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
