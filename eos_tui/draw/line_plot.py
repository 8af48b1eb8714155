"""A line plot as a pure function: a run's history, a window of steps and a size in cells make rows of styled text.

From top to bottom: the legend, the plot with its ticks at the left, the axis of steps. What is drawn of a curve is its
exact extremes in every pixel column, so the period-2 oscillation at the edge shows as a filled band however many steps
share a column; few rows are drawn as the line through them. Of a dashed curve's band only the edge is drawn, so that a
prediction can be compared with the filled band of what it predicts.

What is measured lies over what it is compared with: in a cell that both pass through stand the dots and the colour of the
measured curve. Deep within a filled band the edge of a prediction is a line of dots left out.
"""

import math
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from engine.record.threshold import column_of, read_threshold
from eos_tui.draw import axes, decorations, traces
from eos_tui.draw.axes import EXACT, Limits
from eos_tui.draw.decorations import GUTTER, Box, LegendEntry, Stretch
from eos_tui.draw.plot_spec import SOLID, Curve, Overlay, Pen, PlotSpec, Span, Window, edge_name, pens, symbols
from eos_tui.draw.raster import Canvas, connect, inner, outline, spans
from eos_tui.draw.theme import DEFAULT, FAMILIES, role_style
from eos_tui.model.envelopes import Envelope
from eos_tui.model.history import History

__all__ = ["Curve", "Painted", "PlotSpec", "Window", "draw", "heading", "message", "paint", "render_text", "values_line"]

COMPANIONS = frozenset(name for name, family in FAMILIES.items() if family.companion)
"""Roles that may run off the scale, as may further eigenvalues: they widen the axis by no more than the range of the other
curves on either side. A prediction that overflows, or a λ2 far below the edge, would else flatten what matters.
"""
ABOUT = 0.3
"""How far about the threshold they may widen the axis of the sharpness, as a share of it."""
MEASURED = "gd"
"""The role of what the run itself does: it is drawn over everything that it is compared with."""
THICK = 1.0
"""Dots by which the line of a measured curve is thicker than a prediction's, so that it stands out from afar and without colour."""
BAND = 11.0
"""Dots from which on a band may have something deep within it: three cells."""
LARGEST = 1e150
"""The farthest an axis goes: beyond, its width could not be computed."""


class Painted(NamedTuple):
    """A plot drawn, and the limits it was drawn to, for the next frame to keep."""

    strips: list[Strip]
    limits: Limits | None
    box: Box
    span: Span

    def step_at(self, column: int, history: History) -> float | None:
        """The step at the middle of a cell; None beside the plot."""
        if not self.box.left <= column < self.box.left + self.box.width:
            return None
        share = (column - self.box.left + 0.5) / self.box.width
        return history.step_at(self.span.start + share * (self.span.stop - self.span.start), self.span.axis.along)


class Layer(NamedTuple):
    """One thing painted of a curve."""

    curve: Curve
    pen: Pen
    style: Style
    trace: Envelope


def draw(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, *, ascii: bool = False, theme: str = DEFAULT
) -> list[Strip]:
    """The plot as `height` rows of exactly `width` cells, without a border."""
    return paint(spec, history, window, width, height, ascii=ascii, theme=theme).strips


