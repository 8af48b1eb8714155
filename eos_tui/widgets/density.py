"""The density of the Hessian's eigenvalues, filled, on a logarithmic scale, with the eigenvalues that are followed and 2/η."""

import math

import numpy as np
from textual.strip import Strip

from eos_tui.draw import axes
from eos_tui.draw.axes import Limits
from eos_tui.draw.decorations import GUTTER, Box, LegendEntry, foot, legend, legend_rows, most_rows, upright
from eos_tui.draw.plot_spec import Axis, Span
from eos_tui.draw.raster import Canvas, spans
from eos_tui.draw.theme import role_style
from eos_tui.model.whole_spectrum import WholeSpectrum
from eos_tui.widgets.picture import Picture

LEAST = 0.1
"""Of the height of a single eigenvalue: where the axis begins. What is lower there is the tail of a Gaussian, and no eigenvalue."""
ROOM = 0.03
"""Beyond 2/η, of the range of the axis, where no eigenvalue is larger."""


class DensityPlot(Picture[WholeSpectrum]):
    """One reading of the density, or the words for why there is none."""

    def drawn(self, spectrum: WholeSpectrum, width: int, height: int, theme: str) -> list[Strip]:
        canvas, muted = Canvas(max(width, 0), max(height, 0), self.ascii), role_style(theme, "muted")
        entries = [
            LegendEntry("#:" if self.ascii else "⣿⣤", "share of all eigenvalues per unit of λ", "gd"),
            LegendEntry("^" if self.ascii else "▲", "followed", "constrained"),
            LegendEntry("|" if self.ascii else "┃", f"2/η = {axes.number(spectrum.threshold, 4)}", "threshold"),
        ]
        legend_height = min(legend_rows(entries, width - GUTTER), most_rows(height))
        box = Box.within(canvas.width, canvas.height, legend_height, 0)
        if box.width < 4 or box.height < 2:
            return canvas.strips()
        x, y = limits(spectrum)
        span = Span(x.lo, x.hi, None, Axis("eigenvalue", 0.0, "λ"))
        upright(canvas, box, y, axes.log_ticks(y, min(max(box.height // 3, 3), 7)), muted)
        foot(canvas, box, span, muted)
        columns, rows = 2 * box.width, 4 * box.height
        top = heights(spectrum, x, columns)
        level = (top - y.lo) * rows / y.span
        level = np.where(level >= 0, level, np.nan)
        filled = spans(np.zeros(columns), level, rows)
        canvas.dots(filled, box.top, box.left, role_style(theme, "gd", 1), ":")
        canvas.dots(spans(np.maximum(level - 1, 0), level, rows), box.top, box.left, role_style(theme, "gd"), "#", merge=True)
        line = "|" if self.ascii else "┃"  # behind the density: at the edge it would hide the eigenvalue that is there
        canvas.rule(box.column(spectrum.threshold, span), box.top, box.height, line, role_style(theme, "threshold"), under=True)
        if box.height >= 4:
            for value in spectrum.eigenvalues[np.isfinite(spectrum.eigenvalues)]:
                if x.lo <= value <= x.hi:
                    sign = "^" if self.ascii else "▲"
                    canvas.text(box.top + box.height - 1, box.column(value, span), sign, role_style(theme, "constrained", bold=True))
        if box.top:
            legend(canvas, box, entries, theme)
        return canvas.strips()


def limits(spectrum: WholeSpectrum) -> tuple[Limits, Limits]:
    """The ends of both axes: λ, 2/η within it, and the logarithm of the density, from a tenth of a single eigenvalue up."""
    lo, hi = float(spectrum.grid[0]), max(float(spectrum.grid[-1]), spectrum.threshold)
    x = Limits(lo, hi + ROOM * (hi - lo))
    floor = math.log10(LEAST * spectrum.one)
    top = math.log10(max(float(spectrum.density.max()), 10 * LEAST * spectrum.one))
    return x, Limits(floor, top + 0.05 * (top - floor))


def heights(spectrum: WholeSpectrum, x: Limits, columns: int) -> np.ndarray:
    """The logarithm of the largest density in each column of dots (columns,); −∞ where there is none."""
    edges = x.lo + x.span * np.arange(columns + 1) / columns
    at_edges = np.interp(edges, spectrum.grid, spectrum.density, left=0, right=0)
    largest = np.maximum(at_edges[:-1], at_edges[1:])
    inside = np.clip(np.searchsorted(edges, spectrum.grid, "right") - 1, 0, columns - 1)
    np.maximum.at(largest, inside, spectrum.density)
    with np.errstate(divide="ignore"):
        return np.log10(largest)
