"""Only changed cells are sent, and the terminal shows the same as if everything had been."""

import random

import pyte
import pytest
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from eos_tui.diffdisplay import APPLIES, Difference, Screenful

WIDTH, HEIGHT = 40, 8
STYLES = [
    None, Style(color="red", bgcolor="black"), Style(color="rgb(80,180,230)", bgcolor="black", bold=True),
    Style(color="yellow", bgcolor="blue", underline=True), Style(bgcolor="rgb(20,20,20)"), Style(dim=True), Style(reverse=True),
]  # fmt: skip
LETTERS = "ab  ⣿⠤θ━ 字"


@pytest.fixture
def console() -> Console:
    """A console of 256 colours."""
    console = Console(color_system="256", force_terminal=True, width=WIDTH)
    assert console._color_system is ColorSystem.EIGHT_BIT
    return console


def random_strip(rng: random.Random, width: int) -> Strip:
    """Text and styles that fill exactly this many cells."""
    segments = []
    while width:
        letter = rng.choice([character for character in LETTERS if cell_len(character) <= width])
        count = rng.randint(1, max(1, width // cell_len(letter) // 3))
        segments.append(Segment(letter * count, rng.choice(STYLES)))
        width -= count * cell_len(letter)
    return Strip(segments)


def looks(screen: pyte.Screen) -> list[list[tuple]]:
    """Every cell as it looks: the foreground of a blank does not show."""
    def look(char):
        seen = char.data, char.bg, char.underscore, char.reverse
        return seen if char.data == " " and not char.reverse and not char.underscore else (*seen, char.fg, char.bold)

    return [[look(screen.buffer[y][x]) for x in range(WIDTH)] for y in range(HEIGHT)]


@pytest.mark.parametrize("seed", range(20))
def test_the_terminal_shows_the_same_as_after_sending_everything(console, seed):
    rng = random.Random(seed)
    shown, plain, diffed = Screenful(), pyte.Screen(WIDTH, HEIGHT), pyte.Screen(WIDTH, HEIGHT)
    plain_stream, diff_stream = pyte.Stream(plain), pyte.Stream(diffed)
    cuts = [10, 25, WIDTH]
    rows = [[random_strip(rng, 10), random_strip(rng, 15), random_strip(rng, 15)] for _ in range(HEIGHT)]
    update: LayoutUpdate | ChopsUpdate = LayoutUpdate([list(row) for row in rows], Region(0, 0, WIDTH, HEIGHT))
    for _ in range(12):
        plain_stream.feed(update.render_segments(console).replace("\n", ""))
        diff_stream.feed(Difference(update, shown, (WIDTH, HEIGHT)).render_segments(console))
        assert looks(diffed) == looks(plain)
        lines = sorted(rng.sample(range(HEIGHT), 3))
        spans = []
        for y in lines:
            k = rng.randrange(3)
            rows[y][k] = random_strip(rng, rows[y][k].cell_length)
            spans.append((y, [0, *cuts][k], cuts[k]))
        chops = [dict(zip([0, 10, 25], row, strict=True)) for row in rows]
        update = ChopsUpdate(chops, spans, [cuts] * HEIGHT)


def test_what_has_not_changed_is_not_sent_again(console):
    shown, rng = Screenful(), random.Random(1)
    update = LayoutUpdate([[random_strip(rng, WIDTH)] for _ in range(HEIGHT)], Region(0, 0, WIDTH, HEIGHT))
    assert Difference(update, shown, (WIDTH, HEIGHT)).render_segments(console)
    assert Difference(update, shown, (WIDTH, HEIGHT)).render_segments(console) == ""
    shown.forget()
    assert Difference(update, shown, (WIDTH, HEIGHT)).render_segments(console)


def test_a_resize_sends_everything(console):
    shown, rng = Screenful(), random.Random(1)
    update = LayoutUpdate([[random_strip(rng, 20)] for _ in range(4)], Region(0, 0, 20, 4))
    Difference(update, shown, (20, 4)).render_segments(console)
    assert Difference(update, shown, (21, 4)).render_segments(console)


def test_the_installed_textual_is_one_that_was_tested():
    assert APPLIES


def test_what_would_steer_the_terminal_is_never_sent(console):
    nasty = Strip([Segment("a\x1b[2Jb\x07\x9bc".ljust(WIDTH + 3), STYLES[1])])
    shown = Screenful()
    shown.resize(WIDTH, HEIGHT)
    sent = "".join(shown.put(0, 0, nasty, console))
    assert "\x1b[2J" not in sent
    assert "\x07" not in sent
    assert "\x9b" not in sent
