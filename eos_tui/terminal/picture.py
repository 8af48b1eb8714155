"""A printed frame as PNG, cell by cell: letters and lines in DejaVu Sans Mono, braille and blocks as the shapes they stand for."""

import io
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from engine.base.errors import UserError
from eos_tui.draw.octants import BRAILLE, SHAPES

FONTS, POINTS, MARGIN = ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"), 20, 12
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the dot of each bit."""
_QUADRANTS = {"▘": "1", "▝": "2", "▖": "4", "▗": "8", "▀": "12", "▄": "48", "▌": "14", "▐": "28", "▚": "18", "▞": "24", "▛": "124",
              "▜": "128", "▙": "148", "▟": "248", "█": "1248"}
_CORNERS = {"1": (0.0, 0.0), "2": (0.5, 0.0), "4": (0.0, 0.5), "8": (0.5, 0.5)}
BLOCKS = {
    **{sign: [(0.0, 1 - k / 8, 1.0, k / 8)] for k, sign in enumerate("▁▂▃▄▅▆▇█", start=1)},
    **{sign: [(0.0, 0.0, k / 8, 1.0)] for k, sign in zip(range(7, 0, -1), "▉▊▋▌▍▎▏", strict=True)},
    **SHAPES,
    **{sign: [(*_CORNERS[corner], 0.5, 0.5) for corner in corners] for sign, corners in _QUADRANTS.items()},
}
"""Left, top, width and height of the rectangles that a block is made of, as shares of its cell."""


def png(text: str, width: int, theme: TerminalTheme) -> bytes:
    """Printed text with ANSI codes, `width` cells wide, on the ground of a theme. Raises UserError where there is no font."""
    from PIL import Image, ImageDraw, ImageFont

    plain, bold = (ImageFont.truetype(_file(name), POINTS) for name in FONTS)
    across, down = round(plain.getlength("M")), sum(plain.getmetrics())
    console, lines = Console(color_system="truecolor", force_terminal=True), [Text.from_ansi(line) for line in text.split("\n")]
    size = across * width + 2 * MARGIN, down * len(lines) + 2 * MARGIN
    picture = Image.new("RGB", size, tuple(theme.background_color))
    pen = ImageDraw.Draw(picture)
    cells = [
        (MARGIN + across * column, MARGIN + down * row, sign, line.get_style_at_offset(console, column))
        for row, line in enumerate(lines) for column, sign in enumerate(line.plain[:width])
    ]  # fmt: skip
    for left, top, _, style in cells:  # all of it first: a letter may reach into the next cell
        _, ground = _colors(style, theme)
        if ground != tuple(theme.background_color):
            pen.rectangle((left, top, left + across - 1, top + down - 1), ground)
    for left, top, sign, style in cells:
        (color, _), bits = _colors(style, theme), ord(sign) - BRAILLE
        if style.underline:
            pen.line((left, top + down - 3, left + across - 1, top + down - 3), color, 1)
        if 0 <= bits < 256:
            for k, (x, y) in enumerate(DOTS):
                if bits >> k & 1:
                    pen.circle((left + across * (2 * x + 1) / 4, top + down * (2 * y + 1) / 8), across / 6, color)
        elif sign in BLOCKS:  # a font leaves seams between them
            for share, above, wide, high in BLOCKS[sign]:
                corner = left + round(across * share), top + round(down * above)
                pen.rectangle((*corner, left + round(across * (share + wide)) - 1, top + round(down * (above + high)) - 1), color)
        else:
            pen.text((left, top), sign, color, bold if style.bold else plain)
    body = io.BytesIO()
    picture.save(body, "PNG")
    return body.getvalue()


def _colors(style: Style, theme: TerminalTheme) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A style's colour, paler where it is dim, and the ground under it."""
    color = tuple(style.color.get_truecolor(theme) if style.color else theme.foreground_color)
    ground = tuple(style.bgcolor.get_truecolor(theme, foreground=False) if style.bgcolor else theme.background_color)
    if style.reverse:
        color, ground = ground, color
    return tuple((2 * one + other) // 3 for one, other in zip(color, ground, strict=True)) if style.dim else color, ground


def _file(font: str) -> str:
    """The file of a font, which comes with matplotlib; it is looked up and not imported."""
    package = find_spec("matplotlib")
    path = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / font if package and package.origin else Path(font)
    if not path.is_file():
        raise UserError("--png: needs a font that comes with matplotlib; pip install 'eos-tui[figures]'")
    return str(path)
