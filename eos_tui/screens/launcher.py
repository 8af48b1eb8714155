"""Where one begins: the presets, each with what it shows, and the runs there are."""

import textwrap
from operator import is_
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.base.errors import UserError
from engine.jobs import launch
from engine.record import store
from engine.record.reader import Run
from engine.record.trust import Untrusted
from engine.spec import Words, preset_names, preset_words
from eos_tui.draw.theme import role_color
from eos_tui.keys import Place, bindings
from eos_tui.messages import OpenRun
from eos_tui.model.listing import ListedRun, Listing
from eos_tui.screens.ground import Ground
from eos_tui.screens.prompts import Confirm
from eos_tui.terminal.leaving import aside
from eos_tui.terminal.pace import Pace
from eos_tui.widgets.footer import Footer
from eos_tui.widgets.header import SIGNS
from eos_tui.widgets.options import Options

FIRST = "fashion"
"""The preset chosen at first, and that of `eos demo`."""
GROUPS = ("appendix", "fig", "")
"""Beginnings of names; the titles of presets with the same one stand below each other."""
NAMES, TITLES = 18, 24
"""Columns for the names of a group where there is no room for its longest, and columns for titles that make it room."""
WIDE = 100
ABOUT = 4
"""Rows of what a preset takes and shows, where the runs are below it."""
READ_EVERY = 4
"""Frames between looks at the folder of runs."""


def _group(name: str) -> str:
    """The group of a preset."""
    return next(group for group in GROUPS if name.startswith(group))


def _rank(name: str) -> tuple[bool, str, str]:
    """The default first, then what is eos's own, then the paper's figures."""
    return name != FIRST, _group(name), name


