"""The other runs: the state of each, its differences from the run shown, and which runs are laid over that."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.base.errors import UserError
from engine.base.files import resolved
from engine.base.text import harmless
from engine.record.glance import Glance, all_glances
from engine.record.messages import edge_in_force
from engine.record.reader import Run, State
from eos_tui.draw.theme import role_color
from eos_tui.model.comparing import settings
from eos_tui.model.source import Condition
from eos_tui.terminal.leaving import aside
from eos_tui.widgets.checklist import Checklist
from eos_tui.widgets.filter import Filter
from eos_tui.widgets.header import SIGNS

AT_ONCE = 20
"""Runs read before what they differ in is shown: a tenth of a second."""


class Candidate(NamedTuple):
    """A run in the list."""

    name: str
    condition: Condition
    step: int
    edge: int | None
    differs: tuple[str, ...]


def glances(run: Run) -> list[tuple[Glance, State]]:
    """Every other run with its engine's last word, the newest first."""
    try:
        listed = all_glances()
    except (OSError, UserError):  # there is no folder of runs to choose from
        return []
    here = resolved(run.path)
    return [each for each in reversed(listed) if resolved(each[0].path) != here]


def candidate(run: Run, other: Glance, state: State) -> Candidate | None:
    """Another run with what it differs in, η as it was used; None where it cannot be read."""
    try:
        opened = other.opened()
    except UserError:
        return None
    mine, theirs = settings(run.spec, run.state().learning_rate), settings(opened.spec, state.learning_rate)
    changed = {name: theirs.get(name) for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)}
    fields = sorted(changed.items(), key=lambda item: item[1] is None)  # what it has first
    differs = tuple(f"no {name}" if value is None else f"{name} = {value}" for name, value in fields)
    return Candidate(other.name, other.liveness(state), state.step, edge_in_force(opened.events()), differs)


def others(run: Run) -> list[Candidate]:
    """Every other run with what it differs in, the newest first."""
    return [each for glance, state in glances(run) if (each := candidate(run, glance, state)) is not None]


class Compare(ModalScreen[list[str] | None]):
    """Asks for runs to lay over the one shown; answers with their names."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "draw", priority=True),
        Binding("slash", "filter", "filter"),
        Binding("escape,q", "dismiss(None)", "cancel"),
    ]

    def __init__(self, run: Run, chosen: Sequence[str], most: int, ascii: bool = False):
        super().__init__()
        self._run, self._chosen, self._most, self._ascii = run, chosen, most, ascii
        self.checklist, self.filter = Checklist(most, rows=2), Filter("runs")

    def compose(self) -> ComposeResult:
        with Vertical(classes="page") as page:
            page.border_title = f"runs beside {harmless(self._run.name)}"
            page.border_subtitle = f"space chooses up to {self._most} · / filters · enter lays them over, edge on edge · esc cancels"
            yield self.filter
            yield Static("reading the runs …", id="none")
            yield self.checklist

    def on_mount(self) -> None:
        self.run_worker(self._offer(), exclusive=True)  # not awaited here: no key would be heard meanwhile

    async def _offer(self) -> None:
        """Offer every run at once, then tell what each differs in as it is read: of thousands that takes a while."""
        listed = await aside(lambda: glances(self._run))
        self.checklist.offer(((glance.name, self._line(glance, state)) for glance, state in listed), self._chosen)
        self.checklist.display = bool(listed)
        self.query_one("#none", Static).display = not listed
        self.query_one("#none", Static).update("There is no other run.")
        self.checklist.focus()
        for start in range(0, len(listed), AT_ONCE):
            some = listed[start : start + AT_ONCE]
            read = await aside(lambda some=some: [candidate(self._run, *each) for each in some])  # type: ignore[misc]
            self.checklist.replace((each.name, self._whole_line(each)) for each in read if each is not None)

    def _line(self, glance: Glance, state: State) -> Content:
        """What is known before a run is read: its preset, step and η."""
        eta = f" · η {state.learning_rate:.4g}" if state.learning_rate > 0 else ""
        known = f"  step {state.step:,}\n    {glance.preset}{eta}"
        return Content.assemble((glance.name, "bold"), (known, role_color(self.app.theme, "muted")))

    def _whole_line(self, candidate: Candidate) -> Content:
        sign, plain, word, role = SIGNS[candidate.condition]
        edge = f" · edge at step {candidate.edge:,}" if candidate.edge is not None else ""
        differs = harmless(", ".join(candidate.differs)) or "nothing: the same run again"
        stands = f"  {plain if self._ascii else sign} {word} · step {candidate.step:,}{edge}\n"
        return Content.assemble(
            (candidate.name, "bold"), (stands, role_color(self.app.theme, role)),
            (f"    differs: {differs}", role_color(self.app.theme, "muted")),
        )

    def on_checklist_full(self) -> None:
        self.notify(f"{self._most} at most: more lines cannot be told apart.", timeout=3)

    def action_filter(self) -> None:
        self.filter.begin(self.checklist)

    def on_filter_narrowed(self) -> None:
        self.checklist.narrow(self.filter.words)

    def action_accept(self) -> None:
        if self.filter.has_focus:
            self.filter.action_leave(True)
            return
        self.dismiss(list(self.checklist.chosen))
