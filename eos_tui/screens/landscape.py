"""The loss along the top eigenvector at θ† against the quadratic, and in the plane of u and ∇S⊥, sample by sample; and the valley of the
newest step cut across, with gradient descent in it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.strip import Strip

from engine.record.columns import Column
from engine.record.safe_read import read_arrays
from engine.record.threshold import THRESHOLD, read_threshold
from engine.spec import Phase, RunSpec, SharpnessTracking
from eos_tui import keys
from eos_tui.draw import line_plot
from eos_tui.draw.axes import number
from eos_tui.draw.plot_spec import Axis, Curve, PlotSpec, Window
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula, apart
from eos_tui.screens.live import LivePage
from eos_tui.widgets.cross_section import CrossSection, section
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.valley import PlaneSample, Valley, sampled

MEAN_OVER = 100
"""Most steps that the measured sharpness is a mean of. An even number takes the period-2 oscillation out."""
SHOWN = (
    "landscape.ratio", "landscape.limit", "landscape.limit_turned", "gd.sharpness", "constrained.sharpness", "constrained.delta",
    "constrained.beta", "learning_rate",
)
"""Columns whose formulas the page of the loss along u shows."""
AT_PLANE = ("gd.x", "gd.y", "generalized.x", "generalized.y", "constrained.alpha", "constrained.beta", "constrained.delta")
"""Columns whose formulas the page of the plane shows."""
ALONG = (
    Column("x", "x/δ", "distance from θ† along u", "δ", "x/δ", "Appendix F"),
    Column("F_even", "F", "rise of the loss along u, its even part", "", "(F(x)+F(−x))/2, F(x) = L(θ†+xu) − L(θ†)", "Appendix F"),
    Column("quadratic", "x²/η", "rise of the loss if it were quadratic with sharpness 2/η", "", "x²/η", "Appendix F"),
)
"""A sample as a history whose steps are x/δ: it is drawn as any curve is."""
IN_PLANE = (
    Column("plane", "L−L†", "rise of the loss in the plane of u and ∇S⊥; its level lines are evenly spaced at y = 0", "",
           "L(θ†+x·u+y·∇S⊥/β) − L(θ†) = x²/η + y(x²−δ²)/2 + …", "Section 4"),
)
"""The quantity of the level lines."""
def quantities_across(edge: str) -> tuple[Column, ...]:
    """The quantities of the valley cut across, with an edge of this name."""
    return (Column("valley", "V", "the valley cut across, as the swing feels it", "", f"½({edge} + y)x²", "Section 4"),
            Column("push", "dy/dt", "what pushes the sharpness: the arrow", "", "α − βx²/2 = α(1 − x²/δ²)", "Section 4"))


def how_to_read_across(edge: str, swings: bool) -> tuple[tuple[str, str, str], ...]:
    """How to read the valley cut across, with an edge of this name, where x is followed or not: what is seen, its formula, and words."""
    at = "the edge" if edge == "edge" else edge
    valley = ("the valley     ", f"½({edge} + y)x²", f", dotted at {at}: if steeper, steps overshoot")
    if not swings:
        return valley, ("the ball       ", "", "at the bottom: how far steps swing is not followed in this run")
    jump = ("x ← −(1 + ηy)x", ": from wall to wall at every step") if edge == "2/η" else ("", "goes from wall to wall at every step")
    return (valley, ("the ball       ", *jump),
            ("the arrow      ", "α − βx²/2", ": beyond |x| = δ the swing pushes the sharpness down"))


HOW_TO_READ_PLANE = (
    ("up is sharper   ", "S = 2/η + y", ", and the valley ½(2/η + y)x² is narrower"),
    ("within |x| = δ  ", "∂L/∂y = (x² − δ²)/2 < 0", ", so y rises: progressive sharpening"),
    ("beyond |x| = δ  ", "∂L/∂y = (x² − δ²)/2 > 0", ", so y falls: self-stabilization"),
)
"""The same of the plane."""
PICTURES = ("along u", "plane", "valley")
"""The pictures of the page, in the order of the key that turns them."""
BOTH = 110
"""Cells of the page from which both pictures stand side by side."""
SPEC = PlotSpec("landscape", "", (
    Curve("F_even", "F along u, even part", "constrained"), Curve("quadratic", "x²/η", "transported", dashed=True),
), zero=True, marks=((-1.0, "−δ"), (1.0, "δ")))


class ShapeVerdict(NamedTuple):
    """The shape of the loss in a sample, and gradient descent's sharpness at that time."""

    ratio: float
    limit: float
    """S∞ of the paper."""
    limit_turned: float
    """S∞ with the turn of u, which the paper leaves out. NaN in a record made before that."""
    threshold: float
    """The stability threshold in force."""
    measured: float
    """Mean sharpness of gradient descent over the steps up to the sample: since the edge, at the same learning rate."""
    steps: int
    """The number of those steps."""

    @property
    def word(self) -> str:
        """The shape, by the ratio."""
        return "sub-quadratic" if self.ratio < 1 else "super-quadratic" if self.ratio > 1 else "quadratic"


