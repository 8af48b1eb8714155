"""The guided tour: a few words, the plots they speak of, and a real engine that waits where something is to be seen."""

import math
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, Vertical
from textual.content import Content
from textual.widgets import Static

from engine.base.errors import UserError
from engine.jobs import launch
from engine.record.messages import Advance, AnyCommand, EdgeReached, Pause, Resume, Stop, send
from engine.record.reader import Run
from engine.record.threshold import in_force
from eos_tui.draw import panels
from eos_tui.draw.line_plot import PlotSpec, Window
from eos_tui.draw.theme import role_color
from eos_tui.keys import Place, bindings
from eos_tui.lessons import STEPS, Step, Table, happened
from eos_tui.messages import OpenLauncher, OpenRun
from eos_tui.model.history import History
from eos_tui.model.replay import FOLLOWED
from eos_tui.model.source import News, Source
from eos_tui.model.timeline import Timeline
from eos_tui.screens.driving import Driving
from eos_tui.terminal.leaving import aside
from eos_tui.terminal.pace import Pace
from eos_tui.widgets.footer import Footer
from eos_tui.widgets.header import SIGNS, gauge, kept_whole
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.portrait import PhasePortrait

WIDE, ROOMY, PAIR = 110, 32, 90
"""Columns from which the words stand beside the plots, and rows from which they are set apart; columns from which two plots stand side by
side beneath them.
"""
LEFT, PADDING = 48, 4
"""Columns of the words beside the plots, as the style has it, and how many of them stay free."""
READING_SECONDS, WORDS_A_SECOND = 20.0, 2.5
"""Least time a step stays on the screen when the tour goes on by itself, and how fast its words are read."""
PAUSE_SECONDS = 5.0
"""Time to look at what has happened, before it does."""
REST_SECONDS = 1.5
"""Between the end of what is shown again and again, and its beginning."""
AHEAD = 1.08
"""How far the axis goes beyond where it stops."""
SMALLEST = (60, 20)


class Columns(Mapping[str, np.ndarray]):
    """The columns of a history by name, each read when it is asked for."""

    def __init__(self, history: History):
        self._history = history

    def __getitem__(self, name: str) -> np.ndarray:
        if not self._history.has(name):
            raise KeyError(name)
        return self._history.column(name)

    def __iter__(self) -> Iterator[str]:
        return (column.name for column in self._history.columns)

    def __len__(self) -> int:
        return len(self._history.columns)


class Trip:
    """One run of the tour: followed, and held where a step has seen what it waited for."""

    def __init__(self, source: Source):
        self.source, self.timeline = source, Timeline()
        self.reached = 0.0
        """The step up to which it was shown where it is shown at a speed of its own."""

    def specs(self, forms: Sequence[str] = ()) -> dict[str, PlotSpec]:
        """The line plots of the run, with these predictions drawn."""
        return {plot.id: plot for plot in panels.line_plots(self.source.run.columns, forms)}

    def take(self, news: News) -> bool:
        """Take the news of the run. Returns whether there is anything to show."""
        fresh = self.source.take(news)
        if self.timeline.edge is None:
            self.timeline.edge = next((event.step for event in news.events if isinstance(event, EdgeReached)), None)
        if len(self.source.history):
            self.timeline.reach(float(self.source.history.column("step")[-1]), final=self.source.condition == "finished")
        return fresh

    def play(self, seconds: float, speed: float, begin: float, stop: float | None) -> bool:
        """Show the rows up to a step that moves on by the time that has passed, from `begin` to `stop`; whether it is there. The rows that
        there are beyond wait.
        """
        history = self.source.history
        history.limit = None
        self.reached = min(max(self.reached, begin) + speed * seconds, history.last_step if stop is None else stop)
        history.limit = history.row_near(self.reached) + 1
        return stop is not None and self.reached >= stop

    @property
    def table(self) -> Table:
        """The columns so far."""
        return Columns(self.source.history)

    def tell(self, command: AnyCommand) -> None:
        """Leave a command, where there is an engine to take it."""
        if self.source.run.liveness() in launch.LIVE:
            send(self.source.run.path, command)


