"""A fork: a new run that goes on from a checkpoint of another, with another learning rate or other settings. Without jax.

The new directory holds everything its engine needs: the checkpoint, the rows and the events up to it. It is a new run and records
today's columns: rows of an earlier version are brought over by name, with NaN where a column was not recorded. Another learning rate is
part of that checkpoint, which is written before the run can be seen: whatever becomes of the first engine, the next one goes on with it.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.errors import UserError
from engine.base.files import append_plain
from engine.jobs.launch import LIVE
from engine.record import edges, messages, store, trust
from engine.record.arrays import CHANGED_RATE, IDENTITY, rearranged, refuse_foreign, save_checkpoint
from engine.record.columns import arranged
from engine.record.reader import Run, step_of
from engine.record.safe_read import read_arrays
from engine.spec import Phase, RunSpec, Toy, ToyK, fields_of, with_overrides

LEARNING_RATE = "optimizer.learning_rate"
FREE = (
    LEARNING_RATE, "batch.", "budget.", "approach.", "recording.", "tracking.anchor_lost", "tracking.horizon_tolerance",
    "tracking.eigen_tolerance", "tracking.audit_every", "tracking.max_projections", "tracking.sharpness_tolerance",
    "tracking.gradient_tolerance", "tracking.second_eigenvalue_limit", "tracking.on_second_eigenvalue",
    "tracking.seed_oscillation", "tracking.flow_sharpness_every", "tracking.central_substeps", "problem.micro_batch",
    "problem.rematerialize", "problem.devices", "problem.shard", "precision.products",
)
"""Fields that a checkpoint does not depend on, and sections of such."""
WORDS = ("name", "title", "shows", "takes")
"""Fields that say nothing of what is computed."""
PASSING = (
    messages.Finished, messages.Paused, messages.Resumed, messages.Refused, messages.CheckpointSkipped, messages.RecordCut,
    messages.FolderMoved, messages.ProductsSlow,
)
"""Events of the other run's engine, not of what it computed."""
CHUNK = 4096


def differences(spec: RunSpec, other: RunSpec) -> dict[str, Any]:
    """`section.field` and the other's value, wherever it computes something else; None where it has no such field."""
    mine, theirs = (dict(fields_of(each)) for each in (spec, other))
    return {name: theirs.get(name) for name in {**mine, **theirs} if name not in WORDS and mine.get(name) != theirs.get(name)}


def checkpoint_at(run: Run, step: int) -> tuple[Path, int]:
    """The newest checkpoint at or before a step, and its step. Raises UserError when there is none."""
    checkpoints = [(step_of(path.name), path) for path in run.checkpoints()]
    before = [(at, path) for at, path in checkpoints if at <= step]
    if not before:
        oldest = f"the oldest is at step {checkpoints[0][0]}" if checkpoints else "it has none"
        kept, rest = run.spec.recording.keep_checkpoints, run.spec.recording.checkpoint_seconds
        how = f"`eos checkpoint {run.name}` writes one" if run.liveness() in LIVE else (
            f"a run keeps its last {kept}, {rest:g} s apart: [recording] keep_checkpoints and checkpoint_seconds change that")
        raise UserError(f"run {run.name}: no checkpoint at or before step {step} ({oldest}); {how}")
    at, path = max(before)
    return path, at


def shared_out(run: Run) -> str:
    """What to know of a fork where several processes took the steps of the run: one takes those of the fork. Empty where it was one."""
    count = run.provenance().get("processes", 1)
    if not isinstance(count, int) or count < 2:
        return ""
    same = "the same to rounding, in float64 to 1e-6 of each column, until the bursts magnify it"
    return f"{count} processes took the steps up to there and one takes those from there, {same}"


