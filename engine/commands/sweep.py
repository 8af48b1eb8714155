"""The command `sweep`: a grid of runs, here or on a cluster, and the table of what became of them."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from engine.base.errors import BAD_END, UserError
from engine.base.exit import STOPPING
from engine.base.text import print_line
from engine.commands import completion
from engine.commands.options import DataDir, Overrides, PresetName, Switch, Trust
from engine.commands.records import print_outcomes
from engine.jobs import sweep as sweeps
from engine.jobs.cluster import Cluster, hand_in, patience, queue
from engine.jobs.launch import BAD_ENDS
from engine.record import store, trust
from engine.record.export import refuse_two
from engine.record.reader import Run
from engine.report.comparison import outcomes
from engine.spec import load_spec

Repeated = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)]
Grid = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, completer=completion.fields)]


def sweep(
    preset: PresetName, *, grid: Grid = (), overrides: Overrides = (), name: str | None = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=1024))] = 1, table: Switch = False, csv: Switch = False,
    json: Switch = False, plot: Path | None = None, cluster: Cluster | None = None, submit: Repeated = (), wait: Switch = False,
    data_dir: DataDir = None, trusted: Trust = False, force: Switch = False,
    take_over_after: Annotated[float, Parameter(validator=Number(gte=60))] = sweeps.TAKE_OVER_SECONDS,
) -> int:
    """Run a preset over a grid of settings and print a table of what became of each. The same command goes on where it was left.

    `eos attach PRESET-sweep`, or the name given, opens the runs of a sweep, laid over each other.

    Args:
        preset: A preset's name (`presets` lists them), or the path of a preset file.
        grid: `section.field=a,b,c`, or `=0..4`; may be repeated, and every combination is run.
        overrides: `section.field=value` for every run; may be repeated.
        name: What the names of the runs begin with; that of the preset and `-sweep` when not given.
        workers: Engines at work at once.
        table: Start nothing; print the table as it stands.
        csv: Print the table as comma-separated values, every digit.
        json: Print the table as one JSON array.
        plot: Save a figure of the table, too: .svg, .png or .pdf; needs the extra `figures`.
        cluster: Hand the runs in through submitit, and return; needs the extra `slurm`. `local` and `debug` are its stand-ins.
        submit: `key=value` for the jobs, as in `--submit timeout_min=240 --submit slurm_partition=gpu`; may be repeated. A job is
            handed in anew after as many time-outs as `slurm_max_num_timeout` says, 3 where it is not given.
        wait: Wait for the jobs of the cluster.
        force: Write the file of --plot anew where it is there already.
        take_over_after: Seconds that a point whose engine is silent, on another host, is to be unchanged before it is taken over,
            by this sweep or by a job.
    """
    refuse_two(["csv", "json"] if csv and json else [])  # before anything runs
    if not grid:
        raise UserError("--grid: missing; expected section.field=value,value,…, as in optimizer.learning_rate=0.02,0.04")
    if not table:
        trust.asking(lambda: trust.need_preset(preset, load_spec(preset, overrides)), trusted)
    if plot is not None:
        from engine.figures.sweep_plot import check, save

        check(plot, force)
    points = sweeps.points(preset, [sweeps.axis(text) for text in grid], overrides, name, data_dir or "")
    status = 0
    if table:
        runs = [sweeps.run_of(point) for point in points]
    elif cluster is not None:
        runs = list(_on_cluster(points, cluster, submit, wait, take_over_after))
    else:
        runs, status = sweeps.sweep(points, workers, take_over_after)
    there = [run is not None and sweeps.is_there(run) for run in runs]
    begun = [(point.values, run) for point, run, here in zip(points, runs, there, strict=True) if run is not None and here]
    ends = [outcomes(run) for _, run in begun]
    if waiting := runs.count(None):
        print_line(f"{waiting} of {len(points)} points have not begun", error=True)
    if removed := len(points) - waiting - len(begun):
        print_line(f"{removed} of {len(points)} points are gone: removed meanwhile; the same command computes them anew", error=True)
    print_outcomes(ends, csv, json, [values for values, _ in begun])
    if plot is not None and ends:
        save([values for values, _ in begun], ends, plot, force)
    if status:
        return status
    bad = removed > 0 or any(row.outcome in BAD_ENDS for row in ends)
    return BAD_END if bad and not (table or cluster) else 0


def _on_cluster(
    points: list[sweeps.SweepPoint], cluster: Cluster, submit: tuple[str, ...], wait: bool, take_over_after: float
) -> list[Run]:
    parameters = dict(map(_parameter, submit))
    executor = queue(cluster, parameters, store.home() / ".submitit")  # before anything is made
    runs = [sweeps.ensure_run(point)[0] for point in points]
    open_runs = [run for run in runs if not sweeps.is_done(run) and not sweeps.is_busy(run)]
    for run in open_runs:
        if unsigned := trust.grant(run.path, run.spec):  # the specification is that of its point, and so the user's own
            raise UserError(f"run {run.name}: a job executes code of your own in a run that is signed, and it cannot be ({unsigned})")
    jobs = hand_in(open_runs, cluster, executor, patience(cluster, parameters), take_over_after)
    for run, job in zip(open_runs, jobs, strict=True):
        print_line(f"{run.name}: job {job.job_id}", error=True)
    if cluster == "debug":  # it works only while it is waited for, and in this process: what ends that ends the engine
        for number in STOPPING:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    if wait or cluster == "debug":
        for job in jobs:
            job.wait()
    return runs


def _parameter(text: str) -> tuple[str, Any]:
    key, separator, raw = text.partition("=")
    if not separator or not key.isidentifier():
        raise UserError(f"--submit {text[:100]}: expected key=value, as in timeout_min=240")
    try:
        return key, msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return key, raw


def add_to(app: App) -> None:
    """Add the command of this module to a command line."""
    app.command(sweep)
