"""Plots as pixels over their cells: the picture of the same curves, gone when they go, and nothing without being asked for."""

import base64
import re
import zlib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eos_tui.app import EosApp
from eos_tui.draw import line_plot, panels, phase_portrait, pixels
from eos_tui.draw.orbits import scene
from eos_tui.draw.picturing import CellSize
from eos_tui.draw.plot_spec import Window
from eos_tui.draw.theme import role_style, surface
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.terminal import graphics
from eos_tui.terminal.graphics import Ability, Graphics, Pictures, Placed, chosen, understood
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.portrait import PhasePortrait

from piloting import until as shortly
from synthetic import make_run, rows_of
from terminals import ANSWERS, Terminal
from waiting import until

CELL = CellSize(8, 16)
KITTY = re.compile(r"\x1b_G([^;\x1b]*);?([^\x1b]*)\x1b\\")
SIXEL = re.compile(r'\x1bP0;1;0q"1;1;(\d+);(\d+)([^\x1b]*)\x1b\\')


class Shown(NamedTuple):
    """A picture as a terminal takes it: where, by which number, and its pixels."""

    x: int
    y: int
    number: int
    rgba: np.ndarray


class Screen:
    """A terminal with kitty's protocol, by its published description: pictures by number, over the cells."""

    def __init__(self) -> None:
        self.there: dict[int, Shown] = {}
        self._body = ""

    def feed(self, sent: str) -> None:
        at = 0, 0
        for part in re.finditer(r"\x1b\[(\d+);(\d+)H|" + KITTY.pattern, sent):
            if part[1]:
                at = int(part[2]) - 1, int(part[1]) - 1
                continue
            keys = dict(each.split("=") for each in part[3].split(",") if each)
            if keys.get("a") == "d":
                self.there.pop(int(keys["i"]), None)
                continue
            if "a" in keys:
                self._head, self._body = keys, ""
            self._body += part[4]
            assert len(part[4]) <= 4096
            if keys["m"] == "0":
                head = self._head
                assert (head["f"], head["C"], head["q"]) == ("32", "1", "2")  # RGBA; the cursor stays, and nothing is answered
                size = int(head["v"]), int(head["s"]), 4
                raw = zlib.decompress(base64.b64decode(self._body))
                self.there[int(head["i"])] = Shown(*at, int(head["i"]), np.frombuffer(raw, np.uint8).reshape(size))


