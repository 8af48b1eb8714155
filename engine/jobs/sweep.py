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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from engine.base import stuck
from engine.base.errors import UserError
from engine.base.text import print_line
from engine.data.catalog import ready
from engine.jobs import launch
from engine.jobs.follow import MOST_ASKED, StopRequests, has_ended, signals_counted
from engine.jobs.launch import LIVE, RESUMABLE
from engine.record import messages, store, trust
from engine.record.lock import HeldError
from engine.record.reader import RISK, Run, doubt
from engine.record.store import NAME
from engine.spec import RunSpec, load_spec, to_toml

MOST_POINTS = 10_000
LOOK_SECONDS = 0.2
TAKE_OVER_SECONDS = 600.0
"""Unchanged, after which the run of a point is taken over from a host that is silent."""
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})\Z")


class SweepAxis(NamedTuple):
    """A field of the specification and the values it takes, as text."""

    field: str
    values: tuple[str, ...]


class SweepPoint(NamedTuple):
    """A point of the grid: the value of each field, and the specification with them."""

    values: dict[str, Any]
    spec: RunSpec
    name: str
    """Of its run."""


def axis(text: str) -> SweepAxis:
    """The axis in `section.field=a,b,c` or `section.field=0..4`. Raises UserError for what is neither."""
    field, separator, raw = text.partition("=")
    span = RANGE.match(raw.strip())
    if span:
        first, last = int(span[1]), int(span[2])
        if not 0 <= last - first < MOST_POINTS:
            raise UserError(f"--grid {text[:120]}: expected a range that rises, of up to {MOST_POINTS:,} values")
        return SweepAxis(field.strip(), tuple(map(str, range(first, last + 1))))
    values = tuple(value.strip() for value in split(raw))
    if not separator or not field.strip() or not all(values):
        raise UserError(f'--grid {text[:120]}: expected section.field=value,…, as in "optimizer.learning_rate=0.02,0.04" or "seed=0..4"')
    return SweepAxis(field.strip(), values)


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


def points(
    preset: str, axes: Sequence[SweepAxis], overrides: Sequence[str] = (), name: str | None = None, data_dir: str = ""
) -> list[SweepPoint]:
    """Every point of the grid, the last axis running fastest. Raises UserError before anything is made."""
    fields = [each.field for each in axes]
    if len(set(fields)) < len(fields):
        raise UserError(f"--grid {max(fields, key=fields.count)}: given twice; expected each field once, as in field=a,b,c")
    grid = list(itertools.islice(itertools.product(*(each.values for each in axes)), MOST_POINTS + 1))
    if len(grid) > MOST_POINTS:
        raise UserError(f"--grid: more than {MOST_POINTS:,} points; expected fewer values")
    named: dict[str, SweepPoint] = {}
    for values in grid:
        chosen = [f"{field}={value}" for field, value in zip(fields, values, strict=True)]
        spec = ready(load_spec(preset, [*overrides, *chosen]), data_dir)
        title = f"{name or f'{spec.name}-sweep'}-{sha256(to_toml(spec).encode()).hexdigest()[:8]}"
        if not NAME.match(title):
            raise UserError(f"sweep name {str(name)[:100]!a}: use up to 70 letters, digits, '.', '_', '-', a letter or digit first")
        if title in named:
            raise UserError(f"--grid: {', '.join(chosen)} is a point that was there before; expected each value once")
        named[title] = SweepPoint({field: _value(spec, field) for field in fields}, spec, title)
    return list(named.values())


def _value(spec: RunSpec, field: str) -> Any:
    """The value of a dotted field."""
    value: Any = spec
    for key in map(str.strip, field.split(".")):
        if isinstance(value, msgspec.Struct) and key == value.__struct_config__.tag_field:
            value = value.__struct_config__.tag
        else:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value if isinstance(value, bool | int | float | str) else str(value)


def run_of(point: SweepPoint) -> Run | None:
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
    return [] if (store.home() / name).exists() else store.all_runs(named=point)


def ensure_run(point: SweepPoint) -> tuple[Run, bool]:
    """The run of a point, made where there is none; and whether by this process, rather than by another that came first."""
    while True:
        if (run := run_of(point)) is not None:
            return run, False
        try:
            return store.create(point.spec, point.name), True
        except UserError:
            if not (store.home() / point.name).exists():
                raise


def is_there(run: Run) -> bool:
    """Whether the run has not been removed meanwhile."""
    return (run.path / "spec.toml").is_file()


def is_busy(run: Run) -> bool:
    """Whether an engine is at work on it, though it may have said nothing yet since it was started on a run that had ended. One on another
    host that is silent may be gone, whatever lock it holds.
    """
    state = run.state()
    liveness = run.liveness(state)
    return (liveness != "silent" and run.is_locked()) or (state.pid != 0 and liveness in LIVE)


def is_anothers(run: Run) -> bool:
    """Whether another process is at work on it, or has just made it and starts its engine."""
    return is_busy(run) or run.liveness() in LIVE


@contextmanager
def _unless_gone(run: Run | None) -> Iterator[None]:
    """A failure inside because the run was removed in this moment is reported at the next look."""
    try:
        yield
    except (OSError, UserError):
        if run is None or is_there(run):
            raise


def is_done(run: Run) -> bool:
    """Whether waiting changes nothing: it has ended for good, or nobody here will ever know whether its engine is at work."""
    outcome = run.state().outcome
    return run.liveness() == "unknown" or (outcome is not None and outcome.kind not in RESUMABLE)


