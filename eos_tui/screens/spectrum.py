"""The top of gradient descent's spectrum: every eigenvalue that is followed, with 2/η, and 1.5/η from where all of them are; that of
θ†, with who is at the edge and who swings; and the whole spectrum, as the engine reads it on demand: its density, and by layer.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content

from engine.record.columns import Column
from engine.record.messages import AnyCommand, Density
from engine.record.threshold import RATE, THRESHOLD, threshold
from engine.report.narrative import busy
from engine.spec import FOLLOWED_FROM, Phase
from eos_tui import keys
from eos_tui.draw import axes
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.model.whole_spectrum import WholeSpectrum, read
from eos_tui.screens.formula import Formula, apart
from eos_tui.screens.live import LivePage
from eos_tui.widgets.density import DensityPlot
from eos_tui.widgets.layers import LayerBars
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import Drawing, LinePlot

LEVEL = Column(
    "followed_from", f"{FOLLOWED_FROM:g}/η", "level from which every eigenvalue is followed", "", f"{FOLLOWED_FROM:g}/η", "eos"
)


BOTH = 30
"""Rows of the page from which both spectra stand one above the other, and so do the density and the layers."""
TALL = 16
"""Rows of the page from which the line below may take two."""
WIDE = 130
"""Columns from which the line under θ†'s spectrum has the residuals too; its formulas tell them at any width."""
DIRECTIONS, ACTIVE = "constrained.directions", "constrained.active"
RESIDUALS = ("constrained.excess", "constrained.gradient_share")
View = Literal["descent", "center", "density", "layers"]
NAMES: dict[View, str] = {"descent": "λ(θ)", "center": "λ(θ†)", "density": "density", "layers": "layers"}
"""The views, in the order of the key that turns between them."""
WHOLE: tuple[View, ...] = ("density", "layers")
"""Those of the whole spectrum."""
READ = {
    "density": (
        Column("density", "ρ(λ)", "spectral density of the Hessian at θ, by stochastic Lanczos quadrature", "",
               "mean over random unit v of Σ_j (Q_1j)² N(λ; θ_j, w²), T = QΘQᵀ of m Lanczos steps from v", "Golub and Welsch 1969"),
        Column("gauss_newton", "uᵀGu/λ", "Gauss–Newton share of each eigenvalue followed", "",
               "u_iᵀGu_i/λ_i, G = Jᵀ(∂²ℓ)J, J = ∂f/∂θ: what the curvature of the network itself leaves of 1", "eos"),
    ),
    "layers": (
        Column("layer_sharpness", "λ1(H_BB)", "sharpness by layer", "", "top eigenvalue of the Hessian's diagonal block of each parameter "
               "B, the others held still; none is above λ1", "eos"),
    ),
}
"""What the views of the whole spectrum show, and is recorded in no column."""


def recorded(history: History) -> list[str]:
    """The columns of λ1, λ2, … that a run has; where steps feel them preconditioned, so, for those are what the edge is an edge of."""
    family = "preconditioned" if history.has("preconditioned.sharpness") else "gd"
    return [name for name in (f"{family}.sharpness", *(f"{family}.lambda{k}" for k in range(2, 17))) if history.has(name)]


def of_center(history: History) -> list[str]:
    """The columns of θ†'s λ1, λ2, … where a run follows several directions at the edge."""
    names = ["constrained.sharpness", *(f"constrained.lambda{k}" for k in range(2, 17))]
    return [name for name in names if history.has(name)] if history.has(DIRECTIONS) else []


