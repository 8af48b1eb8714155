"""Keys and clicks that change what is shown of a run: its time axis, its cursor, how a plot is drawn, other runs, a replay."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

from engine.base.errors import UserError
from engine.record import store
from eos_tui.draw import panels
from eos_tui.draw.panels import PlotOptions
from eos_tui.draw.plot_spec import OTHERS, STEPS, Axis, Overlay
from eos_tui.model.comparing import labels, settings
from eos_tui.model.replay import Replay
from eos_tui.model.source import Source
from eos_tui.model.timeline import Timeline, first_edge
from eos_tui.screens.choose_curves import ChooseCurves
from eos_tui.screens.compare import Compare
from eos_tui.screens.driving import Driving
from eos_tui.terminal.pace import Pace
from eos_tui.widgets.plot import LinePlot, Pointed
from eos_tui.widgets.portrait import PhasePortrait, Placed
from eos_tui.widgets.turning import TurningPath

Panel = LinePlot | PhasePortrait | TurningPath
MEANS = (0, 10, 50, 250)
"""Rows of the running mean that the key for smoothing goes through."""
ROLES = ("warn", "good", "muted")
"""Colours of other runs, over and over: no trajectory has them, and each run has a stroke of its own."""
BESIDE = ("sharpness", "ratio", "loss")
"""Plots that other runs are drawn in unless they are asked for in every one."""


class Compared(NamedTuple):
    """Another run laid over this one."""

    source: Source
    role: str

def _settings(source: Source) -> tuple[str, dict[str, Any]]:
    return source.name, settings(source.run.spec, source.engine.learning_rate)


class Viewing(Driving):
    """A screen with plots of a run."""

    plots: tuple[Panel, ...]
    portrait: PhasePortrait

    def __init__(self, source: Source, pace: Pace, ascii: bool = False):
        super().__init__(source, pace, ascii)
        self.timeline = Timeline()
        self.choice = 0
        """Index into `panels.CHOICES`: the predictions drawn."""
        self.plot_options: dict[str, PlotOptions] = {}
        self.compared: list[Compared] = []
        self.everywhere = False
        """Whether the other runs are drawn in every plot."""
        self.labels: list[str] = []
        """What this run and the others are called, by what they differ in."""
        self._labelled: list[float] = []
        """The learning rates that these were made for."""
        self._axis = 0

    # -- what is drawn, and how

    @property
    def focused_panel(self) -> Panel:
        """The focused plot, or the first one in view."""
        raise NotImplementedError

    def forms(self) -> tuple[str, ...]:
        """The predictions drawn."""
        return panels.CHOICES[self.choice]

    def specs(self):
        """The line plots of the run, as the user wants them."""
        columns, chosen = self.source.columns, self.plot_options
        return [panels.adapted(plot, chosen.get(plot.id, PlotOptions()), columns) for plot in panels.line_plots(columns, self.forms())]

    @property
    def axis(self) -> Axis:
        """What the horizontal axes count."""
        edge = self.timeline.edge
        return (STEPS, Axis("time", 0.0, "ηt"), Axis("step", edge or 0.0, "t−edge"))[self._axis]

    def overlays(self) -> tuple[Overlay, ...]:
        """The other runs, edge on edge; first step on first step where one of two has none."""
        overlays = []
        for (source, role), pen, label in zip(self.compared, OTHERS, self.labels[1:], strict=False):
            edge, at = first_edge(source.journal), self.timeline.edge
            both = edge is not None and at is not None
            overlays.append(Overlay(source.history, label, role, pen, edge or 0.0 if both else 0.0, at or 0.0 if both else 0.0))
        return tuple(overlays)

    def laid_over(self, panel: LinePlot, overlays: tuple[Overlay, ...]) -> tuple[Overlay, ...]:
        """Those of the other runs that a plot draws."""
        return overlays if self.everywhere or panel.spec.id in BESIDE else ()

    def label(self) -> None:
        """Call the runs by what they differ in; η may have changed since."""
        rates = [source.engine.learning_rate for source in (self.source, *(each.source for each in self.compared))]
        if rates != self._labelled:
            self._labelled = rates
            self.labels = labels([_settings(self.source), *(_settings(each.source) for each in self.compared)])

    def action_compare_everywhere(self) -> None:
        self.everywhere = not self.everywhere
        self.notify(f"other runs: {'in every plot' if self.everywhere else 'sharpness and loss'}", timeout=2)
        self.pace.hurry()

    def respecify(self) -> None:
        """Draw the plots by their present specifications."""
        specs = {spec.id: spec for spec in self.specs()}
        for panel in self.plots:
            if isinstance(panel, LinePlot):
                panel.spec = specs[panel.spec.id]
        self.pace.hurry()

    def _line_plot(self, what: str) -> LinePlot | None:
        """The focused line plot; None after saying that the panel has no such thing."""
        panel = self.focused_panel
        if isinstance(panel, LinePlot):
            return panel
        self.notify(f"The {'portrait' if panel is self.portrait else 'path of x'} has no {what}.", severity="warning", timeout=2)
        return None

    def _change_options(self, panel: LinePlot, **changes) -> None:
        self.plot_options[panel.spec.id] = self.plot_options.get(panel.spec.id, PlotOptions())._replace(**changes)
        self.respecify()

    def action_predictions(self) -> None:
        self.choice = (self.choice + 1) % len(panels.CHOICES)
        self.respecify()
        self.portrait.forms = self.forms()
        self.notify(f"drawn: {panels.described(self.forms())}", timeout=2)

    def action_log_axis(self) -> None:
        if (panel := self._line_plot("logarithmic axis")) is not None:
            self._change_options(panel, log=not panel.spec.log)

    def action_smooth(self) -> None:
        if (panel := self._line_plot("running mean")) is not None:
            self._change_options(panel, smooth=MEANS[(MEANS.index(panel.spec.smooth) + 1) % len(MEANS)])

    def action_strands(self) -> None:
        if (panel := self._line_plot("strands: it shows |x|")) is not None:
            self._change_options(panel, strands=not panel.spec.strands)

    def action_series(self) -> None:
        if (panel := self._line_plot("curves to choose; p chooses the predictions")) is None:
            return
        plain = next(plot for plot in panels.line_plots(self.source.columns, self.forms()) if plot.id == panel.spec.id)
        own = [curve.column for curve in plain.curves]

        def answer(chosen: list[str] | None) -> None:
            if chosen:
                self._change_options(panel, hidden=frozenset(own) - set(chosen), added=tuple(name for name in chosen if name not in own))

        drawn = [curve.column for curve in panel.spec.curves]
        self.app.push_screen(ChooseCurves(panel.spec.title, self.source.columns, own, drawn), answer)

    def action_compare(self) -> None:
        def answer(names: list[str] | None) -> None:
            if names is not None:
                self.lay_over(names)

        chosen = [each.source.run.name for each in self.compared]
        self.app.push_screen(Compare(self.source.run, chosen, len(OTHERS), self.ascii), answer)

    def lay_over(self, names: Sequence[str]) -> None:
        """Draw these runs, by name or path, over this one, as many as there are pens for; a notice names each that cannot be read."""
        known = {each.source.run.name: each.source for each in self.compared}
        self.compared, self._labelled = [], []
        for name, role in zip(names[: len(OTHERS)], cycle(ROLES), strict=False):
            try:
                source = known.get(name) or Source(store.resolve(name))
            except UserError as error:
                self.notify(str(error), severity="warning", markup=False)
            else:
                source.history.prepare(plot.curves[0].column for plot in self.specs())
                self.compared.append(Compared(source, role))
        self.pace.hurry()

    # -- the time axis and the cursor

    def action_axis(self) -> None:
        has = (True, self.source.history.has("time"), self.timeline.edge is not None)
        self._axis = next(k % 3 for k in range(self._axis + 1, self._axis + 4) if has[k % 3])
        self.notify(f"axis: {('steps', 'time ηt', 'steps since the edge')[self._axis]}", timeout=2)
        self.pace.hurry()

    def action_zoom_time(self, factor: float) -> None:
        self.timeline.zoom(factor)
        self.pace.hurry()

    def action_pan(self, quarters: int) -> None:
        self.timeline.pan(quarters)
        self.pace.hurry()

    def action_reset_time(self) -> None:
        self.timeline.toggle_whole()
        self.pace.hurry()

    def action_cursor(self) -> None:
        self.timeline.toggle_cursor()
        self.pace.hurry()

    def action_move_cursor(self, direction: int, single: bool = False) -> None:
        replay, line = self.source.replay, self.timeline
        if self.focused_panel is self.portrait and self.portrait.start is not None:
            self.portrait.nudge(direction, 0, single)
        elif replay is not None and line.cursor is None:
            start, stop = line.window()
            replay.seek(round(replay.step) + direction * (1 if single else max(round((stop - start) / 100), 1)))
        else:
            line.move_cursor(direction, single)
        self.pace.hurry()

    def on_pointed(self, message: Pointed) -> None:
        """The mouse on a plot: the wheel zooms about where it is, or pans; a click puts the cursor there."""
        if message.deed == "zoom":
            self.timeline.zoom(message.amount, message.step)
        elif message.deed == "pan":
            self.timeline.pan(message.amount)
        else:
            self.timeline.point(message.step)
        self.pace.hurry()

    @property
    def fork_step(self) -> int:
        """The cursor's step, else the newest one shown."""
        return self.source.step if self.timeline.cursor is None else int(self.timeline.cursor)

    # -- the portrait's own orbit

    def action_start(self) -> None:
        if self.portrait.start is not None:
            self.portrait.place(None)
        elif not self.portrait.place(self.portrait.present or (0.5, 0.0)):
            why = "(3) and (4) are of gradient descent" if self.source.history.has("threshold_ratio") else "α and β appear at the edge"
            self.notify(f"The portrait has no constants to go on from: {why}.", severity="warning", timeout=3)
        elif self.portrait.display:
            self.portrait.focus()
        self.pace.hurry()

    def action_nudge(self, direction: int, fine: bool = False) -> None:
        self.portrait.nudge(0, direction, fine)
        self.pace.hurry()

    def on_placed(self, message: Placed) -> None:
        self.pace.hurry()

    # -- frozen, and played again

    def action_freeze(self) -> None:
        self.source.frozen = not self.source.frozen
        self.pace.hurry()

    def action_replay(self) -> None:
        if self.source.replay is not None:
            self.source.replay = None
        elif len(self.source.history):
            at = self.timeline.cursor
            self.timeline.cursor = None
            self.source.replay = Replay(0.0 if at is None else at, self.source.history.last_step)
        self.pace.hurry()

    def action_toggle_engine(self) -> None:
        if self.source.replay is None:
            super().action_toggle_engine()
        else:
            self.source.replay.toggle()
            self.pace.hurry()

    def action_step_once(self) -> None:
        if self.source.replay is None:
            super().action_step_once()
        else:
            self.source.replay.playing = False
            self.source.replay.seek(round(self.source.replay.step) + 1)
            self.pace.hurry()

    def action_speed(self, factor: float) -> None:
        if self.source.replay is None:
            self.notify("No replay: g begins one.", timeout=2)
        else:
            self.source.replay.change_speed(factor)
            self.pace.hurry()
