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
from engine.jobs.fork import differences
from engine.record import store
from engine.record.messages import edge_in_force
from engine.record.reader import Run
from eos_tui.draw.theme import role_color
from eos_tui.model.source import Condition
from eos_tui.terminal.leaving import aside
from eos_tui.widgets.checklist import Checklist
from eos_tui.widgets.header import SIGNS


class Candidate(NamedTuple):
    """A run in the list."""

    name: str
    condition: Condition
    step: int
    edge: int | None
    differs: tuple[str, ...]


def others(run: Run) -> list[Candidate]:
    """Every other run, the newest first."""
    candidates = []
    try:
        runs = store.all_runs()
    except (OSError, UserError):  # there is no folder of runs to choose from
        return []
    for each in reversed(runs):
        if resolved(each.path) != resolved(run.path):
            edge = edge_in_force(each.events())
            fields = sorted(differences(run.spec, each.spec).items(), key=lambda item: item[1] is None)  # what it has first
            differs = tuple(f"no {name}" if value is None else f"{name} = {value}" for name, value in fields)
            candidates.append(Candidate(each.name, each.liveness(), each.state().step, edge, differs))
    return candidates


class Compare(ModalScreen[list[str] | None]):
    """Asks for runs to lay over the one shown; answers with their names."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "draw", priority=True),
        Binding("escape,q", "dismiss(None)", "cancel"),
    ]

    def __init__(self, run: Run, chosen: Sequence[str], most: int, ascii: bool = False):
        super().__init__()
        self._run, self._chosen, self._most, self._ascii = run, chosen, most, ascii
        self.checklist = Checklist(most)

    def compose(self) -> ComposeResult:
        with Vertical(classes="page") as page:
            page.border_title = f"runs beside {harmless(self._run.name)}"
            page.border_subtitle = f"space chooses up to {self._most} · enter lays them over, edge on edge · esc cancels"
            yield Static("reading the runs …", id="none")
            yield self.checklist

    def on_mount(self) -> None:
        self.run_worker(self._offer(), exclusive=True)  # not awaited here: no key would be heard meanwhile

    async def _offer(self) -> None:
        candidates = await aside(lambda: others(self._run))
        self.checklist.offer(((candidate.name, self._line(candidate)) for candidate in candidates), self._chosen)
        self.checklist.display = bool(candidates)
        self.query_one("#none", Static).display = not candidates
        self.query_one("#none", Static).update("There is no other run.")
        self.checklist.focus()

    def _line(self, candidate: Candidate) -> Content:
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

    def action_accept(self) -> None:
        self.dismiss(list(self.checklist.chosen))