class Spectrum(LivePage):
    """The eigenvalues against the step."""

    place = "spectrum"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("spectrum"), keys.closing("dashboard.spectrum")]

    DEFAULT_CSS = """
    Spectrum { background: $background; }
    Spectrum Vertical { height: 1fr; }
    Spectrum Drawing { height: 1fr; }
    Spectrum Line { padding-left: 1; }
    Spectrum Line.tall { height: 2; }
    """

    def __init__(
        self, source: Source, window: Callable[[], Window], tell: Callable[[AnyCommand, str], None] = lambda command, what: None,
        ascii: bool = False,
    ):
        """`tell` leaves a command for the engine, and has its answer shown."""
        super().__init__(source, ascii)
        self._window, self._tell = window, tell
        history = source.history
        self._names = recorded(history)
        self._preconditioned = history.has("preconditioned.sharpness")
        self._center_names = of_center(history)
        kept = [c for c in history.columns if c.name in ("step", THRESHOLD, RATE, *self._names, *self._center_names)]
        # λ2, … are what this page is about, so they go by names that no plot treats as companions.
        self._renamed = {name: f"spectrum.{k}" for k, name in enumerate(self._names, 1)}
        self._center_renamed = {name: f"center.{k}" for k, name in enumerate(self._center_names, 1)}
        renamed = self._renamed | self._center_renamed
        self._columns = [column.name for column in kept]
        self.history = History([*(c._replace(name=renamed.get(c.name, c.name)) for c in kept), LEVEL])
        self._above: dict[int, int] = {}
        """The first recorded step at which each eigenvalue is above 2/η, at the learning rate in force."""
        self._since = 0
        """The step at which η last changed; 0 where it never did."""
        self._rate = math.nan
        """The learning rate in force."""
        self.plot, self.center = LinePlot(self._spec(1), ascii=ascii), LinePlot(self._center_spec(1, 0, 0), ascii=ascii)
        self.density, self.bars = DensityPlot(ascii=ascii), LayerBars(ascii=ascii)
        self.front: View = "descent"
        """The view in front: where one of two is shown it is that."""
        self._line, self._center_line, self._density_line, self._layers_line = Line(), Line(), Line(), Line()
        self._files: dict[int, Path] = {}
        """The readings of the whole spectrum, by step,"""
        self._listed = -1
        """and when their folder last changed, as the file system says."""
        self._chosen: int | None = None
        """The step of the reading shown; None follows the newest."""
        self._read: tuple[int, WholeSpectrum | None] = -1, None

    def _spec(self, count: int) -> PlotSpec:
        """The first `count` eigenvalues. They never cross, so two inks in turn tell neighbours apart."""
        curves = [
            Curve(self._renamed[name], f"λ{k}", "gd" if k % 2 else "transported") for k, name in enumerate(self._names[:count], 1)
        ]
        if self._preconditioned:
            return PlotSpec("spectrum", "spectrum as its steps feel it", tuple(curves), threshold=True)
        level = Curve(LEVEL.name, LEVEL.symbol, "muted", dashed=True)
        return PlotSpec("spectrum", "spectrum of gradient descent", (*curves, level), threshold=True, from_edge=True)

    def _center_spec(self, count: int, directions: int, active: int) -> PlotSpec:
        """θ†'s first `count` eigenvalues, by what each is. Those that swing are the first: S ≤ 2/η holds θ† back in them alone."""
        curves = [
            Curve(self._center_renamed[name], f"λ{k} {'swings' if k <= active else 'at the edge' if k <= directions else 'below'}",
                  "constrained" if k <= active else "warn" if k <= directions else "muted")
            for k, name in enumerate(self._center_names[:count], 1)
        ]
        return PlotSpec("center", "spectrum of θ†", tuple(curves), threshold=True, from_edge=True)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self.plot
            yield self.center
            yield self.density
            yield self.bars
        yield from (self._line, self._center_line, self._density_line, self._layers_line)

    @property
    def views(self) -> list[View]:
        """The views that this run has."""
        return [view for view in NAMES if view != "center" or self._center_names]

    @property
    def shown(self) -> list[View]:
        """The views on the screen: those of one θ or of the whole spectrum where there is room for both, else the one in front."""
        if self.size.height < BOTH:
            return [self.front]
        return [view for view in self.views if (view in WHOLE) == (self.front in WHOLE)]

    def show_what_fits(self) -> None:
        shown = self.shown
        parts: dict[View, tuple[Drawing, Line]] = {
            "descent": (self.plot, self._line), "center": (self.center, self._center_line),
            "density": (self.density, self._density_line), "layers": (self.bars, self._layers_line),
        }
        for view, (drawing, line) in parts.items():
            drawing.display = line.display = view in shown
        self.set_focus(parts[self.front][0])

    def action_turn(self, by: int = 1) -> None:
        self._turn_to(self._next(by))

    def _next(self, by: int = 1) -> View:
        return self.views[(self.views.index(self.front) + by) % len(self.views)]

    def _turn_to(self, view: View) -> None:
        self.front = view
        self.show_what_fits()
        self.call_after_refresh(self.paint)

    # -- the whole spectrum

    def action_density(self) -> None:
        if self.front not in WHOLE:
            self._turn_to("density")
        self._chosen = None
        if isinstance(self.source.run.spec.problem, Phase) or (not self.source.live and self.source.replay is None):
            self.notify(self._nothing(), timeout=5, markup=False)
        else:
            self._tell(Density(), "spectral density")

    def _steps(self) -> list[int]:
        """The steps of the readings; in a replay those up to it. That of the step about to be taken has no row yet."""
        try:
            changed = (self.source.run.path / "curves").stat().st_mtime_ns
        except OSError:
            return []
        if changed != self._listed:
            self._listed, self._files, self._read = changed, self.source.run.densities(), (-1, None)
        last = math.inf if self.source.replay is None else self.source.history.last_step + 1
        return [step for step in self._files if step <= last]

    def _place(self, steps: list[int]) -> int:
        """Where the reading shown stands among these."""
        return len(steps) - 1 if self._chosen not in steps else steps.index(self._chosen)

    def action_move(self, by: int) -> None:
        steps = self._steps()
        if steps and self.front in WHOLE:
            to = min(max(self._place(steps) + by, 0), len(steps) - 1)
            self._chosen = None if to == len(steps) - 1 else steps[to]
            self.paint()

    def _nothing(self) -> str:
        """Why there is no reading to show, and how to come by one."""
        if isinstance(self.source.run.spec.problem, Phase):
            return "A phase portrait has no loss, so there is no spectrum to read."
        if self.source.live:
            asked = Density()
            return (f"The whole spectrum was not read yet: {keys.shown('spectrum.take_density')} has the engine read it at the present θ, "
                    f"by {asked.probes} × {asked.steps} Hessian–vector products and a few for each layer.")
        return ("The engine reads the whole spectrum while the run goes on, when it is asked to. "
                f"`eos density {self.source.name}` reads it now, at the last checkpoint.")

    def _paint_whole(self) -> None:
        steps = self._steps()
        step = steps[self._place(steps)] if steps else -1
        if self._read[0] != step:
            self._read = step, read(self._files[step]) if steps else None
        reading, both = self._read[1], len(self.shown) > 1
        self.bars.styles.max_height = len(reading.layers) + 5 if reading and both else None  # the density has the rows that they leave
        newest = ", the newest" if steps and step == steps[-1] else ""
        where = f", step {step:,}: reading {self._place(steps) + 1} of {len(steps)}{newest}" if steps else ""
        words = f"The reading of step {step:,} cannot be read: its file is damaged." if steps else self._nothing()
        self.density.title, self.bars.title = f"spectral density{where}", f"sharpness by layer{where}"
        arrows = " ".join(keys.shown(f"spectrum.{which}_reading") for which in ("earlier", "later"))
        arrows = arrows.replace("←", "left").replace("→", "right") if self.ascii else arrows
        take, turn = keys.shown("spectrum.take_density"), f"{keys.shown('spectrum.next_view')} {NAMES[self._next()]}"
        parts = [turn, *([f"{arrows} readings"] if len(steps) > 1 else []), *([f"{take} takes one"] if self.source.live else []), self.hint]
        hint = " · ".join(parts)
        self.density.subtitle, self.bars.subtitle = "" if both else hint, hint
        self.density.words = self.bars.words = words
        self.density.show(reading)
        self.bars.show(reading)
        task = "" if self.source.replay is not None else self.source.engine.task
        waiting = Content.assemble((busy(self.source.engine), self.color("warn")))
        self._density_line.show(waiting if task else Content(shares(reading) if reading else ""))
        self._layers_line.show(waiting if task and not both else Content(sharpest(reading) if reading else ""))

    def action_formula(self) -> None:
        row = self.source.row()
        if self.front in WHOLE:
            read_off = [apart(column, f"{column.name} of curves/density-….npz") for column in READ[self.front]]
            title = "spectral density" if self.front == "density" else "sharpness by layer"
            self.app.push_screen(Formula(title, [], row, others=read_off))
            return
        title, names = self.plot.spec.title, self._names
        if self.front == "center":
            title, names = "spectrum of θ†", [*self._center_names, DIRECTIONS, ACTIVE, *RESIDUALS]
        shown = [column for column in self.source.columns if column.name in names and not np.isnan(row.get(column.name, np.nan))]
        others = [apart(LEVEL, "the dashed line")] if names is self._names and not self._preconditioned else []
        self.app.push_screen(Formula(title, shown, row, others=others))

    def paint(self) -> None:
        if not self._line.is_attached:
            return
        source, seen = self.source.history, len(self.history)
        if len(source) > seen:
            rows = {name: source.values_or_nan(name, seen) for name in (*self._columns, RATE)}
            with np.errstate(divide="ignore"):
                level = FOLLOWED_FROM / rows[RATE]
            self.history.extend(np.column_stack([*(rows[name] for name in self._columns), level]))
            self._note_unstable(rows)
        followed = sum(not np.isnan(self.history.last(name)) for name in self._renamed.values())
        if self.density.display or self.bars.display:
            self._paint_whole()
        if self.plot.display:
            self.plot.spec = self._spec(max(followed, 1))
            self.plot.show(self.history, self._window())
            self._say(self._line, self.summary(followed), hinted=not self.center.display)
        if self.center.display:
            row = self.source.row()
            directions, active = (0 if math.isnan(value := row.get(name, math.nan)) else int(min(max(value, 0), 16))
                                  for name in (DIRECTIONS, ACTIVE))
            known = sum(not np.isnan(self.history.last(name)) for name in self._center_renamed.values())
            self.center.spec = self._center_spec(max(known, 1), directions, active)
            self.center.show(self.history, self._window())
            self._say(self._center_line, self.standing(directions, active, row))

    def standing(self, directions: int, active: int, row: Mapping[str, float]) -> str:
        """How many directions are at the edge, how many of them swing, and how exactly θ† is held there."""
        if not directions:
            return "Directions at the edge are told from the edge on."
        at_edge = "one direction" if directions == 1 else f"{directions} directions"
        swing = {0: "none swings", 1: "one swings"}.get(active, f"{active} swing, so x turns")
        residuals = tuple(row.get(name, math.nan) for name in RESIDUALS)
        exactly = " · λ1 is {:.0g} beyond 2/η, {:.0g} of ∇L lies along them".format(*residuals)
        exactly = exactly if self.size.width >= WIDE and not any(map(math.isnan, residuals)) else ""
        return f"{at_edge} at the edge, {swing}{exactly}"

    def _say(self, line: Line, words: str, hinted: bool = True) -> None:
        """Words and the keys to know here, on a row of their own where one does not hold both; of two lines the lower one has them."""
        if not hinted:
            line.set_class(False, "tall")
            line.show(Content(words))
            return
        hints, room = f"{keys.shown('spectrum.next_view')} {NAMES[self._next()]} · {self.hint}", self.size.width - 2
        both = f"{words}{' ' if words.endswith('.') else ' · '}{hints}"
        tall = len(both) > room and self.size.height >= TALL
        line.set_class(tall, "tall")
        said = Content(words).truncate(room, ellipsis=True)
        line.show(said + f"\n{hints}" if tall else Content(both))

    def _note_unstable(self, rows: dict[str, np.ndarray]) -> None:
        """Where eigenvalues are first above 2/η in new rows, of those at the newest learning rate."""
        rates, levels = rows[RATE], threshold(rows)
        changes = np.flatnonzero(np.diff(rates, prepend=rates[0] if math.isnan(self._rate) else self._rate))
        if len(changes):
            self._above, self._since = {}, int(rows["step"][changes[-1]])
        self._rate, first = float(rates[-1]), changes[-1] if len(changes) else 0
        for k, name in enumerate(self._names, 1):
            if len(above := np.flatnonzero(rows[name][first:] > levels[first:])):
                self._above.setdefault(k, int(rows["step"][first + above[0]]))

    def summary(self, followed: int) -> str:
        """How many there are, and since when each has been unstable."""
        if not self._names:
            return "This run has no Hessian."
        if not followed:
            return "The eigenvalues are followed from the edge on."
        seen = {k: step for k, step in sorted(self._above.items()) if step <= self.source.history.last_step}  # of a replay
        listed = " · ".join(f"λ{k} from step {step:,}" for k, step in seen.items()) or "none yet"
        changed = f" since η became {self._rate:g} at step {self._since:,}" if self._since else ""
        return f"{followed} followed; first above {self.history.symbols.get(THRESHOLD, '2/η')}{changed}: {listed}"


def shares(spectrum: WholeSpectrum) -> str:
    """The Gauss–Newton share of each eigenvalue followed, or why there is none."""
    known = [f"{share:.3f}" for share in spectrum.shares if math.isfinite(share)]
    if not known:
        return f"No Gauss–Newton share: {spectrum.why_no_share or 'no eigenvalue is followed'}"
    return f"Gauss–Newton share of {'λ1' if len(known) == 1 else 'λ1, λ2, …'}: {' '.join(known)}"


def sharpest(spectrum: WholeSpectrum) -> str:
    """The sharpest layer, beside λ1."""
    if not spectrum.layers or not len(spectrum.eigenvalues):
        return ""
    top, first = max(spectrum.layers, key=lambda layer: layer.sharpness), float(spectrum.eigenvalues[0])
    share = f" = {top.sharpness / first:.3f} λ1" if first > 0 else ""
    return f"Sharpest by itself: {top.name} ({top.size:,} parameters), {axes.number(top.sharpness, 4)}{share}"
