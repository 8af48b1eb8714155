"""Pictures of the screen and of single plots: SVG that needs no network, ANSI to `cat`, and plain text."""

import io
import re
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text
from textual.app import App

from engine.base.atomic import replace_with
from eos_tui.draw.octants import BRAILLE
from eos_tui.draw.octants import DOTS as OF_OCTANTS
from eos_tui.draw.theme import picture_theme
from eos_tui.terminal.picture import DOTS

FONTS = '"DejaVu Sans Mono", "Fira Code", Menlo, Consolas, monospace'
"""The first has every sign that eos draws; braille is drawn as dots, and cells keep their width in any."""


class Pictures(NamedTuple):
    """One screen, three ways."""

    svg: str
    ansi: str
    txt: str

    def save(self, stem: Path) -> list[Path]:
        """Write `stem`.svg, .ansi and .txt. Raises OSError."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        files = []
        for suffix, text in self._asdict().items():
            file = stem.parent / f"{stem.name}.{suffix}"
            replace_with(file, text.encode())
            files.append(file)
        return files


def screen(app: App, title: str) -> Pictures:
    """The screen as it stands, with what lies behind a dialog."""
    width, height = app.size
    console = _recorder(width, height)
    console.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens))
    return _pictures(console, title, app.theme)


def printed(text: str, width: int, title: str, theme_name: str) -> str:
    """Printed text with ANSI codes, as an SVG on the ground of a theme."""
    console = _recorder(width, text.count("\n") + 1)
    console.print(Text.from_ansi(text), no_wrap=True, overflow="crop", crop=False)
    return _pictures(console, title, theme_name).svg


def _recorder(width: int, height: int) -> Console:
    return Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
                   legacy_windows=False, safe_box=False)


def _pictures(console: Console, title: str, theme_name: str) -> Pictures:
    ansi = re.sub(r"\x1b\[\d+;\d+H", "", console.export_text(styles=True, clear=False))  # lines alone, wherever they are shown
    plain = "\n".join(line.rstrip() for line in console.export_text(clear=False).splitlines())
    svg = console.export_svg(title=title, theme=picture_theme(theme_name)).translate(OF_OCTANTS)  # no font has octants yet
    return Pictures(with_dots(without_network(svg)), ansi, f"{plain}\n")


def without_network(svg: str) -> str:
    """Rich's SVG with fonts of this machine: its own asks a server for one."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family:\s*(?:Fira Code|arial)[^;]*;", f"font-family: {FONTS};", svg)


TEXT = re.compile(r'<text class="([\w-]+)" x="([\d.]+)" y="([\d.]+)" textLength="[\d.]+"( clip-path="[^"]*")>([^<]*)</text>')
"""A stretch of one style in rich's SVG: its class, place and letters."""
CELL, LINE, BASE, DOT = 12.2, 24.4, 18.5, 2.4
"""Of rich's SVG: width and height of a cell, how far its letters stand below its upper edge, and the side of a dot."""


def with_dots(svg: str) -> str:
    """The SVG with braille as the dots that it stands for: not every font has the signs, and few have them in the width of a cell."""
    return TEXT.sub(_dotted, svg)


def _dotted(match: re.Match[str]) -> str:
    style, left, base, clip, escaped = match.groups()
    letters = unescape(escaped)
    if not any(BRAILLE <= ord(letter) < BRAILLE + 256 for letter in letters):
        return match[0]
    dots, rest = [], []
    for column, letter in enumerate(letters):
        bits = ord(letter) - BRAILLE
        rest.append(letter if not 0 <= bits < 256 else "\u00a0")
        for k, (x, y) in enumerate(DOTS if 0 <= bits < 256 else ()):
            if bits >> k & 1:
                across, down = (2 * x + 1) * CELL / 4 - DOT / 2, (2 * y + 1) * LINE / 8 - DOT / 2
                dots.append(f"M{float(left) + column * CELL + across:.1f} {float(base) - BASE + down:.1f}h{DOT}v{DOT}h-{DOT}z")
    path = f'<path class="{style}"{clip} d="{"".join(dots)}"/>' if dots else ""
    if not "".join(rest).strip("\u00a0 \n"):
        return path
    length = f'textLength="{CELL * len(letters):g}"'
    return f'{path}<text class="{style}" x="{left}" y="{base}" {length}{clip}>{escape("".join(rest))}</text>'


def names(paths: Sequence[Path]) -> str:
    """Files that differ in their suffix alone, in words."""
    first, *rest = paths
    return f"{first} {'and ' if rest else ''}{', '.join(path.suffix for path in rest)}".rstrip()
