"""Thick strokes and filled ground, of block characters: what is to be seen from the last row of a lecture hall.

A cell holds 2×2 pixels, each twice as high as it is wide; a pen of two pixels across and one down is square.
"""

import numpy as np
from rich.style import Style

from eos_tui.draw.raster import Canvas

QUADRANTS = np.array([ord(sign) for sign in " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"], np.uint32)
"""By the sum of 1, 2, 4 and 8 for the upper left, upper right, lower left and lower right pixel."""
EIGHTHS = " ▁▂▃▄▅▆▇█"


def thick(pixels: np.ndarray, pen: int) -> np.ndarray:
    """Pixels (…, rows, columns) drawn with a pen of 2·pen by pen, its middle on each."""
    for axis, size in ((-2, pen), (-1, 2 * pen)):
        grown = pixels.copy()
        for by in range(1, size):
            shift = (by + 1) // 2 * (1 if by % 2 else -1)
            moved = np.roll(pixels, shift, axis)
            edge = [slice(None)] * pixels.ndim
            edge[axis] = slice(0, shift) if shift > 0 else slice(shift, None)
            moved[tuple(edge)] = False
            grown |= moved
        pixels = grown
    return pixels


def paint(canvas: Canvas, pixels: np.ndarray, top: int, left: int, style: Style, mark: str, under: np.ndarray | None = None) -> None:
    """Paint pixels (2 × rows, 2 × columns) with their top left cell at (top, left); `mark` stands for them in ASCII. What lies `under`
    them, drawn before, is kept in the cells that both share.
    """
    cells = _cells(pixels)
    signs = QUADRANTS[cells if under is None else cells | _cells(under)]
    for row, (taken, codes) in enumerate(zip(cells > 0, signs, strict=True)):
        for start, stop in _runs(taken):
            text = mark * (stop - start) if canvas.ascii else "".join(map(chr, codes[start:stop]))
            canvas.text(top + row, left + start, text, style)


def ground(canvas: Canvas, heights: np.ndarray, top: int, left: int, rows: int, style: Style, surface: Style) -> None:
    """Fill columns of cells up to `heights` (columns,), in cells from the bottom; the uppermost cell of each is its `surface`."""
    heights = np.clip(np.nan_to_num(heights), 0, rows)
    for column, height in enumerate(heights.tolist()):
        whole, part = divmod(round(8 * height), 8)
        if whole:
            canvas.rule(left + column, top + rows - whole, whole, ":" if canvas.ascii else "█", style)
        if part and whole < rows:
            canvas.text(top + rows - 1 - whole, left + column, "." if canvas.ascii else EIGHTHS[part], style)
        at = top + rows - max(whole + (part > 0), 1)
        if height < rows:
            sign = "#" if canvas.ascii else EIGHTHS[part] if part else "█"
            canvas.text(at, left + column, sign, surface)


def _cells(pixels: np.ndarray) -> np.ndarray:
    return pixels[0::2, 0::2] | pixels[0::2, 1::2] << 1 | pixels[1::2, 0::2] << 2 | pixels[1::2, 1::2] << 3


def _runs(taken: np.ndarray) -> list[tuple[int, int]]:
    """The stretches that are taken."""
    edges = np.flatnonzero(np.diff(taken.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True))
