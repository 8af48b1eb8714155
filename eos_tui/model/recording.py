"""What `eos play` shows of a run: a few of its columns, whole and in memory, and the order and speed in which they are played.

One recording comes with eos, so that there is something to show where nothing was ever run; `eos play RUN --record FILE` made it.
"""

import io
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from engine import theory
from engine.base.errors import UserError
from engine.base.text import harmless
from engine.record.reader import Run
from engine.record.store import resolve
from engine.record.threshold import threshold
from engine.spec import Phase

BUNDLED = "recording.npz"
COLUMNS = (
    "step", "learning_rate", "threshold", "gd.loss", "gd.sharpness", "gd.midpoint_sharpness", "gd.x", "gd.y", "constrained.delta",
    "threshold_ratio", "smoothness.directional",
)
"""Columns kept of a run, where it has them."""
BLOCK = 16384
"""Rows read at a time."""


class Recording(NamedTuple):
    """A run as it is played, one entry a row in each array (rows,); NaN where there is no value."""

    name: str
    step: np.ndarray
    ratio: np.ndarray
    """The sharpness over its edge; between two readings of it on a line."""
    edge: np.ndarray
    """The edge: 2/η for gradient descent."""
    loss: np.ndarray
    x: np.ndarray
    """The displacement along u, in units of δ."""
    y: np.ndarray
    """The excess of sharpness, over the edge: y·η/2."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.step)

    @property
    def swings(self) -> bool:
        """Whether a displacement along u is recorded."""
        return bool(np.isfinite(self.x).any())


def of_table(name: str, table: Mapping[str, np.ndarray]) -> Recording:
    """The recording of a run's columns."""
    step = np.asarray(table["step"], float)
    nothing = np.full(len(step), np.nan)

    def column(name: str) -> np.ndarray:
        return np.asarray(table[name], float) if name in table else nothing

    with np.errstate(all="ignore"):
        edge = threshold({"learning_rate": nothing} | dict(table))
        ratio = np.where(np.isfinite(column("gd.sharpness")), column("gd.sharpness"), column("gd.midpoint_sharpness")) / edge
        if "threshold_ratio" in table:
            ratio = column("threshold_ratio")
        elif "smoothness.directional" in table:
            ratio = column("smoothness.directional") / edge
        x, y = column("gd.x") / column("constrained.delta"), column("gd.y") / edge
    known = np.isfinite(ratio)
    if known.any():
        ratio = np.interp(step, step[known], ratio[known], np.nan, np.nan)
    both = np.isfinite(x) & np.isfinite(y)
    return Recording(name, step, ratio, edge, column("gd.loss"), np.where(both, x, np.nan), np.where(both, y, np.nan))


def of_run(run: Run) -> Recording:
    """The recording of a run as far as it has come. Raises UserError where there is nothing to show yet."""
    recording = of_table(harmless(run.spec.name), kept(run))
    if recording.rows < 2:
        raise UserError(f"run {harmless(run.name)}: no rows to play yet")
    return recording


def kept(run: Run) -> dict[str, np.ndarray]:
    """The columns that are played of a run. Of the simplified system they are those of its first orbit, as steps of gradient descent."""
    problem = run.spec.problem
    phase = isinstance(problem, Phase)
    own = {"map1.x": "gd.x", "map1.y": "gd.y"} if phase else {}
    columns = {own.get(name, name): k for name, k in run.index.items() if name in (COLUMNS if not phase else (*COLUMNS, *own))}
    rows = run.row_count()
    table = {name: np.empty(rows) for name in columns}
    for start in range(0, rows, BLOCK):
        block = run.rows(start, min(start + BLOCK, rows))
        for name, k in columns.items():
            table[name][start : start + len(block)] = block[:, k]
    if isinstance(problem, Phase):
        table["constrained.delta"] = np.full(rows, theory.delta(problem.alpha, problem.beta))
        table["gd.sharpness"] = threshold(table) + table["gd.y"]
    return table


def bundled() -> Recording:
    """The recording that comes with eos."""
    body = files("eos_tui.model").joinpath(BUNDLED).read_bytes()
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return of_table(str(arrays["name"]), {name: arrays[name] for name in arrays.files if name != "name"})


def recorded(name: str | None) -> Recording:
    """The recording of the run of this name or path; without one, that which comes with eos."""
    return bundled() if name is None else of_run(resolve(name))


def packed(run: Run) -> bytes:
    """What is played of a run, in single precision, as the bytes of a file."""
    table = {name: values.astype(np.float32) for name, values in kept(run).items()}
    body = io.BytesIO()
    np.savez_compressed(body, allow_pickle=False, name=np.array(harmless(run.spec.name)), **table)
    return body.getvalue()
