"""What stands around and upon the curves of a plot: axes, ticks, the legend, the cursor, badges and words."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rich.style import Style

from eos_tui.draw import axes
from eos_tui.draw.axes import Limits, Ticks
from eos_tui.draw.plot_spec import THRESHOLD, Curve, PlotSpec, Span, Window, edge_name, pens, symbols
from eos_tui.draw.raster import Canvas, spans
from eos_tui.draw.theme import FAMILIES, role_ground, role_style
from eos_tui.model import bursts
from eos_tui.model.envelopes import Envelope
from eos_tui.model.history import History

GUTTER = axes.LABEL + 1
"""Cells left of the plot: a tick's label and the axis."""
FROM_THE_START = ("gd.loss", "gd.gradient_norm", "gd.midpoint_sharpness", "gd.sharpness")
"""Columns that have values before the edge."""


class Box(NamedTuple):
    """The plot's own cells on the canvas, and what surrounds them."""

    top: int
    """The first row below the legend."""
    left: int
    width: int
    height: int
    axis: bool
    """Whether there is a row for the axis of steps."""
    steps: bool
    """Whether there is a row for the labels of that axis."""

    @classmethod
    def within(cls, width: int, height: int, legend: int, right: int) -> "Box":
        steps, axis = height >= 5, height >= 10
        return cls(legend, GUTTER, width - GUTTER - right, height - legend - steps - axis, axis, steps)

    def row(self, value: float, limits: Limits) -> int:
        """The canvas row of a value."""
        dot = math.floor((value - limits.lo) / limits.span * 4 * self.height)
        return self.top + self.height - 1 - min(max(dot // 4, 0), self.height - 1)

    def column(self, at: float, span: Span) -> int:
        """The canvas column of a place on the axis."""
        share = (at - span.start) / max(span.stop - span.start, 1e-300)
        return self.left + min(max(math.floor(share * self.width), 0), self.width - 1)


def upright(canvas: Canvas, box: Box, limits: Limits, marks: Ticks, muted: Style) -> None:
    """The axis at the left, its ticks and labels."""
    plain = canvas.ascii
    canvas.rule(box.left - 1, box.top, box.height, "|" if plain else "│", muted)
    for value, label in zip(marks.values, marks.labels, strict=True):
        canvas.text(box.row(value, limits), 0, label.rjust(axes.LABEL)[: axes.LABEL] + ("+" if plain else "┤"), muted)
    if marks.exponent and box.top:
        canvas.text(0, 0, axes.superscript(marks.exponent, plain).rjust(axes.LABEL), muted)


def foot(canvas: Canvas, box: Box, span: Span, muted: Style) -> None:
    """The axis below, its ticks and labels."""
    if not box.steps:
        return
    plain, row = canvas.ascii, box.top + box.height + box.axis
    marks = _step_marks(box, span)
    canvas.text(row, 0, (span.axis.label + (axes.superscript(marks.exponent, plain) if marks.exponent else "")).rjust(axes.LABEL), muted)
    shown = _labelled(marks, box, span, canvas.width)
    for at, label, _ in shown:
        canvas.text(row, at, label, muted)
    if box.axis:
        canvas.text(row - 1, box.left - 1, "+" if plain else "└", muted)
        canvas.line(row - 1, box.left, box.width, "-" if plain else "─", [column for *_, column in shown], "+" if plain else "┬", muted)


def _step_marks(box: Box, span: Span) -> Ticks:
    """The ticks of the axis below, counted from its origin."""
    start, stop, count = span.start - span.axis.origin, span.stop - span.axis.origin, max(2, box.width // 10)
    return axes.step_ticks(start, stop, count) if span.axis.along == "step" else axes.ticks(Limits(start, stop), count)


def _labelled(marks: Ticks, box: Box, span: Span, width: int) -> list[tuple[int, str, int]]:
    """The labels that fit beside each other: the cell each begins at, itself, and the cell of its tick."""
    labels, free = list[tuple[int, str, int]](), box.left
    for value, label in zip(marks.values, marks.labels, strict=True):
        column = box.column(value + span.axis.origin, span)
        at = min(max(column - (len(label) - 1) // 2, box.left), width - len(label))
        if at >= free:
            labels.append((at, label, column))
            free = at + len(label) + 1
    return labels


def threshold_line(canvas: Canvas, box: Box, threshold: Envelope, limits: Limits, style: Style, log: bool, name: str) -> None:
    """The threshold over the curves, every other cell, with its name and value at the right."""
    level = (threshold.lo - limits.lo) * (4 * box.height / limits.span)
    dots = spans(level, level, 4 * box.height)
    dots &= np.arange(2 * box.width) // 2 % (THRESHOLD.on + THRESHOLD.off) < THRESHOLD.on
    canvas.dots(dots, box.top, box.left, style, THRESHOLD.mark, merge=True)
    if box.left + box.width >= canvas.width:
        return
    now = float(threshold.lo[-1])
    row = box.row(now, limits)
    beneath = row + 1 if row + 1 < box.top + box.height else row - 1
    canvas.text(row, box.left + box.width, name if len(name) <= canvas.width - box.left - box.width else "edge", style)
    canvas.text(beneath, box.left + box.width, axes.number(10**now if log else now, 3), style)


def cursor(canvas: Canvas, box: Box, span: Span, muted: Style) -> None:
    """A line through every row at the cursor, behind the curves, and its place on the axis."""
    assert span.cursor is not None
    if not span.start <= span.cursor <= span.stop:
        return
    column = box.column(span.cursor, span)
    style = muted + Style(bold=True)
    canvas.rule(column, box.top, box.height, "|" if canvas.ascii else "│", style, under=True)
    if box.steps:
        value = span.cursor - span.axis.origin
        label = f"{value:.0f}" if span.axis.along == "step" else axes.number(value, 5)
        at, row = min(max(column - len(label) // 2, box.left), canvas.width - len(label)), box.top + box.height + box.axis
        for begins, hidden, _ in _labelled(_step_marks(box, span), box, span, canvas.width):
            if begins <= at + len(label) and at <= begins + len(hidden):  # what is left of it would be another number
                canvas.text(row, begins, " " * len(hidden), muted)
        canvas.text(row, at, label, style + Style(reverse=True))


def mark(canvas: Canvas, box: Box, span: Span, at: float, name: str, muted: Style) -> None:
    """A line through every row at a place on the axis, behind the curves, its name beside its top."""
    if span.start <= at <= span.stop:
        column = box.column(at, span)
        canvas.rule(column, box.top, box.height, ":" if canvas.ascii else "┊", muted, under=True)
        canvas.text(box.top, column + 1, name, muted, under=True)


def veil(canvas: Canvas, box: Box, span: Span, history: History, column: str, style: Style) -> None:
    """Dots behind the curves in each cell of the axis where the column is 0 in any row, dense where it is so in all of them."""
    if not history.has(column) or not len(history) or not span.stop > span.start:
        return
    extremes = history.envelope(column, span.start, span.stop, box.width, span.axis.along)
    some, dense = ASCII_VEIL if canvas.ascii else VEIL
    for at in np.flatnonzero(extremes.lo == 0).tolist():
        canvas.rule(box.left + at, box.top, box.height, dense if extremes.hi[at] == 0 else some, style, under=True)


VEIL, ASCII_VEIL = ("·", "░"), (".", ":")
"""The sign of a cell where some rows are veiled, and of one where all are."""
CROWDED = 0.6
"""Changes of stage a cell from which the line of stages tells of the longer ones alone."""
STAGE_ROLES = ("muted", "gd", "warn", "threshold", "good")
"""Of no stage, and of stages 1 to 4."""
STAGE_SIGNS, ASCII_STAGE_SIGNS = " ╱<╲>", " /<\\>"
"""The sharpness climbs, the oscillation opens, the sharpness falls, the oscillation closes."""
STAGE_WORDS = ("", "sharpening", "blowup", "self-stabilization", "return")
BAND = 0.09
"""Share of its colour in the band of a stage."""
Stretch = tuple[int, int, int]
"""The cells of an axis from where to where a stage lasts, and the stage."""


def stretches_of_stages(box: Box, span: Span, history: History) -> tuple[Stretch, ...]:
    """Where each stage of Section 4.1 lasts on the axis."""
    if not history.has("stage") or not len(history):
        return ()
    part = span.start, span.stop, box.width, span.axis.along
    return history.once(("stages", *part), lambda: _stretches(history, *part))


def stages(canvas: Canvas, box: Box, stretches: Sequence[Stretch], theme: str, tinted: bool) -> None:
    """The stages as bands behind the plot, and along the axis, where it has a row, by sign, by name where it fits, and colour."""
    signs, least = ASCII_STAGE_SIGNS if canvas.ascii else STAGE_SIGNS, 2 if len(stretches) > CROWDED * box.width else 1
    for start, stop, stage in stretches:
        name = f" {STAGE_WORDS[stage]} " if len(STAGE_WORDS[stage]) + 4 <= stop - start else ""
        line = (signs[stage] + name).ljust(stop - start, "-" if canvas.ascii else "━")
        if box.axis and stop - start >= least:
            canvas.text(box.top + box.height, box.left + start, line, role_style(theme, STAGE_ROLES[stage]))
        if tinted and (band := role_ground(theme, STAGE_ROLES[stage], BAND)) is not None:
            canvas.ground(box.top, box.left + start, box.height, stop - start, band)


def _stretches(history: History, begin: float, end: float, width: int, along: str) -> tuple[Stretch, ...]:
    cells, now, beyond = list[int](), 0, len(history)
    edges = history.edges(begin, end, width, along).tolist()
    for value, rest in zip(history.lasts("stage", begin, end, width, along).tolist(), edges[1:], strict=True):
        if value != -math.inf:
            now, beyond = int(value) if value in (1, 2, 3, 4) else 0, edges[-1]
        cells.append(now if rest < beyond or value != -math.inf else 0)  # between two rows a stage lasts
    begins = [k for k, stage in enumerate(cells) if stage != (cells[k - 1] if k else 0)]
    return tuple((start, stop, cells[start]) for start, stop in pairwise([*begins, width]) if cells[start])


class LegendEntry(NamedTuple):
    """One curve in the legend."""

    sample: str
    name: str
    role: str


def legend_entries(spec: PlotSpec, history: History, drawn: Sequence[bool], width: int, ascii: bool) -> list[LegendEntry]:
    """Sample and name of each curve that is drawn, and of the threshold: the curves' own words, or where those do not fit their symbols."""
    seen = {curve.column for curve, is_drawn in zip(spec.curves, drawn, strict=True) if is_drawn}
    kept = [(curve, pen) for curve, pen in zip(spec.curves, pens(spec.curves), strict=True)
            if curve.column in seen and curve.joins not in seen]
    entries = [LegendEntry(pen.mark * 2 if ascii else pen.sample, curve.label, curve.role) for curve, pen in kept]
    if spec.threshold or spec.ratio:
        entries.insert(1, LegendEntry(THRESHOLD.mark * 2 if ascii else THRESHOLD.sample, edge_name(spec, history), "threshold"))
    if sum(len(entry.name) + 5 for entry in entries) - 2 > width:
        names = symbols(history, [curve for curve, _ in kept])
        short = {curve.label: names[curve.column] for curve, _ in kept}
        entries = [entry._replace(name=short.get(entry.name, entry.name)) for entry in entries]
    return entries


class LegendPlace(NamedTuple):
    """Where an entry of the legend stands."""

    row: int
    column: int
    entry: LegendEntry | None
    """None for the ellipsis that stands for those left out."""


def legend_places(entries: Sequence[LegendEntry], width: int, rows: int) -> list[LegendPlace]:
    """The entries one after the other in so many rows; those too long for the room left are left out, and an ellipsis says so."""
    placed, row, column, left_out = list[LegendPlace](), 0, 0, False
    for k, entry in enumerate(entries):
        size = len(entry.name) + 3
        if column and column + size > width and row + 1 < rows:
            row, column = row + 1, 0
        ellipsis = 2 if row + 1 == rows and (left_out or k + 1 < len(entries)) else 0
        if column + size > width - ellipsis:
            left_out = True
            continue
        placed.append(LegendPlace(row, column, entry))
        column += size + 2
    return [*placed, LegendPlace(row, min(column, width - 1), None)] if left_out else placed


def most_rows(height: int) -> int:
    """Rows that a legend may take of a plot of so many."""
    return 3 if height >= 14 else 2 if height >= 10 else int(height >= 4)


def legend_rows(entries: Sequence[LegendEntry], width: int) -> int:
    """Rows that a legend takes in so many cells."""
    return max((place.row for place in legend_places(entries, width, len(entries))), default=0) + 1


def legend(canvas: Canvas, box: Box, entries: Sequence[LegendEntry], theme: str) -> None:
    """The legend, on as many rows as it was given."""
    muted = role_style(theme, "muted")
    for row, column, entry in legend_places(entries, canvas.width - box.left, max(box.top, 1)):
        if entry is None:
            canvas.text(row, box.left + column, "." if canvas.ascii else "…", muted)
        else:
            canvas.text(row, box.left + column, entry.sample, role_style(theme, entry.role))
            canvas.text(row, box.left + column + 3, entry.name, muted)


def badges(
    canvas: Canvas, box: Box, spec: PlotSpec, history: History, window: Window, traces: Sequence[Envelope],
    ranges: Sequence[tuple[float, float]], limits: Limits, theme: str, avoided: int | None = None,
) -> None:
    """Badges for what the picture alone would hide: curves that ended, left the scale, with their value and an arrow, or are not positive
    on a log axis; of each the trace and its extremes are given. No badge stands in the row `avoided`.
    """
    curves_said: dict[tuple[str, str], list[Curve]] = {}
    """Curves by their badge, in words and in fewer words."""
    up, down = ("^", "v") if canvas.ascii else ("↑", "↓")
    for curve, trace, (least, most) in zip(spec.curves, traces, ranges, strict=True):
        if not history.has(curve.column):
            continue
        said = list[tuple[str, str]]()
        ending = history.ending(curve.column)
        if ending and ending.step <= window.stop and all(
            history.ending(other.column) for other in spec.curves if other.role == curve.role and history.has(other.column)
        ):
            what, brief = ("non-finite", "non-finite from") if ending.infinite else ("no value", "ended at")
            said.append((f"{what} from step {ending.step:.0f}", f"{brief} {ending.step:.0f}"))
        above = not ending and most > limits.hi and trace.lo[~np.isnan(trace.lo)][-1] > limits.hi
        below = not ending and curve.role in FAMILIES and least < limits.lo and (  # λ2 mostly is
            trace.hi[~np.isnan(trace.hi)][-1] < limits.lo)
        if above or below:
            level = history.value(curve.column, history.lately(curve.column, history.row_near(window.stop)))
            said.append((f"{axes.number(level, 3)} {up if above else down}",) * 2)
        if spec.log and history.last(curve.column) <= 0:
            said.append(("not positive: no log",) * 2)
        for each in said:
            curves_said.setdefault(each, []).append(curve)
    means = window.stop >= history.last_step and any(curve.column.startswith(bursts.MEASURED) for curve in spec.curves)
    waiting = bursts.words(history) if means else ""
    if not curves_said and not waiting:
        return
    short = symbols(history, spec.curves)
    rows = [row for row in range(box.top, box.top + box.height) if row != avoided][: max(box.height // 3, 1)]
    if waiting and rows and len(waiting) + 2 <= box.width:
        canvas.text(rows.pop(0), box.left + box.width - len(waiting) - 2, f" {waiting} ", role_style(theme, "muted"))
    for row, ((what, brief), curves) in zip(rows, curves_said.items(), strict=False):
        names = ", ".join(curve.label for curve in curves), ", ".join(short[curve.column] for curve in curves)
        mid = "" if what[-1] in (up, down) else ":"
        choices = (f" {names[0]}{mid} {what} ", f" {names[1]}{mid} {what} ", f" {names[1]}{mid} {brief} ", f"{names[1]}{mid} {brief}")
        shown = next((text for text in choices if len(text) <= box.width), what)[: box.width]
        at = box.left + box.width - len(shown)
        canvas.text(row, at, shown, role_style(theme, "warn"))
        if named := next((name for name in names if shown.lstrip().startswith(name)), ""):
            canvas.text(row, at, shown[: shown.index(named) + len(named)], role_style(theme, curves[0].role))


def why_empty(spec: PlotSpec, history: History) -> str:
    """Why a plot has no curve, in a few words."""
    columns = [curve.column for curve in spec.curves]
    if not any(history.has(column) for column in columns):
        return "this run does not record it"
    if any(history.has(column) and not math.isnan(history.last(column)) for column in columns):
        return "nothing in view"
    if not len(history):
        return "no data: it ended before its first step" if history.over else "no data yet: waiting for the first step"
    if any(column in FROM_THE_START for column in columns):
        return "no data" if history.over else "no data yet"
    return nothing_before_the_edge(history)


def nothing_before_the_edge(history: History) -> str:
    """Why there is nothing of what is recorded from the edge on."""
    follows = history.has("constrained.alpha")
    at_edge = follows and not math.isnan(history.last("constrained.alpha"))
    if history.over:
        return "no data" if at_edge or not follows else "no data: it ended before the edge"
    return "no data yet" if at_edge else "no data yet: appears once at the edge"


def centred(canvas: Canvas, box: Box, text: str, style: Style) -> None:
    """Words in the middle of the plot."""
    lines = textwrap.wrap(text, max(box.width - 2, 1))[: box.height]
    for row, line in enumerate(lines, box.top + (box.height - len(lines)) // 2):
        canvas.text(row, box.left + max((box.width - len(line)) // 2, 0), line, style)
