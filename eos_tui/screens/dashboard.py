"""One run, live or finished: its plots, where it stands, and the keys that drive its engine."""

import math
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.widgets import Static

from engine.base.text import as_cell
from engine.jobs.launch import LIVE
from engine.record.messages import Anchored
from engine.record.reader import Run
from engine.record.threshold import RATE, THRESHOLD
from engine.spec import Phase, Toy
from eos_tui.draw import axes, panels, turning
from eos_tui.draw.line_plot import Window
from eos_tui.draw.portrait_words import READ_OFF
from eos_tui.keys import Place, bindings
from eos_tui.messages import OpenLauncher
from eos_tui.model import bursts
from eos_tui.model.history import History
from eos_tui.model.replay import FOLLOWED, Replay
from eos_tui.model.source import News, Source
from eos_tui.model.timeline import first_edge
from eos_tui.screens.arrangement import LAYOUTS, SMALLEST, SQUARE, WIDE, Arrangement, Layout, arranged, grid, ordered, pages
from eos_tui.screens.driving import ACTIONS
from eos_tui.screens.viewing import Panel, Viewing
from eos_tui.terminal.leaving import aside, begun_aside
from eos_tui.terminal.pace import RESTING_SECONDS, Pace
from eos_tui.widgets.footer import Footer
from eos_tui.widgets.header import Header
from eos_tui.widgets.journal import Journal
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.portrait import PhasePortrait
from eos_tui.widgets.turning import TurningPath

DIRECTIONS = "constrained.directions"
MOST_SECONDS = 120.0
"""That a run of the simplest problems may take to be played from its first step when it is opened."""
MANY = 4
"""Panels in view from which on new rows go to those without the focus in turn."""
FEW = 60
"""Rows from which a run is played while its engine goes on."""
OF_LINES = {"log_axis", "smooth", "strands", "series"}
"""What there is of line plots alone."""
OF_PANEL: dict[str, tuple[str, ...]] = {
    "x": ("odd and even",), panels.PORTRAIT: ("place a start",), panels.TURNING: ("turning x",), "sharpness": ("spectrum",),
}
"""Keys that matter more than others while a panel has the focus, by their labels."""
REPLAYING = ("cursor left", "cursor right", "slower", "faster", "replay", "whole run")
LOADING_SECONDS = 0.6
"""How long rows are read before a frame shows those there are."""


def several(history: History) -> bool:
    """Whether any row has several directions at the edge."""
    if not history.has(DIRECTIONS) or not history.last(DIRECTIONS) >= 1:
        return False
    return bool(history.envelope(DIRECTIONS, 0, history.last_step, 1).hi[0] >= 2)


