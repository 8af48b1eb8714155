"""A printed frame as PNG, cell by cell: letters and lines in DejaVu Sans Mono, braille as the dots it stands for."""

import io
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from engine.base.errors import UserError
from eos_tui.draw.raster import BRAILLE

FONT, POINTS, MARGIN = "DejaVuSansMono.ttf", 20, 12
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the dot of each bit."""


def png(text: str, width: int, theme: TerminalTheme) -> bytes:
    """Printed text with ANSI codes, `width` cells wide, on the ground of a theme. Raises UserError where there is no font."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(_font(), POINTS)
    across, down = round(font.getlength("M")), sum(font.getmetrics())
    console, lines = Console(color_system="truecolor", force_terminal=True), [Text.from_ansi(line) for line in text.split("\n")]
    size = across * width + 2 * MARGIN, down * len(lines) + 2 * MARGIN
    picture = Image.new("RGB", size, tuple(theme.background_color))
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, sign in enumerate(line.plain[:width]):
            color, left, top = _color(line.get_style_at_offset(console, column), theme), MARGIN + across * column, MARGIN + down * row
            bits = ord(sign) - BRAILLE
            if not 0 <= bits < 256:
                pen.text((left, top), sign, color, font)
                continue
            for k, (x, y) in enumerate(DOTS):
                if bits >> k & 1:
                    pen.circle((left + across * (2 * x + 1) / 4, top + down * (2 * y + 1) / 8), across / 6, color)
    body = io.BytesIO()
    picture.save(body, "PNG")
    return body.getvalue()


def _color(style: Style, theme: TerminalTheme) -> tuple[int, ...]:
    """A style's colour on the ground of the picture, paler where it is dim."""
    color = tuple(style.color.get_truecolor(theme) if style.color else theme.foreground_color)
    if not style.dim:
        return color
    return tuple((2 * one + other) // 3 for one, other in zip(color, theme.background_color, strict=True))


def _font() -> str:
    """The file of the font, which comes with matplotlib; it is looked up and not imported."""
    package = find_spec("matplotlib")
    path = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / FONT if package and package.origin else Path(FONT)
    if not path.is_file():
        raise UserError("--png: needs a font that comes with matplotlib; pip install 'eos-tui[figures]'")
    return str(path)
