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

from eos_tui.app import EosApp
from eos_tui.screens.dashboard import Dashboard
from eos_tui.terminal.diffdisplay import APPLIES, Difference, Screenful

from piloting import until
from synthetic import make_run

WIDTH, HEIGHT = 40, 8
STYLES = [
    None, Style(color="red", bgcolor="black"), Style(color="rgb(80,180,230)", bgcolor="black", bold=True),
    Style(color="yellow", bgcolor="blue", underline=True), Style(bgcolor="rgb(20,20,20)"), Style(dim=True), Style(reverse=True),
]  # fmt: skip
KEYS = ("tab", "tab", "shift+tab", "c", "left", "right", "y", "s", "+", "minus", "enter", "tab", "escape", "]", "[", "p", "t", "t")
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


@pytest.mark.parametrize(("size", "theme"), [((120, 40), "dark"), ((80, 24), "terminal")])
async def test_after_any_key_the_terminal_shows_what_the_screen_would_draw_anew(runs, monkeypatch, size, theme):
    console, shown = Console(color_system="256", force_terminal=True, width=size[0]), Screenful()
    display = EosApp._display

    def displayed(self, screen, update):
        if isinstance(update, LayoutUpdate | ChopsUpdate):
            Difference(update, shown, size).render_segments(console)
        display(self, screen, update)

    monkeypatch.setattr(EosApp, "_display", displayed)
    app = EosApp(make_run(runs), fps=10, theme_choice=theme)

    def cells(strips):
        return [shown.cells(strip, console) for strip in strips]

    def same() -> bool:
        plots = [(each, Region(0, 0, *each.outer_size)) for each in app.screen.plots if each.display]
        framed = all(cells(plot.render_lines(region)) == cells(plot.by_textual(region)) for plot, region in plots)
        return framed and cells(app.screen._compositor.render_strips()) == shown.rows

    async with app.run_test(size=size) as pilot:
        await until(lambda: isinstance(app.screen, Dashboard) and app.screen.source.condition == "finished")
        for key in KEYS:
            await pilot.press(key)
            await pilot.pause()
            await until(same)