def may_be_taken(run: Run, take_over_after: float) -> bool:
    """Whether an engine may be started on a run: none is at work, or one on another host has changed nothing for so long."""
    if run.liveness() != "silent":
        return not is_anothers(run)
    return abs(run.unchanged_for() or 0.0) >= take_over_after


def is_waited_for(run: Run, take_over_after: float) -> bool:
    """Whether its engine, on another host, is silent, and not yet for so long that it may be taken over."""
    return run.liveness() == "silent" and not is_done(run) and not may_be_taken(run, take_over_after)


def waiting_words(run: Run, take_over_after: float) -> str:
    """Why nothing is done with a run for now, in words, and until when."""
    return f"{doubt(run, 'silent')}; it is taken over once that is {take_over_after:g} s"


class Swept(NamedTuple):
    """The runs of a sweep, in the order of its points; None for one that has not begun."""

    runs: list[Run | None]
    status: int
    """Of a command that a signal ended, as Ctrl-C does; 0 where none came."""


def sweep(grid: Sequence[SweepPoint], workers: int, take_over_after: float = TAKE_OVER_SECONDS) -> Swept:
    """Carry every point to its end, `workers` engines at a time, and tell of each on stderr. Ctrl-C stops them cleanly.

    What another sweep is at work on is waited for, and taken up where that one leaves it. So is a point whose engine is silent, on another
    host, which is taken over where it has changed nothing for `take_over_after` seconds. Whatever ends this one, no engine is left. Raises
    UserError for a number of workers that is none.
    """
    if not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers = {workers!r}; expected a whole number of engines from 1")
    doubted: set[str] = set()
    runs, waiting = {point.name: run_of(point) for point in grid}, list(grid)
    engines: dict[str, int] = {}  # name -> process id
    tried: set[str] = set()
    over: set[str] = set()
    heeded = 0
    if workers > 1:  # else the first engine on a GPU takes three quarters of its memory from the start
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def tell(name: str, text: str) -> None:
        over.add(name)
        print_line(f"{len(over)}/{len(grid)} {name}: {text}", error=True)

    def look(point: SweepPoint) -> None:
        run = runs[point.name]
        if run is not None and not is_there(run):
            if point.name in engines:
                _signal(engines[point.name], signal.SIGTERM)  # nothing of what it does is kept
            waiting.remove(point)
            tell(point.name, "removed while the sweep was at work; the same command computes it anew")
        elif point.name in engines:
            return
        elif run is not None and (is_done(run) or point.name in tried) and not is_busy(run):
            outcome, liveness = run.state().outcome, run.liveness()
            waiting.remove(point)
            tell(run.name, outcome.text if outcome else liveness)
        elif not asked.times and len(engines) < workers and (run is None or may_be_taken(run, take_over_after)):
            run, ours = ensure_run(point)
            runs[point.name] = run
            if ours or (not is_done(run) and may_be_taken(run, take_over_after)):  # else made by another sweep since we looked
                trust.grant(run.path, run.spec)  # the specification is that of its point, whoever made the folder
                with suppress(HeldError):  # another sweep was first
                    engines[run.name] = begin(run)
                    tried.add(run.name)
        elif run is not None and run.name not in doubted and run.liveness() == "silent":
            doubted.add(run.name)
            print_line(waiting_words(run, take_over_after), error=True)

    with signals_counted() as asked, stuck.taking_along(engines.values):
        try:
            while waiting or engines:
                for name in [name for name, pid in engines.items() if has_ended(pid)]:
                    del engines[name]
                    run = runs[name]
                    if run is not None and is_there(run) and is_busy(run):  # another sweep's engine was first
                        tried.discard(name)
                for point in list(waiting):
                    with _unless_gone(runs[point.name]):
                        look(point)
                if asked.times > heeded:
                    heeded += 1
                    _stop([(runs[name], pid) for name, pid in engines.items()], heeded)
                if asked.times and not engines:
                    break
                time.sleep(LOOK_SECONDS)
        except BaseException:
            _end([(runs[name], pid) for name, pid in engines.items()], asked)
            raise
    return Swept([runs[point.name] for point in grid], asked.status)


def begin(run: Run) -> int:
    """An engine on the run, taken over from another host where that is silent; its process id."""
    if run.liveness() != "silent":
        return launch.start(run)
    print_line(f"{run.name}: taken over from another host; {RISK}", error=True)
    return launch.restart(run, force=True)


def _stop(engines: Sequence[tuple[Run | None, int]], times: int) -> None:
    """Ask engines to stop; end them when asked for the second time."""
    for run, pid in engines:
        try:
            if run is None or times > 1:
                _signal(pid, signal.SIGKILL)
            else:
                messages.send(run.path, messages.Stop())
        except UserError:  # its inbox is gone, or cannot be written to
            _signal(pid, signal.SIGTERM)
    said = "stopping: each engine writes a checkpoint; the same command goes on; once more, as with Ctrl-C, kills them"
    said = said if times == 1 else "killed"
    print(said, file=sys.stderr)


def _end(engines: Sequence[tuple[Run | None, int]], asked: StopRequests) -> None:
    """Have engines stop and wait until the last has ended; a signal that asks for the end meanwhile kills them."""
    left, before = list(engines), asked.times
    if left and asked.times <= MOST_ASKED:
        _stop(left, 1)
    while left := [(run, pid) for run, pid in left if not has_ended(pid)]:
        if asked.times > before:
            for _, pid in left:
                _signal(pid, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)


def _signal(pid: int, number: int) -> None:
    """Send a signal to a child; one that was not waited for keeps its number."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
