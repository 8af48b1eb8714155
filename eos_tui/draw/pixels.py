"""A plot's own cells as pixels: the same curves in the same window and colours, as lines with soft edges.

Legend, ticks and badges stay letters: where a cell within the plot holds one, the picture is transparent.
"""

from collections.abc import Sequence

import numpy as np
from rich.color import Color
from rich.style import Style
from textual.strip import Strip

from engine import theory
from eos_tui.draw import decorations, traces
from eos_tui.draw.decorations import BAND, STAGE_ROLES, Box
from eos_tui.draw.line_plot import Painted, is_measured, other_layers, own_layers
from eos_tui.draw.octants import BRAILLE, SIGNS
from eos_tui.draw.orbits import REAL, TRAIL, Scene
from eos_tui.draw.phase_portrait import LEVELS, Frame, Scale, in_dots
from eos_tui.draw.picturing import CellSize, Pixels
from eos_tui.draw.plot_spec import THRESHOLD, Overlay, Pen, PlotSpec
from eos_tui.draw.raster import connect
from eos_tui.draw.theme import role_ground, role_style, surface
from eos_tui.model.history import History

THICK, THIN, HAIR = 0.15, 0.09, 0.05
"""Width of the line of what is measured, of what is predicted, and of axes, as shares of a cell's height."""
FINER = 3
"""Times as many pixels either way in which an orbit is drawn: their means make its soft edges."""
DRAWN = frozenset(" ┈│┊·░") | set(SIGNS.values()) | {chr(BRAILLE + k) for k in range(256)}
"""Signs of a plot in whose place pixels stand."""
POINTS = frozenset("◆●○+")
"""Those of a portrait."""


@np.errstate(all="ignore")  # rows of unknown origin may hold anything
def of_plot(
    spec: PlotSpec, history: History, painted: Painted, cell: CellSize, theme: str, overlays: Sequence[Overlay] = ()
) -> Pixels | None:
    """What was painted as a line plot, within its axes; None where it has none."""
    box, span, limits = painted.box, painted.span, painted.limits
    if limits is None or box.width < 2 or box.height < 1:
        return None
    width, height = box.width * cell.width, box.height * cell.height
    image, per_unit = _Image(width, height, theme), height / limits.span
    for start, stop, stage in decorations.stretches_of_stages(box, span, history):
        if (ground := role_ground(theme, STAGE_ROLES[stage], BAND)) is not None:
            image.rgb[:, start * cell.width : stop * cell.width] = _rgb(ground.bgcolor)
    muted, faint = role_style(theme, "muted"), role_style(theme, "muted", 1)
    if spec.zero and not spec.log and limits.lo < 0 < limits.hi:
        image.paint(_level(-limits.lo * per_unit, width, height, HAIR * cell.height) * _dashes(width, 2, 2), faint)
    if spec.veil and history.has(spec.veil):
        veiled = history.envelope(spec.veil, span.start, span.stop, width, span.axis.along).lo == 0
        image.paint(veiled[None] * _dotted(width, height, cell), role_style(theme, "muted", 2))
    upright = [at for at, _ in spec.marks] + ([] if span.cursor is None else [span.cursor])
    for at in upright:
        if span.start <= at <= span.stop:
            x = (at - span.start) / max(span.stop - span.start, 1e-300) * width
            image.paint(_level(x, height, width, HAIR * cell.height).T, muted)
    level = traces.at_one(width, spec.log) if spec.ratio else traces.threshold(history, span, width, spec.log) if spec.threshold else None
    if level is not None:
        y = (level.lo - limits.lo) * per_unit
        image.paint(_stroke(y, y, THIN * cell.height, height) * _pen(THRESHOLD, width, cell), role_style(theme, "threshold"))
    for layer in (*other_layers(spec, history, span, width, theme, overlays), *own_layers(spec, history, span, width, theme)):
        lo, hi = connect((layer.trace.lo - limits.lo) * per_unit, (layer.trace.hi - limits.lo) * per_unit)
        thick = (THICK if is_measured(layer.curve) else THIN) * cell.height
        image.paint(_stroke(lo, hi, thick, height, hollow=layer.curve.dashed) * _pen(layer.pen, width, cell), layer.style)
    return Pixels(box.top, box.left, image.over(painted.strips, box, cell, DRAWN))


