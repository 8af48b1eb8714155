"""Keys that drive the engine: each leaves a command in the run's inbox, and the engine's answer is shown when it comes."""

import math
from collections.abc import Sequence
from time import monotonic
from typing import Literal

from textual.notifications import SeverityLevel
from textual.reactive import Reactive
from textual.widget import Widget

from engine.base.errors import UserError
from engine.jobs import launch
from engine.jobs.fork import LEARNING_RATE, checkpoint_at, fork
from engine.record import trust
from engine.record.messages import (
    Advance,
    AdvanceTo,
    Anchor,
    AnyCommand,
    AnyEvent,
    Checkpoint,
    Density,
    Pause,
    Refused,
    Resume,
    SetLearningRate,
    Stop,
)
from engine.record.reader import Run
from engine.record.threshold import in_force
from eos_tui.messages import OpenRun
from eos_tui.model.source import Source
from eos_tui.screens.ground import Ground
from eos_tui.screens.prompts import Ask, AskLearningRate, Confirm, a_count
from eos_tui.terminal.pace import Pace

PATIENCE_SECONDS = 8.0
"""Wait for the engine's answer before saying that it has not come."""
ACTIONS = {"toggle_engine", "step_once", "advance", "learning_rate", "anchor", "stop", "advance_to"}
"""What the footer leaves out when there is no engine."""


class Driving(Ground):
    """A screen with a run whose engine it can drive."""

    focused: Reactive[Widget | None] = Reactive(None, repaint=False)  # what gains and loses it repaint themselves, not everything

    def __init__(self, source: Source, pace: Pace, ascii: bool = False):
        super().__init__(pace, ascii)
        self.source = source
        self._pending: dict[str, tuple[str, float]] = {}
        """Commands not answered yet: what was asked, and when."""

    def tell(self, command: AnyCommand, what: str) -> None:
        """Leave a command for the engine; its answer will be shown. A replay is no place to tell the engine from."""
        if self.source.replay is not None:
            self.notify("This is a replay: g returns to the newest step, where the engine takes commands.", timeout=4)
            return
        try:
            late = isinstance(command, Advance | AdvanceTo | Density)  # answered after the last step, or part
            since = math.inf if late else monotonic()
            self._pending[self.source.tell(command)] = what, since
        except UserError as error:
            self.notify(str(error), severity="warning", markup=False)

    def _engine_there(self) -> bool:
        """Whether there is an engine to ask for; where there is none it is said at once, not after the question."""
        try:
            self.source.need_engine()
        except UserError as error:
            self.notify(str(error), severity="warning", markup=False)
            return False
        return True

    def action_toggle_engine(self) -> None:
        if self.source.engine.status == "paused":
            self.tell(Resume(), "resume")
        else:
            self.tell(Pause(), "pause")

    def action_step_once(self) -> None:
        self.tell(Advance(steps=1), "one step")

    def action_checkpoint(self) -> None:
        self.tell(Checkpoint(), "checkpoint")

    def action_anchor(self) -> None:
        self.tell(Anchor(), "re-anchor")

    def action_advance(self) -> None:
        def answer(steps: float | int | None) -> None:
            if steps is not None:
                self.tell(Advance(steps=int(steps)), "one step" if steps == 1 else f"{steps:,} steps")

        if self._engine_there():
            self.app.push_screen(Ask("advance", "Steps to take, then pause.", a_count(1), "100"), answer)

    def action_advance_to(self, what: Literal["stage", "event"]) -> None:
        self.tell(AdvanceTo(what=what), f"the next {what}")

    def action_anchor_every(self) -> None:
        def answer(every: float | int | None) -> None:
            if every is not None:
                self.tell(Anchor(every=int(every)), f"re-anchor every {every:,}")

        hint = "Steps between re-anchorings of every prediction to the true displacement; 0 ends it."
        if self._engine_there():
            self.app.push_screen(Ask("re-anchor every", hint, a_count(0), "100"), answer)

    def action_learning_rate(self, steps: int = 0) -> None:
        def answer(value: float | None) -> None:
            if value is not None:
                self.tell(SetLearningRate(learning_rate=value), f"η = {value:.4g}")

        now = self.source.learning_rate
        if self._engine_there():
            self.app.push_screen(AskLearningRate(now, in_force(self.source.row(), now), steps), answer)

    def action_fork(self) -> None:
        """Ask what is to be different, and go on from the checkpoint as a new run; of code that is not trusted, ask first."""
        run, step = self.source.run, self.fork_step

        def allowed(sure: bool | None) -> None:
            if sure:
                if unsigned := refusal.grant():
                    self.notify(f"Trusted this once, for that cannot be written down ({unsigned}).", severity="warning", markup=False)
                self.action_fork()

        def answer(made: Run | None) -> None:
            if made is not None:
                try:
                    launch.start(made)
                except UserError as error:
                    self.notify(str(error), severity="error", markup=False)
                else:
                    self.post_message(OpenRun(made))

        try:
            at = checkpoint_at(run, step)[1]
            trust.need(run.path, run.spec)
        except trust.Untrusted as error:
            refusal = error
            self.app.push_screen(Confirm("execute code", refusal.question), allowed)
            return
        except UserError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        hint = (f"A new run goes on from the checkpoint at step {at:,}, the newest up to step {step:,}; this one stays as it is. "
                "What is to be different? section.field=value, several apart by blanks; empty changes nothing.")
        rate = self.source.engine.learning_rate or run.spec.optimizer.learning_rate
        self.app.push_screen(Ask("fork", hint, lambda text: fork(run, step, text.split()), f"{LEARNING_RATE}={rate:.6g}"), answer)

    @property
    def fork_step(self) -> int:
        """The step to fork from."""
        return self.source.step

    def action_stop(self) -> None:
        def answer(sure: bool | None) -> None:
            if sure:
                self.tell(Stop(), "stop")

        question = (f'End the run "{self.source.run.name}" at step {self.source.engine.step:,}?\n'
                    "It is checkpointed; `eos resume` continues it.")
        if self._engine_there():
            self.app.push_screen(Confirm("stop the engine", question), answer)

    def report(self, events: Sequence[AnyEvent]) -> None:
        """Tell which of these events answer a command of ours, and which command waits for too long."""
        for event in events:
            if self._pending.pop(event.answers, None):
                severity: SeverityLevel = "warning" if isinstance(event, Refused) else "information"
                self.notify(event.text, title=f"step {event.step:,}", severity=severity, timeout=3, markup=False)
        if not self.source.live:  # the header says how it ended; nothing more will be answered
            self._pending.clear()
        for ident, (what, since) in list(self._pending.items()):
            if monotonic() - since > PATIENCE_SECONDS:
                del self._pending[ident]
                self.notify(f"No answer yet to “{what}”: the engine takes commands between two steps.",
                            severity="warning", markup=False)