def verdict(history: History, step: int) -> ShapeVerdict:
    """The row of a sample's step, and the sharpness of the rows up to it."""
    row = history.row_near(step)
    ratio, limit, eta = (history.value(name, row) for name in ("landscape.ratio", "landscape.limit", "learning_rate"))
    turned = history.value("landscape.limit_turned", row) if history.has("landscape.limit_turned") else math.nan
    start = max(row + 1 - MEAN_OVER, 0)
    sharpness, center, rate = (
        history.values_or_nan(name, start, row + 1) for name in ("gd.sharpness", "constrained.sharpness", "learning_rate"))
    known = sharpness[np.isfinite(sharpness) & np.isfinite(center) & (rate == eta)]
    threshold = read_threshold(lambda name: history.value(name, row), history.has)
    return ShapeVerdict(ratio, limit, turned, threshold, float(known.mean()) if len(known) else math.nan, len(known))


@np.errstate(all="ignore")  # files of unknown origin may hold anything
def drawn(path: Path) -> History | None:
    """A sample in units of its δ; None where the file cannot be read as one."""
    arrays = read_arrays(path) or {}
    try:
        if not 0 < (delta := float(arrays["delta"])) < math.inf:
            return None
        rows = np.column_stack([arrays["x"] / delta, arrays["F_even"], arrays["quadratic"]]).astype(float)
    except (KeyError, ValueError, TypeError):
        return None
    if not len(rows) or not (np.diff(rows[:, 0], prepend=-math.inf) > 0).all():
        return None
    sample = History(ALONG)
    sample.extend(rows)
    return sample


def absent(spec: RunSpec) -> str:
    """Why a run never has samples; empty where it may."""
    if isinstance(spec.problem, Phase):
        return "A phase portrait has no loss, so there is nothing to sample along u."
    if isinstance(spec.tracking, SharpnessTracking):
        return 'This run follows no θ† ([tracking] mode = "sharpness"), so there is no u to sample the loss along.'
    if not spec.tracking.landscape_every:
        return "This run does not sample the loss along u: [tracking] landscape_every is 0. A fork with, say, 50 does."
    return ""


class Along(LinePlot):
    """One sample, or the words for why there is none."""

    title, subtitle, words = "", "", ""

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        return line_plot.message(self.words, width, height, theme) if self.words else super().content_strips(width, height, theme)

    def titles(self, width: int) -> tuple[str, str]:
        return self.title, self.subtitle


