"""How the app behaves in the terminal it is given: colours, ASCII, the mouse, a slow link, the launcher's keys, pictures of it all."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from PIL import Image

from engine.jobs import launch
from engine.record.reader import Outcome
from engine.spec import load_spec
from eos_tui import cli, gallery, keys
from eos_tui.app import EosApp
from eos_tui.draw import theme
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.learn import Learn
from eos_tui.terminal import screenshot
from eos_tui.topics.topics import TOPICS

from piloting import notified, until
from synthetic import make_run
from terminals import Terminal

SGR = re.compile(rb"\x1b\[([0-9;:]*)m")
MOUSE_ON = b"\x1b[?1000h"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    home = tmp_path / "runs"
    home.mkdir()
    monkeypatch.setenv("EOS_HOME", str(home))
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.chdir(tmp_path)
    return home


# -- colours


@pytest.mark.parametrize(("choice", "colors", "environment", "expected"), [
    ("auto", True, {}, theme.DARK),
    ("auto", True, {"COLORFGBG": "0;15"}, theme.LIGHT),
    ("auto", True, {"COLORFGBG": "15;default;0"}, theme.DARK),
    ("auto", False, {}, theme.ANSI),
    ("auto", True, {"NO_COLOR": ""}, theme.ANSI),
    ("dark", False, {}, theme.DARK),
    ("light", True, {"COLORFGBG": "15;0"}, theme.LIGHT),
    ("terminal", True, {}, theme.ANSI),
])  # fmt: skip
def test_the_theme_is_the_one_chosen_or_what_the_terminal_can(choice, colors, environment, expected):
    assert theme.chosen(choice, colors, environment) == expected


def codes(sent: bytes) -> set[bytes]:
    """Every parameter of every colour sequence, those of 38 and 48 with their kind."""
    modes = set()
    for sequence in SGR.findall(sent):
        parts = sequence.split(b";")
        while parts:
            first = parts.pop(0)
            if first in (b"38", b"48"):
                kind = parts.pop(0)
                del parts[: 3 if kind == b"2" else 1]
                first += b";" + kind
            modes.add(first)
    return modes


PLAIN = {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"22", b"39", b"49"}
SIXTEEN = {str(base + k).encode() for base in (30, 40, 90, 100) for k in range(8)}


@pytest.mark.parametrize(("env", "allowed", "wanted"), [
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, PLAIN | {b"38;2", b"48;2"}, b"38;2"),
    ({"TERM": "xterm-256color"}, PLAIN | SIXTEEN | {b"38;5", b"48;5"}, b"38;5"),
    ({"TERM": "xterm"}, PLAIN | SIXTEEN, b"36"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, PLAIN, b"1"),
], ids=["millions", "256", "16", "none"])  # fmt: skip
def test_a_terminal_gets_the_colours_it_has_and_no_others(runs, env, allowed, wanted):
    make_run(runs)
    with Terminal(runs, "-m", "eos_tui", "attach", **env) as terminal:
        terminal.wait_for("399")
        terminal.wait_for("self-stabilization")
        sent = codes(terminal.sent)
        terminal.press("q")
        terminal.wait_for_end()
    assert sent <= allowed
    assert wanted in sent


async def test_without_colour_the_focus_and_the_choice_are_still_seen(runs, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    make_run(runs)
    async with EosApp(None).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        strips = pilot.app.screen._compositor.render_strips()
        chosen = next(strip for strip in strips if "T-shirt" in strip.text)
        other = next(strip for strip in strips if "Catapult" in strip.text)

        def look(strip):
            words = ("T-shirt", "Catapult")
            return {(style.bold, style.reverse, style.underline) for text, style, _ in strip if any(word in text for word in words)}

        assert look(chosen) != look(other)


# -- ASCII, the mouse, a slow link


@pytest.mark.parametrize("begins", ["run", "launcher", "tour"])
async def test_in_ascii_nothing_is_drawn_with_other_signs(runs, begins):
    run = make_run(runs)
    app = EosApp(run if begins == "run" else None, fps=10, ascii=True)
    async with app.run_test(size=(80, 24)) as pilot:
        if begins == "tour":
            await app.push_screen(Learn(app.pace, True, {"fashion": run}))
        for opened in ("", "question_mark", "ctrl+p"):
            if opened:
                await pilot.press(opened)
            for _ in range(3):
                await pilot.pause(0.1)
            drawn = set(screenshot.screen(app, "eos").txt)
            assert not {sign for sign in drawn if "\u2500" <= sign <= "\u25ff" or "\u2800" <= sign <= "\u28ff"}
            if opened:
                await pilot.press("escape")


@pytest.mark.parametrize(("options", "mouse"), [((), True), (("--no-mouse",), False), (("--low-bandwidth",), False)])
def test_clicks_are_left_to_the_terminal_when_asked(runs, options, mouse):
    make_run(runs)
    with Terminal(runs, "-m", "eos_tui", "attach", *options) as terminal:
        terminal.wait_for("399")
        assert (MOUSE_ON in terminal.sent) is mouse
        terminal.press("q")
        assert terminal.wait_for_end() == 0


def test_the_settings_hold_and_the_command_line_goes_before_them(runs):
    make_run(runs)
    (runs.parent / "config.toml").write_text("[view]\nmouse = false\nascii = true\n[keys.anywhere]\ndetach = 'Q'\n")
    for options, braille in (((), False), (("--no-ascii",), True)):
        with Terminal(runs, "-m", "eos_tui", "attach", *options) as terminal:
            terminal.wait_for("399")
            assert any("\u2800" < sign <= "\u28ff" for sign in terminal.text) is braille
            assert MOUSE_ON not in terminal.sent
            terminal.press("qQ")  # q means nothing any more
            assert terminal.wait_for_end() == 0


def test_wrong_settings_are_reported_before_anything_is_made(runs):
    (runs.parent / "config.toml").write_text("[view]\ncolour = 'red'\n")
    with Terminal(runs, "-m", "eos_tui", "run", "toy") as terminal:
        assert terminal.wait_for_end() == 2
        assert "colour: unknown key" in terminal.text.replace("\n", "")
    assert list(runs.iterdir()) == []


def test_low_bandwidth_sends_less_for_the_same_picture(runs):
    sent = {}
    for options in ((), ("--low-bandwidth",)):
        make_run(runs, name=f"made{len(options)}")
        with Terminal(runs, "-m", "eos_tui", "attach", *options, COLORTERM="truecolor") as terminal:
            terminal.wait_for("self-stabilization")
            terminal.press("q")
            terminal.wait_for_end()  # whole frames, whenever they came
            sent[options] = len(terminal.sent)
    assert sent[("--low-bandwidth",)] < sent[()]  # and at most one frame a second: see test_config


# -- the launcher


async def test_a_stopped_run_is_resumed_from_the_launcher(runs, monkeypatch):
    run = make_run(runs)
    stopped = Outcome(kind="stopped", step=399, text="stopped at step 399")
    state = msgspec.structs.replace(run.state(), outcome=stopped)
    monkeypatch.setattr(type(run), "state", lambda self: state)
    started = []
    monkeypatch.setattr(launch, "start", lambda run, group=None: started.append(run.name) or 0)
    app = EosApp(None, fps=10)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(lambda: isinstance(app.screen, Launcher) and len(app.screen.entries) == 1)
        await pilot.press("r")
        assert "Choose a run first" in notified(app)
        await pilot.press("tab", "r")
        await until(lambda: isinstance(app.screen, Dashboard))
    assert started == ["made"]


async def test_a_run_that_is_complete_is_not_resumed_and_the_launcher_says_why(runs):
    make_run(runs)
    app = EosApp(None, fps=10)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(lambda: isinstance(app.screen, Launcher) and len(app.screen.entries) == 1)
        await pilot.press("tab", "r")
        await pilot.pause()
        assert "it has ended (completed 399 steps)" in notified(app)
        assert isinstance(app.screen, Launcher)


# -- pictures, completion, exit statuses


def test_the_gallery_shows_each_page_at_each_size_on_each_ground(runs, capsys, monkeypatch):
    make_run(runs)
    monkeypatch.setattr(gallery, "PAGES", tuple(page for page in gallery.PAGES if page.name in ("launcher", "plot")))
    monkeypatch.setattr(gallery, "SIZES", ((80, 24), (120, 40)))
    monkeypatch.setattr(gallery.make, "__defaults__", (False, gallery.PAGES, gallery.SIZES, ("dark", "light")))
    assert cli.main(["gallery", "pictures"]) == 0
    files = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(files) == 2 * 2 * 2
    index = Path("pictures/index.html").read_text()
    for file in files:
        words = "".join(ElementTree.parse(file).getroot().itertext()).replace("\xa0", " ")
        assert ("presets" if "launcher" in file.name else "sharpness") in words
        assert file.name in index
    dark, light = (Path(f"pictures/plot-80x24-{ground}.svg").read_text() for ground in ("dark", "light"))
    assert "#12161c" in dark
    assert "#f7f6f2" in light


def test_the_gallery_shows_a_run_that_is_played_when_it_is_opened_far_on(runs, capsys, monkeypatch):
    make_run(runs, spec=load_spec("toy"))
    pages = tuple(page for page in gallery.PAGES if page.name == "dashboard")
    monkeypatch.setattr(gallery.make, "__defaults__", (False, pages, ((120, 40),), ("dark",)))
    assert cli.main(["gallery", "pictures"]) == 0
    words = "".join(ElementTree.parse(capsys.readouterr().out.strip()).getroot().itertext()).replace("\xa0", " ")
    step = int(re.search(r"replay.*?step +(\d+)", words)[1])
    assert gallery.PLAYED * 399 <= step < 399


def test_the_gallery_in_png_has_sixteen_colours_and_none(runs, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    make_run(runs)
    pages = tuple(page for page in gallery.PAGES if page.name == "plot")
    monkeypatch.setattr(gallery.make, "__defaults__", (False, pages, ((80, 24),), ("sixteen", "colourless")))
    assert cli.main(["gallery", "pictures", "--png"]) == 0
    sixteen, colourless = (Image.open(line).convert("RGB") for line in capsys.readouterr().out.split())

    def most_colourful(picture):
        return max(max(color) - min(color) for _, color in picture.getcolors(1 << 16))

    assert most_colourful(sixteen) > 50
    assert most_colourful(colourless) < 10
    assert "NO_COLOR" not in os.environ


def test_pages_of_the_gallery_lead_where_they_say(runs):
    names = [page.name for page in gallery.PAGES]
    assert len(set(names)) == len(names)
    known = {one for key in keys.TABLE for one in key.keys.split(",")}
    assert {key for page in gallery.PAGES for key in page.keys} <= known
    assert gallery.tour_steps(make_run(runs)) == []  # a synthetic run is none of the tour's


def test_a_gallery_that_cannot_be_written_is_reported_in_one_line(runs, capsys):
    make_run(runs)
    Path("file").touch()
    assert cli.main(["gallery", "file/under"]) == 2
    assert "pictures cannot be written there" in capsys.readouterr().err


def test_completion_is_installed_for_the_shell_in_use(tmp_path):
    env = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash", "XDG_DATA_HOME": str(tmp_path / "share")}
    done = subprocess.run([sys.executable, "-m", "eos_tui", "--install-completion", "--shell", "bash"], env=env, check=False,
                          capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*") if path.is_file() and "attach" in path.read_text(errors="replace")]
    assert scripts


@pytest.mark.parametrize(("words", "completion"), [
    (["run", "fa"], "fashion"), (["run", "here/mi"], "here/mine.toml"), (["attach", ""], "made"), (["pause", "ma"], "made"),
    (["compare", "made", ""], "made"), (["plot", "made", "--series", "gd."], "gd.sharpness"), (["tail", "--columns", ""], "gd.loss"),
    (["reproduce", ""], "fig5"), (["data", "prepare", ""], "cifar10"), (["export", "made", "--columns", "step,gd.s"], "step,gd.sharpness"),
    (["run", "toy", "--set", "opt"], "optimizer.learning_rate=0.02"), (["fork", "made", "--set", ""], "seed=0"),
    (["sweep", "fashion", "--grid", "problem.model."], "problem.model.widths=[100,100]"),
])  # fmt: skip
def test_a_shell_completes_names(runs, capsys, words, completion):
    make_run(runs)
    Path("here").mkdir()
    Path("here/mine.toml").touch()
    assert cli.main(["__complete", *words]) == 0
    assert completion in [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]


def test_completion_is_silent_where_a_run_is_not_there(runs, capsys):
    assert cli.main(["__complete", "plot", "none", "--series", "gd."]) == 0
    assert capsys.readouterr().out.split() == ["begin"]


def test_help_tells_every_exit_status(capsys):
    assert cli.main(["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    listed = out.partition("Exit status: ")[2].rstrip(".")
    statuses = [part.split()[0] for part in listed.split(" · ")]
    assert statuses == ["0", "1", "2", "3", "4", "5", "6", "129", "130", "141", "143"]
    topic = next(topic for topic in TOPICS if topic.name == "commands").markdown().replace("\n", " ")
    assert all(re.search(rf"Exit status: .*?\b{status}\b[^.]*", topic) for status in statuses)