class Dashboard(Viewing):
    """The plots of one run."""

    place: ClassVar[Place] = "dashboard"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(place)]

    DEFAULT_CSS = """
    Dashboard { layout: vertical; overflow: hidden; }
    Dashboard #grid { height: 1fr; grid-gutter: 0; keyline: none; }
    Dashboard #small { display: none; height: 1fr; content-align: center middle; text-align: center; }
    Dashboard.too-small > * { display: none; }
    Dashboard.too-small > #small { display: block; }
    Dashboard.zoomed Journal { display: none; }
    """

    def __init__(self, run: Run, pace: Pace, ascii: bool = False, beside: Sequence[Run] = (), layout: Layout = "all",
                 order: Sequence[str] = ()):
        super().__init__(Source(run), pace, ascii)
        self._beside = beside
        self.layout_chosen: Layout = layout
        self._order = order
        """Names of the panels that the user wants first."""
        self.page = 0
        self.zoomed = False
        self._shown: tuple | None = None
        """What the panels were last asked to show."""
        self._late: list[Panel] = []
        """Those in view that were left for the frame after."""
        self._painted_at = -math.inf
        self._trouble = ""
        """Why the rows cannot be read: the notice given last."""
        self._arrangement: Arrangement | None = None
        self._laid_out: tuple[int, int, list[Panel]] | None = None
        # Kept by name: a frame may still be on its way when the screen is taken down and finds nothing any more.
        self.header, self.journal, self.footer = Header(ascii), Journal(), Footer("dashboard")
        self.grid, self.small = Grid(id="grid"), Static("", id="small", markup=False)
        shown = {plot.id: plot for plot in self.specs()}
        problem = run.spec.problem
        given = (problem.alpha, problem.beta) if isinstance(problem, Phase) else None
        self.portrait = PhasePortrait(self.forms(), given, id=panels.PORTRAIT, ascii=ascii)
        drawn = [curve.column for plot in shown.values() for curve in plot.curves]
        self.source.history.prepare([*drawn, THRESHOLD, RATE, "stage"])
        self.turning = TurningPath(id=panels.TURNING, ascii=ascii)
        by_name: dict[str, Panel] = {name: LinePlot(spec, id=name, ascii=ascii) for name, spec in shown.items()}
        by_name |= {panels.PORTRAIT: self.portrait} if {"gd.x", "ode1.x"} & run.index.keys() or not by_name else {}
        by_name |= {panels.TURNING: self.turning} if "gd.x1" in run.index else {}
        self.plots: tuple[Panel, ...] = tuple(by_name[name] for name in ordered([*by_name], panels.ORDER, order))
        simplest = isinstance(problem, Phase) or (isinstance(problem, Toy) and "gd.x" in run.index)
        self._followed = simplest and run.spec.budget.steps <= MOST_SECONDS * FOLLOWED
        """Whether it is to be played from its first step, as soon as there are rows: its engine is too quick to follow."""
        self._long = False
        """Whether the header's sentence has been longer than a row."""
        self._several = False
        """Whether the run has had several directions at the edge: the covariance of one is no more than δ², and with one nothing turns."""

    # -- what is on it

    def compose(self) -> ComposeResult:
        yield self.header
        with self.grid:
            yield from self.plots
        yield self.journal
        yield self.footer
        yield self.small

    def on_mount(self) -> None:
        self._arrange()
        self.panel_order[0].focus()
        if self._beside:
            self.lay_over([str(run.path) for run in self._beside])

    @property
    def panel_order(self) -> list[Panel]:
        """Every panel, in the order of their numbers, of pages and of the focus. With several directions x turns, and the portrait of
        one comes last.
        """
        if not self._several:
            return [panel for panel in self.plots if panel.id not in (panels.COVARIANCE, panels.TURNING)]
        last = self.portrait if panels.PORTRAIT not in self._order else None
        return sorted(self.plots, key=lambda panel: panel is last)

    @property
    def focused_panel(self) -> Panel:
        """The focused plot, or the first one in view."""
        return self.focused if isinstance(self.focused, Panel) else self.visible_panels()[0]

    # -- where things stand

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Lay the panels out for the size of the screen."""
        width, height = self.size
        self._arrangement = arrangement = arranged(width, height, len(self.panel_order), self.layout_chosen, self._long)
        self.set_class(arrangement is None, "too-small")
        if arrangement is None:
            text = f"{width}×{height} is too small.\neos needs {SMALLEST[0]}×{SMALLEST[1]}."
            self.small.update(text)
            return
        self.header.set_class(arrangement.header == 2, "short")
        self.header.set_class(arrangement.header == 4, "tall")
        self.journal.set_class(arrangement.journal == 1, "short")
        self.set_class(self.zoomed, "zoomed")
        self.page = min(self.page, self.pages - 1)
        visible = self.visible_panels()
        self.pace.hurry()
        if self._laid_out == (width, height, visible):
            return  # setting a style, even to what it is, lays out and paints the whole screen again
        self._laid_out = width, height, visible
        across = 2 if len(visible) == 2 and width >= 2 * SQUARE and self.portrait in visible else arrangement.columns
        columns, rows, last = grid(len(visible), across)  # a portrait wants to be square
        self.grid.styles.grid_size_columns, self.grid.styles.grid_size_rows = columns, rows
        for number, panel in enumerate(self.panel_order, 1):
            panel.number = number
        for panel in self.plots:
            panel.display = panel in visible
            panel.styles.column_span = last if panel is visible[-1] else 1
        if [panel for panel in self.grid.children if panel in visible] != visible:
            self.grid.sort_children(key=lambda panel: visible.index(panel) if panel in visible else len(visible))

    @property
    def _pages(self) -> list[list[Panel]]:
        """The panels of each page."""
        order = self.panel_order
        return [[order[place] for place in page] for page in pages(len(order), self._per_page)]

    @property
    def pages(self) -> int:
        """How many pages the panels fill."""
        return len(self._pages)

    def _page_of(self, panel: Panel) -> int:
        return next(k for k, page in enumerate(self._pages) if panel in page)

    @property
    def _per_page(self) -> int:
        return self._arrangement.per_page if self._arrangement else 1

    def visible_panels(self) -> list[Panel]:
        """Those on the screen now, in their order."""
        if self.zoomed and isinstance(self.focused, Panel):
            return [self.focused]
        return self._pages[min(self.page, self.pages - 1)]

    # -- drawing

    async def draw(self) -> bool:
        """Read what is new and show it; returns whether there was anything to show. Called by the clock alone."""
        fresh = self.pace.hurried or bool(self._late) or self.portrait.start is not None
        fresh |= monotonic() - self._painted_at >= RESTING_SECONDS
        for other, _ in self.compared:
            fresh |= other.take(await aside(other.read))
        began, reading = monotonic(), begun_aside(self.source.read)
        while True:
            news = await reading
            late = monotonic() - began > LOADING_SECONDS
            if news.more and not late:  # the next rows are read while these are taken
                reading = begun_aside(partial(self.source.read_on, news))
            fresh |= self.take(news)
            if not news.more:
                break
            if late:
                self.pace.hurry()
                break
        self.pace.moving = self.source.replay is not None and self.source.replay.playing
        if fresh:
            self._painted_at = monotonic()
            self.paint()
        return fresh

    def take(self, news: News) -> bool:
        """Take the news, and notify the user of answers to commands. Returns whether there is anything to show."""
        if self._followed and len(news.rows):
            self._play_from_first(news)
        fresh = self.source.take(news)
        if not self.source.frozen:
            if self.timeline.edge is None:
                self.timeline.edge = first_edge(news.events)
            replay, over = self.source.replay, self.source.condition not in LIVE
            self.timeline.head = replay.step if replay else None
            self.timeline.expect(bursts.period(self.source.history))
            self.timeline.reach(replay.last if replay else self.source.history.last_step, final=over)
        self.report(news.events)
        if news.trouble and news.trouble != self._trouble:
            self.notify(news.trouble, severity="error", timeout=10, markup=False)
        self._trouble = news.trouble
        return fresh

    def _play_from_first(self, news: News) -> None:
        """Play a run that is over, or that has been watched since it had no rows; one that goes on is shown where it stands."""
        fresh = self._painted_at > -math.inf
        if news.condition in LIVE and not fresh:
            self._followed = False
        elif len(self.source.history) + len(news.rows) >= FEW or news.condition not in LIVE:
            self._followed, self.source.replay = False, Replay(0.0, float(news.rows[-1, 0]), speed=FOLLOWED)

    def paint(self) -> None:
        """Draw what is known."""
        if self.has_class("too-small"):
            return
        if not self._several and several(self.source.history):
            focused, self._several = self.focused_panel, True
            self.page = self._page_of(focused)
            self._arrange()
        self.label()
        note = f"this run: {self.labels[0]}" if self.compared and self.size.width >= WIDE else ""
        if self.pages > 1 and not self.zoomed:
            note = "  ".join(filter(None, (note, f"page {self.page + 1}/{self.pages}")))
        if self.source.left:
            note = f"reading the record: {self.source.left:,} rows left"
        self.header.show(self.source, note, self._cursor_values())
        if self.header.long and not self._long:
            self._long = True
            self._arrange()
            self.header.show(self.source, note, self._cursor_values())
        self.journal.show(self.source.events)
        idle = set() if self.pages > 1 else {"page"}
        replay = self.source.replay
        stands = self.source.engine.status == "paused" if replay is None else not replay.playing
        labels = {"toggle_engine": "pause" if not stands else "play" if replay else "resume",
                  "freeze": "unfreeze" if self.source.frozen else "freeze", "replay": "live" if replay else "replay",
                  "reset_time": "last bursts" if self.timeline.whole and self.timeline.bursts_known else "whole run",
                  "zoom_plot": "unzoom" if self.zoomed else "zoom", "detach": "detach" if self.source.live else "quit"}
        if replay is not None:
            labels |= {"dashboard.cursor_left": "back", "dashboard.cursor_right": "on"}
            idle |= ACTIONS - {"toggle_engine", "step_once"}
        elif not self.source.live:
            idle |= ACTIONS
        panel = self.focused_panel
        if not isinstance(panel, LinePlot):
            idle |= OF_LINES
        first = REPLAYING if replay is not None else OF_PANEL.get(panel.id or "", ())
        self.footer.adapt(idle, labels, first)
        self.portrait.anchored = self._anchored_ahead()
        window, visible = Window(*self.timeline.window(), self.timeline.cursor), self.visible_panels()
        overlays, specs = self.overlays(), tuple(panel.spec for panel in visible if isinstance(panel, LinePlot))
        others = self.everywhere, self.portrait.anchored, *((each.label, len(each.history), each.edge) for each in overlays)
        self.portrait.tick()
        history = self.source.history
        shown = len(history), history.over, window, self.axis, tuple(visible), specs, self.forms(), others, self.portrait.start
        stale = visible
        if shown == self._shown:  # a run at rest costs nothing; a panel draws itself anew when its size or theme changes
            due, stale = self._late, self._late
        elif self._in_turn and self._shown is not None and shown[1:] == self._shown[1:]:  # nothing but rows has come
            due = [self.focused_panel, *(self._late or [panel for panel in visible if panel is not self.focused_panel][::2])]
        else:
            due = visible
        self._shown, self._late = shown, [panel for panel in stale if panel not in due]
        if due:
            self.source.history.prepare(curve.column for spec in specs for curve in spec.curves)
        for panel in due:
            if isinstance(panel, LinePlot):
                from_edge = panel.spec.from_edge and not self.timeline.follows
                own = Window(*self.timeline.window(from_edge), self.timeline.cursor, self.axis)
                panel.show(self.source.history, own, self.laid_over(panel, overlays))
            else:
                panel.show(self.source.history, window)

    @property
    def _in_turn(self) -> bool:
        """Whether new rows go to the focused panel in every frame and to the others in turn, half of them in each: of many panels each
        then moves twice a second, and a frame costs a third less. What was asked for by a key, or is played, all show at once.
        """
        return len(self.visible_panels()) >= MANY and not self.pace.hurried and self.source.replay is None

    def _anchored_ahead(self) -> frozenset[str]:
        """Predictions set to the true displacement since the newest row: while the engine is paused, no row shows them there."""
        if self.source.view != "live" or self.timeline.cursor is not None:
            return frozenset()
        ahead = [event for event in self.source.events if isinstance(event, Anchored) and event.step >= self.source.history.last_step]
        return frozenset(form for event in ahead for form in event.forms)

    def _cursor_values(self) -> str:
        """The stored values of the focused plot under the cursor, as exact as the header has room for."""
        at, history = self.timeline.cursor, self.source.history
        if at is None or not len(history):
            return ""
        room = self.size.width * (2 if self.header.has_class("tall") else 1) - 2
        row = history.row_near(at)
        where = f"cursor at step {history.at('step', at)[0]:,.0f}"
        if history.has("time"):
            where += f", ηt {axes.number(history.value('time', row), 6)}"
        curves, known = isinstance(self.focused_panel, LinePlot), list[tuple[str, float, str]]()
        for column in self._columns_of(self.focused_panel):
            value, when = history.value(column.name, row), ""
            if curves and math.isnan(value) and (read := history.lately(column.name, row)) >= 0:  # it is measured now and then
                value, when = history.value(column.name, read), f" at {history.value('step', read):,.0f}"
            known.append((column.symbol, value, when))
        for digits in (axes.EXACT, 9, 6, 4):
            said = f"{where}:  " + "  ".join(
                f"{symbol} {axes.number(value, digits)}{when}" for symbol, value, when in known if not math.isnan(value))
            if len(said) <= room:
                break
        return said

    def _columns_of(self, panel: Panel):
        """The recorded quantities that a panel shows."""
        run = self.source.run
        if isinstance(panel, LinePlot):
            names = [curve.column for curve in panel.spec.curves]
            if panel.spec.threshold:
                names += [THRESHOLD, RATE]
        elif panel is self.turning:
            names = [name for name in run.index if name in turning.columns((1, 2))]
        elif "ode1.x" in run.index:
            names = [column.name for column in run.columns if column.name not in ("step", "time", THRESHOLD, RATE)]
        else:
            names = ["gd.x", "gd.y", *(f"{form}.{axis}" for form in self.forms() for axis in "xy"),
                     "constrained.alpha", "constrained.beta", "constrained.delta", "constrained.epsilon", "stage"]
        return [self.source.columns[run.index[name]] for name in names if name in run.index]

    # -- keys that change the view

    def action_focus_plot(self, direction: int) -> None:
        order = [panel for page in self._pages for panel in page]
        self._turn_to(order[(order.index(self.focused_panel) + direction) % len(order)])

    def action_jump(self, number: int) -> None:
        order = self.panel_order
        if number <= len(order):
            self._turn_to(order[number - 1])
        else:
            self.notify(f"There is no plot {number}: this run has {len(order)}.", severity="warning", timeout=2)

    def _turn_to(self, panel: Panel) -> None:
        """Focus a panel, on the page where it stands."""
        self.page = self._page_of(panel)
        panel.display = True
        self.set_focus(panel)
        self._arrange()

    def action_page(self, direction: int) -> None:
        if self.zoomed:
            self.action_focus_plot(direction)
        else:
            self._turn_to(self._pages[(self.page + direction) % self.pages][0])

    def action_layout(self) -> None:
        """The next of the layouts; the focused plot stays in view."""
        panel, choices = self.focused_panel, [*LAYOUTS]
        self.layout_chosen = choices[(choices.index(self.layout_chosen) + 1) % len(choices)]
        self.zoomed = False
        self._arrange()
        self._turn_to(panel)
        self.notify(f"layout: {LAYOUTS[self.layout_chosen]}", timeout=2)

    def action_zoom_plot(self) -> None:
        self.set_focus(self.focused_panel)
        self.zoomed = not self.zoomed
        self._arrange()

    def action_back(self) -> None:
        if self.zoomed:
            self.zoomed = False
            self._arrange()
        elif self.source.replay is not None:
            self.action_replay()
        elif self.timeline.cursor is not None:
            self.timeline.cursor = None
            self.pace.hurry()

    # The pages above the dashboard are imported when they are opened: its own first frame waits for none of them.

    def action_formula(self) -> None:
        from eos_tui.screens.formula import Formula, apart

        panel = self.focused_panel
        others = [apart(column, "below the portrait") for column in READ_OFF] if panel is self.portrait else []
        title = panel.spec.title if isinstance(panel, LinePlot) else "phase portrait: the level sets of Lemma 3"
        if panel is self.turning:
            title = "x in two directions at the edge"
        curves = panel.spec.curves if isinstance(panel, LinePlot) else ()
        at, history, state = self.timeline.cursor, self.source.history, self.source.state
        stored, when = self.source.row(), ""
        if at is not None and len(history):
            row = history.row_near(at)
            stored = {column.name: history.value(column.name, row) for column in self.source.columns}
            when = f"at step {stored['step']:,.0f}"
        self.app.push_screen(Formula(title, self._columns_of(panel), stored, when, self.source.data, others, curves, state))

    def action_journal(self) -> None:
        from eos_tui.screens.journal import Events

        self.app.push_screen(Events(self.source))

    def action_assumptions(self) -> None:
        from eos_tui.screens.assumptions import Assumptions

        self.app.push_screen(Assumptions(self.source, self.ascii))

    def _since_edge(self) -> Window:
        """The steps in view; of the whole run, those from the edge on."""
        return Window(*self.timeline.window(True), self.timeline.cursor)

    def action_spectrum(self) -> None:
        from eos_tui.screens.spectrum import Spectrum

        self.app.push_screen(Spectrum(self.source, self._since_edge, self.tell, self.ascii))

    def action_turning(self) -> None:
        from eos_tui.screens.turning import Turning

        self.app.push_screen(Turning(self.source, self._since_edge, self.ascii))

    def action_landscape(self) -> None:
        from eos_tui.screens.landscape import Landscape

        self.app.push_screen(Landscape(self.source, self.ascii))

    def action_theorem(self) -> None:
        from eos_tui.screens.theorem import Theorem

        self.app.push_screen(Theorem(self.source, self._since_edge, self.ascii))

    def action_system(self) -> None:
        from eos_tui.screens.system import System

        self.app.push_screen(System(self.source, self.ascii))

    def action_launcher(self) -> None:
        self.post_message(OpenLauncher(self.source.run))

    def clipping(self) -> str:
        """What `copy` copies: the focused plot's stored values at the cursor, or the newest, one a line, tabs between."""
        history, at = self.source.history, self.timeline.cursor
        if not len(history):
            return f"run\t{as_cell(self.source.run.name)}\n"
        step = history.at("step", self.source.step if at is None else at)[0]
        values = [(column.name, history.at(column.name, step)[1]) for column in self._columns_of(self.focused_panel)]
        lines = [("run", as_cell(self.source.run.name)), ("step", f"{step:.0f}"), *((name, repr(value)) for name, value in values)]
        return "".join(f"{name}\t{value}\n" for name, value in lines)
