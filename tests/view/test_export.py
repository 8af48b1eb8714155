"""Pictures of the screen, printed plots, and the clipboard: what leaves eos for elsewhere."""

import base64
import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.text import Text

from engine.record.writer import Writer
from eos_tui import cli, printing
from eos_tui.app import EosApp
from eos_tui.draw.theme import ANSI, picture_theme
from eos_tui.terminal import clipboard, picture, screenshot

from synthetic import EDGE, make_run, rows_of

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


# -- the screen


async def test_the_three_pictures_show_the_same_screen(runs):
    app = EosApp(make_run(runs), fps=10)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("question_mark")
        await pilot.pause()
        pictures = screenshot.screen(app, "eos")
    lines = pictures.txt.splitlines()
    assert len(lines) == 24
    assert [line.rstrip() for line in ESCAPE.sub("", pictures.ansi).splitlines()] == lines
    assert "\x1b[" in pictures.ansi
    drawn = "".join(ElementTree.fromstring(pictures.svg).itertext()).replace("\xa0", " ")
    for word in ("keys on the dashboard", "Pause the engine"):
        assert word in drawn
        assert word in pictures.txt


def test_braille_in_an_svg_is_dots_of_its_colour():
    """⡇ is the left column of dots, ⠈ the upper right one: no font has to have them."""
    svg = screenshot.printed("a\x1b[31m⡇ x⠈\x1b[0m <&\n⠀", 12, "eos", "eos-dark")
    assert not re.search("[\u2800-\u28ff]", svg)
    [(style, path)] = re.findall(r'<path class="([\w-]+)"[^>]* d="([^"]*)"', svg)
    dots = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h", path)]
    assert len(dots) == 5
    assert len({x for x, _ in dots[:4]}) == 1
    assert dots[0][0] == pytest.approx(12.2 * 1.25 - 1.2, abs=0.06)
    assert dots[4][0] == pytest.approx(12.2 * 4.75 - 1.2, abs=0.06)
    assert [y for _, y in dots[:4]] == pytest.approx([1.5 + 24.4 * (2 * k + 1) / 8 - 1.2 for k in range(4)], abs=0.06)
    assert f".{style} {{ fill: #" in svg
    assert "".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ").count("x") >= 1


async def test_a_picture_asks_no_server_for_anything(runs):
    app = EosApp(None)
    async with app.run_test(size=(80, 24)):
        svg = screenshot.screen(app, "eos").svg
    assert "@font-face" not in svg
    assert "url(http" not in svg
    assert set(re.findall(r"https?://[^\s\"]*", svg)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}  # names alone


# -- eos plot


def printed(capsys, *argv: str) -> list[str]:
    assert cli.main(["plot", *argv]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [20, 33, 80, 250])
def test_a_printed_plot_has_the_size_asked_for_whatever_its_width(runs, capsys, width):
    make_run(runs)
    lines = printed(capsys, "--columns", str(width), "--rows", "15")
    assert len(lines) == 15
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("sharpness S")
    assert any(sign >= "⠉" for line in lines for sign in line)


def test_a_pipe_gets_plain_text_and_color_on_demand(runs, capsys):
    make_run(runs)
    plain = printed(capsys)
    assert not any("\x1b" in line for line in plain)
    colored = printed(capsys, "--color")
    assert [ESCAPE.sub("", line).rstrip() for line in colored] == plain


def test_ascii_draws_curves_without_braille(runs, capsys):
    make_run(runs)
    assert not any("⠀" < sign <= "⣿" for line in printed(capsys, "--ascii", "--plot", "loss") for sign in line)


def test_series_plots_and_steps_are_chosen(runs, capsys):
    make_run(runs)
    lines = printed(capsys, "--plot", "loss", "--series", "gd.x", "--series", "generalized.x", "--from", "200", "--to", "300")
    assert len(lines) == 24
    assert lines[0] == "training loss L: how wrong the network is"
    assert lines[12] == "gd.x, generalized.x"
    assert "200" in lines[11]


def test_one_quantity_against_another_is_drawn_by_plotext(runs, capsys):
    make_run(runs)
    lines = printed(capsys, "--series", "gd.y", "--against", "gd.x", "--columns", "60", "--rows", "15")
    assert len(lines) == 15
    assert "gd.y against gd.x" in lines[0]
    assert "┌" in lines[1]
    assert "0" in lines[-2].split()  # its ticks are round
    plain = printed(capsys, "--series", "gd.y", "--against", "gd.x", "--ascii")
    assert all(line.isascii() for line in plain)
    assert sum("*" in line for line in plain) > 5