def fork(run: Run, step: int, overrides: Sequence[str] = (), name: str | None = None, other_loss: bool = False) -> Run:
    """A new run directory that goes on from the newest checkpoint at or before `step`, with `section.field=value` changed; with
    `other_loss` on whatever loss there is now, though the checkpoint was of another.

    Raises UserError for a field that the checkpoint depends on, Untrusted where the run names code that is not trusted. No engine is
    started.
    """
    trust.need(run.path, run.spec)
    path, at = checkpoint_at(run, step)
    leaves = _readable(run, path)
    if other_loss:
        leaves = {name: leaf for name, leaf in leaves.items() if not name.startswith(IDENTITY)}
    spec = with_overrides(run.spec, tuple(overrides))
    changed = differences(run.spec, spec)
    for field in changed:
        if not field.startswith(FREE):
            raise UserError(f"{field}: the checkpoint at step {at} depends on it; {_anew(run, field)}")
    rate = spec.optimizer.learning_rate if any(item.partition("=")[0].strip() == LEARNING_RATE for item in overrides) else None
    if rate is not None and isinstance(spec.problem, Phase):
        raise UserError(f"{LEARNING_RATE}: that of a phase portrait is fixed; {_anew(run, LEARNING_RATE)}")
    if rate is not None and spec.optimizer.schedule == "inverse_sharpness":
        raise UserError(f"{LEARNING_RATE}: that of this run is 1/λ_max at every measurement; {_anew(run, LEARNING_RATE)}")
    _need_steps(run, spec, at, rate)
    if "learning_rate" not in run.index:
        raise UserError(f"run {run.name}: records no learning_rate, so not written by eos; it cannot be gone on with")
    spec = _same_loss(run.spec, spec)

    def fill(made: Run) -> None:
        before = _copy_rows(run, made, at)
        with io.BufferedWriter(append_plain(made.path / "events.jsonl")) as journal:
            said = [", ".join(f"{field} = {value}" for field, value in changed.items()) or "nothing changed", shared_out(run)]
            said += ["the loss may be another from here"] if other_loss else []
            text = "; ".join(filter(None, [f"forked from run {run.name} at its checkpoint of step {at}", *said]))
            forked = messages.Forked(step=at, text=text, parent=run.name)
            for event in (*(each for each in run.events() if each.step <= at and not isinstance(each, PASSING)), forked):
                journal.write(messages.encode(event) + b"\n")
            journal.flush()
            os.fsync(journal.fileno())
        if rate is not None:  # a fork that never began has one already
            leaves.pop(CHANGED_RATE, None)
            leaves.update({CHANGED_RATE: np.array(rate)} if rate != before else {})
        save_checkpoint(made, at, rearranged(leaves, run, made))

    return store.create(spec, name, fill=fill)


def _same_loss(before: RunSpec, spec: RunSpec) -> RunSpec:
    """The specification with the loss of the one before: that of a toy is made for its learning rate."""
    if not isinstance(spec.problem, Toy | ToyK) or spec.problem.threshold or spec.optimizer.learning_rate == before.optimizer.learning_rate:
        return spec
    return with_overrides(spec, (f"problem.threshold={edges.of_hessian(before.optimizer)!r}",))


def _readable(run: Run, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint. Raises UserError where they cannot be had, or continue other rows than the run's."""
    leaves, name = read_arrays(path), f"run {run.name}: checkpoint {path.name}"
    if leaves is None:
        raise UserError(f"{name} cannot be read; give the step of an earlier one")
    try:
        refuse_foreign(leaves, run)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be gone on from: {error}; give the step of an earlier one") from None
    return leaves


def _need_steps(run: Run, spec: RunSpec, at: int, rate: float | None) -> None:
    """Refuse a fork that would end before its first step."""
    steps, edge_steps = spec.budget.steps, spec.budget.edge_steps
    edge = messages.edge_in_force(event for event in run.events() if event.step <= at)
    if at >= steps:
        raise UserError(f"budget.steps: {steps}, and the checkpoint is at step {at}, so no step is left; add budget.steps={at + steps}")
    if edge_steps and edge is not None and rate is None and at >= edge + edge_steps:
        raise UserError(f"budget.edge_steps: {edge_steps}, and the checkpoint is {at - edge} steps after the edge, so no step is left; "
                        f"add budget.edge_steps={at - edge + edge_steps}")


def _anew(run: Run, field: str) -> str:
    return f"start anew with `eos run {run.spec.name} --set {field}=…`"


def _rows_before(run: Run, step: int) -> Iterator[np.ndarray]:
    """The rows before a step, in pieces: the checkpoint goes on with that of the step itself."""
    start = 0
    while len(rows := run.rows(start, start + CHUNK)):
        kept = rows[rows[:, 0] < step]
        yield kept
        if len(kept) < len(rows):
            return
        start += CHUNK


def _copy_rows(run: Run, made: Run, step: int) -> float:
    """Copy the rows before a step; the learning rate in the last of them, NaN where there is none."""
    rate = math.nan
    with io.BufferedWriter(append_plain(made.path / "metrics.f64")) as record:
        for rows in _rows_before(run, step):
            record.write(arranged(rows, run.index, made.index).astype("<f8").tobytes())
            rate = float(rows[-1, run.index["learning_rate"]]) if len(rows) else rate
        record.flush()
        os.fsync(record.fileno())
    return rate
