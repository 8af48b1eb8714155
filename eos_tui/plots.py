"""A line plot as a pure function: a run's history, a window of steps and a size in cells make rows of styled text.

From top to bottom: the legend, the plot with its ticks at the left, the axis of steps. What is drawn of a curve is its
exact extremes in every pixel column, so the period-2 oscillation at the edge shows as a filled band however many steps
share a column; few rows are drawn as the line through them. Of a dashed curve's band only the edge is drawn, so that a
prediction can be compared with the filled band of what it predicts.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from eos_tui import axes, surround, traces
from eos_tui.axes import EXACT, Limits
from eos_tui.curves import Curve, Overlay, Pen, PlotSpec, Span, Window, pens, symbols
from eos_tui.raster import Canvas, connect, outline, spans
from eos_tui.series import Envelope, History
from eos_tui.surround import GUTTER, Box, Entry
from eos_tui.theme import DEFAULT, role_style

__all__ = ["Curve", "Painted", "PlotSpec", "Window", "draw", "heading", "message", "paint", "render_text", "values_line"]

COMPANIONS = ("generalized", "transported", "code", "flow")
"""Roles that may run off the scale, as may further eigenvalues: they widen the axis by no more than the range of the other
curves on either side. A prediction that overflows, or a λ2 far below the edge, would else flatten what matters.
"""
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


class _Layer(NamedTuple):
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


def paint(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, *, ascii: bool = False, theme: str = DEFAULT,
    limits: Limits | None = None, overlays: Sequence[Overlay] = (),
) -> Painted:
    """As `draw`; keeps to `limits`, those of the frame before, as long as they serve, and draws other runs too."""
    canvas = Canvas(max(width, 0), max(height, 0), ascii)
    right = _threshold_label_width(history) if spec.threshold and width >= 30 else 0
    box, span = Box.within(canvas, int(height >= 4), right), Span.of(history, window)
    if box.width < 2 or box.height < 1:
        return Painted(canvas.strips(), limits, box, span)
    bins = 2 * box.width
    layers = _layers(spec, history, span, bins, theme)
    others = _others(spec, history, span, bins, theme, overlays)
    threshold = traces.threshold(history, span, bins, spec.log) if spec.threshold else None
    extent = _extent(spec, layers, others, threshold)
    if extent is None:
        return Painted(message(surround.why_empty(spec, history), canvas.width, canvas.height, theme), None, box, span)
    shown = [surround.longest([layer.trace for layer in layers if layer.curve == curve]) for curve in spec.curves]
    entries = surround.legend_entries(spec, history, shown, canvas.width - GUTTER, ascii)
    entries += [
        Entry(other.pen.mark * 2 if ascii else other.pen.sample, other.label, other.role)
        for other, layer in zip(overlays, others, strict=True) if not np.isnan(layer.trace.lo).all()
    ]
    if height >= 14:
        box = Box.within(canvas, min(surround.legend_rows(entries, canvas.width - GUTTER), 3), right)
    limits = axes.settle(limits, *extent, log=spec.log)
    surround.frame(canvas, box, span, limits, (axes.log_ticks if spec.log else axes.ticks)(
        limits, min(max(box.height // 2, 3), 8)), role_style(theme, "muted"))
    surround.stages(canvas, box, span, history, theme)
    if spec.zero and not spec.log and limits.lo < 0 < limits.hi:
        row = box.row(0, limits)
        canvas.text(row, box.left, ("-" if ascii else "┈") * box.width, role_style(theme, "muted", 1), under=True)
    for at, name in spec.marks:
        surround.mark(canvas, box, span, at, name, role_style(theme, "muted"))
    scale = 4 * box.height / limits.span
    for layer in (*others, *layers):
        lo, hi = connect((layer.trace.lo - limits.lo) * scale, (layer.trace.hi - limits.lo) * scale)
        dots = spans(lo, hi, 4 * box.height)
        if layer.curve.dashed:
            dots = outline(dots)
        if layer.pen.off:
            dots &= np.arange(bins) // 2 % (layer.pen.on + layer.pen.off) < layer.pen.on
        canvas.dots(dots, box.top, box.left, layer.style, layer.pen.mark)
    if threshold is not None:
        surround.threshold_line(canvas, box, threshold, limits, role_style(theme, "threshold"), spec.log)
    if spec.veil:
        surround.veil(canvas, box, span, history, spec.veil, role_style(theme, "muted", 2))
    if span.cursor is not None:
        surround.cursor(canvas, box, span, role_style(theme, "muted"))
    if all(np.isnan(layer.trace.lo).all() for layer in layers):
        surround.centred(canvas, box, surround.why_empty(spec, history), role_style(theme, "muted"))
    surround.legend(canvas, box, entries, theme)
    surround.badges(canvas, box, spec, history, window, shown, limits, theme)
    return Painted(canvas.strips(), limits, box, span)


def _layers(spec: PlotSpec, history: History, span: Span, bins: int, theme: str) -> list[_Layer]:
    """What is painted of the run's own curves, in this order: strands or the whole, and over them their means."""
    found, means = [], []
    for curve, pen in zip(spec.curves, pens(spec.curves), strict=True):
        age = 1 if spec.smooth else 0
        for strand in (1, 0) if spec.strands else (None,):
            drawn = traces.trace(history, curve.column, span, bins, spec.log, strand)
            found.append(_Layer(curve, pen, role_style(theme, curve.role, min(age + (strand == 1), 2)), drawn))
        if spec.smooth:
            drawn = traces.mean(history, curve.column, span, bins, spec.log, spec.smooth)
            means.append(_Layer(curve, pen, role_style(theme, curve.role, bold=True), drawn))
    return found + means


