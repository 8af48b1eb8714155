"""The valley cut across, with the ball of the newest step in it: live, and in a replay on its way from wall to wall."""

import math

import numpy as np
from textual.strip import Strip

from engine.record.threshold import THRESHOLD, read_threshold
from eos_tui.draw import valley
from eos_tui.draw.raster import Canvas
from eos_tui.draw.valley import Section
from eos_tui.model.history import History
from eos_tui.widgets.picture import Picture

MEMORY = 240
"""Rows whose largest |x| and |y| the picture is made for."""
BEFORE = 8
"""Steps before the newest whose places are shown."""
REACHES, SPREADS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0), (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Sizes of the picture: it changes in strides, for each change moves every cell."""


@np.errstate(all="ignore")  # rows of unknown origin may hold anything
def section(history: History, passed: float = 0.0) -> Section | None:
    """The valley at the newest row shown, and where the ball is when this share of the step to the next row has `passed`; None before the
    sharpness is known.
    """
    row = len(history) - 1
    if row < 0:
        return None
    edge, name = read_threshold(lambda column: history.value(column, row), history.has), history.symbols.get(THRESHOLD, "2/η")
    if not (history.has("gd.x") and history.has("constrained.delta") and math.isfinite(history.value("gd.x", row))):
        sharpness = history.last("gd.sharpness" if history.has("gd.sharpness") else "gd.midpoint_sharpness")
        if math.isnan(sharpness) and history.has("gd.midpoint_sharpness"):
            sharpness = history.last("gd.midpoint_sharpness")
        if history.has("preconditioned.sharpness"):  # the edge is one of what steps feel
            sharpness = history.last("preconditioned.sharpness")
        return Section(sharpness / edge, 0.0, 0.0, (), 3.0, 0.3, name) if math.isfinite(sharpness / edge) else None
    first = max(row + 1 - MEMORY, 0)
    x = history.values("gd.x", first, row + 1) / history.values("constrained.delta", first, row + 1)
    y = history.values("gd.y", first, row + 1) / edge
    x, y = (np.where(np.isfinite(each), each, np.nan) for each in (x, y))
    now, swing = float(x[-1]), abs(float(x[-1]))
    then = float(np.float64(history.value("gd.x", row + 1)) / history.value("constrained.delta", row + 1))
    if passed > 0 and math.isfinite(then):
        now, swing = now + passed * (then - now), swing + passed * (abs(then) - swing)
    before = tuple(each for each in x[-BEFORE - 1 : None if passed > 0 else -1].tolist() if math.isfinite(each))
    return Section(1 + float(y[-1]), now, swing, before, _stride(x, REACHES), _stride(y, SPREADS), name)


def _stride(values: np.ndarray, sizes: tuple[float, ...]) -> float:
    """The size that holds the largest of these values."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return next((size for size in sizes if size >= largest), sizes[-1])


class CrossSection(Picture[Section]):
    """The valley cut across, or the words for why there is none."""

    def drawn(self, section: Section, width: int, height: int, theme: str) -> list[Strip]:
        canvas = Canvas(max(width, 0), max(height, 0), self.ascii)
        valley.paint(canvas, section._replace(edge="2/eta") if self.ascii else section, 0, 0, height, width, theme)
        return canvas.strips()