def from_sixel(sent: str) -> np.ndarray:
    """The picture of a sixel sequence, transparent where it draws nothing."""
    match = SIXEL.fullmatch(sent)
    width, height, body = int(match[1]), int(match[2]), match[3]
    rgba, colours, x, y, colour = np.zeros((-(-height // 6) * 6, width, 4), np.uint8), {}, 0, 0, 0
    for define, select, count, sign, control in re.findall(r"#(\d+;2;\d+;\d+;\d+)|#(\d+)|!(\d+)(?=.)|([?-~])|([$-])", body):
        if define:
            number, _, *share = map(int, define.split(";"))
            colours[number] = np.round(np.array(share) * 2.55)
        elif select:
            colour = int(select)
        elif count:
            repeat = int(count)
            continue
        elif sign:
            for bit in range(6):
                if ord(sign) - 63 >> bit & 1:
                    rgba[y + bit, x : x + repeat] = [*colours[colour], 255]
            x += repeat
        else:
            x, y = 0, y + 6 * (control == "-")
        repeat = 1
    return rgba[:height]


def history_of(runs, count: int = 400) -> History:
    run = make_run(runs, 2)
    history = History(Source(run).columns)
    history.extend(rows_of(run, 0, count))
    return history


def specs(history: History):
    return {spec.id: spec for spec in panels.line_plots(history.columns, panels.CHOICES[0])}


def near(rgba: np.ndarray, colour: tuple[int, int, int], by: int = 60) -> np.ndarray:
    """Where a picture has about this colour."""
    return (abs(rgba[..., :3].astype(int) - colour).max(axis=-1) < by) & (rgba[..., 3] > 0)


@pytest.mark.parametrize("name", ["sharpness", "loss", "x", "y"])
@pytest.mark.parametrize(("theme", "window"), [("eos-dark", Window(0, 400)), ("eos-light", Window(150, 300, 200))])
def test_the_pixels_of_a_plot_are_where_its_dots_are_and_in_their_colours(runs, name, theme, window):
    history = history_of(runs)
    spec = specs(history)[name]
    painted = line_plot.paint(spec, history, window, 60, 14, theme=theme)
    picture, box = pixels.of_plot(spec, history, painted, CELL, theme), painted.box
    assert picture.rgba.shape == (box.height * CELL.height, box.width * CELL.width, 4)
    assert (picture.row, picture.column) == (box.top, box.left)
    measured = next(curve for curve in spec.curves if curve.role == "gd" and not curve.dashed)
    colour = role_style(theme, measured.role).color.get_truecolor()
    of_cells = near(picture.rgba, colour).reshape(box.height, CELL.height, box.width, CELL.width).any(axis=(1, 3))
    dotted = np.zeros((box.height, box.width), bool)
    for row in range(box.height):
        at = 0
        for text, style, _ in painted.strips[box.top + row]:
            for sign in text:
                if 0 <= at - box.left < box.width and style and style.color and 0x2800 < ord(sign) < 0x2900:
                    dotted[row, at - box.left] = style.color.get_truecolor() == colour
                at += 1
    grown = of_cells.copy()
    grown[1:] |= of_cells[:-1]
    grown[:-1] |= of_cells[1:]
    grown[:, 1:] |= grown[:, :-1].copy()
    grown[:, :-1] |= grown[:, 1:].copy()
    assert dotted.sum() > box.width / 2
    assert (grown | ~dotted).all()  # no dot without pixels in its cell or beside it
    assert of_cells.sum() < 2.5 * dotted.sum() + box.width


def test_where_a_cell_holds_a_letter_the_picture_is_transparent(runs):
    history = history_of(runs, 300)
    spec = specs(history)["sharpness"]
    rows = np.full((60, len(history.columns)), np.nan)
    rows[:, 0] = np.arange(300, 360)
    history.extend(rows)
    painted = line_plot.paint(spec, history, Window(0, 360), 70, 14)
    picture, box = pixels.of_plot(spec, history, painted, CELL, "eos-dark"), painted.box
    words = [painted.strips[box.top + row].text for row in range(box.height)]
    said = [row for row, text in enumerate(words) if "ended at" in text or "no value" in text]
    assert said
    opaque = picture.rgba[..., 3].reshape(box.height, CELL.height, box.width, CELL.width)[:, 0, :, 0] > 0
    for row in said:
        text = painted.strips[box.top + row].text[box.left : box.left + box.width]
        assert not any(opaque[row, k] for k, sign in enumerate(text) if sign.isalnum())
    assert opaque.mean() > 0.7


def test_the_portrait_has_its_orbit_and_its_fixed_point(runs):
    history = history_of(runs, 300)
    shown = scene(history, Window(0, 300), panels.CHOICES[0], None, None)
    painted = phase_portrait.paint(shown, phase_portrait.Scale(), 60, 16, ascii=False, theme="eos-dark")
    frame = painted.frame
    picture = pixels.of_portrait(shown, painted.scale, frame, painted.strips, CELL, "eos-dark")
    assert picture.rgba.shape == (frame.rows * CELL.height, frame.columns * CELL.width, 4)
    for role, point in (("threshold", (1.0, 0.0)), ("gd", shown.now)):
        x = int((point[0] - frame.x.lo) / frame.x.span * picture.rgba.shape[1])
        y = int((1 - (point[1] - frame.y.lo) / frame.y.span) * picture.rgba.shape[0])
        assert near(picture.rgba, role_style("eos-dark", role).color.get_truecolor())[y, x], role


PICTURES = st.builds(
    lambda height, width, seed: np.random.default_rng(seed).choice(
        np.array([[18, 22, 28, 255], [93, 178, 238, 255], [238, 90, 47, 255], [0, 0, 0, 0]], np.uint8), (height, width)),
    st.integers(1, 40), st.integers(1, 60), st.integers(0, 99),
)  # fmt: skip


@given(rgba=PICTURES)
def test_a_picture_sent_is_the_picture_decoded(rgba):
    screen = Screen()
    screen.feed("\x1b[3;5H" + graphics.kitty(9, rgba, CellSize(1, 1)))
    assert screen.there[9][:3] == (4, 2, 9)
    np.testing.assert_array_equal(screen.there[9].rgba, rgba)
    decoded = from_sixel(graphics.sixel(rgba))
    np.testing.assert_array_equal(decoded[..., 3], rgba[..., 3])
    assert abs(decoded[..., :3].astype(int) - rgba[..., :3])[rgba[..., 3] > 0].max(initial=0) <= 2  # a sixel's colours are whole percents


def test_only_what_has_changed_is_sent_again_and_what_is_gone_is_taken_away():
    one, other = (np.full((4, 4, 4), value, np.uint8) for value in (1, 2))
    for protocol in ("kitty", "sixel"):
        drawn = Pictures(Graphics(protocol, CELL))
        assert drawn.show({0: Placed(1, 2, one), 1: Placed(9, 2, other)})
        assert drawn.show({0: Placed(1, 2, one), 1: Placed(9, 2, other)}) == ""
        assert bool(drawn.show({0: Placed(1, 2, one.copy()), 1: Placed(9, 2, other)})) == (protocol == "sixel")  # its cells were written
        assert drawn.show({0: Placed(1, 3, one), 1: Placed(9, 2, other)}).startswith("\x1b[4;2H")
        assert ("a=d" in drawn.show({1: Placed(9, 2, other)})) == (protocol == "kitty")
        assert set(drawn.there) == {1}


def test_what_a_terminal_answers_is_understood():
    kitty, grid = b"\x1b_Gi=4095;OK\x1b\\\x1b[6;20;10t\x1b[?62;c", (100, 30)
    assert understood(kitty, None, grid) == Ability(frozenset({"kitty"}), CellSize(10, 20))
    assert understood(b"\x1b[?62;4;22c", CELL, grid) == Ability(frozenset({"sixel"}), CELL)
    assert understood(b"\x1b_Gi=4095;ENOTSUPPORTED\x1b\\\x1b[?64;1;2c", CELL, grid) == Ability(frozenset(), CELL)
    assert understood(b"", None, grid) == Ability()


@pytest.mark.parametrize(("pixels_of_all", "scale"), [
    ((843, 480), (1.05375, 1.0)),  # xterm.js with DejaVu Sans Mono of 14 pixels
    ((807, 495), (1.0, 1.0)),  # margins of less than a cell
    ((1600, 960), (1.0, 1.0)),  # in other pixels than the cell
])  # fmt: skip
def test_cells_that_are_not_whole_pixels_are_as_large_as_all_of_them_say(pixels_of_all, scale):
    width, height = pixels_of_all
    answer = b"\x1b[6;16;8t\x1b[4;%d;%dt\x1b[?62;4;9;22c" % (height, width)
    assert understood(answer, None, (100, 30)) == Ability(frozenset({"sixel"}), CELL, scale)


def test_a_picture_for_larger_cells_covers_as_many_of_them_with_the_same_colours():
    rgba = np.random.default_rng(0).integers(0, 256, (3 * 16, 40 * 8, 4), np.uint8)
    shown = graphics.scaled(rgba, (1.05375, 1.0))
    assert shown.shape == (48, round(40 * 8.43), 4)
    kept = np.flatnonzero((shown[:, 1:] != shown[:, :-1]).any(axis=(0, 2)))
    np.testing.assert_array_equal(shown[:, [*kept, -1]], rgba)  # nothing is left out, some columns come twice
    sent = Pictures(Graphics("kitty", CELL, (1.05375, 1.0))).show({0: Placed(0, 0, rgba)})
    assert f"s={40 * 8},v=48,c=40,r=3," in sent


@pytest.mark.parametrize(("wanted", "can", "environment", "taken", "why"), [
    ("auto", {"kitty", "sixel"}, {}, "kitty", ""),
    ("auto", {"sixel"}, {}, "sixel", ""),
    ("sixel", {"kitty", "sixel"}, {}, "sixel", ""),
    ("auto", {"kitty", "sixel"}, {"TMUX": "x"}, "sixel", ""),  # tmux draws sixel itself where it says so
    ("kitty", {"kitty"}, {"TMUX": "x"}, None, "tmux does not place kitty's pictures"),
    ("kitty", {"sixel"}, {}, None, "does not answer for kitty's graphics: plots are drawn in cells (kitty, Ghostty"),
    ("auto", set(), {}, None, "answers for neither kitty's graphics nor sixel"),
])  # fmt: skip
def test_a_protocol_is_taken_where_the_terminal_has_it_and_else_the_reason_is_said(wanted, can, environment, taken, why):
    graphics_of, said = chosen(wanted, Ability(frozenset(can), CELL), environment)
    assert (graphics_of and graphics_of.protocol) == taken
    assert why in said
    assert bool(said) == (taken is None)


def test_without_the_size_of_a_cell_nothing_is_placed():
    taken, why = chosen("auto", Ability(frozenset({"sixel"})), {})
    assert taken is None
    assert why == "this terminal does not tell how large its cells are: plots are drawn in cells"


async def test_pictures_lie_over_their_plots_and_go_with_them(runs, monkeypatch):
    screen, drawn = Screen(), Pictures(Graphics("kitty", CELL))
    app = EosApp(make_run(runs), drawn=drawn, fps=10, theme_choice="dark")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        monkeypatch.setattr(app._driver, "write", screen.feed)
        drawn.forget()

        async def settled(count: int) -> None:
            await shortly(lambda: len(screen.there) == count and len(drawn.there) == count)
            plots = [*app.screen.query(LinePlot), *app.screen.query(PhasePortrait)]
            for shown in screen.there.values():
                over = [panel for panel in plots if panel.content_region.contains(shown.x, shown.y)]
                assert len(over) == 1  # and within it whole
                height, width = shown.rgba.shape[0] // CELL.height, shown.rgba.shape[1] // CELL.width
                assert over[0].content_region.contains(shown.x + width - 1, shown.y + height - 1)
                assert near(shown.rgba, surface(app.theme).get_truecolor()).mean() > 0.3

        await settled(6)
        await pilot.press("L")
        await settled(2)  # a page has its own, and nothing of what lies below it
        await pilot.press("escape")
        await settled(6)
        await pilot.press("question_mark")
        await settled(0)
        await pilot.press("escape")
        await settled(6)
        await pilot.press("enter")
        await settled(1)
        await pilot.press("enter")
        await settled(6)
        app.notify("a notice over some of them\n" * 12, timeout=60)
        await shortly(lambda: 0 < len(screen.there) < 6)
        app.exit()
    assert not screen.there


def test_a_terminal_is_asked_and_shows_pictures_only_where_that_is_wanted(runs, monkeypatch):
    make_run(runs)
    attach = "-m", "eos_tui", "attach", "--theme", "dark"
    with Terminal(runs, *attach) as terminal:
        terminal.wait_for("399")
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert b"\x1b_G" not in terminal.sent
        assert b"\x1bP" not in terminal.sent
    monkeypatch.setitem(ANSWERS, b"\x1b[16t\x1b[14t\x1b[c", b"\x1b_Gi=4095;OK\x1b\\\x1b[6;16;8t\x1b[?62;c")
    with Terminal(runs, *attach, "--graphics", "kitty") as terminal:
        until(lambda: terminal.sent.count(b"a=T") >= 6)
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        screen = Screen()
        screen.feed(terminal.sent[terminal.sent.index(b"\x1b[c") :].decode(errors="ignore"))
        assert b"a=d" in terminal.sent
        assert not screen.there  # taken away on leaving
