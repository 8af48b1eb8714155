"""A sweep: one preset over a grid of settings, every point a run of its own, several engines at a time. Without jax.

A point's run is named by the digest of its specification. So there is nothing to keep beside the runs: the same command goes on
where it was left, a larger grid takes over what a smaller one has done, and a changed preset begins anew.

Points are processes, not rows of a `vmap`. The eigensolver, the projections and the search for the edge each loop until they
have converged, so a batch would wait in every loop for its slowest member; its members reach the edge at different steps; and
one that ends would go on computing with the rest. Without all that, four learning rates in one batch are 1.07 times faster than one
after the other on the default preset, 1.33 times for the Hessian–vector products (`bench batch`, two shared cores).
"""

import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from engine import control, launch, store, trust
from engine.data.catalog import ready
from engine.errors import UserError
from engine.follow import has_ended, signals_counted
from engine.launch import LIVE, RESUMABLE
from engine.printed import print_line
from engine.spec import RunSpec, load_spec, to_toml
from engine.store import NAME, Run

MOST_POINTS = 10_000
LOOK_SECONDS = 0.2
TAKE_OVER_SECONDS = 600.0
"""Unchanged, after which the run of a point is taken over from a host that is silent."""
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})\Z")


class Axis(NamedTuple):
    """A field of the specification and the values it takes, as text."""

    field: str
    values: tuple[str, ...]


class Point(NamedTuple):
    """A point of the grid: the value of each field, and the specification with them."""

    values: dict[str, Any]
    spec: RunSpec
    name: str
    """Of its run."""


def axis(text: str) -> Axis:
    """The axis in `section.field=a,b,c` or `section.field=0..4`. Raises UserError for what is neither."""
    field, separator, raw = text.partition("=")
    found = RANGE.match(raw.strip())
    if found:
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MOST_POINTS:
            raise UserError(f"--grid {text[:120]}: expected a range that rises, of up to {MOST_POINTS:,} values")
        return Axis(field.strip(), tuple(map(str, range(first, last + 1))))
    values = tuple(value.strip() for value in split(raw))
    if not separator or not field.strip() or not all(values):
        raise UserError(f'--grid {text[:120]}: expected section.field=value,…, as in "optimizer.learning_rate=0.02,0.04" or "seed=0..4"')
    return Axis(field.strip(), values)


