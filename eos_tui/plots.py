"""A line plot as a pure function: a run's history, a window of steps and a size in cells make rows of styled text.

From top to bottom: the legend, the plot with its ticks at the left, the axis of steps. What is drawn of a curve is its
exact extremes in every pixel column, so the period-2 oscillation at the edge shows as a filled band however many steps
share a column; few rows are drawn as the line through them. Of a dashed curve's band only the edge is drawn, so that a
prediction can be compared with the filled band of what it predicts.
"""


import math
import textwrap
from typing import NamedTuple

import numpy as np
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from eos_tui import axes, surround
from eos_tui.axes import Limits
from eos_tui.curves import Curve, PlotSpec, Window, pens, symbols
from eos_tui.raster import Canvas, beside, connect, outline, polyline, spans
from eos_tui.series import Envelope, History
from eos_tui.surround import GUTTER, Box
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


def draw(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, *, ascii: bool = False, theme: str = DEFAULT
) -> list[Strip]:
    """The plot as `height` rows of exactly `width` cells, without a border."""
    return paint(spec, history, window, width, height, ascii=ascii, theme=theme).strips


def paint(
    spec: PlotSpec, history: History, window: Window, width: int, height: int, *, ascii: bool = False, theme: str = DEFAULT,
    limits: Limits | None = None,
) -> Painted:
    """As `draw`; keeps to `limits`, those of the frame before, as long as they serve."""
    canvas = Canvas(max(width, 0), max(height, 0), ascii)
    right = _threshold_label_width(history) if spec.threshold and width >= 30 else 0
    box = Box.within(canvas, int(height >= 4), right)
    if box.width < 2 or box.height < 1:
        return Painted(canvas.strips(), limits)
    muted = role_style(theme, "muted")
    traces = [_trace(history, curve.column, window, 2 * box.width, spec.log) for curve in spec.curves]
    threshold = _threshold(history, window, 2 * box.width, spec.log) if spec.threshold else None
    extent = _extent(spec, traces, threshold)
    if extent is None:
        return Painted(message(surround.why_empty(spec, history), canvas.width, canvas.height, theme), None)
    entries = surround.legend_entries(spec, history, traces, canvas.width - GUTTER, ascii)
    if height >= 14 and sum(len(entry.name) + 5 for entry in entries) - 2 > canvas.width - GUTTER:
        box = Box.within(canvas, 2, right)
    limits = axes.settle(limits, *extent, log=spec.log)
    marks = (axes.log_ticks if spec.log else axes.ticks)(limits, min(max(box.height // 2, 3), 8))
    scale = 4 * box.height / limits.span
    strokes = [connect((trace.lo - limits.lo) * scale, (trace.hi - limits.lo) * scale) for trace in traces]
    surround.frame(canvas, box, window, limits, marks, muted)
    if spec.zero and not spec.log and limits.lo < 0 < limits.hi:
        row = box.row(0, limits)
        canvas.text(row, box.left, ("-" if ascii else "┈") * box.width, role_style(theme, "muted", 1), under=True)
    for curve, pen, (lo, hi) in zip(spec.curves, pens(spec.curves), strokes, strict=True):
        dots = spans(lo, hi, 4 * box.height)
        if curve.dashed:
            dots = outline(dots)
        if pen.off:
            dots &= np.arange(2 * box.width) // 2 % (pen.on + pen.off) < pen.on
        canvas.dots(dots, box.top, box.left, role_style(theme, curve.role), pen.mark)
    if threshold is not None:
        surround.threshold_line(canvas, box, threshold, limits, role_style(theme, "threshold"), spec.log)
    if window.cursor is not None:
        surround.cursor(canvas, box, window, muted)
    if all(np.isnan(trace.lo).all() for trace in traces):
        surround.centred(canvas, box, surround.why_empty(spec, history), muted)
    surround.legend(canvas, box, entries, theme)
    surround.badges(canvas, box, spec, history, window, traces, limits, theme)
    return Painted(canvas.strips(), limits)


def message(text: str, width: int, height: int, theme: str = DEFAULT) -> list[Strip]:
    """A plot of nothing but these words, wrapped and centred."""
    canvas = Canvas(max(width, 0), max(height, 0))
    lines = textwrap.wrap(text, max(width - 2, 1))
    for row, line in enumerate(lines[:height], max((height - len(lines)) // 2, 0)):
        canvas.text(row, max((width - len(line)) // 2, 0), line, role_style(theme, "muted"))
    return canvas.strips()


def values_line(spec: PlotSpec, history: History, window: Window, width: int = 10**6) -> str:
    """The curves' values at the cursor, as stored, or else the latest ones; those that do not fit are left out."""
    parts = []
    if window.cursor is not None and len(history):
        parts.append(f"t {history.at(history.columns[0].name, window.cursor)[0]:.0f}")
    names = symbols(history, spec.curves)
    for curve in spec.curves:
        if history.has(curve.column):
            value = history.last(curve.column) if window.cursor is None else history.at(curve.column, window.cursor)[1]
            if not math.isnan(value) and (window.cursor is not None or not history.ending(curve.column)):
                parts.append(f"{names[curve.column]} {axes.number(value)}")
    line = ""
    for part in parts:
        if len(line) + len(part) + 3 > width:
            break
        line = f"{line} · {part}" if line else part
    return line


def heading(spec: PlotSpec) -> str:
    """The plot's title with its unit."""
    return spec.title + (f" [{spec.unit}]" if spec.unit else "") + (" · log" if spec.log else "")


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


def _trace(history: History, name: str, window: Window, bins: int, log: bool) -> Envelope:
    """What to paint of a column, before joining: a line through the rows where they are few, else their extremes."""
    nothing = Envelope(np.full(bins, np.nan), np.full(bins, np.nan))
    if not history.has(name) or not len(history) or not window.stop > window.start:
        return nothing
    rows = history.rows_between(window.start, window.stop)
    if rows.stop - rows.start > 2 * bins:
        lo, hi = history.envelope(name, window.start, window.stop, bins)
        if log:
            with np.errstate(divide="ignore", invalid="ignore"):
                hi = np.log10(np.where(hi > 0, hi, np.nan))
                lo = np.where(lo > 0, np.log10(lo), hi)
        return Envelope(lo, hi)
    around = slice(max(rows.start - 64, 0), rows.stop + 64)  # lines come in from outside, and sparse rows show their stride
    values = history.values(name, around.start, around.stop)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log10(np.where(values > 0, values, np.nan)) if log else values
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return nothing
    gaps = np.diff(known)
    joined = (gaps == 1) | (gaps <= 1.5 * beside(gaps))
    x = (history.positions(around.start + known) - window.start) / (window.stop - window.start) * bins
    return Envelope(*polyline(x, values[known], joined, bins))


def _threshold_label_width(history: History) -> int:
    """Cells right of the plot for the name and value of 2/η."""
    if not history.has("learning_rate") or not history.last("learning_rate") > 0:
        return 0
    return max(3, len(axes.number(2 / history.last("learning_rate"), 3)))


def _threshold(history: History, window: Window, bins: int, log: bool) -> Envelope | None:
    """2/η in each column of pixels; where no row has come yet, that of the last row before."""
    if not history.has("learning_rate") or not history.last("learning_rate") > 0:
        return None
    stop = max(window.stop, window.start + 1e-9)
    rates = history.envelope("learning_rate", window.start, stop, 1)
    if rates.lo[0] == rates.hi[0]:  # one rate throughout, as almost always
        level = np.full(bins, np.log10(2 / rates.lo[0]) if log else 2 / rates.lo[0])
        return Envelope(level, level)
    rates = history.envelope("learning_rate", window.start, stop, bins)
    rate = (rates.lo + rates.hi) / 2
    known = np.flatnonzero(~np.isnan(rate))
    held = rate[known[np.clip(np.searchsorted(known, np.arange(bins), "right") - 1, 0, None)]] if len(known) else np.full(
        bins, history.last("learning_rate"))
    level = np.log10(2 / held) if log else 2 / held
    return Envelope(level, level)


def _extent(spec: PlotSpec, traces: list[Envelope], threshold: Envelope | None) -> tuple[float, float] | None:
    """The range the axis must hold; None where there is nothing at all."""
    minor = [curve.role in COMPANIONS or ".lambda" in curve.column for curve in spec.curves]
    leading = [trace for trace, is_minor in zip(traces, minor, strict=True) if not is_minor]
    companions = [trace for trace, is_minor in zip(traces, minor, strict=True) if is_minor]
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