@np.errstate(all="ignore")  # rows of unknown origin may hold anything
def paint(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, *, ascii: bool = False, theme: str = DEFAULT,
    limits: Limits | None = None, overlays: Sequence[Overlay] = (), tinted: bool = True,
) -> Painted:
    """As `draw`; keeps to `limits`, those of the frame before, as long as they serve, and draws other runs too. Grounds are `tinted`
    where the terminal can mix colours.
    """
    width, height = max(width, 0), max(height, 0)
    right = _threshold_label_width(spec, history) if (spec.threshold or spec.ratio) and width >= 30 else 0
    box, span = Box.within(width, height, int(height >= 4), right), Span.of(history, window)
    if box.width < 2 or box.height < 1:
        return Painted(Canvas(width, height).strips(), limits, box, span)
    bins = 2 * box.width
    others, own = other_layers(spec, history, span, bins, theme, overlays), own_layers(spec, history, span, bins, theme)
    layers = [*others, *own]
    lo, hi = np.array([layer.trace for layer in layers]).swapaxes(0, 1) if layers else np.empty((2, 0, bins))
    ends = _ends(lo, hi)
    held = [not math.isnan(low) for low, _ in ends]
    threshold = traces.at_one(bins, spec.log) if spec.ratio else traces.threshold(history, span, bins, spec.log) if spec.threshold else None
    extent = _extent(spec, layers, len(others), _reachable(ends), threshold)
    if extent is None:
        return Painted(message(decorations.why_empty(spec, history), width, height, theme), None, box, span)
    longest = _longest(spec, layers, lo)
    entries = decorations.legend_entries(spec, history, [held[k] for k in longest], width - GUTTER, ascii)
    entries[1:1] = [  # where there is no room for all, predictions are left out before what was asked for
        LegendEntry(other.pen.mark * 2 if ascii else other.pen.sample, other.label, other.role)
        for other, is_held in zip(overlays, held, strict=False) if is_held
    ]
    if height >= 10:
        most = decorations.most_rows(height) + (height >= 14 and bool(others))
        box = Box.within(width, height, min(decorations.legend_rows(entries, width - GUTTER), most), right)
    limits = axes.settle(limits, *extent, log=spec.log)
    canvas = _staged(width, height, ascii, box, span._replace(cursor=None), limits, spec.log, spec.zero, spec.marks, tuple(entries),
                     theme, decorations.stretches_of_stages(box, span, history), tinted).copy()
    if threshold is not None:
        decorations.threshold_line(canvas, box, threshold, limits, role_style(theme, "threshold"), spec.log, edge_name(spec, history))
    if any(held):
        _curves(canvas, box, layers, lo, hi, limits)
    if spec.veil:
        decorations.veil(canvas, box, span, history, spec.veil, role_style(theme, "muted", 2))
    if span.cursor is not None:
        decorations.cursor(canvas, box, span, role_style(theme, "muted"))
    if not any(held[len(others) :]):
        decorations.centred(canvas, box, decorations.why_empty(spec, history), role_style(theme, "muted"))
    if not box.top:
        decorations.legend(canvas, box, entries, theme)  # over the curves, where there is no row above them
    decorations.badges(canvas, box, spec, history, window, [layers[k].trace for k in longest], [ends[k] for k in longest], limits, theme,
                    None if threshold is None else box.row(float(threshold.lo[-1]), limits))
    return Painted(canvas.strips(), limits, box, span)


def _curves(canvas: Canvas, box: Box, layers: list[Layer], lo: np.ndarray, hi: np.ndarray, limits: Limits) -> None:
    """Every layer in the cells of the box, from its extremes (layers, columns of dots)."""
    scale = 4 * box.height / limits.span
    low, high = connect((lo - limits.lo) * scale, (hi - limits.lo) * scale)
    curves = [layer.curve for layer in layers]
    dashed, measured = [k for k, curve in enumerate(curves) if curve.dashed], [k for k, curve in enumerate(curves) if is_measured(curve)]
    thicker = np.zeros((len(layers), 1))
    thicker[measured] = THICK / 2
    dots = spans(low - thicker, high + thicker, 4 * box.height)
    if dashed:
        dots[dashed] = outline(dots[dashed])
    if dashed and measured and (high - low)[measured].max(where=~np.isnan(high[measured]), initial=0) > BAND:
        dots[measured] &= ~(inner(dots[measured]) & dots[dashed].any(axis=0))
    dots &= _strokes(tuple(layer.pen for layer in layers), dots.shape[-1])
    canvas.layers(dots, box.top, box.left, [layer.style for layer in layers], [layer.pen.mark for layer in layers])


@lru_cache(maxsize=64)
def _staged(
    width: int, height: int, ascii: bool, box: Box, span: Span, limits: Limits, log: bool, zero: bool,
    marks: tuple[tuple[float, str], ...], entries: tuple[LegendEntry, ...], theme: str, stages: tuple[Stretch, ...], tinted: bool,
) -> Canvas:
    """What stands on a plot's canvas while its axes and the stages stay: it is painted once, and copied for every frame."""
    canvas = _ground(width, height, ascii, box, span, limits, log, zero, marks, entries, theme).copy()
    decorations.stages(canvas, box, stages, theme, tinted)
    return canvas


@lru_cache(maxsize=64)
def _ground(
    width: int, height: int, ascii: bool, box: Box, span: Span, limits: Limits, log: bool, zero: bool,
    marks: tuple[tuple[float, str], ...], entries: tuple[LegendEntry, ...], theme: str,
) -> Canvas:
    """What of it stays while a stage goes on."""
    canvas, muted = _upright(width, height, ascii, box, limits, log, zero, entries, theme).copy(), role_style(theme, "muted")
    decorations.foot(canvas, box, span, muted)
    for at, name in marks:
        decorations.mark(canvas, box, span, at, name, muted)
    return canvas


