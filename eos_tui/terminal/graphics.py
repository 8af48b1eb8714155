"""Pictures over the cells of a terminal that has a protocol for them: kitty's, or sixel.

The cells below stay drawn: a terminal that takes no picture shows them, and so does ours where something lies over a plot.
"""

import base64
import os
import re
import select
import termios
import tty
import zlib
from collections.abc import Mapping
from fcntl import ioctl
from struct import unpack
from time import monotonic
from typing import Literal, NamedTuple

import numpy as np

from eos_tui.draw.picturing import CellSize

Protocol = Literal["kitty", "sixel"]
QUERY = "\x1b_Gi=4095,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[14t\x1b[c"
"""Whether it has kitty's protocol, the size of its cells and of all of them, and what it is: every terminal answers the last."""
ANSWERED = re.compile(rb"\x1b\[\?([\d;]*)c")
KITTY_OK, CELL, ALL = (re.compile(each) for each in (rb"\x1b_Gi=4095;OK\x1b\\", rb"\x1b\[6;(\d+);(\d+)t", rb"\x1b\[4;(\d+);(\d+)t"))
MOST_ROUNDED = 0.1
"""Share of a cell's size that is lost where it is reported in whole pixels, at most; more is another measure."""
SIXEL = b"4"
"""Its number among what a terminal says that it is."""
PATIENCE_SECONDS = 2.0
"""Wait for the answer of a terminal far away."""
PIECE = 4096
"""Letters of a picture in each of kitty's sequences, at most."""
COLOURS = 255
"""Of a sixel picture, which has 256 registers."""
FIRST = 0x0E05
"""The number of the first picture in kitty's protocol; others may have theirs."""


class Ability(NamedTuple):
    """What a terminal has said that it can draw."""

    protocols: frozenset[Protocol] = frozenset()
    cell: CellSize | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    """By how much its cells are wider and higher than they are reported to be, in whole pixels: in a browser 8.43 are told as 8."""


class Graphics(NamedTuple):
    """How pictures are sent."""

    protocol: Protocol
    cell: CellSize
    scale: tuple[float, float] = (1.0, 1.0)
    """By how much the terminal's cells are wider and higher."""


def ask(keyboard: int, screen: int, patience: float = PATIENCE_SECONDS) -> Ability:
    """Ask the terminal at these descriptors, before anything else reads its keys."""
    before = termios.tcgetattr(keyboard)
    answer, end = b"", monotonic() + patience
    try:
        tty.setraw(keyboard, termios.TCSANOW)
        os.write(screen, QUERY.encode())
        while not ANSWERED.search(answer) and select.select([keyboard], [], [], max(end - monotonic(), 0))[0]:
            answer += os.read(keyboard, 1024)
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
    return understood(answer, window(screen), os.get_terminal_size(screen))


def understood(answer: bytes, cell: CellSize | None, grid: tuple[int, int]) -> Ability:
    """An answer read, of a terminal of so many columns and rows; the size of a cell may be known from elsewhere."""
    protocols = set[Protocol]()
    if KITTY_OK.search(answer):
        protocols.add("kitty")
    if (kinds := ANSWERED.search(answer)) and SIXEL in kinds[1].split(b";"):
        protocols.add("sixel")
    reported = CELL.search(answer)
    if not reported:
        return Ability(frozenset(protocols), cell)
    cell, whole = CellSize(int(reported[2]), int(reported[1])), ALL.search(answer)
    scale = [_scale(*each) for each in zip(cell, grid, (int(whole[2]), int(whole[1])), strict=True)] if whole else [1.0, 1.0]
    return Ability(frozenset(protocols), cell, (scale[0], scale[1]))


def _scale(cell: int, count: int, pixels: int) -> float:
    """By how much cells are larger than reported where so many have so many pixels. What is less than a cell over is a margin."""
    scale = pixels / max(cell * count, 1)
    return scale if abs(pixels - cell * count) >= cell and abs(scale - 1) < MOST_ROUNDED else 1.0