class Launcher(Ground):
    """Presets on one side, runs on the other."""

    place: ClassVar[Place] = "launcher"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(place)]

    DEFAULT_CSS = """
    Launcher { layout: vertical; overflow: hidden; }
    Launcher #title { height: 2; padding: 0 1; }
    Launcher #panes { height: 1fr; layout: vertical; }
    Launcher.wide #panes { layout: horizontal; }
    Launcher .pane { height: 1fr; width: 1fr; border: round $border-blurred; border-title-color: $text-muted; }
    Launcher .pane:focus-within { border: round $primary; border-title-color: $primary; border-title-style: bold; }
    Launcher OptionList { height: 1fr; border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1;
        text-wrap: nowrap; text-overflow: ellipsis; }
    Launcher OptionList:focus { border: none; background-tint: transparent; }
    Launcher #first { height: 3fr; }
    Launcher #second { height: 2fr; }
    Launcher.wide #first { height: 1fr; width: 3fr; }
    Launcher.wide #second { height: 1fr; width: 2fr; }
    Launcher #about { height: auto; max-height: 5; padding: 0 1; border-top: solid $border-blurred; }
    Launcher.wide #about { max-height: 50%; }
    Launcher.fresh #none { display: block; }
    Launcher #none { height: auto; padding: 0 1; color: $text-muted; display: none; }
    """

    def __init__(self, pace: Pace, ascii: bool = False, origin: Run | None = None):
        super().__init__(pace, ascii)
        self._origin = origin
        """The run that was open before; `esc` returns to it."""
        self.entries: list[ListedRun] = []
        self._listing = Listing()
        self._trouble = ""
        """Why the folder of runs could not be read: the notice given last."""
        self._frame = 0
        self._starting = False
        self.words: dict[str, Words] = {name: preset_words(name) for name in sorted(preset_names(), key=_rank)}
        self._names = dict.fromkeys(GROUPS, NAMES)
        self.presets = Options(*(Option(self._preset_line(name), id=name) for name in self.words), id="presets")
        self.runs = Options(id="runs")
        self.footer = Footer("launcher")
        self.footer.adapt(set() if origin else {"back"})

    def compose(self) -> ComposeResult:
        yield Static(
            Content.assemble((" eos ", "bold $accent"), "gradient descent at the edge of stability\n",
                             (" Choose a preset to start, or a run to open.", "$text-muted")),
            id="title",
        )
        with Horizontal(id="panes"):
            with Vertical(classes="pane", id="first") as presets:
                presets.border_title = "presets"
                yield self.presets
                yield Static("", id="about")
            with Vertical(classes="pane", id="second") as runs:
                runs.border_title = "runs"
                yield Static("None yet. Choose a preset and press enter.", id="none")
                yield self.runs
        yield self.footer

    def _preset_line(self, name: str) -> Content:
        return Content.assemble((f"{name:<{self._names[_group(name)]}} ", "bold"), self.words[name].title)

    def _align(self) -> None:
        """The titles of a group begin in one column, past its longest name; on a narrow screen most of them do."""
        longest = {group: max((len(name) for name in self.words if _group(name) == group), default=NAMES) for group in GROUPS}
        names = {group: most if self._room - most > TITLES else NAMES for group, most in longest.items()}
        if names != self._names:
            self._names = names
            for name in self.words:
                self.presets.replace_option_prompt(name, self._preset_line(name))

    @property
    def _room(self) -> int:
        """Columns of a line of the presets."""
        return self.presets.scrollable_content_region.width

    def on_mount(self) -> None:
        names = list(self.words)
        self.presets.highlighted = names.index(FIRST) if FIRST in names else 0
        self.presets.focus()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "wide")
        self.query_one("#about").display = self.size.height >= 20
        self.call_after_refresh(self._align)
        self.call_after_refresh(self._describe)
        self.pace.hurry()

    @on(OptionList.OptionHighlighted, "#presets")
    def _describe(self) -> None:
        """What the chosen preset takes and shows, as much of it as there is room for; its title first, where the list cuts it."""
        name, words = list(self.words.items())[self.presets.highlighted or 0]
        title = [words.title] if max(len(name), self._names[_group(name)]) + 1 + len(words.title) > self._room else []
        width, room = max(self.presets.size.width - 2, 20), self.size.height // 2 - 4 if self.has_class("wide") else ABOUT
        takes, shows = (textwrap.wrap(text, width) for text in (f"Takes: {words.takes}", words.shows))
        if len(title) + len(takes) + len(shows) > room:
            shows = textwrap.wrap(words.shows, width, max_lines=max(room - len(title) - len(takes), 1), placeholder=" …")
        self.query_one("#about", Static).update(Content.assemble(
            ("".join(f"{line}\n" for line in title), "bold"), ("\n".join([*takes, ""]), "$text-muted"), "\n".join(shows)))

    # -- the list of runs

    async def draw(self) -> bool:
        """Look at the runs now and then, and show what changed; returns whether anything did. Called by the clock alone."""
        self._frame += 1
        if self._frame % READ_EVERY != 1:
            return False
        before = self.entries
        try:
            entries = await aside(self._listing.look)
        except (OSError, UserError) as error:
            said = str(error) if isinstance(error, UserError) else f"{error.filename}: the runs cannot be listed ({error.strerror})"
            if said != self._trouble:
                self._trouble = said
                self.notify(said, severity="error", markup=False)
            return False
        if before and len(entries) == len(before) and all(map(is_, entries, before)):
            return False
        self._show_runs(entries)
        return bool(entries or before)

    def _show_runs(self, entries: list[ListedRun]) -> None:
        runs = self.runs
        before = [entry.run.name for entry in self.entries]
        now = [entry.run.name for entry in entries]
        old = {entry.run.name: entry for entry in self.entries}
        self.entries = entries
        self.set_class(not entries, "fresh")
        if before != now:
            chosen = before[runs.highlighted] if runs.highlighted is not None and before else None
            runs.clear_options()
            runs.add_options([Option(self._run_line(entry), id=entry.run.name) for entry in entries])
            if entries:
                runs.highlighted = now.index(chosen) if chosen in now else 0
        else:
            for entry in entries:
                if entry is old[entry.run.name]:
                    continue
                line = self._run_line(entry)
                if line != self._run_line(old[entry.run.name]):
                    runs.replace_option_prompt(entry.run.name, line)

    def _run_line(self, entry: ListedRun) -> Content:
        sign, plain, word, role = SIGNS[entry.condition]
        state = entry.state
        muted = role_color(self.app.theme, "muted")
        rate = f"{state.rate:.3g} steps/s" if entry.condition in launch.LIVE else ""
        return Content.assemble(
            (f"{plain if self.ascii else sign} ", role_color(self.app.theme, role)),
            (entry.run.name, "bold"),
            (f"  {word} · step {state.step:,}\n", role_color(self.app.theme, role)),
            (f"  {state.outcome.text if state.outcome else rate}", muted),
        )

    # -- keys

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        """Start what is chosen among the presets, or open what is chosen among the runs."""
        if self.runs.has_focus:
            if (run := self._opened()) is not None:
                self.post_message(OpenRun(run))
        elif self.presets.highlighted is not None and not self._starting:
            self._starting = True  # a second press of enter starts no second engine
            try:
                self.post_message(OpenRun(launch.begin(list(self.words)[self.presets.highlighted])[0]))
            except UserError as error:
                self._starting = False
                self.notify(str(error), severity="error", markup=False)

    def action_other_pane(self) -> None:
        (self.presets if self.runs.has_focus else self.runs).focus()

    def action_remove(self) -> None:
        entry = self._chosen() if self.runs.has_focus else None
        if entry is None:
            self.notify("Choose a run first: tab goes to the runs.", timeout=3)
            return
        run = entry.run

        def answer(sure: bool | None) -> None:
            if sure:
                try:
                    store.remove(run)
                except UserError as error:
                    self.notify(str(error), severity="error", markup=False)
                self._frame = 0
                self.pace.hurry()

        self.app.push_screen(Confirm("remove", f'Delete the run "{run.name}" and everything it recorded?'), answer)

    def action_resume_run(self) -> None:
        """Start an engine on the chosen run, where it has none, and open it."""
        if self._chosen() is None or not self.runs.has_focus:
            self.notify("Choose a run first: tab goes to the runs.", timeout=3)
        elif (run := self._opened()) is not None:
            self._resume(run)

    def _resume(self, run: Run) -> None:
        """Start an engine on a run and open it; where it names code that is not trusted, ask first."""

        def answer(sure: bool | None) -> None:
            if sure:
                if unsigned := refusal.grant():
                    self.notify(f"Trusted this once, for that cannot be written down ({unsigned}).", severity="warning", markup=False)
                self._resume(run)

        try:
            launch.restart(run)
        except Untrusted as error:
            refusal = error
            self.app.push_screen(Confirm("execute code", refusal.question), answer)
        except UserError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self.post_message(OpenRun(run))

    def action_back(self) -> None:
        if self._origin is not None:
            self.post_message(OpenRun(self._origin))

    def _chosen(self) -> ListedRun | None:
        at = self.runs.highlighted
        return self.entries[at] if at is not None and at < len(self.entries) else None

    def _opened(self) -> Run | None:
        """The chosen run, read whole; None where none is chosen, or after saying why it cannot be read."""
        if (entry := self._chosen()) is None:
            return None
        try:
            return entry.run.opened()
        except UserError as error:
            self.notify(str(error), severity="error", markup=False)
            return None