@lru_cache(maxsize=64)
def _upright(
    width: int, height: int, ascii: bool, box: Box, limits: Limits, log: bool, zero: bool, entries: tuple[LegendEntry, ...], theme: str
) -> Canvas:
    """What of it stays while the window moves."""
    canvas, muted = Canvas(width, height, ascii), role_style(theme, "muted")
    decorations.upright(canvas, box, limits, (axes.log_ticks if log else axes.ticks)(limits, min(max(box.height // 2, 3), 8)), muted)
    if zero and not log and limits.lo < 0 < limits.hi:
        canvas.text(box.row(0, limits), box.left, ("-" if ascii else "┈") * box.width, role_style(theme, "muted", 1), under=True)
    if box.top:
        decorations.legend(canvas, box, entries, theme)
    return canvas


@lru_cache(maxsize=256)
def _strokes(pens: tuple[Pen, ...], bins: int) -> np.ndarray:
    """Which columns of dots each pen draws in, (pens, 1, columns)."""
    return np.array([np.arange(bins) // 2 % (pen.on + pen.off) < pen.on for pen in pens]).reshape(len(pens), 1, bins)


def _longest(spec: PlotSpec, layers: list[Layer], lo: np.ndarray) -> list[int]:
    """Of each curve's layers the one that says most of where it is: its strands and its mean have the same ends."""
    of = [[k for k, layer in enumerate(layers) if layer.curve is curve] for curve in spec.curves]
    if all(len(each) == 1 for each in of):
        return [k for k, in of]
    held = np.count_nonzero(~np.isnan(lo), axis=1).tolist()
    return [max(each, key=held.__getitem__) for each in of]


def own_layers(spec: PlotSpec, history: History, span: Span, bins: int, theme: str) -> list[Layer]:
    """What is painted of the run's own curves, in this order: strands or the whole, and over them their means; what is measured last."""
    layers, means = [], []
    for curve, pen in zip(spec.curves, pens(spec.curves), strict=True):
        age = 1 if spec.smooth else 0
        if curve.error:
            drawn = traces.bars(history, curve.column, curve.error, span, bins, spec.log)
            layers.append(Layer(curve, SOLID[0], role_style(theme, curve.role, 2), drawn))
        for strand in (1, 0) if spec.strands else (None,):
            if curve.joins and strand is None:
                drawn = traces.lengthening(history, curve.column, curve.joins, span, bins, spec.log)
            else:
                drawn = traces.trace(history, curve.column, span, bins, spec.log, strand)
            layers.append(Layer(curve, pen, role_style(theme, curve.role, min(age + (strand == 1), 2)), drawn))
        if spec.smooth:
            drawn = traces.mean(history, curve.column, span, bins, spec.log, spec.smooth)
            means.append(Layer(curve, pen, role_style(theme, curve.role, bold=True), drawn))
    return sorted(layers + means, key=lambda layer: is_measured(layer.curve))


def is_measured(curve: Curve) -> bool:
    return curve.role == MEASURED and not curve.dashed


def other_layers(
    spec: PlotSpec, history: History, span: Span, bins: int, theme: str, overlays: Sequence[Overlay]
) -> list[Layer]:
    """What is painted of other runs: their first curve."""
    layers = []
    for other in overlays:
        along = span.axis.along
        ahead = other.history.position(other.edge, along) - history.position(other.at, along)
        drawn = traces.trace(other.history, spec.curves[0].column, span.shifted(ahead), bins, spec.log)
        layers.append(Layer(spec.curves[0]._replace(dashed=True), other.pen, role_style(theme, other.role), drawn))
    return layers


def message(text: str, width: int, height: int, theme: str = DEFAULT) -> list[Strip]:
    """A plot of nothing but these words, wrapped and centred."""
    canvas = Canvas(max(width, 0), max(height, 0))
    lines = textwrap.wrap(text, max(width - 2, 1))
    for row, line in enumerate(lines[:height], max((height - len(lines)) // 2, 0)):
        canvas.text(row, max((width - len(line)) // 2, 0), line, role_style(theme, "muted"))
    return canvas.strips()


def values_line(spec: PlotSpec, history: History, window: Window, width: int = 10**6) -> str:
    """The curves' values at the cursor, as exact as there is room for, or else the latest ones; those that do not fit are
    left out.
    """
    named = symbols(history, spec.curves)
    curves = [curve for curve in spec.curves if history.has(curve.column)]
    if window.cursor is None:
        known = [(named[curve.column], history.last(curve.column)) for curve in curves if not history.ending(curve.column)]
        return _fitted("", known, width, (4,))
    step = history.at("step", window.cursor)[0] if len(history) else math.nan
    known = [(named[curve.column], history.at(curve.column, window.cursor)[1]) for curve in curves]
    return _fitted(f"t {step:.0f}" if len(history) else "", known, width, (EXACT, 9, 6, 4))


def _fitted(head: str, known: list[tuple[str, float]], width: int, choices: Sequence[int]) -> str:
    """Names and values in one line: with the most digits that let all of them in."""
    for digits in choices:
        parts = [f"{name} {axes.number(value, digits)}" for name, value in known if not math.isnan(value)]
        if len(" · ".join([head, *parts])) + (0 if head else -3) <= width:
            break
    line = head
    for part in parts:
        if len(line) + len(part) + 3 > width:
            break
        line = f"{line} · {part}" if line else part
    return line


def heading(spec: PlotSpec, width: int = 0) -> str:
    """The plot's title, and how it is drawn; what it is in plain words where so many cells hold it."""
    drawn = ["log"] if spec.log else []
    drawn += [f"mean {spec.smooth}"] if spec.smooth else []
    drawn += ["odd faint"] if spec.strands else []
    title = f"{spec.title}: {spec.words}" if spec.words else spec.title
    said = " · ".join([title, *drawn])
    return said if len(said) <= width else " · ".join([spec.title, *drawn])


def render_text(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, colour: bool, *, ascii: bool = False,
    theme: str = DEFAULT,
) -> str:
    """One frame as text to print, its title above it; with ANSI codes of 256 colours where `colour`."""
    strips = [Strip([Segment(heading(spec, width)[:width].ljust(width), Style(bold=True))], width)]
    strips += paint(spec, history, window, width, height - 1, ascii=ascii, theme=theme, tinted=False).strips
    if not colour:
        return "\n".join(strip.text.rstrip() for strip in strips)
    return "\n".join(
        "".join((style or Style.null()).render(text, color_system=ColorSystem.EIGHT_BIT) for text, style, _ in strip)
        for strip in strips
    )


def _threshold_label_width(spec: PlotSpec, history: History) -> int:
    """Cells right of the plot for the name and value of the threshold."""
    if spec.ratio:
        return len("edge")
    if column_of(history.has) is None or not (level := read_threshold(history.last, history.has)) > 0:
        return 0
    name = edge_name(spec, history)  # a formula or a word of up to ten letters
    return max(len(name), len(axes.number(level, 3)))


def _extent(
    spec: PlotSpec, layers: list[Layer], others: int, ranges: list[tuple[float, float] | None], threshold: Envelope | None
) -> tuple[float, float] | None:
    """The range the axis must hold; None where there is nothing at all. The first layers, `others` of them, are other runs'."""
    minor = [k < others or layer.curve.role in COMPANIONS or _is_eigenvalue(layer.curve.column) for k, layer in enumerate(layers)]
    core = _joined([extremes for extremes, is_minor in zip(ranges, minor, strict=True) if not is_minor])
    companions = [extremes for extremes, is_minor in zip(ranges, minor, strict=True) if is_minor and extremes]
    outer = _joined(companions)
    if core is None and outer is None and not threshold:
        return None
    if core is not None:
        low, high = 2 * core[0] - core[1], 2 * core[1] - core[0]
        reached = _joined([part for part in companions if part[0] <= high and part[1] >= low])
        outer = (max(reached[0], low), min(reached[1], high)) if reached else None
    fixed = _reachable(_ends(threshold.lo[None], threshold.hi[None])) if threshold else []
    if spec.about and outer is not None and fixed and fixed[0] is not None and not spec.log:
        low, high = (1 - ABOUT) * fixed[0][0], (1 + ABOUT) * fixed[0][1]
        outer = (max(outer[0], low), min(outer[1], high)) if outer[0] <= high and outer[1] >= low else None
    whole = _joined([core, outer, *fixed, (0.0, 0.0) if spec.zero and not spec.log else None])
    assert whole is not None
    if spec.near and fixed and fixed[0] is not None and not spec.log:
        top = 2 * fixed[0][1]
        whole = (whole[0], min(whole[1], top)) if whole[0] < top else whole
    if core is None and outer is None:
        return whole[0] - 1 if spec.log else 0.0, whole[1]
    return whole


def _is_eigenvalue(column: str) -> bool:
    """Whether it is a further eigenvalue of a Hessian."""
    return ".lambda" in column and not column.startswith("covariance.")


def _ends(lo: np.ndarray, hi: np.ndarray) -> list[tuple[float, float]]:
    """The extremes of each envelope (envelopes, columns); NaN where it is empty."""
    return [*zip(np.fmin.reduce(lo, axis=1).tolist(), np.fmax.reduce(hi, axis=1).tolist(), strict=True)]


def _reachable(ends: list[tuple[float, float]]) -> list[tuple[float, float] | None]:
    """Extremes no farther than an axis can be computed with; None where there are none."""
    return [None if math.isnan(low) else (max(low, -LARGEST), min(high, LARGEST)) for low, high in ends]


def _joined(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """The range that holds all of these."""
    known = [extremes for extremes in ranges if extremes is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None
