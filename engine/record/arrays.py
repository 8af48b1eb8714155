"""Arrays of a run at a step, whole and on the disk, or not there: its checkpoints, sampled curves and spectral densities."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.base import atomic
from engine.base.files import sync
from engine.record.columns import arranged
from engine.record.reader import FORMAT, Run
from engine.record.safe_read import read_arrays

LAST_STEP = "record.last_step"
"""In a checkpoint: the last step of the record that it continues."""
MARKS = ARRAYS_FORMAT, ARRAYS_LAYOUT = "record.format", "record.layout"
"""In a file of arrays: the format of the run directory, and the layout of its rows."""
IDENTITY = "identity."
"""Prefix of what a checkpoint says of the loss."""
ROWS = ("state.pending",)
"""Leaves of a checkpoint that are rows of the record."""
OWED = "record.owed"
"""In a checkpoint: the events that are written once it is on the disk, as bytes of JSON lines."""
CHANGED_RATE = "fork.learning_rate"
"""In the first checkpoint of a fork: the learning rate to go on with, where that is another than the state's."""


def load_checkpoint(run: Run) -> Iterator[tuple[Path, dict[str, np.ndarray] | None]]:
    """Checkpoints from the newest back: the path and its arrays, or None where the file cannot be read."""
    for path in reversed(run.checkpoints()):
        yield path, read_arrays(path)


def save_checkpoint(run: Run, step: int, arrays: dict[str, np.ndarray]) -> Path:
    """Write the arrays as the run's checkpoint at this step."""
    return _save(run, "checkpoints", step, arrays)


def save_curve(run: Run, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Write the curves sampled at this step."""
    _save(run, "curves", step, arrays)


def save_density(run: Run, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Write the spectral density read at this step, and what is read with it."""
    _save(run, "curves", step, arrays, "density")


def _save(run: Run, folder: str, step: int, arrays: dict[str, np.ndarray], kind: str = "step") -> Path:
    """The arrays as `step-N.npz`, or of another kind, in a folder of the run: whole and on the disk, or not there."""
    place = run.path / folder
    place.mkdir(mode=0o700, exist_ok=True)
    final = place / f"{kind}-{step:09d}.npz"
    marked = arrays | {ARRAYS_FORMAT: np.array(FORMAT), ARRAYS_LAYOUT: np.array(run.layout)}
    with atomic.write(final, nested=True, durable=True) as handle:
        np.savez(handle, **marked)  # type: ignore[arg-type]
    sync(place)  # before an older one is removed
    return final


def refuse_foreign(arrays: dict[str, np.ndarray], run: Run) -> None:
    """Raise ValueError where a checkpoint is of a later format, or holds rows of other columns than the run's."""
    said = str(arrays.get(ARRAYS_LAYOUT, ""))
    if int(arrays.get(ARRAYS_FORMAT, 1)) > FORMAT:
        raise ValueError(f"written by a later version of eos, in format {arrays[ARRAYS_FORMAT]}")
    if said not in ("", run.layout):
        raise ValueError(f"it continues rows of the columns {said[:16]!a}, and columns.json lists {run.layout!a}")
    for name in ROWS:
        if name in arrays and arrays[name].shape[1:] != (len(run.columns),):
            raise ValueError(f"{name} is of shape {arrays[name].shape}, and the run has {len(run.columns)} columns")


def rearranged(arrays: dict[str, np.ndarray], run: Run, other: Run) -> dict[str, np.ndarray]:
    """A checkpoint of a run with the rows in it as another run has them."""
    return arrays | {name: arranged(arrays[name], run.index, other.index) for name in ROWS if name in arrays}