def of_portrait(scene: Scene, scale: Scale, frame: Frame, strips: Sequence[Strip], cell: CellSize, theme: str) -> Pixels:
    """What was painted as a phase portrait, within its axes."""
    from PIL import Image, ImageDraw

    width, height = frame.columns * cell.width, frame.rows * cell.height
    fine = Image.new("RGB", (FINER * width, FINER * height), _rgb(surface(theme)))
    pen = ImageDraw.Draw(fine)

    def points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        across, up = in_dots(x, y, frame.x, frame.y, 1, 1)
        return np.stack([across / 2 * fine.width, (1 - up / 4) * fine.height], axis=1)

    def line(path: np.ndarray, style: Style, thick: float) -> None:
        broken = np.flatnonzero(~np.isfinite(path).all(axis=1))
        for part in np.split(path, broken):
            drawn = [tuple(point) for point in part[np.isfinite(part).all(axis=1)].clip(-1e5, 1e5).tolist()]
            if len(drawn) > 1:
                pen.line(drawn, _rgb(style.color), max(round(thick * cell.height * FINER), 1), "curve")

    def dot(point: tuple[float, float] | None, style: Style, filled: bool = True) -> None:
        if point is not None:
            (x, y), radius = points(np.array([point[0]]), np.array([point[1]]))[0], 0.22 * cell.height * FINER
            color = _rgb(style.color)
            pen.circle((x, y), radius, color if filled else _rgb(surface(theme)), color, max(round(HAIR * cell.height * FINER), 1))

    muted = role_style(theme, "muted", 1)
    for x, y in ((np.array([frame.x.lo, frame.x.hi]), np.zeros(2)), (np.ones(2), np.array([frame.y.lo, frame.y.hi]))):
        line(points(x, y), muted, HAIR)
    for g, age in (*((level, 2) for level in LEVELS), *([(scale.g, 1)] if scale.g > 0 else [])):
        line(points(*theory.level_set(g, scale.alpha, 1.0).T), role_style(theme, "muted", age), HAIR)
    orbits = [*reversed(scene.orbits), *scene.own]
    for orbit in orbits:
        path = points(orbit.x[-TRAIL - 1 :], orbit.y[-TRAIL - 1 :])
        third = TRAIL // 3
        for age, part in ((2, path[: -2 * third or None]), (1, path[-2 * third - 1 : -third]), (0, path[-third - 1 :])):
            line(part, role_style(theme, orbit.role, age), THICK if orbit.pen is REAL else THIN)
    dot((1.0, 0.0), role_style(theme, "threshold"))
    for orbit in orbits:
        dot(orbit.now, role_style(theme, orbit.role, bold=True), orbit.pen is REAL)
    if scene.start is not None:
        dot((scene.start.x, scene.start.y), role_style(theme, "good"))
    image = _Image(width, height, theme)
    image.rgb = np.asarray(fine.resize((width, height), Image.Resampling.BOX), np.float32)
    box = Box(frame.top, frame.left, frame.columns, frame.rows, False, False)
    return Pixels(frame.top, frame.left, image.over(strips, box, cell, DRAWN | POINTS))


class _Image:
    """Colours that are laid over one another."""

    def __init__(self, width: int, height: int, theme: str):
        self.rgb = np.empty((height, width, 3), np.float32)
        self.rgb[:] = _rgb(surface(theme))

    def paint(self, cover: np.ndarray, style: Style) -> None:
        """Lay a colour over so much of each pixel, (down, across)."""
        rows = np.flatnonzero(cover.any(axis=1))
        if len(rows):
            part, share = self.rgb[rows[0] : rows[-1] + 1], cover[rows[0] : rows[-1] + 1, :, None].astype(np.float32)
            part += share * (np.array(_rgb(style.color), np.float32) - part)

    def over(self, strips: Sequence[Strip], box: Box, cell: CellSize, drawn: frozenset[str]) -> np.ndarray:
        """The picture with its opacity, none in the cells that hold a letter."""
        rows = [strips[box.top + row].text[box.left : box.left + box.width].ljust(box.width) for row in range(box.height)]
        opaque = ~np.array([_lettered(row, drawn) for row in rows]).repeat(cell.height, axis=0).repeat(cell.width, axis=1)
        return np.concatenate([self.rgb.round(), 255 * opaque[..., None]], axis=2).astype(np.uint8)


def _lettered(signs: str, drawn: frozenset[str]) -> list[bool]:
    """Which cells hold a letter, or the blank between two words."""
    holds = [sign not in drawn for sign in signs]
    return [here or (signs[k] == " " and any(holds[max(k - 1, 0) : k]) and any(holds[k + 1 : k + 3])) for k, here in enumerate(holds)]


def _rgb(color: Color | None) -> tuple[int, int, int]:
    assert color is not None
    return tuple(color.get_truecolor())  # type: ignore[return-value]


def _covered(lo: np.ndarray, hi: np.ndarray, height: int) -> np.ndarray:
    """How much of each pixel (height, columns) lies between lo and hi, given in pixels from the bottom; NaN columns stay empty."""
    y = np.arange(height - 1.0, -1.0, -1.0)[:, None]
    return np.nan_to_num(np.clip(np.minimum(hi, y + 1) - np.maximum(lo, y), 0, 1))


def _stroke(lo: np.ndarray, hi: np.ndarray, thick: float, height: int, hollow: bool = False) -> np.ndarray:
    """How much a line of even width covers of each pixel, about a band or a line; of a `hollow` band its edge alone."""
    half, beside = thick / 2, int(thick / 2)
    cover = _covered(_spread(lo, beside, np.fmin) - half, _spread(hi, beside, np.fmax) + half, height)
    if hollow:
        cover -= np.minimum(_covered(_spread(lo, beside, np.fmax) + half, _spread(hi, beside, np.fmin) - half, height), cover)
    return cover


def _spread(values: np.ndarray, beside: int, fold: np.ufunc) -> np.ndarray:
    """The values folded with those of so many columns on either side."""
    wide = np.pad(values, beside, constant_values=np.nan)
    return fold.reduce([wide[k : k + len(values)] for k in range(2 * beside + 1)])


def _level(at: float, width: int, height: int, thick: float) -> np.ndarray:
    """A level line over the whole width."""
    line = np.full(width, at)
    return _covered(line - max(thick, 1) / 2, line + max(thick, 1) / 2, height)


def _dashes(width: int, on: int, off: int) -> np.ndarray:
    return np.arange(width) % (on + off) < on


def _pen(pen: Pen, width: int, cell: CellSize) -> np.ndarray:
    """The columns of pixels in which a pen draws, as it does in cells."""
    return _dashes(width, pen.on * cell.width, pen.off * cell.width)


def _dotted(width: int, height: int, cell: CellSize) -> np.ndarray:
    """A dot in the middle of each cell."""
    y, x = np.arange(height)[:, None] % cell.height, np.arange(width) % cell.width
    size = max(cell.height // 10, 1)
    return (abs(y - cell.height // 2) < size) & (abs(x - cell.width // 2) < size)
