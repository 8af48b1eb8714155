"""The commands that read records: export one, print the end of one, compare several."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from engine.base.errors import UserError
from engine.base.text import as_cell, cell, print_json, print_line, print_table, to_json
from engine.commands import completion
from engine.commands.options import RunName, RunNames, Switch
from engine.jobs.launch import LIVE
from engine.record.bridges import BRIDGES, cross
from engine.record.columns import Column
from engine.record.export import FORMATS, chosen_columns, chosen_format, refuse_two, shown
from engine.record.export import export as write
from engine.record.messages import AnyEvent
from engine.record.reader import EventTail, HeldRun, RowTail, Run
from engine.record.store import resolve
from engine.report.comparison import Outcomes, outcomes, rows_of, with_metrics

Columns = Annotated[tuple[str, ...], Parameter("--columns", negative=(), show_default=False, completer=completion.columns)]

LOOK_SECONDS = 0.2
USUAL = (
    "step", "gd.loss", "gd.sharpness", "gd.midpoint_sharpness", "gd.x", "gd.y", "generalized.x", "transported.x",
    "constrained.delta", "train.accuracy", "test.accuracy",
)  # fmt: skip
"""What `tail` prints of a run when nothing is chosen, as far as it was recorded; every column of one with none of these."""


def export(
    name: RunName | None = None, /, *, csv: Switch = False, parquet: Switch = False, npz: Switch = False, json: Switch = False,
    columns: Columns = (), out: Path | None = None, force: Switch = False, hdf5: Path | None = None, tensorboard: Path | None = None,
    wandb_offline: Path | None = None,
) -> int:
    """Write a run's rows as CSV, Parquet, NPZ or JSON, to stdout or a file, or for another program. Without a name, the latest run.

    Args:
        name: A run's name (`ls` lists them), or the path of a run directory.
        csv: Comma-separated values under one line of names; the default.
        parquet: Parquet, with symbols, units and the specification in its metadata; needs the extra `frames`.
        npz: One numpy array a column.
        json: One object: specification, provenance, events and rows.
        columns: Columns to write, as in `--columns step,gd.loss`; may be repeated. All when not given.
        out: The file to write; its ending names the format when no option does. `-` is stdout; pipes and devices are written to.
        force: Write it anew where it is there already, or read-only.
        hdf5: An HDF5 file with the names of the centralflows repository, float64; needs the extra `hdf5`.
        tensorboard: A folder for TensorBoard, float64 in its file, though its plots show float32; needs the extra `tensorboard`.
        wandb_offline: A folder for Weights & Biases, float64; nothing is sent until `wandb sync`. Needs the extra `wandb`.
    """
    given = [format for format, asked in zip(FORMATS, (csv, parquet, npz, json), strict=True) if asked]
    elsewhere = {option: place for option, place in zip(BRIDGES, (hdf5, tensorboard, wandb_offline), strict=True) if place is not None}
    run = resolve(name)
    if elsewhere:
        refuse_two([*elsewhere, *given])
        [(option, place)] = elsewhere.items()
        if out is not None:
            raise UserError(f"--out {out}: --{option} says where already; leave --out out")
        made = cross(option, run, chosen_columns(run, columns), place, force)
        print_line(f"{made}: run {run.name}, {run.row_count()} rows", error=True)
        return 0
    format = chosen_format(given, out)
    write(run, format, chosen_columns(run, columns), out, force)
    if out is not None:
        print_line(f"{out}: run {run.name} as {format}, {run.row_count()} rows", error=True)
    return 0


def tail(
    name: RunName | None = None, /, *, count: Annotated[int, Parameter(("--count", "-n"))] = 10,
    follow: Annotated[bool, Parameter(("--follow", "-f"), negative=(), show_default=False)] = False,
    columns: Columns = (), events: Switch = False, json: Switch = False,
) -> int:
    """Print the last rows of a run, or its last events. Without a name, the latest run.

    Args:
        name: A run's name (`ls` lists them), or the path of a run directory.
        count: How many rows or events.
        follow: Go on with what comes, until the engine ends; Ctrl-C leaves it running.
        columns: Columns to print, as in `--columns step,gd.x`; may be repeated. The most telling ones when not given.
        events: Print events instead of rows.
        json: Print one JSON object a line.
    """
    if count < 0:
        raise UserError(f"--count {count}: expected a number from 0")
    run = resolve(name)
    if events and columns:
        raise UserError("--columns: events have none; expected one of --events and --columns")
    if events:
        _tail_events(run, count, follow, json)
    else:
        usual = [column for column in USUAL if column in run.index]
        _tail_rows(run, chosen_columns(run, columns or (usual if len(usual) > 1 else ())), count, follow, json)
    return 0


def compare(names: RunNames, /, *, csv: Switch = False, json: Switch = False) -> int:
    """Print a table of what became of runs: edge, sharpness, δ, ε, the prediction's error and horizon, accuracy, time.

    Args:
        names: Names of runs (`ls` lists them), or paths of run directories.
        csv: Print comma-separated values with full names and every digit.
        json: Print one JSON array.
    """
    print_outcomes([outcomes(resolve(name)) for name in names], csv, json)
    return 0


def print_outcomes(ends: Sequence[Outcomes], csv: bool = False, json: bool = False, grid: Sequence[dict[str, Any]] = ()) -> None:
    """Print what became of runs; `grid` gives values that go before each row. Raises UserError when asked for two formats."""
    refuse_two(["csv", "json"] if csv and json else [])
    before = grid or [{} for _ in ends]
    if json:
        print_json([{**values, **row} for values, row in zip(before, with_metrics(ends), strict=True)])
    elif csv:
        sys.stdout.write(as_csv(ends, before))
    elif ends:
        names, rows = rows_of(list(ends))
        whole = [[*values.values(), *row] for values, row in zip(before, rows, strict=True)]
        print_table([*before[0], *names], [[cell(value) for value in row] for row in whole])


def as_csv(ends: Sequence[Outcomes], grid: Sequence[dict[str, Any]]) -> str:
    """The table of outcomes as CSV, full names and every digit; the values of the grid first. No text is a formula."""
    import csv
    import io

    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    rows = with_metrics(ends)
    writer.writerow(map(as_cell, [*(grid[0] if grid else ()), *(rows[0] if rows else ())]))
    for values, row in zip(grid, rows, strict=True):
        whole = ["" if value is None else value for value in (*values.values(), *row.values())]
        writer.writerow([as_cell(value) for value in whole])
    return body.getvalue()


def _tail_rows(run: Run, columns: Sequence[Column], count: int, follow: bool, json: bool) -> None:
    places, names = [run.index[column.name] for column in columns], [column.name for column in columns]
    width = max(12, *map(len, names)) if names else 12
    run = run.held() if follow else run
    rows = RowTail(run, max(0, run.row_count() - count))
    if not json:
        print("  ".join(f"{name:>{width}}" for name in names))
    for block in _coming(run, rows.poll, follow):
        for row in block[:, places].tolist():
            if json:
                print(to_json(dict(zip(names, row, strict=True)), indent=None))
            else:
                print("  ".join(f"{_short(value):>{width}}" for value in row))
        sys.stdout.flush()


def _short(value: float) -> str:
    return shown(value) if np.isnan(value) or value.is_integer() else f"{value:.6g}"


def _tail_events(run: Run, count: int, follow: bool, json: bool) -> None:
    run = run.held() if follow else run
    journal = EventTail(run)
    first = journal.poll()

    def tell(events: Sequence[AnyEvent]) -> None:
        for event in events:
            print_line(to_json(event, indent=None) if json else f"step {event.step}: {event.text}")
        sys.stdout.flush()

    tell(first[len(first) - min(count, len(first)):])
    for events in _coming(run, journal.poll, follow):
        tell(events)


def _coming(run: Run, poll: Any, follow: bool) -> Any:
    """What there is; with `follow`, what comes too, until no engine is at work."""
    said = ""
    while True:
        at_work = follow and run.liveness() in LIVE  # before the rest is read: then that is all there is
        yield poll()
        if not at_work:
            return
        if isinstance(run, HeldRun) and run.displaced not in ("", said):
            said = run.displaced
            print_line(f"run {run.name}: {said}; its own rows go on here", error=True)
        time.sleep(LOOK_SECONDS)


def add_to(app: App) -> None:
    """Add the commands of this module to a command line."""
    for command in (export, tail, compare):
        app.command(command)
