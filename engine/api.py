"""The engine for scripts: run a preset or a specification, step through it, load what is on disk.

    import engine
    record = engine.run("fashion", overrides=["optimizer.learning_rate=0.05", "budget.edge_steps=200"])
    record["gd.sharpness"]            # float64, one value a step, NaN where there is none
    for row in engine.stream("toy"):  # as it happens
        row["gd.x"]
    engine.load("fashion-20260101-120000").outcome
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from engine import store
from engine.control import AnyEvent
from engine.data.catalog import ready
from engine.errors import UserError
from engine.spec import RunSpec, load_spec, with_overrides
from engine.store import Outcome, Run, Writer


class Record(Mapping[str, np.ndarray]):
    """A run on disk: a mapping from column names to arrays (steps,), with its specification, events and outcome.

    The arrays are read once, when the record is made; `engine.load` again for what came later.
    """

    def __init__(self, run: Run):
        self.run, self.name, self.path, self.spec = run, run.name, run.path, run.spec
        self.events: list[AnyEvent] = run.events()
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

    def __repr__(self) -> str:
        ended = self.outcome.text if self.outcome else self.run.liveness()
        return f"<Record {self.name}: {self.run.row_count()} rows, {ended}>"


def run(preset: str | RunSpec, *, overrides: Sequence[str] = (), name: str | None = None) -> Record:
    """Run to the end in this process, and return the record. The run directory is under `$EOS_HOME`, as for the app.

    `preset` is a preset's name, the path of a preset file, or a specification; `overrides` are "section.field=value".
    Raises UserError for bad input; a bad end (diverged, failed) is an outcome of the record, not an exception.
    """
    stepping = _Stepping(preset, overrides, name)
    for _ in stepping.blocks():
        pass
    return Record(stepping.run)


def stream(preset: str | RunSpec, *, overrides: Sequence[str] = (), name: str | None = None) -> Iterator[dict[str, float]]:
    """Run in this process, and give each row as it is recorded, by column name. Closing the iterator stops the run."""
    stepping = _Stepping(preset, overrides, name)
    names = [column.name for column in stepping.run.columns]
    for block in stepping.blocks():
        for row in block:
            yield dict(zip(names, row.tolist(), strict=True))


def load(run: str | Path | None = None) -> Record:
    """The record of a run by its name, by its directory, or of the latest run. Raises UserError when there is none."""
    return Record(store.resolve(str(run) if run is not None else None))


class _Stepping:
    """A run carried out in this process."""

    def __init__(self, preset: str | RunSpec, overrides: Sequence[str], name: str | None):
        if not isinstance(preset, str | RunSpec):
            raise UserError(f"{preset!r}: expected a preset's name, the path of a preset file, or a RunSpec")
        spec = load_spec(preset, list(overrides)) if isinstance(preset, str) else with_overrides(preset, list(overrides))
        self.run = store.create(ready(spec), name)

    def blocks(self) -> Iterator[np.ndarray]:
        from engine.device import configure
        from engine.runner import Runner

        configure()
        with Writer(self.run) as writer:
            yield from Runner(self.run, writer).blocks()
