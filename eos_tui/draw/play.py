"""A frame of `eos play` as a pure function: a recording, a place in it and a size in cells make rows of styled text.

To be read from the last row of a lecture hall: thick strokes, few numbers, and one caption at a time.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from textual.strip import Strip

from eos_tui.draw import axes, blocks, valley
from eos_tui.draw.axes import Limits
from eos_tui.draw.raster import Canvas, connect, spans, strokes
from eos_tui.draw.theme import banner_style, role_style
from eos_tui.model.acts import WORDS, Act, Caption, Schedule
from eos_tui.model.recording import Recording

Picture = Literal["orbit", "valley"]
SMALLEST = (44, 14)
TALL, BOTH = 30, 36
"""Rows from which the caption has room around it, and from which the left column holds both pictures."""
TRAIL = 36
"""Rows of the comet's tail."""
REMEMBERED = 1000
"""Rows of the orbit that are kept in sight."""
FARTHEST = 6.0
"""The largest |x|/δ shown."""
ROLES: dict[Caption, str] = {
    "narrows": "gd", "crosses": "warn", 2: "warn", 3: "threshold", 4: "good", 1: "gd", "again": "good", "alone": "gd",
}
"""The colour of each caption."""
CORNERS = {2: ("swing grows",), 3: ("sharpness", "pushed down"), 4: ("swing", "dies out"), 1: ("sharpness", "creeps up")}
"""What happens in each quarter of the cycle, clockwise from the upper left."""
WORDS_ROWS = 2.5
"""Rows above and below the orbit for these words."""


NO_SWING = "none to be seen yet"


class Extent(NamedTuple):
    """What a whole recording spans: every frame is drawn to it, so that only what is new moves."""

    reach: float
    """The largest |x|/δ."""
    spread: float
    """The largest |y|·η/2; without a swing that of the sharpness over its edge in the second half, less 1."""