class Landscape(LivePage):
    """F_t along u, newest or earlier, with what it predicts beside what is measured, and the plane of u and ∇S⊥."""

    place = "landscape"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("landscape"), keys.closing("dashboard.landscape")]

    DEFAULT_CSS = """
    Landscape { background: $background; }
    Landscape Horizontal { height: 1fr; }
    Landscape Drawing { width: 1fr; }
    Landscape Line { padding-left: 1; }
    """

    def __init__(self, source: Source, ascii: bool = False):
        super().__init__(source, ascii)
        self._plot, self._valley, self._across = Along(SPEC, ascii=ascii), Valley(ascii=ascii), CrossSection(ascii=ascii)
        self.front = 0
        """Which of `PICTURES` is in front: where one is shown it is that, and the lines tell of it."""
        self._lines = Line(), Line(), Line(), Line()
        self._absent = absent(source.run.spec)
        self._files: dict[int, Path] = {}
        self._listed = -1
        """When the folder of samples last changed, as the file system says."""
        self._chosen: int | None = None
        """The step of the sample shown; None follows the newest."""
        self._drawn: tuple[int, History | None, PlaneSample | None] = -1, None, None

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._plot
            yield self._across
            yield self._valley
        yield from self._lines

    def show_what_fits(self) -> None:
        """Two pictures where there is room, the plane one of them; else the one in front."""
        both = self.size.width >= BOTH
        pictures = self._plot, self._valley, self._across
        for k, picture in enumerate(pictures):
            picture.display = k == self.front or (both and k == (0 if self.planar else 1))
        self.set_focus(pictures[self.front])

    @property
    def planar(self) -> bool:
        """Whether the plane is in front."""
        return PICTURES[self.front] == "plane"

    @property
    def across(self) -> bool:
        """Whether the valley cut across is in front."""
        return PICTURES[self.front] == "valley"

    def action_turn(self, by: int) -> None:
        self.front = (self.front + by) % len(PICTURES)
        self.show_what_fits()
        self.call_after_refresh(self.paint)

    # -- which sample

    def _samples(self) -> list[int]:
        """The steps of the samples, up to the last row shown."""
        try:
            changed = (self.source.run.path / "curves").stat().st_mtime_ns
        except OSError:
            return []
        if changed != self._listed:
            self._listed = changed
            self._files = self.source.run.samples()
        last = self.source.history.last_step
        return [step for step in self._files if step <= last]

    def _place(self, steps: list[int]) -> int:
        """Where the sample shown stands among these."""
        return len(steps) - 1 if self._chosen not in steps else steps.index(self._chosen)

    def action_move_to_end(self, way: int) -> None:
        self.action_move(way * len(self._samples()))

    def action_move(self, by: int) -> None:
        steps = self._samples()
        if steps:
            to = min(max(self._place(steps) + by, 0), len(steps) - 1)
            self._chosen = None if to == len(steps) - 1 else steps[to]
            self.paint()

    def action_formula(self) -> None:
        history, steps = self.source.history, self._samples()
        if self.across:
            known = [column for column in self.source.columns if column.name in AT_PLANE]
            others = [apart(column, "of the picture") for column in quantities_across(self._edge)]
            self.app.push_screen(Formula("the valley cut across", known, self.source.row(), others=others))
            return
        title, own, names = ("the loss in the plane of u and ∇S⊥", IN_PLANE, AT_PLANE) if self.planar else (
            "the loss along u", ALONG[1:], SHOWN)
        known = [column for column in self.source.columns if column.name in names]
        row = history.row_near(steps[self._place(steps)]) if steps else -1
        stored = {column.name: history.value(column.name, row) for column in known} if row >= 0 else {}
        when = f"at step {steps[self._place(steps)]:,}" if steps else ""
        others = [apart(column, f"{column.name} of curves/step-….npz") for column in own]
        self.app.push_screen(Formula(title, known, stored, when, others=others))

    # -- drawing

    def paint(self) -> None:
        if not self._plot.is_attached:
            return
        if self._across.display:
            self._show_across()
        steps = [] if self._absent else self._samples()
        if not steps:
            self._show("at θ†", self._absent or self._waiting())
            return
        place = self._place(steps)
        step = steps[place]
        if self._drawn[0] != step:
            history = self.source.history
            rate = history.value("learning_rate", history.row_near(step))
            self._drawn = step, drawn(self._files[step]), sampled(self._files[step], rate)
        newest = ", the newest" if place == len(steps) - 1 else ""
        self._show(f"step {step:,}: sample {place + 1} of {len(steps)}{newest}", "", step)

    def _show(self, where: str, words: str, step: int = -1) -> None:
        """Show the sample of this step, or where there is none the words for why."""
        arrows = " ".join(keys.shown(f"landscape.{which}_sample") for which in ("earlier", "later"))
        arrows = arrows.replace("←", "left").replace("→", "right") if self.ascii else arrows
        turn = self._turn_hint()
        hint = f"{turn} · {arrows} samples · {self.hint}" if step >= 0 else self.hint
        _, along, plane = self._drawn if step >= 0 else (step, None, None)
        both = self.size.width >= BOTH
        self._plot.title = f"loss along u, {where}"
        self._valley.title = "loss in the plane of u and ∇S⊥" + ("" if both else f", {where}")
        self._plot.subtitle, self._valley.subtitle = hint, turn if both else hint
        broken = words or f"The sample of step {step:,} cannot be read: its file is damaged."
        self._plot.words = "" if along else broken
        self._valley.words = f"The sample of step {step:,} holds no plane." if along else broken
        self._plot.show(along or History(ALONG), Window(-5.0, 5.0, None, Axis("step", 0.0, "x/δ")))
        self._valley.show_paths(plane, self.source.history, step)
        lines = [Content("")] * 3
        if self.across:
            lines = self._reading(how_to_read_across(self._edge, self.source.history.has("gd.x")))
            lines += [Content("")] * (3 - len(lines))
        elif step >= 0:
            lines = self._reading(HOW_TO_READ_PLANE) if self.planar else self._words_of(verdict(self.source.history, step))
        self._lines[-1].display = len(lines) > 3
        for line, content in zip(self._lines, lines, strict=False):
            line.show(content)

    @property
    def _edge(self) -> str:
        """What the edge is called."""
        return self.source.history.symbols.get(THRESHOLD, "2/η")

    def _turn_hint(self) -> str:
        return f"{keys.shown('landscape.other_picture')} {PICTURES[(self.front + 1) % len(PICTURES)]}"

    def _show_across(self) -> None:
        """The valley at the newest row shown, in a replay between two rows."""
        history, replay = self.source.history, self.source.replay
        passed = 0.0 if replay is None else min(max(replay.step - history.last_step, 0.0), 1.0)
        self._across.title = "the valley cut across"
        self._across.subtitle = f"{self._turn_hint()} · {self.hint}"
        self._across.words = "Nothing to cut across: this run measures no sharpness, or has not yet."
        self._across.show(section(history, passed))

    def _reading(self, guide: Sequence[tuple[str, str, str]]) -> list[Content]:
        """How to read a picture, a line for each thing in it."""
        return [Content.assemble((thing, self.color("muted")), (formula, "bold"), words) for thing, formula, words in guide]

    def _waiting(self) -> str:
        """Why there is no sample yet."""
        every, halt = self.source.run.spec.tracking.landscape_every, self._undefined()
        return halt or f"No sample yet: the loss is sampled along u at θ†, from the edge on, every {every} steps."

    def _undefined(self) -> str:
        """That δ is undefined now, where it is."""
        alpha = self.source.row().get("constrained.alpha", math.nan)
        return f"δ = √(2α/β) is undefined while α ≤ 0, and α = {number(alpha, 3)} now: no sample is taken." if alpha <= 0 else ""

    def _words_of(self, shape: ShapeVerdict) -> list[Content]:
        """The verdict, the prediction and the measurement, each with its multiple of 2/η."""
        muted = self.color("muted")

        def multiple(value: float) -> str:
            return f"{number(value)} = {number(value / shape.threshold)} × 2/η" if math.isfinite(value) else "no value"

        means = "under" if shape.ratio < 1 else "over" if shape.ratio > 1 else "exactly"
        lines = [Content.assemble(
            (shape.word, f"bold {self.color('constrained')}"), f": ηF(δ)/δ² = {number(shape.ratio)}, {means} 1",
        ), Content.assemble(
            ("limit, the paper ", muted), ("S∞   ", "bold"), multiple(shape.limit), ("  2/η + F''(δ) − F'(δ)/δ", muted),
        ), Content.assemble(
            ("measured         ", muted), ("S(θ) ", "bold"), multiple(shape.measured),
            (f"  mean of the {shape.steps} steps up to it", muted),
        )]
        if math.isfinite(shape.limit_turned):
            lines.insert(2, Content.assemble(
                ("limit, ours      ", muted), ("S∞ᵤ  ", "bold"), multiple(shape.limit_turned), ("  + ε²/η: u turns with x", muted),
            ))
        if halt := self._undefined():
            lines[0] = Content.assemble(lines[0], (f"  {halt}", self.color("warn")))
        return lines
