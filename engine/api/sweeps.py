"""A sweep from a script: one preset over a grid of settings, and what became of its runs as a table."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.api.records import Record, needed
from engine.api.specified import listed, toml
from engine.base.errors import UserError, meant
from engine.jobs import sweep as sweeps
from engine.jobs.sweep import SweepAxis
from engine.record import trust as trusts
from engine.report.comparison import outcomes, with_metrics

if TYPE_CHECKING:
    import pandas

NUMBERS = (bool, int, float)


class Sweep:
    """One preset over a grid of settings, each point a run of its own.

    `grid` has the values of each field, `{"optimizer.learning_rate": [0.02, 0.04], "seed": range(5)}`. The runs are those of `eos sweep`
    with the same preset, grid and name: the same sweep again goes on where it was left, and a larger grid takes over what there is.
    Raises UserError before anything is made.
    """

    def __init__(
        self, preset: str | Path, grid: Mapping[str, Iterable[Any]], *, overrides: Sequence[str] = (), name: str | None = None,
        trust: bool = False,
    ):
        lists = all(isinstance(values, Iterable) and not isinstance(values, str | bytes) for values in grid.values())
        axes = [SweepAxis(field, tuple(toml(value) for value in values)) for field, values in grid.items()] if lists else []
        if not axes or not all(each.values for each in axes):
            raise UserError(f"grid: {dict(grid)!r}; expected values for each field, as in {{'optimizer.learning_rate': [0.02, 0.04]}}")
        self.points = sweeps.points(str(preset), axes, listed(overrides), name)
        """The points of the grid, the last field running fastest: values, specification, and the name of the run."""
        if not trust:
            trusts.need_preset(str(preset), self.points[0].spec)

    def run(self, workers: int = 1) -> "Sweep":
        """Carry every point to its end, `workers` engines at a time, each a process of its own, telling of each on stderr. An interrupt
        stops them cleanly, and the same call goes on from there. Raises UserError for a number of workers that is none."""
        sweeps.sweep(self.points, workers)
        return self

    def records(self) -> list[Record]:
        """The record of every point that has begun, in the order of the grid."""
        return [Record(run) for point in self.points if (run := sweeps.run_of(point)) is not None]

    def rows(self) -> list[dict[str, Any]]:
        """What became of every point that has begun: the values of its fields, then its outcomes as `eos compare` has them, None where
        there is no such quantity."""
        begun = [(point.values, run) for point in self.points if (run := sweeps.run_of(point)) is not None]
        ends = with_metrics([outcomes(run) for _, run in begun])
        return [{**values, **end} for (values, _), end in zip(begun, ends, strict=True)]

    def table(self) -> "pandas.DataFrame":
        """`rows` as a data frame. Needs pandas."""
        return needed("pandas").DataFrame(self.rows())

    def aggregate(self, over: str = "seed") -> "pandas.DataFrame":
        """Mean and standard deviation of every outcome over the points that differ in the field `over` alone, `name mean` and `name sd`,
        and their number `n`: a row for each choice of the other fields. Of one point the deviation is NaN. Needs pandas.
        """
        fields = list(self.points[0].values)
        if over not in fields:
            raise UserError(f"{over}: not a field of this grid{meant(over, fields)}; it has {', '.join(fields)}")
        kept = [field for field in fields if field != over]
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows():
            groups.setdefault(tuple(row[field] for field in kept), []).append(row)
        table = []
        for values, rows in groups.items():
            entry: dict[str, Any] = {**dict(zip(kept, values, strict=True)), "n": len(rows)}
            for name in rows[0]:
                known = [row[name] for row in rows if isinstance(row[name], NUMBERS) and name not in fields]
                if known:
                    entry[f"{name} mean"] = statistics.fmean(known)
                    entry[f"{name} sd"] = statistics.stdev(known) if len(known) > 1 else math.nan
            table.append(entry)
        return needed("pandas").DataFrame(table)

    def __repr__(self) -> str:
        begun = sum(sweeps.run_of(point) is not None for point in self.points)
        fields = ", ".join(self.points[0].values)
        return f"<Sweep {self.points[0].spec.name} over {fields}: {begun} of {len(self.points)} points have begun>"
