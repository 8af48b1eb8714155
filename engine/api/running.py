"""Runs from a script: begin one, or go on with one, and give its record or its rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.api.records import Record
from engine.api.specified import assigned, listed, specified
from engine.api.stepping import Stepping, interrupts
from engine.base.errors import UserError
from engine.jobs import fork as forks
from engine.jobs import launch
from engine.record import store
from engine.record import trust as trusts
from engine.record.reader import Run
from engine.spec import RunSpec, with_overrides

if TYPE_CHECKING:
    from jax import Array

    from engine.phases.metrics import Metric
    from engine.problems.own import Made
    from engine.problems.problem import Problem


def run(
    preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None" = None, *, overrides: Sequence[str] = (),
    name: str | None = None, apart: bool = False, trust: bool = False,
    metrics: "Mapping[str, Metric] | Sequence[Metric]" = (), progress: bool = False, **fields: Any,
) -> Record:
    """Run to the end, and return the record. The run directory is under `$EOS_HOME`, as for the app.

    `preset` is a preset's name, the path of a preset file, or a specification; or what `from_loss` and `from_flax` give, or a problem and
    the `theta` (p,) to start from, with a `learning_rate`. `overrides` are "section.field=value", and `fields` the same by the field's own
    name, `learning_rate=0.05`, where no other section has one of that name. `metrics` are functions of a `MetricContext`, by the name of
    their column `metric.NAME`, or by their own. What no file holds, problems and functions of a notebook, is handed over to this process
    alone: the run is recorded and can be watched from elsewhere, and gone on with here. `progress` shows a bar on stderr.

    The run works in this process, or with `apart` in one of its own, as under the app. Where jax has begun here with sums that go wrong on
    a CPU, only the latter is right, and this process refuses: what it computes by itself would be as wrong as before.
    A preset file may name code of your own; a specification, or the spec.toml of a run that was not made here, may only with `trust`.
    Raises UserError for bad input; a bad end (diverged, failed) is an outcome of the record, not an exception. Ctrl-C, or a notebook's
    stop, ends the run at its next step with a checkpoint, and the record is returned; once more within five seconds, in this run or the
    next one of a loop, is a KeyboardInterrupt.
    """
    spec = specified(preset, theta, overrides, fields, trust, metrics)
    return _to_the_end(Stepping.of(lambda: store.create(spec, name), spec, apart), progress)


def stream(
    preset: "str | Path | RunSpec | Made | Problem", theta: "Array | np.ndarray | None" = None, *, overrides: Sequence[str] = (),
    name: str | None = None, apart: bool = False, trust: bool = False,
    metrics: "Mapping[str, Metric] | Sequence[Metric]" = (), progress: bool = False, **fields: Any,
) -> Iterator[dict[str, float]]:
    """Run, and give each row as it is recorded, by column name; NaN where there is no value.

    Arguments and errors as for `run`. Closing the iterator stops the run, with a checkpoint to go on from, and so does an interrupt,
    which then raises KeyboardInterrupt.
    """
    spec = specified(preset, theta, overrides, fields, trust, metrics)
    stepping = Stepping.of(lambda: store.create(spec, name), spec, apart)
    names, blocks = [column.name for column in stepping.run.columns], stepping.blocks()
    with _bar(stepping.run, progress) as tell:
        while True:
            with interrupts(stepping):  # not while the caller has its turn: there an interrupt is the caller's
                block = next(blocks, None)
            if block is None:
                break
            tell(block)
            for row in block:
                yield dict(zip(names, row.tolist(), strict=True))
    if stepping.interrupted:
        raise KeyboardInterrupt


def fork(
    parent: str | Path | Record, *, step: int | None = None, overrides: Sequence[str] = (), name: str | None = None, apart: bool = False,
    trust: bool = False, progress: bool = False, other_loss: bool = False, **fields: Any,
) -> Record:
    """Go on from the newest checkpoint of a run at or before `step`, of all when None, as a new run, and return its record.

    `overrides` and `fields` as for `run`; only those that a checkpoint does not depend on can change, as the learning rate, the budget and
    tolerances. `other_loss` goes on with the code and data there are now, though the loss at the checkpoint was another. Raises UserError.
    """
    origin = _run_of(parent)
    at = origin.state().step if step is None else step
    if not isinstance(at, int | np.integer):
        raise UserError(f"step = {step!r}: expected a whole number, or None for the last")
    changes = [*listed(overrides), *assigned(origin.spec, fields)]
    if trust:
        trusts.grant(origin.path, origin.spec)
    spec = with_overrides(origin.spec, changes)
    return _to_the_end(Stepping.of(lambda: forks.fork(origin, at, changes, name, other_loss), spec, apart), progress)


def resume(
    stopped: str | Path | Record, *, apart: bool = False, trust: bool = False, force: bool = False, progress: bool = False
) -> Record:
    """Go on with a stopped, failed or crashed run from its last checkpoint, and return its record. `force` takes it over from an engine on
    another host that has fallen silent. Raises UserError where there is nothing to go on with, or an engine is at work.
    """
    run = _run_of(stopped)
    if trust:
        trusts.grant(run.path, run.spec)

    def prepared() -> Run:
        launch.prepare_restart(run, force)
        return run

    return _to_the_end(Stepping.of(prepared, run.spec, apart, made=False), progress)


def _run_of(given: str | Path | Record) -> Run:
    return store.resolve(str(given.path if isinstance(given, Record) else given))


def _to_the_end(stepping: Stepping, progress: bool) -> Record:
    with interrupts(stepping), _bar(stepping.run, progress) as tell:
        for block in stepping.blocks():
            tell(block)
    return Record(stepping.run)


def _bar(run: Run, wanted: bool) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """What is told each block of rows: a bar of progress, or nothing."""
    if not wanted:
        return nullcontext(lambda block: None)
    try:
        tqdm = import_module("tqdm").tqdm
    except ModuleNotFoundError:
        raise UserError("progress=True: needs tqdm; pip install tqdm") from None
    return _Bar(run, tqdm)


class _Bar(AbstractContextManager[Callable[[np.ndarray], None]]):
    """A bar of progress in steps, with the loss and the sharpness of the last row that has them."""

    def __init__(self, run: Run, tqdm: Any):
        budget = run.spec.budget
        self._bar = tqdm(total=budget.steps, initial=run.row_count(), desc=run.name, unit=" steps")
        self._last: dict[str, str] = {}
        self._shown = {short: run.index[name] for short, name in (("L", "gd.loss"), ("S", "gd.sharpness")) if name in run.index}

    def __enter__(self) -> Callable[[np.ndarray], None]:
        return self._tell

    def _tell(self, block: np.ndarray) -> None:
        for short, column in self._shown.items():
            known = block[np.isfinite(block[:, column]), column] if len(block) else block
            if len(known):
                self._last[short] = f"{known[-1]:.4g}"
        self._bar.set_postfix(self._last, refresh=False)
        self._bar.update(len(block))

    def __exit__(self, *_: object) -> None:
        self._bar.close()