def test_values_that_no_axis_can_show_are_left_out(runs, capsys):
    run = make_run(runs, 120, finished=True)
    rows = rows_of(run, 120, 124)
    rows[:, run.index["gd.loss"]] = [float("inf"), float("nan"), 0.0, -1.0]
    with Writer(run) as writer:
        writer.append(rows)
    assert printed(capsys, "--series", "gd.loss", "--against", "gd.x", "--log")
    assert printed(capsys, "--series", "gd.x", "--against", "gd.loss")
    assert printed(capsys, "--series", "gd.loss", "--log")


REFUSED = [
    (["--plot", "sharpnes"], 'plot sharpnes: not in run made; did you mean "sharpness"?'),
    (["--series", "gd.los"], 'series gd.los: run made does not record it; did you mean "gd.loss"?'),
    (["--against", "gd.los"], 'series gd.los: not recorded; did you mean "gd.loss"?'),
    (["--from", "100", "--to", "10"], "--from 100 --to 10: expected the first step before the last"),
    (["--columns", "5"], "a plot wants 20×6 at least"),
    (["--plot", "loss", "--plot", "x", "--rows", "8"], "2 plots in 8 rows"),
    (["--against", "gd.x", "--series", "gd.midpoint_sharpness"], "no row has both"),
    (["--svg", "/nowhere/at/all.svg"], "cannot be written"),
    (["--png", "/nowhere/at/all.png"], "cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "said"), REFUSED, ids=[" ".join(argv) for argv, _ in REFUSED])
def test_what_cannot_be_printed_is_reported_in_one_line(runs, capsys, argv, said):
    make_run(runs)
    assert cli.main(["plot", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_svg_of_a_plot_shows_what_is_printed(runs, capsys, tmp_path):
    make_run(runs)
    printed(capsys, "--svg", "plot.svg")
    drawn = "".join(ElementTree.parse(tmp_path / "plot.svg").getroot().itertext())
    assert "2/η" in drawn
    assert "sharpness" in drawn


def test_the_png_of_a_plot_has_a_dot_for_each_dot_of_its_braille_and_letters_in_their_cells(runs, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    make_run(runs)
    printed(capsys, "--png", "plot.png", "--columns", "60", "--rows", "12")
    with Image.open(tmp_path / "plot.png") as made:
        assert made.format == "PNG"
    drawn = Image.open(io.BytesIO(picture.png("\x1b[31m⠁ ⢀\x1b[0m\nη⠿", 3, picture_theme(ANSI)))).convert("L")
    across, down = ((size - 2 * picture.MARGIN) // count for size, count in zip(drawn.size, (3, 2), strict=True))
    dark = drawn.getpixel((0, 0))

    def is_drawn(column, row, x, y):  # a dot, by its place in a cell of two by four
        left, top = picture.MARGIN + across * column, picture.MARGIN + down * row
        return drawn.getpixel((left + across * (2 * x + 1) // 4, top + down * (2 * y + 1) // 8)) != dark

    cells = ((0, 0), (1, 0), (2, 0), (1, 1))
    dots = {(k, row): [(x, y) for y in range(4) for x in range(2) if is_drawn(k, row, x, y)] for k, row in cells}
    assert dots == {(0, 0): [(0, 0)], (1, 0): [], (2, 0): [(1, 3)], (1, 1): [(x, y) for y in range(3) for x in range(2)]}
    cell = drawn.crop((picture.MARGIN, picture.MARGIN + down, picture.MARGIN + across, picture.MARGIN + 2 * down))
    assert cell.getextrema()[1] > dark  # η


def test_the_png_underlines_what_is_chosen_where_colours_do_not_say_it():
    pytest.importorskip("matplotlib")
    dark = np.asarray(Image.open(io.BytesIO(picture.png("  \x1b[4m  \x1b[0m  ", 6, picture_theme(ANSI)))).convert("L")).astype(int)
    across = (dark.shape[1] - 2 * picture.MARGIN) // 6
    lit = np.flatnonzero((dark > dark.min() + 60).any(axis=0))
    assert (lit[0], lit[-1]) == (picture.MARGIN + 2 * across, picture.MARGIN + 4 * across - 1)


def test_the_png_of_a_plot_has_the_ground_of_its_cells_and_blocks_without_seams():
    pytest.importorskip("matplotlib")
    drawn = Image.open(io.BytesIO(picture.png("\x1b[44m \x1b[0m█▄\n\x1b[7m \x1b[0m▟▏", 3, picture_theme(ANSI))))
    across, down = ((size - 2 * picture.MARGIN) // count for size, count in zip(drawn.size, (3, 2), strict=True))

    def share(column, row):
        """How much of a cell is not the ground of the picture."""
        left, top = picture.MARGIN + across * column, picture.MARGIN + down * row
        cell = np.asarray(drawn.crop((left, top, left + across, top + down)))
        return float((cell != drawn.getpixel((0, 0))).any(axis=-1).mean())

    shares = [[share(column, row) for column in range(3)] for row in range(2)]
    np.testing.assert_allclose(shares, [[1, 1, 1 / 2], [1, 3 / 4, 1 / 8]], atol=0.05)


def test_pictures_of_a_plot_stand_on_the_ground_of_their_theme(runs, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    make_run(runs)
    for choice, ground in (("dark", "#12161c"), ("light", "#f7f6f2")):
        printed(capsys, "--png", "plot.png", "--svg", "plot.svg", "--theme", choice, "--force")
        with Image.open(tmp_path / "plot.png") as made:
            assert made.getpixel((0, 0)) == tuple(bytes.fromhex(ground[1:]))
        assert f'fill="{ground}"' in (tmp_path / "plot.svg").read_text()


def test_a_png_without_its_font_is_reported(runs, capsys, monkeypatch, tmp_path):
    make_run(runs)
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    assert cli.main(["plot", "--png", "plot.png"]) == 2
    assert "pip install 'eos-tui[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "plot.png").exists()


def test_a_run_that_goes_on_is_printed_again_until_it_ends(runs, monkeypatch, capsys):
    run = make_run(runs, 150)
    states = iter(["running", "running", "finished"])
    monkeypatch.setattr(type(run), "liveness", lambda self: next(states))
    monkeypatch.setattr(printing, "SECONDS", 0.01)
    printing.show(run, printing.Request(height=12), once=False)
    out = capsys.readouterr().out
    assert out.count("sharpness S") == 3
    assert out.count("\x1b[12F") == 2


def test_printing_works_where_there_is_no_terminal_at_all(runs, tmp_path):
    make_run(runs)
    done = subprocess.run([sys.executable, "-m", "eos_tui", "plot", "--once"], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env={"EOS_HOME": str(runs), "PYTHONPATH": ":".join(sys.path), "LANG": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")
    assert Text(done.stdout.splitlines()[0]).plain == "sharpness S: how curved the valley is"


# -- the clipboard


async def test_the_values_under_the_cursor_are_copied_as_stored(runs, capsys):
    run = make_run(runs)
    app = EosApp(run, fps=10)
    sent: list[str] = []
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.pause()
        app.copy_to_clipboard = sent.append
        await pilot.press("c", "shift+left", "Y")
        await pilot.pause()
    rows = dict(line.split("\t") for line in sent[0].splitlines())
    at = int(rows["step"])
    assert at > EDGE
    assert rows["run"] == "made"
    assert float(rows["gd.sharpness"]) == run.table()["gd.sharpness"][at]
    assert (runs / "copied.txt").read_text() == sent[0]


async def test_osc_52_carries_the_text(runs):
    app = EosApp(None)
    async with app.run_test():
        written: list[str] = []
        app._driver.write = written.append
        clipboard.copy("η = 0.02", app.copy_to_clipboard)
    assert written == [f"\x1b]52;c;{base64.b64encode('η = 0.02'.encode()).decode()}\a"]


def test_inside_tmux_its_buffer_is_loaded(runs, monkeypatch):
    calls = []

    def tmux(command, input, **_):
        calls.append((command, input))
        return subprocess.CompletedProcess(command, 1 if "-w" in command else 0)

    monkeypatch.setenv("TMUX", "/tmp/tmux,1,0")
    monkeypatch.setattr(subprocess, "run", tmux)
    said = clipboard.copy("text", pytest.fail)
    assert [command for command, _ in calls] == [["tmux", "load-buffer", "-w", "-"], ["tmux", "load-buffer", "-"]]
    assert calls[0][1] == b"text"
    assert "copied.txt" in said


def test_without_a_tmux_to_ask_the_terminal_is(runs, monkeypatch):
    monkeypatch.setenv("TMUX", "gone")
    monkeypatch.setenv("PATH", "")
    sent: list[str] = []
    assert "OSC 52" in clipboard.copy("text", sent.append)
    assert sent == ["text"]
