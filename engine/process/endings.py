"""How a run ends, in words: what stands on the disk to go on from, and whether its last word is true."""

from engine.base.errors import BAD_END
from engine.jobs.launch import BAD_ENDS
from engine.phases.context import FIRST_ROWS, grown
from engine.record import messages
from engine.record.reader import Outcome, Run
from engine.spec import Network, Own
from engine.xla.device import device_words

UNJUDGED = ("diverged", "failed", "loss_goal")
"""Outcomes that say enough of the loss."""


def exit_status(outcome: Outcome) -> int:
    """The exit status of an engine whose run ended so."""
    return BAD_END if outcome.kind in BAD_ENDS else 0


def judged(outcome: Outcome, run: Run) -> Outcome:
    """The outcome, or that the run diverged where its last loss is finite but beyond any descent: then no other word is true."""
    loss, rows = run.index.get("batch.loss", run.index.get("gd.loss")), run.row_count()  # the one that every row has
    if loss is None or not rows or outcome.kind in UNJUDGED:
        return outcome
    (last,) = run.rows(rows - 1)
    return grown(run.rows(0, FIRST_ROWS)[:, loss], float(last[loss]), int(last[0])) or outcome


def last_edge(run: Run) -> int | None:
    """The last edge of the run, whatever η was then."""
    return max((event.step for event in run.events() if isinstance(event, messages.EdgeReached)), default=None)


def what_stands(run: Run) -> str:
    """The checkpoint that a run can go on from, in words."""
    kept = run.checkpoints()
    return f"the last checkpoint, {kept[-1].name}, stands" if kept else "there is no checkpoint yet"


def last_row_kept(run: Run) -> str:
    """Which row is the last one on the disk: a block that did not fit may be there in part."""
    count = run.row_count()
    return f"the last row on it is that of step {run.rows(count - 1)[0, 0]:.0f}" if count else "no row is on it yet"


def out_of_memory(run: Run) -> str:
    """That a device has not enough memory, and what to do."""
    stands, spec = what_stands(run), run.spec
    if not isinstance(spec.problem, Network):
        passes = "; micro_batch=N of its maker takes N examples a pass" if isinstance(spec.problem, Own) else ""
        return f"{device_words()} has not enough memory for this problem; {stands}{passes}"
    again = f"eos fork {run.name}" if run.checkpoints() else f"eos run {spec.name}"
    return (
        f"{device_words()} has not enough memory; {stands}. `{again} --set problem.micro_batch=N` goes on with N examples a pass, "
        f"and `eos check {spec.name} --set problem.micro_batch=N` says what that needs"
    )