class Learn(Driving):
    """The tour."""

    place: ClassVar[Place] = "tour"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(place)]

    DEFAULT_CSS = """
    Learn { layout: vertical; overflow: hidden; }
    Learn #where { height: 1; }
    Learn #body { height: 1fr; layout: vertical; }
    Learn.wide #body { layout: horizontal; }
    Learn #words { height: auto; padding: 0 1; }
    Learn #left { height: auto; }
    Learn.wide #left { width: 48; height: 1fr; padding: 1 1; }
    Learn.wide #waiting { height: 4; margin-top: 1; }
    Learn #small { display: none; height: 1fr; content-align: center middle; text-align: center; }
    Learn.too-small > * { display: none; }
    Learn.too-small > #small { display: block; }
    Learn #waiting { height: 2; padding: 0 1; }
    Learn #grid { height: 1fr; grid-gutter: 0; keyline: none; }
    Learn.wide #grid { width: 1fr; }
    """

    def __init__(
        self, pace: Pace, ascii: bool = False, runs: Mapping[str, Run] | None = None, at: int = 0
    ):
        """`runs` are looked at in place of new ones, by preset; `at` is the first step."""
        self.trips = {preset: Trip(Source(run)) for preset, run in (runs or {}).items()}
        """Runs so far, by preset."""
        self.at = at
        super().__init__(self._trip(STEPS[at].preset).source, pace, ascii)
        self.by_itself = False
        """Whether it goes on by itself; else every step waits for the key."""
        self.due: int | None = None
        """The row where what this step waits for has happened."""
        self.seen_at: int | None = None
        """The same once that row is shown."""
        self._since = self._seen_since = self._drawn_at = monotonic()
        self._begins = 0.0
        """The step of the run from which this step of the tour is played."""
        self._rest = 0.0
        """Seconds that it has stood at its end."""
        self.where, self.words, self.waiting = Line("where"), Static("", id="words"), Line("waiting")
        self.grid, self.footer = Grid(id="grid"), Footer("tour")
        self.panels: list[LinePlot | PhasePortrait] = []
        self._kept: Trip | None = None
        """The run whose dashboard is opened instead of the tour: it goes on."""

    # -- the runs

    def _trip(self, preset: str) -> Trip:
        """The run of a preset, begun when a step first needs it. Raises UserError where that cannot be."""
        if preset not in self.trips:
            self.trips[preset] = Trip(Source(launch.begin(preset)[0]))
        return self.trips[preset]

    @property
    def step(self) -> Step:
        """The step shown."""
        return STEPS[self.at]

    @property
    def trip(self) -> Trip:
        """The run shown."""
        return self.trips[self.step.preset]

    # -- what is on it

    def compose(self) -> ComposeResult:
        yield self.where
        with Vertical(id="body"):
            with Vertical(id="left"):
                yield self.words
                yield self.waiting
            yield self.grid
        yield self.footer
        yield Static(f"Too small for the tour.\nIt needs {SMALLEST[0]}×{SMALLEST[1]}.", id="small")

    async def on_mount(self) -> None:
        await self._show_step()

    async def _show_step(self) -> None:
        """Put up the words and plots of this step in one frame, and let its engine go on."""
        self.trip.tell(Resume())
        self.source = self.trip.source
        self.due = self.seen_at = None
        self._since = self._drawn_at = monotonic()
        self._begins = self._step_before()
        self.trip.reached = self._begins
        specs = self.trip.specs(self.step.forms)
        self.footer.adapt({"next_step", "by_itself"} if self.at + 1 == len(STEPS) else {"previous_step"} if not self.at else ())
        self.panels = [
            PhasePortrait(self.step.forms, ascii=self.ascii) if name == panels.PORTRAIT else LinePlot(specs[name], ascii=self.ascii)
            for name in self.step.plots
        ]
        with self.app.batch_update():
            await self.grid.remove_children()
            await self.grid.mount(*self.panels)
            self._arrange()
            self._play(0.0)
            self._show_rows()
            self._show_lines()

    def _step_before(self) -> float:
        """Where a step that is played begins: at the event of the step before, if that looked at the same run; else at the first row."""
        before = self.at - 1
        if not self.step.followed or self.step.again or before < 0 or STEPS[before].preset != self.step.preset:
            return 0.0
        history = self.source.history
        history.limit = None
        row = happened(STEPS[before], self.trip.table)
        return 0.0 if row is None else history.value("step", row)

    def _words(self) -> Content:
        """What the step says; beside the plots each formula on a line of its own, and where it is tall with room between."""
        step, (width, height) = self.step, self.size
        gap = "\n" if width >= WIDE and height >= ROOMY else ""
        formula = step.formula.replace(",   ", "\n").replace("   ", "\n") if width >= WIDE else step.formula
        room = LEFT - PADDING if width >= WIDE else width - PADDING // 2
        text, formula = ("\n".join(kept_whole(Content(line), room).plain for line in each.split("\n")) for each in (step.text, formula))
        return Content.assemble(
            (f"{self.at + 1} · {step.title}\n{gap}", "bold $primary"), f"{text}\n{gap}", (f"{formula}\n", "bold"),
            (f"{step.source}\n{gap}", "$muted"), ("Watch: ", "bold"), f"{step.watch}.",
        )

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        width, height = self.size
        self.set_class(width >= WIDE, "wide")
        self.words.update(self._words())
        self.set_class(width < SMALLEST[0] or height < SMALLEST[1], "too-small")
        beside = PAIR <= width < WIDE
        room = 2 if width >= PAIR or height >= 36 else 1
        for k, panel in enumerate(self.panels):
            panel.display = k < room
        shown = min(room, len(self.panels)) or 1
        self.grid.styles.grid_size_columns = shown if beside else 1
        self.grid.styles.grid_size_rows = 1 if beside else shown
        self.pace.hurry()

    # -- drawing

    async def draw(self) -> bool:
        """Read what is new of the run shown, look whether its moment has come, and draw; returns whether there was anything
        to draw. Called by the clock alone.
        """
        trip, hurried = self.trip, self.pace.hurried
        fresh = trip.take(news := await aside(trip.source.read))
        if trip is not self.trip or trip is self._kept:  # left meanwhile: a pause would come after the word to go on
            return False
        self.report(news.events)
        now, table = monotonic(), trip.table
        if self.due is None and (row := happened(self.step, table)) is not None:
            self.due = row
            trip.tell(Advance(steps=self.step.after) if self.step.after else Pause())
        moving = self.pace.moving = self._play(now - self._drawn_at)
        self._drawn_at = now
        if self.due is not None and self.seen_at is None and self._arrived():
            self.seen_at, self._seen_since = self.due, now
            fresh = True  # its last rows are to be drawn
        if self.by_itself and self.seen_at is not None and self.seconds_left() <= 0 and self.at + 1 < len(STEPS):
            await self._go(self.at + 1)
            return True
        self._show_lines()
        if not (fresh or hurried or moving):
            return False
        self._show_rows()
        return True

    def _play(self, seconds: float) -> bool:
        """Show rows up to where this step has come to; whether it is still on its way. What is shown again and again rests at its end."""
        trip, step = self.trip, self.step
        if not step.followed:
            return False
        stop = None if self.due is None else trip.source.history.value("step", self.due)
        if step.again and self.seen_at is not None and self._rested(seconds):
            trip.reached = self._begins
        return not trip.play(seconds, FOLLOWED, self._begins, stop) or step.again

    def _rested(self, seconds: float) -> bool:
        """Whether what is shown again and again has stood at its end for long enough."""
        stands = self.due is not None and self.trip.reached >= self.trip.source.history.value("step", self.due)
        self._rest = self._rest + seconds if stands else 0.0
        return self._rest >= REST_SECONDS

    def _arrived(self) -> bool:
        """Whether the row where it has happened is shown."""
        return self.due is not None and len(self.trip.source.history) > self.due

    def _show_rows(self) -> None:
        """Draw the plots."""
        trip, step = self.trip, self.step
        for panel in self.panels:
            if panel.display:
                start, stop = trip.timeline.window(step.from_edge or (isinstance(panel, LinePlot) and panel.spec.from_edge))
                if step.followed and self.due is not None:
                    stop = max(AHEAD * trip.source.history.value("step", self.due), start + 1)
                panel.show(trip.source.history, Window(start, stop))

    def _show_lines(self) -> None:
        self.where.show(self._where())
        self.waiting.show(self._waiting())

    def _color(self, role: str) -> str:
        return role_color(self.app.theme, role)

    def _where(self) -> Content:
        source, width = self.source, self.size.width
        row = source.row()
        sharpness = row.get("gd.sharpness", math.nan)
        if math.isnan(sharpness):
            sharpness = row.get("gd.midpoint_sharpness", math.nan)
        share, name = sharpness / in_force(row, source.learning_rate), "ηS/2"
        if "threshold_ratio" in row:
            share, name = row["threshold_ratio"], "S/edge"
        muted = self._color("muted")
        sign, plain, word, role = SIGNS[source.condition]
        parts = [
            Content.assemble((f" tour {self.at + 1}/{len(STEPS)}", "bold"), (f"  {source.run.spec.name}", muted)),
            Content.assemble((f"{plain if self.ascii else sign} {word}", f"bold {self._color(role)}")),
            Content.assemble(("step ", muted), (f"{source.history.last_step if self.step.followed else source.step:,.0f}", "bold")),
        ]
        gap, number = Content("   "), f" {share:.3f}" if math.isfinite(share) else "     –"
        room = width - gap.join([*parts, Content(f"{name} {number}")]).cell_length
        cells = max(min(12 if width < WIDE else 24, room), 5)
        parts.append(Content.assemble((f"{name} ", muted), gauge(share, cells, self._color, self.ascii), (number, "bold")))
        return gap.join(parts)

    def _waiting(self) -> Content:
        """What the step waits for and how it stands; once it has happened, where, and what comes next."""
        step, source = self.step, self.source
        last = self.at + 1 == len(STEPS)
        if self.seen_at is None:
            if self.due is None and source.condition not in launch.LIVE:
                why = f"The run is {source.condition} before: {step.waits_for}. Space goes on."
                return Content.assemble((why, self._color("warn")))
            known = {name: source.history.last(name) for name in step.gauge.split() if source.history.has(name)}
            values = [f"{source.history.symbols[name]} = {value:.4g}" for name, value in known.items() if math.isfinite(value)]
            now = f" (now {', '.join(values)})" if values else ""
            return Content.assemble(("… " if not self.ascii else "... "), ("Waiting until ", ""), (step.waits_for, "bold"), f"{now}.")
        at = source.history.column("step")[self.seen_at]
        done = Content.assemble((f"{'+' if self.ascii else '✓'} At step {at:,.0f}: {step.waits_for}. ", f"bold {self._color('good')}"))
        if last:
            return done + Content("That was the tour: o opens this run, esc the launcher.")
        waits = "The engine waits. " if source.condition in launch.LIVE else ""
        if self.by_itself:
            return done + Content(f"{waits}On in {max(self.seconds_left(), 0):.0f} s; space now, a holds.")
        return done + Content(f"{waits}Space goes on.")

    def seconds_left(self) -> float:
        """Until the tour goes on by itself."""
        reading = max(READING_SECONDS, self.step.words / WORDS_A_SECOND)
        return max(self._since + reading, self._seen_since + PAUSE_SECONDS) - monotonic()

    # -- keys

    async def _go(self, at: int) -> None:
        try:
            self._trip(STEPS[at].preset)
        except UserError as error:
            self.by_itself = False
            self.notify(str(error), severity="error", markup=False)
            return
        if STEPS[at].preset != self.step.preset:
            ahead = self.step.meanwhile if at > self.at else 0
            self.trip.tell(Advance(steps=ahead) if ahead else Pause())
        self.at = at
        await self._show_step()

    async def action_next_step(self) -> None:
        if self.at + 1 < len(STEPS):
            await self._go(self.at + 1)

    async def action_previous_step(self) -> None:
        self.by_itself = False
        if self.at:
            await self._go(self.at - 1)

    def action_by_itself(self) -> None:
        self.by_itself = not self.by_itself
        self.notify("The tour goes on by itself." if self.by_itself else "The tour goes on by key alone: space.", timeout=2)
        self.pace.hurry()

    def action_formula(self) -> None:
        from eos_tui.screens.formula import Formula

        specs = self.trip.specs(self.step.forms)
        names = {curve.column for name in self.step.plots if name in specs for curve in specs[name].curves}
        shown = [column for column in self.source.run.columns if column.name in names]
        self.app.push_screen(Formula(self.step.title, shown, self.source.row(), data=self.source.data))

    def action_open_dashboard(self) -> None:
        self._kept = self.trip
        self._kept.tell(Resume())
        self.post_message(OpenRun(self.source.run))

    def action_leave(self) -> None:
        self.post_message(OpenLauncher())

    def on_unmount(self) -> None:
        """Stop the engines of the tour, which would wait for ever where nobody looks; they write a checkpoint first."""
        for trip in self.trips.values():
            if trip is not self._kept:
                trip.tell(Stop())
