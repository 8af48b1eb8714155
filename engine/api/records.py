"""What is on disk, for scripts: a run's record with its columns, and the runs that there are."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.base.errors import UserError
from engine.record import store, tags
from engine.record.arrays import MARKS
from engine.record.columns import Column
from engine.record.glance import all_glances
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome, Run
from engine.record.safe_read import read_arrays
from engine.record.snapshots import Snapshot, snapshots_of

if TYPE_CHECKING:
    import pandas
    import polars
    import xarray
    from matplotlib.figure import Figure


class Record(Mapping[str, np.ndarray]):
    """A run on disk: a mapping from column names to arrays (steps,), with its specification, events and outcome.

    The arrays are read once, when the record is made, and stay where the run is deleted; `engine.load` again for what came later. What
    lies in files of its own, samples, densities and snapshots, is read when it is asked for: UserError where the run is gone. A record
    equals itself alone: what two of them hold is compared column by column.
    """

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, run: Run):
        self.run, self.name, self.path, self.spec = run, run.name, run.path, run.spec
        self.events: list[AnyEvent] = run.events()
        self.provenance: dict[str, Any] = run.provenance()
        """Versions, device, number formats, data rule and hash, as the engine wrote them at its start."""
        self.outcome: Outcome | None = run.state().outcome
        """None while the run goes on."""
        self._table = run.table()

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self._table:
            raise KeyError(f"{column}: not recorded by {self.name}; it has {', '.join(self._table)}")
        return self._table[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def samples(self) -> dict[int, dict[str, np.ndarray]]:
        """What was sampled now and then, by the step of the sample: what `curves/` holds, less any file that cannot be read.

        About θ†: `delta` (); `x` (51,) along u, `F`, its even part `F_even` and `quadratic` x²/η; `plane` (13, 7), the rise of the loss
        in the plane of u and ∇S⊥, at `plane_x` (13,) and `plane_y` (7,); `beta` of the `beta_starts` followed (Appendix F, Section 4).
        """
        self.run.need()
        return _without_marks(self.run.samples())

    def densities(self) -> dict[int, dict[str, np.ndarray]]:
        """What was read of the whole spectrum on demand, by the step: the `density` (n,) of eigenvalues at `grid` (n,), from `nodes` and
        `weights` (K, m) of stochastic Lanczos quadrature and a Gaussian of `width`; the `eigenvalues` (k,) followed and the share
        u·Gu/λ of each, `gauss_newton` (k,), NaN where the loss is no criterion of a network's outputs; `layer_sharpness` (b,), the top
        eigenvalue of the diagonal block of each of the `layers` (b,). Less any file that cannot be read.
        """
        self.run.need()
        return _without_marks(self.run.densities())

    def snapshots(self) -> list[Snapshot]:
        """The snapshots that the run has kept of its parameters, the oldest first: each has a `step`, a `path`, and `load()`, which gives
        the arrays by the names of the parameters. `engine.unravel(record, snapshot.load())` is the tree of them.
        """
        self.run.need()
        return snapshots_of(self.run)

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row a step, indexed by the step. Needs pandas."""
        frame = needed("pandas").DataFrame({name: values for name, values in self.items() if name != "step"})
        return frame.set_axis(self["step"].astype(np.int64), axis=0).rename_axis("step")

    def to_polars(self) -> "polars.DataFrame":
        """A data frame with a row a step; null where a column has no value. Needs polars."""
        return needed("polars").DataFrame(dict(self), nan_to_null=True)

    def to_xarray(self) -> "xarray.Dataset":
        """A dataset over `step`, with the words and symbol of each variable, and its unit where it has one. Needs xarray."""
        columns = {column.name: column for column in self.run.columns}
        variables = {
            name: ("step", values, {"long_name": columns[name].words, "symbol": columns[name].symbol, **_units(columns[name])})
            for name, values in self.items() if name != "step"
        }  # fmt: skip
        return needed("xarray").Dataset(variables, {"step": self["step"].astype(np.int64)}, {"run": self.name})

    def plot(self, *columns: str, style: str | Path | None = None) -> "Figure":
        """A figure of these columns over the step, loss and sharpness when none is given; the threshold where one is a sharpness,
        predictions dashed. `style` is a matplotlib style file, over that of the paper's figures. Needs matplotlib; a notebook shows what it
        returns.
        """
        needed("matplotlib")
        return import_module("engine.api.pictures").figure(self, columns, None if style is None else Path(style))

    def _repr_html_(self) -> str:
        """The outcome, the summary and small plots, for a notebook."""
        return import_module("engine.api.pictures").html(self)

    def __repr__(self) -> str:
        ended = self.outcome.text if self.outcome else self.run.liveness()
        return f"<Record {self.name}: {len(self._table['step'])} rows, {ended}>"


class RunEntry(NamedTuple):
    """A run as a list has it."""

    name: str
    preset: str
    status: str
    """`running`, `paused`, `finished`, `crashed`, …."""
    step: int
    learning_rate: float | None
    """η in force; None where its engine has not said."""
    outcome: str | None
    """How it ended, in a sentence."""
    made: datetime
    tags: tuple[str, ...]


def runs(*tagged: str) -> list[RunEntry]:
    """The runs that there are, oldest first; with words, those that `eos tag` put all of them on. `pandas.DataFrame(engine.runs())` is a
    frame of them, `engine.load(entry.name)` the record of one. Raises UserError where their folder cannot be read.
    """
    wanted, entries = set(tags.checked(tagged)), []
    for run, state in all_glances():
        given = run.tags()
        if wanted.issubset(given):
            made, outcome = datetime.fromtimestamp(run.made / 1e9).astimezone(), state.outcome.text if state.outcome else None
            status = run.liveness(state)
            entries.append(RunEntry(run.name, run.preset, status, state.step, state.learning_rate or None, outcome, made, given))
    return entries


def load(run: str | Path | None = None) -> Record:
    """The record of a run by its name, by its directory, or of the latest run. Raises UserError when there is none."""
    return Record(store.resolve(str(run) if run is not None else None))


def _without_marks(files: Mapping[int, Path]) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of these files that can be read, without what marks a file as of a run."""
    read = {step: read_arrays(path) for step, path in files.items()}
    sampled = {step: arrays for step, arrays in read.items() if arrays is not None}
    return {step: {name: array for name, array in arrays.items() if name not in MARKS} for step, arrays in sampled.items()}


def _units(column: Column) -> dict[str, str]:
    """What xarray and pint read the unit from; nothing for what has none of its own."""
    return {"units": column.unit} if column.unit else {}


def needed(library: str) -> Any:
    """A library that what is asked for takes. Raises UserError where it is not installed."""
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise UserError(f"{library}: not installed; pip install {library}") from None
