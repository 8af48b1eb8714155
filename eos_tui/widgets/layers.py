"""Sharpness by layer: a bar for each parameter of the network, up to the top eigenvalue of its diagonal block, beside 2/η."""

import numpy as np
from textual.strip import Strip

from eos_tui.draw import axes
from eos_tui.draw.raster import Canvas
from eos_tui.draw.theme import role_style
from eos_tui.model.whole_spectrum import Layer, WholeSpectrum
from eos_tui.widgets.picture import Picture

NUMBERS = 16
"""Cells at the right: the eigenvalue, and its share of λ1."""
LEAST_NAME, LEAST_BAR = 8, 6
ALL = "all layers"
"""The name of the last bar, λ1."""


class LayerBars(Picture[WholeSpectrum]):
    """One reading, or the words for why there is none."""

    def drawn(self, spectrum: WholeSpectrum, width: int, height: int, theme: str) -> list[Strip]:
        canvas, muted = Canvas(max(width, 0), max(height, 0), self.ascii), role_style(theme, "muted")
        first = float(spectrum.eigenvalues[0]) if len(spectrum.eigenvalues) else np.nan
        sizes = sum(layer.size for layer in spectrum.layers)
        shown, left_out = fitting(spectrum.layers, max(height - 2, 1))  # a row for 2/η, and one for λ1
        rows = [*shown, Layer(ALL, sizes, first)]
        name = min(max(len(layer.name) for layer in rows), max(width // 3, LEAST_NAME))
        numbers = NUMBERS if width - name - NUMBERS - 3 >= LEAST_BAR else 0
        left, cells = name + 2, max(width - name - 3 - numbers, 1)
        most = max([spectrum.threshold, *(layer.sharpness for layer in rows if np.isfinite(layer.sharpness))])
        edge = left + min(round(spectrum.threshold / most * cells), cells - 1)
        label = f"2/η = {axes.number(spectrum.threshold, 4)}"
        canvas.text(0, max(min(edge - len(label) // 2, width - len(label)), 0), label, role_style(theme, "threshold"))
        canvas.text(0, 0, f"{left_out} more below"[: max(edge - len(label) // 2 - 1, 0)] if left_out else "", muted)
        full, half, mark = ("=", "-", "|") if self.ascii else ("━", "╸", "┃")
        for row, layer in enumerate(rows, 1):
            role = "constrained" if layer.name == ALL and row == len(rows) else "gd"
            canvas.text(row, 0, clipped(layer.name, name).rjust(name), muted if role == "gd" else role_style(theme, role))
            long = max(layer.sharpness, 0) / most * cells if np.isfinite(layer.sharpness) else 0
            bar = full * int(long) + (half if long - int(long) >= 0.5 else "")
            canvas.text(row, left, bar[:cells], role_style(theme, role))
            canvas.text(row, edge, mark, role_style(theme, "threshold"), under=len(bar) > edge - left)
            if numbers:
                share = f"{layer.sharpness / first:6.3f}" if first > 0 else ""
                canvas.text(row, width - numbers, f"{axes.number(layer.sharpness, 4):>9}", role_style(theme, role))
                canvas.text(row, width - 6, share, muted)
        return canvas.strips()


def fitting(layers: tuple[Layer, ...], rows: int) -> tuple[list[Layer], int]:
    """The sharpest of the layers that there is room for, in the order of θ, and how many are left out."""
    order = np.argsort([-layer.sharpness for layer in layers], kind="stable")[:rows]
    return [layers[k] for k in sorted(order)], len(layers) - len(order)


def clipped(name: str, width: int) -> str:
    """A name in so many cells: its end, which tells parameters of one layer apart."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
