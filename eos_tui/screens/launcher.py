"""Where one begins: the presets in groups, each with how long it takes and what it shows, and the runs there are."""

import textwrap
import time
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
from engine.record.tags import tags_of, write_tags
from engine.record.trust import Untrusted
from engine.spec import Words, preset_names, preset_words
from eos_tui.draw.theme import role_color
from eos_tui.keys import Place, bindings, shown
from eos_tui.messages import OpenRun
from eos_tui.model.ages import ago
from eos_tui.model.listing import ListedRun, Listing
from eos_tui.model.preset_groups import FIRST, TIME, WAYS, group_of, grouped, lasting
from eos_tui.screens.ground import Ground
from eos_tui.screens.prompts import Ask, Confirm
from eos_tui.terminal.leaving import aside
from eos_tui.terminal.pace import Pace
from eos_tui.widgets.filter import Filter, matches
from eos_tui.widgets.footer import Footer
from eos_tui.widgets.header import SIGNS
from eos_tui.widgets.long_list import LongList
from eos_tui.widgets.options import Options

NAMES, TITLES = 18, 24
"""Columns for the names of a group where there is no room for its longest, and columns for titles that make it room."""
WIDE = 100
ABOUT = 3
"""Rows of what a preset takes and shows, where the runs are below it."""
READ_EVERY = 4
"""Frames between looks at the folder of runs."""
AGE_SECONDS = 20.0
"""After which the ages of the runs in sight are told anew."""
MOST_NAMED = 8
"""Runs that the question before a removal names."""
NO_RUN = "Choose a run first: tab goes to the runs."


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
    Launcher #presets { height: 1fr; border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1;
        text-wrap: nowrap; text-overflow: ellipsis; }
    Launcher #presets:focus { border: none; background-tint: transparent; }
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
        """The runs there are, the newest first."""
        self._listed = False
        """Whether they have been read."""
        self.shown: list[ListedRun] = []
        """Those that the filter lets through."""
        self.marked: set[str] = set()
        """Names of the runs that are marked."""
        self._listing = Listing()
        self._trouble = ""
        """Why the folder of runs could not be read: the notice given last."""
        self._frame, self._aged = 0, 0.0
        self._starting = False
        self.words: dict[str, Words] = WAYS | {name: preset_words(name) for name in preset_names()}
        self._names = dict.fromkeys(grouped(preset_names()), NAMES)
        self.presets = Options(id="presets")
        self.runs = LongList(self._run_line, rows=2, id="runs")
        self.filters = {self.presets: Filter("presets"), self.runs: Filter("runs")}
        # Kept by name: a frame may still be on its way when the screen is taken down and finds nothing any more.
        self.about, self.none = Static("", id="about"), Static("reading the runs …", id="none")
        self.pane = Vertical(classes="pane", id="second")
        self.footer = Footer("launcher")
        self.footer.adapt(set() if origin else {"back"}, {"detach": "quit"})

    def compose(self) -> ComposeResult:
        yield Static(
            Content.assemble((" eos ", "bold $accent"), "gradient descent at the edge of stability\n",
                             (" Choose a preset to start, or a run to open.", "$text-muted")),
            id="title",
        )
        with Horizontal(id="panes"):
            with Vertical(classes="pane", id="first") as presets:
                presets.border_title = "presets"
                yield self.filters[self.presets]
                yield self.presets
                yield self.about
            with self.pane:
                self.pane.border_title = "runs"
                yield self.filters[self.runs]
                yield self.none
                yield self.runs
        yield self.footer

    def _preset_line(self, name: str) -> Content:
        words = self.words[name]
        return Content.assemble(
            (f" {name:<{self._names[group_of(name)]}} ", "bold"), (f"{lasting(words.takes):>{TIME}}  ", "$text-muted"), words.title
        )

    def _list_presets(self) -> None:
        """The presets that the filter lets through, in their groups; the same one is highlighted as before where it is among them."""
        words, before = self.filters[self.presets].value, self._preset()
        self.presets.clear_options()
        for group, names in grouped(preset_names()).items():
            passing = [name for name in names if matches(f"{name} {group} {' '.join(map(str, self._said(name)))}", words)]
            if passing:
                self.presets.add_option(Option(Content.assemble((group, "bold $primary")), disabled=True))
                self.presets.add_options(Option(self._preset_line(name), id=name) for name in passing)
        ids = [option.id for option in self.presets.options]
        first = next((k for k, ident in enumerate(ids) if ident is not None), None)
        self.presets.highlighted = ids.index(before) if before in ids else first

    def _said(self, name: str) -> tuple[str, str, str]:
        words = self.words[name]
        return words.title, words.shows, words.takes

    def _preset(self) -> str:
        """The highlighted preset, or way to begin; the first one until one is."""
        at = self.presets.highlighted
        return FIRST if at is None else self.presets.get_option_at_index(at).id or FIRST

    def _align(self) -> None:
        """The titles of a group begin in one column, past its longest name; on a narrow screen most of them do."""
        longest = {group: max(map(len, names)) for group, names in grouped(preset_names()).items()}
        names = {group: most if self._room - most - TIME - 4 > TITLES else min(most, NAMES) for group, most in longest.items()}
        if names != self._names:
            self._names = names
            self._list_presets()

    @property
    def _room(self) -> int:
        """Columns of a line of the presets."""
        return self.presets.scrollable_content_region.width

    def on_mount(self) -> None:
        self._list_presets()
        self.presets.focus()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "wide")
        self.about.display = self.size.height >= 20
        self.call_after_refresh(self._align)
        self.call_after_refresh(self._describe)
        self.pace.hurry()

    @on(OptionList.OptionHighlighted, "#presets")
    def _describe(self) -> None:
        """What the chosen preset takes and shows, as much of it as there is room for; its title first, where the list cuts it."""
        name = self._preset()
        words = self.words[name]
        title = [words.title] if max(len(name), self._names[group_of(name)]) + TIME + 4 + len(words.title) > self._room else []
        width, room = max(self.presets.size.width - 2, 20), self.size.height // 2 - 4 if self.has_class("wide") else ABOUT
        takes, shows = (textwrap.wrap(text, width) for text in (f"Takes: {words.takes}", words.shows))
        if len(title) + len(takes) + len(shows) > room:
            shows = textwrap.wrap(words.shows, width, max_lines=max(room - len(title) - len(takes), 1), placeholder=" …")
        self.about.update(Content.assemble(
            ("".join(f"{line}\n" for line in title), "bold"), ("\n".join([*takes, ""]), "$text-muted"), "\n".join(shows)))

    # -- the list of runs

    async def draw(self) -> bool:
        """Look at the runs now and then, and show what changed; returns whether anything did. Called by the clock alone."""
        self._frame += 1
        if self._frame % READ_EVERY != 1:
            return False
        before, now = self.entries, time.time()
        try:
            entries = await aside(self._listing.look)
        except UserError as error:
            said = str(error)
            if said != self._trouble:
                self._trouble = said
                self.notify(said, severity="error", markup=False)
            return False
        if self._listed and len(entries) == len(before) and all(map(is_, entries, before)):
            if not entries or now - self._aged < AGE_SECONDS:
                return False
            self._aged = now
            self.runs.refresh()
            return True
        self._aged, self.entries, self._listed = now, entries, True
        self.marked &= {entry.run.name for entry in entries}
        self._show_runs()
        return bool(entries or before)

    def _show_runs(self) -> None:
        """The runs that the filter lets through; the same one is highlighted as before where it is among them."""
        entries, chosen, words = self.entries, self._chosen(), self.filters[self.runs].value
        self.shown = [entry for entry in entries if matches(_searchable(entry), words)] if words.strip() else entries
        names = [entry.run.name for entry in self.shown]
        at = names.index(chosen.run.name) if chosen is not None and chosen.run.name in names else None
        self._keep(at)
        none = "None yet. Choose a preset and press enter." if not entries else "No run has all of these words."
        self.none.update(none)
        self.set_class(not self.shown, "fresh")
        count = f"{len(names):,} of {len(entries):,}" if len(names) < len(entries) else f"{len(entries):,}"
        self.pane.border_title = f"runs · {count}" if entries else "runs"
        self.pane.border_subtitle = f"{len(self.marked):,} marked" if self.marked else ""

    def _keep(self, at: int | None) -> None:
        """Show the runs with this one highlighted; one that is gone leaves its place to the next."""
        self.runs.show(len(self.shown), self.runs.highlighted if at is None else at)

    def _run_line(self, item: int) -> Content:
        entry = self.shown[item]
        state, sign, plain, word, role = entry.state, *SIGNS[entry.condition]
        live = entry.condition in launch.LIVE
        if state.outcome is not None and not live:
            word, role = state.outcome.text.partition(";")[0], "bad" if state.outcome.kind in launch.BAD_ENDS else role
        else:
            going = f" · {state.task}" if state.task else f" · {state.rate:.3g} steps/s" if state.rate > 0 else ""
            word = f"{word} · step {state.step:,}" + (going if entry.condition in ("starting", "running") else "")
        eta = f"η {state.learning_rate:.4g} · " if state.learning_rate > 0 else ""
        mark = ("[x] " if entry.run.name in self.marked else "[ ] ") if self.marked else ""
        muted, at = role_color(self.app.theme, "muted"), role_color(self.app.theme, role)
        return Content.assemble(
            (mark, "bold"), (f"{plain if self.ascii else sign} ", at), (entry.run.name, "bold"),
            (f"  {ago(entry.run.made / 1e9, time.time())}", muted),
            ("".join(f" #{tag}" for tag in entry.tags), role_color(self.app.theme, "good")),
            (f"\n{' ' * len(mark)}  {eta}", muted), (word, at),
        )

    # -- keys

    @on(OptionList.OptionSelected, "#presets")
    @on(LongList.Selected)
    async def action_open(self) -> None:
        """Start what is chosen among the presets, or open what is chosen among the runs."""
        if self.runs.has_focus:
            if (run := self._opened()) is not None:
                self.post_message(OpenRun(run))
        elif (name := self._preset()) in WAYS:
            await self.app.run_action(f"app.{name}")
        elif not self._starting:
            self._starting = True  # a second press of enter starts no second engine
            try:
                self.post_message(OpenRun(launch.begin(name)[0]))
            except UserError as error:
                self._starting = False
                self.notify(str(error), severity="error", markup=False)

    def action_filter(self) -> None:
        """Take the words by which the list with the focus is narrowed down."""
        of = self.runs if self.runs.has_focus or self.filters[self.runs].has_focus else self.presets
        self.filters[of].begin(of)

    def on_filter_narrowed(self, message: Filter.Narrowed) -> None:
        message.stop()
        if message.filter is self.filters[self.presets]:
            self._list_presets()
        elif self._listed:
            self._show_runs()

    def action_mark(self) -> None:
        """Mark the chosen run, or take its mark off, and go on to the next."""
        entry = self._chosen() if self.runs.has_focus else None
        if entry is None:
            self.notify(NO_RUN, timeout=3)
            return
        self.marked ^= {entry.run.name}
        self._show_runs()
        if (self.runs.highlighted or 0) + 1 < len(self.shown):
            self.runs.action_move(1)

    def _picked(self) -> list[ListedRun]:
        """The marked runs in the order of the list, else the chosen one; none after saying that one is to be chosen."""
        picked = [entry for entry in self.entries if entry.run.name in self.marked]
        if not picked and self.runs.has_focus and (entry := self._chosen()) is not None:
            picked = [entry]
        if not picked:
            self.notify(NO_RUN, timeout=3)
        return picked

    def action_compare(self) -> None:
        """Open the marked runs together."""
        if len(self.marked) < 2:
            self.notify(f"Mark two runs or more: {shown('launcher.mark')} marks the chosen one.", timeout=3)
            return
        runs = [run for entry in self._picked() if (run := self._read(entry)) is not None]
        if runs:
            self.post_message(OpenRun(runs[0], runs[1:]))

    def action_tags(self) -> None:
        """Ask for the tags of the chosen run, or for those that all marked ones are to have too."""
        picked = self._picked()
        if not picked:
            return
        alone = len(picked) == 1
        which = f'run "{picked[0].run.name}"' if alone else f"{len(picked)} runs"
        hint = f"Tags of the {which}, apart by blanks." if alone else f"Tags for {which}, beside those that each has, apart by blanks."

        def given(text: str) -> bool:
            for entry in picked:
                path = entry.run.path
                write_tags(path, text.split() if alone else (*tags_of(path), *text.split()))
            return True

        self._ask(Ask("tags", hint, given, " ".join(picked[0].tags) if alone else ""))

    def _ask(self, question: Ask) -> None:
        """Ask, and look at the runs anew after the answer."""
        def answered(answer: bool | None) -> None:
            if answer:
                self._look_at_once()

        self.app.push_screen(question, answered)

    def _look_at_once(self) -> None:
        self._frame = 0
        self.pace.hurry()

    def action_other_pane(self) -> None:
        (self.presets if self.runs.has_focus else self.runs).focus()

    def action_remove(self) -> None:
        """Delete the marked runs, or the chosen one, after asking."""
        picked = self._picked()
        if not picked:
            return

        def answer(sure: bool | None) -> None:
            if sure:
                for entry in picked:
                    try:
                        store.remove(entry.run)
                    except UserError as error:
                        self.notify(str(error), severity="error", markup=False)
                self._look_at_once()

        names = [entry.run.name for entry in picked]
        if len(names) == 1:
            question = f'Delete the run "{names[0]}" and everything it recorded?'
        else:
            listed = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else "")
            question = f"Delete {len(names):,} runs and everything they recorded?\n{listed}"
        self.app.push_screen(Confirm("remove", question), answer)

    def action_resume_run(self) -> None:
        """Start an engine on the chosen run, where it has none, and open it."""
        if self._chosen() is None or not self.runs.has_focus:
            self.notify(NO_RUN, timeout=3)
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
        """Let all presets and runs be seen, then return to the run that was open."""
        cleared = [each.clear_words() for each in self.filters.values()]
        if not any(cleared) and self._origin is not None:
            self.post_message(OpenRun(self._origin))

    def _chosen(self) -> ListedRun | None:
        at = self.runs.highlighted
        return self.shown[at] if at is not None and at < len(self.shown) else None

    def _opened(self) -> Run | None:
        """The chosen run, read whole; None where none is chosen, or after saying why it cannot be read."""
        entry = self._chosen()
        return None if entry is None else self._read(entry)

    def _read(self, entry: ListedRun) -> Run | None:
        """A run read whole; None after saying why it cannot be."""
        try:
            return entry.run.opened()
        except UserError as error:
            self.notify(str(error), severity="error", markup=False)
            return None


def _searchable(entry: ListedRun) -> str:
    """What the filter looks for its words in."""
    outcome = entry.state.outcome.text if entry.state.outcome else ""
    tags = " ".join(f"#{tag}" for tag in entry.tags)
    return f"{entry.run.name} {entry.run.preset} {entry.condition} η={entry.state.learning_rate:.4g} {tags} {outcome}"