def split(text: str) -> list[str]:
    """The parts of a text between commas, those inside brackets and quotes left together."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def points(preset: str, axes: Sequence[Axis], overrides: Sequence[str] = (), name: str | None = None, data_dir: str = "") -> list[Point]:
    """Every point of the grid, the last axis running fastest. Raises UserError before anything is made."""
    fields = [each.field for each in axes]
    if len(set(fields)) < len(fields):
        raise UserError(f"--grid {max(fields, key=fields.count)}: given twice; expected each field once, as in field=a,b,c")
    grid = list(itertools.islice(itertools.product(*(each.values for each in axes)), MOST_POINTS + 1))
    if len(grid) > MOST_POINTS:
        raise UserError(f"--grid: more than {MOST_POINTS:,} points; expected fewer values")
    found: dict[str, Point] = {}
    for values in grid:
        chosen = [f"{field}={value}" for field, value in zip(fields, values, strict=True)]
        spec = ready(load_spec(preset, [*overrides, *chosen]), data_dir)
        title = f"{name or f'{spec.name}-sweep'}-{sha256(to_toml(spec).encode()).hexdigest()[:8]}"
        if not NAME.match(title):
            raise UserError(f"sweep name {str(name)[:100]!a}: use up to 70 letters, digits, '.', '_', '-', a letter or digit first")
        if title in found:
            raise UserError(f"--grid: {', '.join(chosen)} is a point that was there before; expected each value once")
        found[title] = Point({field: _value(spec, field) for field in fields}, spec, title)
    return list(found.values())


def _value(spec: RunSpec, field: str) -> Any:
    """The value of a dotted field."""
    value: Any = spec
    for key in field.split("."):
        value = value[key.strip()] if isinstance(value, dict) else getattr(value, key.strip())
    return value if isinstance(value, bool | int | float | str) else str(value)


def run_of(point: Point) -> Run | None:
    """The run of a point, None before there is one. Raises UserError where another run has its name."""
    path = store.home() / point.name
    if not path.exists():
        return None
    if store.half_made(path):  # by an earlier version that was ended in the middle of it
        store.discard(point.name)
        print_line(f"{point.name}: was there half made, and is made anew", error=True)
        return None
    run = store.resolve(point.name)
    if run.spec != point.spec:
        raise UserError(f"run {point.name}: its specification is not that of this point; `eos rm {point.name}`, or --name another")
    return run


def runs_of(name: str) -> list[Run]:
    """The runs of the sweep whose names begin so, oldest first; none where a run has this very name, or no sweep has it."""
    point = re.compile(rf"{re.escape(name)}-[0-9a-f]{{8}}\Z")
    return [] if (store.home() / name).exists() else [run for run in store.all_runs() if point.match(run.name)]


def is_over(run: Run) -> bool:
    """Whether there is nothing to go on with now: it is done, or its engine on another host may be at work."""
    return is_done(run) or (run.liveness() == "silent" and not may_be_taken(run, TAKE_OVER_SECONDS))


def is_done(run: Run) -> bool:
    """Whether waiting changes nothing: it has ended for good, or nobody here will ever know whether its engine is at work."""
    outcome = run.state().outcome
    return run.liveness() == "unknown" or (outcome is not None and outcome.kind not in RESUMABLE)


def may_be_taken(run: Run, take_over_after: float) -> bool:
    """Whether an engine may be started on a run: none is at work, or one on another host has changed nothing for so long."""
    liveness = run.liveness()
    if liveness != "silent":
        return liveness not in LIVE
    return abs(run.unchanged_for() or 0.0) >= take_over_after


class Swept(NamedTuple):
    """The runs of a sweep, in the order of its points; None for one that has not begun."""

    runs: list[Run | None]
    status: int
    """Of a command that a signal ended, as Ctrl-C does; 0 where none came."""


def sweep(grid: Sequence[Point], workers: int, take_over_after: float = TAKE_OVER_SECONDS) -> Swept:
    """Carry every point to its end, `workers` engines at a time, and tell of each on stderr. Ctrl-C stops them cleanly.

    A point whose engine is silent, on another host, is waited for, and taken over where it has changed nothing for `take_over_after`
    seconds.
    """
    told: set[str] = set()
    runs, waiting = {point.name: run_of(point) for point in grid}, list(grid)
    engines: dict[str, int] = {}  # name -> process id
    tried: set[str] = set()
    heeded = over = 0
    if workers > 1:  # else the first engine on a GPU takes three quarters of its memory from the start
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    with signals_counted() as asked:
        try:
            while waiting or engines:
                for name in [name for name, pid in engines.items() if has_ended(pid)]:
                    del engines[name]
                for point in list(waiting):
                    run = runs[point.name]
                    if point.name in engines:
                        continue
                    if run is not None and (is_done(run) or point.name in tried):
                        waiting.remove(point)
                        over += 1
                        state = run.state()
                        print_line(f"{over}/{len(grid)} {run.name}: {state.outcome.text if state.outcome else run.liveness()}", error=True)
                    elif not asked.times and len(engines) < workers and (run is None or may_be_taken(run, take_over_after)):
                        runs[point.name] = run = run or store.create(point.spec, point.name)
                        trust.grant(run.path, run.spec)  # the specification is that of its point, whoever made the folder
                        engines[run.name] = _begin(run)
                        tried.add(run.name)
                    elif run is not None and run.name not in told and run.liveness() == "silent":
                        told.add(run.name)
                        print_line(f"{store.doubt(run, 'silent')}; it is taken over once that is {take_over_after:g} s", error=True)
                if asked.times > heeded:
                    heeded += 1
                    _stop([(runs[name], pid) for name, pid in engines.items()], heeded)
                if asked.times and not engines:
                    break
                time.sleep(LOOK_SECONDS)
        except BaseException:
            _stop([(runs[name], pid) for name, pid in engines.items()], 1)
            raise
    return Swept([runs[point.name] for point in grid], asked.status)


def _begin(run: Run) -> int:
    """An engine on the run, taken over from another host where that is silent; its process id."""
    if run.liveness() != "silent":
        return launch.start(run)
    print_line(f"{run.name}: taken over from another host; {store.RISK}", error=True)
    return launch.restart(run, force=True)


def _stop(engines: Sequence[tuple[Run | None, int]], times: int) -> None:
    """Ask engines to stop; end them when asked for the second time."""
    for run, pid in engines:
        if run is not None and times == 1:
            control.send(run.path, control.Stop())
        else:
            os.kill(pid, signal.SIGKILL)  # a child that was not waited for keeps its number
    said = "stopping: each engine writes a checkpoint; the same command goes on; once more, as with Ctrl-C, kills them"
    said = said if times == 1 else "killed"
    print(said, file=sys.stderr)