def window(screen: int) -> CellSize | None:
    """The size of a cell by that of the window, where the system knows it."""
    try:
        rows, columns, width, height = unpack("HHHH", ioctl(screen, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return CellSize(width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None


def chosen(wanted: str, ability: Ability, environment: Mapping[str, str]) -> tuple[Graphics | None, str]:
    """How pictures are to be sent, or None and why plots stay cells, in a line."""
    if wanted == "kitty" and environment.get("TMUX"):
        return None, "tmux does not place kitty's pictures: plots are drawn in cells; outside of it they would be pixels"
    able = [each for each in ("kitty", "sixel") if each in ability.protocols and wanted in ("auto", each)]
    if environment.get("TMUX"):
        able = [each for each in able if each != "kitty"]
    if not able:
        names = "kitty's graphics nor sixel" if wanted == "auto" else {"kitty": "kitty's graphics", "sixel": "sixel"}[wanted]
        knows = "answers for neither" if wanted == "auto" else "does not answer for"
        others = {"kitty": "kitty, Ghostty and Konsole have them", "sixel": "foot, xterm -ti vt340 and WezTerm have it"}
        which = others.get(wanted, f"{others['kitty']}; {others['sixel']}")
        return None, f"this terminal {knows} {names}: plots are drawn in cells ({which})"
    if ability.cell is None:
        return None, "this terminal does not tell how large its cells are: plots are drawn in cells"
    return Graphics(able[0], ability.cell, ability.scale), ""


class Placed(NamedTuple):
    """A picture over cells of the screen, its upper left one at x, y."""

    x: int
    y: int
    rgba: np.ndarray


class Pictures:
    """What lies over the terminal's cells, as far as we know."""

    def __init__(self, graphics: Graphics):
        self.graphics = graphics
        self._there: dict[int, Placed] = {}

    @property
    def there(self) -> Mapping[int, Placed]:
        """The pictures, by their number."""
        return self._there

    def forget(self) -> None:
        """The terminal was cleared, or may show anything."""
        self._there = {}

    def show(self, wanted: Mapping[int, Placed]) -> str:
        """What to send so that these pictures are there and no others."""
        sent = [self.remove(set(self._there) - set(wanted))]
        for number, placed in wanted.items():
            if self._is_there(number, placed):
                continue
            _, cell, scale = self.graphics
            body = kitty(FIRST + number, placed.rgba, cell) if self.in_layers else sixel(scaled(placed.rgba, scale))
            sent.append(f"\x1b[{placed.y + 1};{placed.x + 1}H{body}")
            self._there[number] = placed
        return "".join(sent)

    def _is_there(self, number: int, placed: Placed) -> bool:
        old = self._there.get(number)
        if old is None or old[:2] != placed[:2]:
            return False
        # A picture drawn anew lies over cells that were written anew, and in sixel these have taken its place.
        return old.rgba is placed.rgba or (self.in_layers and np.array_equal(old.rgba, placed.rgba))

    @property
    def in_layers(self) -> bool:
        """Whether pictures lie over the cells and stay when those are written; a sixel picture is what the cells hold."""
        return self.graphics.protocol == "kitty"

    def remove(self, numbers: set[int] | None = None) -> str:
        """What to send so that these are gone, or all of them. In sixel it is the cells below that are to be written again."""
        gone = sorted(number for number in (set(self._there) if numbers is None else numbers) if self._there.pop(number, None))
        return "".join(f"\x1b_Ga=d,d=I,i={FIRST + number},q=2\x1b\\" for number in gone) if self.in_layers else ""


def kitty(number: int, rgba: np.ndarray, cell: CellSize) -> str:
    """A picture by kitty's protocol, at the cursor, over the text, in the place of the one of this number before it. The terminal fits
    it to as many of its cells as it is of these.
    """
    height, width, _ = rgba.shape
    body = base64.b64encode(zlib.compress(rgba.tobytes(), 1)).decode()
    pieces = [body[k : k + PIECE] for k in range(0, len(body), PIECE)]
    head = f"a=T,f=32,o=z,s={width},v={height},c={width // cell.width},r={height // cell.height},i={number},p=1,z=1,C=1,q=2,"
    return "".join(
        f"\x1b_G{head if k == 0 else ''}m={int(k + 1 < len(pieces))};{piece}\x1b\\" for k, piece in enumerate(pieces)
    )


def scaled(rgba: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """A picture for cells that are wider and higher by so much: some rows and columns of pixels come twice, and it has no more colours."""
    if scale == (1.0, 1.0):
        return rgba
    sizes = ((count, round(count * by)) for count, by in zip((rgba.shape[1], rgba.shape[0]), scale, strict=True))
    across, down = (np.arange(size) * count // size for count, size in sizes)
    return rgba[np.ix_(down, across)]


def sixel(rgba: np.ndarray) -> str:
    """A picture in sixel, at the cursor; what is transparent stays as it is."""
    from PIL import Image

    height, width, _ = rgba.shape
    reduced = Image.fromarray(np.ascontiguousarray(rgba[..., :3])).quantize(COLOURS)
    colours = np.array(reduced.getpalette(), int).reshape(-1, 3)
    index = np.where(rgba[..., 3] > 0, np.asarray(reduced, int), -1)
    used = np.unique(index[index >= 0]).tolist()
    registers = "".join("#{};2;{};{};{}".format(k, *((100 * colours[k] + 127) // 255).tolist()) for k in used)
    rows = np.full((-(-height // 6) * 6, width), -1)
    rows[:height] = index
    bands = "-".join(_band(band) for band in rows.reshape(-1, 6, width))
    return f'\x1bP0;1;0q"1;1;{width};{height}{registers}{bands}\x1b\\'


def _band(band: np.ndarray) -> str:
    """Six rows of pixels: for each colour in them a row of signs, one upon the other."""
    weights = (1 << np.arange(6))[:, None]
    lines = (f"#{k}{_repeated(((band == k) * weights).sum(axis=0))}" for k in np.unique(band[band >= 0]).tolist())
    return "$".join(lines)


def _repeated(bits: np.ndarray) -> str:
    """Signs of six pixels each, with how often each comes in a row; blanks at the end are left out."""
    begins = np.flatnonzero(np.diff(bits, prepend=-1))
    lengths = np.diff(np.append(begins, len(bits)))
    runs = [*zip(bits[begins].tolist(), lengths.tolist(), strict=True)]
    if runs and runs[-1][0] == 0:
        runs.pop()
    return "".join(_run(chr(63 + value), count) for value, count in runs)


def _run(sign: str, count: int) -> str:
    return sign * count if count < 4 else f"!{count}{sign}"