def _others(
    spec: PlotSpec, history: History, span: Span, bins: int, theme: str, overlays: Sequence[Overlay]
) -> list[_Layer]:
    """What is painted of other runs: their first curve."""
    found = []
    for other in overlays:
        along = span.axis.along
        ahead = other.history.position(other.edge, along) - history.position(other.at, along)
        drawn = traces.trace(other.history, spec.curves[0].column, span.shifted(ahead), bins, spec.log)
        found.append(_Layer(spec.curves[0]._replace(dashed=True), other.pen, role_style(theme, other.role), drawn))
    return found


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


def heading(spec: PlotSpec) -> str:
    """The plot's title with its unit, and how it is drawn."""
    said = [spec.title + (f" [{spec.unit}]" if spec.unit else "")]
    said += ["log"] if spec.log else []
    said += [f"mean {spec.smooth}"] if spec.smooth else []
    said += ["odd faint"] if spec.strands else []
    return " · ".join(said)


def render_text(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, colour: bool, *, ascii: bool = False,
    theme: str = DEFAULT,
) -> str:
    """One frame as text to print, its title above it; with ANSI codes of 256 colours where `colour`."""
    strips = [Strip([Segment(heading(spec)[:width].ljust(width), Style(bold=True))], width)]
    strips += draw(spec, history, window, width, height - 1, ascii=ascii, theme=theme)
    if not colour:
        return "\n".join(strip.text.rstrip() for strip in strips)
    return "\n".join(
        "".join((style or Style.null()).render(text, color_system=ColorSystem.EIGHT_BIT) for text, style, _ in strip)
        for strip in strips
    )


def _threshold_label_width(history: History) -> int:
    """Cells right of the plot for the name and value of 2/η."""
    if not history.has("learning_rate") or not history.last("learning_rate") > 0:
        return 0
    return max(3, len(axes.number(2 / history.last("learning_rate"), 3)))


def _extent(
    spec: PlotSpec, layers: list[_Layer], others: list[_Layer], threshold: Envelope | None
) -> tuple[float, float] | None:
    """The range the axis must hold; None where there is nothing at all."""
    minor = [layer.curve.role in COMPANIONS or ".lambda" in layer.curve.column for layer in layers]
    leading = [layer.trace for layer, is_minor in zip(layers, minor, strict=True) if not is_minor]
    companions = [layer.trace for layer, is_minor in zip(layers, minor, strict=True) if is_minor]
    companions += [layer.trace for layer in others]
    fixed = ([threshold] if threshold else []) + ([Envelope(np.zeros(1), np.zeros(1))] if spec.zero and not spec.log else [])
    core, outer = _range(leading), _range(companions)
    if core is None and outer is None and not threshold:
        return None
    if core is not None:
        low, high = 2 * core[0] - core[1], 2 * core[1] - core[0]
        ranges = [_range([trace]) for trace in companions]
        reached = [part for part in ranges if part and part[0] <= high and part[1] >= low]
        outer = (max(min(p[0] for p in reached), low), min(max(p[1] for p in reached), high)) if reached else None
    found = [part for part in (core, outer, _range(fixed)) if part is not None]
    lo, hi = min(part[0] for part in found), max(part[1] for part in found)
    if core is None and outer is None:
        lo = lo - 1 if spec.log else 0.0
    return lo, hi


def _range(envelopes: list[Envelope]) -> tuple[float, float] | None:
    """The extremes of all, no farther than an axis can be computed with."""
    known = [(np.fmin.reduce(e.lo), np.fmax.reduce(e.hi)) for e in envelopes if not np.isnan(e.lo).all()]
    if not known:
        return None
    return max(float(min(lo for lo, _ in known)), -LARGEST), min(float(max(hi for _, hi in known)), LARGEST)