def extent(recording: Recording) -> Extent:
    """The extent of a recording."""
    over = recording.y if recording.swings else recording.ratio[recording.rows // 2 :] - 1
    x, y = (np.abs(values[np.isfinite(values)]) for values in (recording.x, over))
    return Extent(min(float(x.max(initial=1.5)), FARTHEST), min(max(float(y.max(initial=0.02)), 1e-6), 1.0))


class Shot(NamedTuple):
    """What is to be shown."""

    recording: Recording
    schedule: Schedule
    extent: Extent
    place: float
    """The row, with what has passed of the step to the next."""
    picture: Picture | None = None
    """The large picture; None shows the valley first, and the orbit once there is one."""

    @property
    def row(self) -> int:
        """The newest row."""
        return min(int(self.place), self.recording.rows - 1)


def frame(shot: Shot, width: int, height: int, *, ascii: bool, theme: str) -> list[Strip]:
    """The frame as `height` rows of exactly `width` cells."""
    canvas = Canvas(max(width, 0), max(height, 0), ascii)
    if width < SMALLEST[0] or height < SMALLEST[1]:
        text = f"too small: {SMALLEST[0]}×{SMALLEST[1]} is needed"
        canvas.text(height // 2, max((width - len(text)) // 2, 0), text, role_style(theme, "muted"))
        return canvas.strips()
    top = _head(canvas, shot, theme)
    act, room, picture = shot.schedule.act_at(shot.place), height - top, pictured(shot)
    left = round(width * (0.45 if width >= 72 else 0.42))
    panes: list[str] = ["sharpness", "swing" if shot.recording.swings else "loss"]
    if room >= BOTH - 5 and picture == "orbit":
        panes.append("valley")
    for k, name in enumerate(panes):
        first, last = (top + round(room * each / len(panes)) for each in (k, k + 1))
        _pane(canvas, shot, act, name, (first, 0, last - first, left), theme)
    _pane(canvas, shot, act, picture, (top, left, room, width - left), theme)
    return canvas.strips()


def pictured(shot: Shot) -> Picture:
    """The large picture: without a swing there is no orbit."""
    if not shot.recording.swings:
        return "valley"
    return shot.picture or ("orbit" if shot.schedule.act_at(shot.place).kind in ("burst", "rest") else "valley")


def _head(canvas: Canvas, shot: Shot, theme: str) -> int:
    """The name, the numbers and the caption; returns the first row below them."""
    recording, row = shot.recording, shot.row
    ratio, edge = recording.ratio[row], _edge(recording, canvas.ascii)
    canvas.text(0, 1, f"eos play {'-' if canvas.ascii else '·'} {recording.name}", role_style(theme, "muted"))
    said = f"step {recording.step[row]:,.0f}"
    said += f"   sharpness {ratio:.2f} {'x' if canvas.ascii else '×'} {edge}" if math.isfinite(ratio) else ""
    canvas.text(0, canvas.width - len(said) - 1, said, role_style(theme, "muted"))
    caption, rows = shot.schedule.caption(shot.place), 3 if canvas.height >= TALL else 1
    style = banner_style(theme, ROLES[caption])
    for each in range(rows):
        words = WORDS[caption] if each == rows // 2 else ""
        if len(words) > canvas.width - 2:
            words = words.partition(":")[0].partition(",")[0]
        canvas.text(1 + each, 0, words.center(canvas.width), style)
    return 1 + rows


def _edge(recording: Recording, ascii: bool) -> str:
    return ("2/eta" if ascii else "2/η") if recording.swings else "edge"


TITLES = {
    "sharpness": ("sharpness: how curved the valley is", "sharpness"),
    "swing": ("swing x: from wall to wall, at every step", "swing x"),
    "loss": ("training loss", "loss"),
    "valley": ("the valley, cut across", "valley"),
    "orbit": ("the cycle: swing → against sharpness ↑", "the cycle"),
}
"""The title of each pane, long and short."""


def _pane(canvas: Canvas, shot: Shot, act: Act, name: str, place: tuple[int, int, int, int], theme: str) -> None:
    """A pane with its border."""
    top, left, rows, columns = place
    plain, border = canvas.ascii, role_style(theme, "muted", 2)
    across, down = ("-", "|") if plain else ("─", "│")
    for row, first, last in ((top, "╭", "╮"), (top + rows - 1, "╰", "╯")):
        canvas.text(row, left, ("+" if plain else first) + across * (columns - 2) + ("+" if plain else last), border)
    for column in (left, left + columns - 1):
        canvas.rule(column, top + 1, rows - 2, down, border)
    title = next((title for title in TITLES[name] if len(title) + 6 <= columns), "")
    if plain:
        title = title.replace("→", "across").replace("↑", "up")
    if title:
        canvas.text(top, left + 2, f" {title} ", role_style(theme, "muted", bold=True))
    inner = top + 1, left + 1, rows - 2, columns - 2
    if name == "orbit":
        _orbit(canvas, shot, inner, theme)
    elif name == "valley":
        valley.paint(canvas, section(shot, _edge(shot.recording, plain)), *inner, theme)
    else:
        _curve(canvas, shot, act, name, inner, theme)


def section(shot: Shot, edge: str) -> valley.Section:
    """The valley at this place: in a slow act the ball is seen on its way to the other wall."""
    recording, row, passed = shot.recording, shot.row, shot.place - shot.row
    y, x = recording.y[row], recording.x[row]
    swing = abs(x)
    if row + 1 < recording.rows and math.isfinite(recording.x[row + 1]):
        x += passed * (recording.x[row + 1] - x)
        swing += passed * (abs(recording.x[row + 1]) - swing)
    ratio = 1 + y if math.isfinite(y) else recording.ratio[row]
    before = tuple(each for each in recording.x[max(row - 8, 0) : row + (passed > 0)].tolist() if math.isfinite(each))
    if not math.isfinite(x) and recording.swings:
        x = swing = 0.0  # it is there, and moves too little to be seen
    return valley.Section(float(ratio), float(x), float(swing), before, shot.extent.reach, shot.extent.spread, edge)


# -- curves against the step


def _curve(canvas: Canvas, shot: Shot, act: Act, name: str, place: tuple[int, int, int, int], theme: str) -> None:
    """A curve as far as it has come, over the steps of the act."""
    top, left, rows, columns = place
    recording, (first, last) = shot.recording, act.window
    gutter = 6 if canvas.ascii else 5
    columns -= gutter
    left += gutter
    if rows < 3 or columns < 8:
        return
    values = {"sharpness": recording.ratio, "swing": recording.x, "loss": recording.loss}[name]
    limits = _limits(name, shot, act)
    muted = role_style(theme, "muted")
    if name == "swing":
        canvas.text(_row(0.0, limits, top, rows), left, ("-" if canvas.ascii else "┈") * columns, role_style(theme, "muted", 2))
    shown = slice(first, min(shot.row, last) + 1)
    steps, span = recording.step[first : last + 1], max(recording.step[last] - recording.step[first], 1.0)
    bins = 2 * columns
    column = np.minimum((recording.step[shown] - steps[0]) / span * bins, bins - 1).astype(int)
    low, high = np.full(bins, np.nan), np.full(bins, np.nan)
    np.fmin.at(low, column, values[shown])
    np.fmax.at(high, column, values[shown])
    scale = 2 * rows / limits.span
    pixels = spans(*connect((low - limits.lo) * scale, (high - limits.lo) * scale), 2 * rows)
    if name == "swing" and not np.isfinite(values[shown]).any() and columns > len(NO_SWING):
        canvas.text(top + rows // 2 + 1, left + (columns - len(NO_SWING)) // 2, NO_SWING, muted)
    if name == "sharpness":
        at = _row(1.0, limits, top, rows)
        canvas.text(at, left, ("-" if canvas.ascii else "╌") * columns, role_style(theme, "threshold"))
    over = blocks.thick(pixels, 1)
    blocks.paint(canvas, over, top, left, role_style(theme, "gd"), "*")
    if name == "sharpness":
        edge, style = _edge(recording, canvas.ascii), role_style(theme, "threshold", bold=True)
        canvas.text(_row(1.0, limits, top, rows), left - gutter, edge.rjust(gutter - 1), style)
    marks = axes.ticks(limits, max(rows // 4, 2))
    for value, label in zip(marks.values, marks.labels, strict=True):
        row = _row(value, limits, top, rows)
        if not marks.exponent and (name != "sharpness" or row != _row(1.0, limits, top, rows)):
            canvas.text(row, left - gutter, label.rjust(gutter - 1)[: gutter - 1], muted)


def _limits(name: str, shot: Shot, act: Act) -> Limits:
    """The axis of a curve: for all the act, and symmetric for the swing."""
    if name == "swing":
        return Limits(-1.1 * shot.extent.reach, 1.1 * shot.extent.reach)
    first, last = act.window
    values = {"sharpness": shot.recording.ratio, "loss": shot.recording.loss}[name][first : last + 1]
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if name == "sharpness":
        low, high = min(low, 1 - 0.3 * (high - low)), max(high, 1.0)
        if act.kind in ("approach", "rest", "alone"):
            low = 0.0
        high = min(high, 2.0)
    spare = max(0.08 * (high - low), 1e-9)
    return Limits(low - (spare if low else 0), high + spare)


def _row(value: float, limits: Limits, top: int, rows: int) -> int:
    at = math.floor((value - limits.lo) / limits.span * rows)
    return top + rows - 1 - min(max(at, 0), rows - 1)


# -- the orbit


def _orbit(canvas: Canvas, shot: Shot, place: tuple[int, int, int, int], theme: str) -> None:
    """|x|/δ against the sharpness, with a comet on it."""
    top, left, rows, columns = place
    recording, row = shot.recording, shot.row
    right, height = 1.08 * shot.extent.reach, max(1.15, rows / max(rows - 2 * WORDS_ROWS, 1)) * shot.extent.spread
    _quarters(canvas, shot, place, right, theme)
    x, y = np.abs(recording.x[max(row - REMEMBERED, 0) : row + 1]), recording.y[max(row - REMEMBERED, 0) : row + 1]
    if not len(x) or not np.isfinite(x[-1]):
        words = "the cycle begins at the edge"
        canvas.text(top + rows // 2, left + max((columns - len(words)) // 2, 0), words, role_style(theme, "muted"))
        return
    passed = shot.place - row
    if passed > 0 and row + 1 < recording.rows and np.isfinite(recording.x[row + 1]):
        x = np.append(x, x[-1] + passed * (abs(recording.x[row + 1]) - x[-1]))
        y = np.append(y, y[-1] + passed * (recording.y[row + 1] - y[-1]))
    if len(x) > 1 and np.isfinite(x[-2]):  # the two sides of the valley differ a little: between them the orbit is smooth
        x, y = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2

    def pixels(part: slice, across: int, down: int) -> np.ndarray:
        return strokes(x[part] / right * across, (y[part] + height) / (2 * height) * down, across, down)

    canvas.dots(pixels(slice(None), 2 * columns, 4 * rows), top, left, role_style(theme, "gd", 1), ".")
    pen, under = max(min(rows // 14, 3), 1), None
    for age in (2, 1, 0):
        tail = slice(max(len(x) - 1 - TRAIL * (age + 1) // 3, 0), len(x) - TRAIL * age // 3 if age else None)
        drawn = blocks.thick(pixels(tail, 2 * columns, 2 * rows), max(pen - age, 1))
        blocks.paint(canvas, drawn, top, left, role_style(theme, "gd", age), ".o*"[2 - age], under)
        under = drawn if under is None else under | drawn
    across, down = np.arange(2 * columns) + 0.5, 2 * rows - np.arange(2 * rows) - 0.5
    size = pen + 1.5
    far = ((across - x[-1] / right * 2 * columns) / 2)[None, :] ** 2 + (down - (y[-1] + height) / (2 * height) * 2 * rows)[:, None] ** 2
    head = far <= size**2 / 2
    blocks.paint(canvas, head, top, left, role_style(theme, "warn", bold=True), "@", under)


def _quarters(canvas: Canvas, shot: Shot, place: tuple[int, int, int, int], right: float, theme: str) -> None:
    """The two lines that the orbit turns across, and what happens in each quarter."""
    top, left, rows, columns = place
    plain, dim = canvas.ascii, role_style(theme, "muted", 1)
    middle, upright = top + rows // 2, left + min(math.floor(1 / right * columns), columns - 1)
    canvas.text(middle, left, ("-" if plain else "╌") * columns, role_style(theme, "threshold", 1))
    canvas.rule(upright, top, rows, ":" if plain else "┊", dim)
    edge = _edge(shot.recording, plain)
    canvas.text(middle, left + columns - 1 - len(edge), edge, role_style(theme, "threshold"))
    canvas.text(top + rows - 1, upright + 1, "d" if plain else "δ", dim)
    canvas.text(middle, upright, "o" if plain else "◆", role_style(theme, "threshold", bold=True))
    now = shot.schedule.caption(shot.place)
    for stage, words in CORNERS.items():
        first = top if stage in (2, 3) else top + rows - len(words)
        style = role_style(theme, ROLES[stage], bold=True) if stage == now else dim
        for k, line in enumerate(words):
            at = left + 1 if stage in (1, 2) else left + columns - 1 - len(line)
            canvas.text(first + k, at, line, style)
