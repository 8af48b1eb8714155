"""The app by pilot: every key, on runs made by the test and an engine that only answers."""

import asyncio
import json
import math
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine import control, store
from engine.errors import UserError
from engine.store import State
from eos_tui import keys, panels, theme
from eos_tui.app import EosApp
from eos_tui.pace import Pace
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.help import Help
from eos_tui.screens.journal import Events
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.learn import Learn
from eos_tui.screens.prompts import Ask, Confirm, a_count, a_learning_rate
from eos_tui.source import Source
from eos_tui.timeline import Timeline
from eos_tui.widgets.footer import fitting
from eos_tui.widgets.header import gauge
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.portrait import PhasePortrait

from synthetic import EDGE, LEARNING_RATE, FakeEngine, make_run, rows_of

SIZES = [(20, 6), (40, 12), (60, 15), (80, 24), (100, 30), (120, 40), (250, 70)]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """A home of its own for each test."""
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@asynccontextmanager
async def opened(run=None, size=(120, 40), fps=10.0):
    """The app, running without a terminal."""
    app = EosApp(run, fps=fps)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(lambda: app.pace.frames >= 1)
        await pilot.pause()
        yield app, pilot


async def until(holds, seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def frames(app: EosApp, count: int = 1) -> None:
    """Wait for so many frames."""
    goal = app.pace.frames + count
    await until(lambda: app.pace.frames >= goal)


def text_of(app: EosApp) -> str:
    """The screen as text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def notified(app: EosApp) -> str:
    """What the notifications on the screen say."""
    return "\n".join(f"{each.title} {each.message}" for each in app._notifications)


# -- what is shown


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_shows_the_run_or_says_that_it_is_too_small(runs, size):
    async with opened(make_run(runs), size) as (app, _):
        shown = text_of(app)
        if size < (40, 12):
            assert "too small" in shown
        else:
            assert "399" in shown
            assert "ηS/2" in shown
            assert "sharpness" in shown


async def test_wide_screens_show_six_plots_and_narrow_ones_turn_pages_of_two(runs):
    run = make_run(runs)
    async with opened(run, (120, 40)) as (app, _):
        assert len(app.screen._visible()) == 6
    async with opened(run, (80, 24)) as (app, pilot):
        assert [panel.id for panel in app.screen._visible()] == ["sharpness", "loss"]
        assert "page 1/3" in text_of(app)
        await pilot.press("n")
        await frames(app)
        assert [panel.id for panel in app.screen._visible()] == ["x", "y"]
        await pilot.press("pagedown", "pagedown", "b")
        await frames(app)
        assert "page 3/3" in text_of(app)


async def test_a_resize_while_running_lays_out_anew(runs):
    async with opened(make_run(runs), (120, 40)) as (app, pilot):
        for size in [*SIZES, (120, 40)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await frames(app)
        assert len(app.screen._visible()) == 6


async def test_the_header_tells_condition_stage_and_device(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, _):
            shown = text_of(app)
    assert "● live" in shown
    assert re.search(r"stage [1-4] of 4", shown)
    assert "cpu float64" in shown
    assert "synthetic" in shown


async def test_an_engine_that_died_is_told_from_one_that_finished(runs):
    run = make_run(runs, finished=False)
    (run.path / "engine.log").write_text("MemoryError: out of memory\n")
    async with opened(run) as (app, _):
        assert "crashed" in text_of(app)
        assert "MemoryError: out of memory" in text_of(app)


async def test_a_run_removed_while_open_is_said_to_be_gone(runs):
    run = make_run(runs)
    async with opened(run) as (app, _):
        store.remove(run)
        await frames(app, 2)
        assert "removed" in text_of(app)


async def test_a_diverged_run_stays_drawable(runs):
    run = make_run(runs, finished=False)
    rows = rows_of(run, 400, 440)
    for name in ("gd.loss", "gd.sharpness", "gd.x", "generalized.x", "generalized.y"):
        rows[20:, run.index[name]] = math.inf
    rows[30:, 3:] = math.nan
    with store.Writer(run) as writer:
        writer.append(rows)
        outcome = store.Outcome(kind="diverged", step=420, text="diverged at step 420")
        writer.state(State(status="finished", phase="edge", step=439, learning_rate=LEARNING_RATE, outcome=outcome))
    async with opened(run) as (app, pilot):
        assert "Diverged at step 420" in text_of(app)
        for _ in range(7):
            await pilot.press("tab", "y", "c", "+", "p")
            await frames(app)


async def test_a_run_without_rows_says_that_the_engine_is_starting(runs):
    run = store.create(make_run(runs).spec, "fresh")
    async with opened(run) as (app, pilot):
        assert "engine is starting" in text_of(app)
        for key in ("c", "left", "+", "-", "[", "]", "0", "y", "p", "i"):
            await pilot.press(key)
        await frames(app, 2)
        assert isinstance(app.screen, Formula)


# -- keys that drive the engine


@pytest.mark.parametrize(("pressed", "command"), [
    (["space"], control.Pause()),
    (["."], control.Advance(steps=1)),
    (["S", *"25", "enter"], control.Advance(steps=25)),
    (["e", *"0.05", "enter"], control.SetLearningRate(learning_rate=0.05)),
    (["r"], control.Anchor()),
    (["R", *"40", "enter"], control.Anchor(every=40)),
    (["k"], control.Checkpoint()),
    (["x", "y"], control.Stop()),
])  # fmt: skip
async def test_a_key_becomes_a_command_and_its_answer_is_shown(runs, pressed, command):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press(*pressed)
            await until(lambda: engine.commands)
            told = engine.commands[0]
            assert type(told) is type(command)
            for field in command.__struct_fields__:
                if field != "id":
                    assert getattr(told, field) == getattr(command, field)
            await until(lambda: any(event.answers == told.id for event in app.screen.source.events))
            await until(lambda: notified(app))
            assert "step" in notified(app)


async def test_space_resumes_what_it_paused(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("space")
            await until(lambda: app.screen.source.condition == "paused")
            await frames(app)
            assert "paused" in text_of(app)
            await pilot.press("space")
            await until(lambda: len(engine.commands) == 2)
            assert isinstance(engine.commands[1], control.Resume)


async def test_advancing_shows_exactly_the_new_steps(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("S", *"25", "enter")
            await until(lambda: app.screen.source.step == 424)
            assert len(app.screen.source.history) == 425


async def test_a_prompt_refuses_nonsense_and_escape_sends_nothing(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            for text in ("-1", "abc"):
                await pilot.press("e", *(["minus" if c == "-" else c for c in text]), "enter")
                assert isinstance(app.screen, Ask)
                await pilot.press("escape")
            await pilot.press("x", "n", "x", "escape")
            await frames(app, 3)
            assert isinstance(app.screen, Dashboard)
            assert engine.commands == []


async def test_a_finished_run_takes_no_commands_and_says_why(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("space")
        await pilot.pause()
        assert "has finished" in notified(app)
        assert list((run.path / "inbox").iterdir()) == []


@pytest.mark.parametrize("text", ["", "-3", "0", "1.5", "x", "9" * 30, "٣"])
def test_a_count_is_a_whole_number_from_one(text):
    with pytest.raises(UserError):
        a_count(1)(text)


@pytest.mark.parametrize("text", ["", "0", "-0.1", "nan", "inf", "1e13", "η"])
def test_a_learning_rate_is_positive_and_finite(text):
    with pytest.raises(UserError):
        a_learning_rate(text)


# -- keys that change the view


async def test_freezing_holds_the_picture_while_the_engine_goes_on(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("f", ".")
            await until(lambda: app.screen.source.state.step == 400)
            assert len(app.screen.source.history) == 400
            assert "view frozen" in text_of(app)
            await pilot.press("f")
            await until(lambda: len(app.screen.source.history) == 401)


async def test_enter_shows_one_plot_alone_and_escape_returns(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("tab", "enter")
        await frames(app)
        assert [panel.id for panel in app.screen._visible()] == ["loss"]
        await pilot.press("tab")
        await frames(app)
        assert [panel.id for panel in app.screen._visible()] == ["x"]
        await pilot.press("escape")
        await frames(app)
        assert len(app.screen._visible()) == 6


async def test_tab_visits_every_plot_once_and_turns_pages(runs):
    async with opened(make_run(runs), (80, 24)) as (app, pilot):
        visited = []
        for _ in range(6):
            visited.append(app.focused.id)
            await pilot.press("tab")
        assert sorted(visited) == sorted(["sharpness", "loss", "x", "y", "distance", "portrait"])
        assert app.focused.id == "sharpness"
        await pilot.press("shift+tab")
        assert app.focused.id == "distance"
        assert app.screen.page == 2


async def test_predictions_are_drawn_by_choice(runs):
    def drawn(app):
        return {curve.column for curve in app.screen.query_one("#x", LinePlot).spec.curves}

    async with opened(make_run(runs)) as (app, pilot):
        assert drawn(app) == {"gd.x", "generalized.x"}
        await pilot.press("p")
        assert drawn(app) == {"gd.x", "generalized.x", "transported.x"}
        await pilot.press("p")
        assert drawn(app) == {"gd.x", "generalized.x", "transported.x", "code.x"}
        await pilot.press("p")
        assert drawn(app) == {"gd.x"}
        await pilot.press("p")
        assert drawn(app) == {"gd.x", "generalized.x"}


async def test_y_makes_the_focused_axis_logarithmic(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("tab", "y")
        assert app.screen.query_one("#loss", LinePlot).spec.log
        assert not app.screen.query_one("#sharpness", LinePlot).spec.log
        await pilot.press("y")
        assert not app.screen.query_one("#loss", LinePlot).spec.log


async def test_the_cursor_shows_the_stored_values_of_its_step(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("c", "shift+left", "shift+left", "left")
        await frames(app, 2)
        at = int(app.screen.timeline.cursor)
        assert at == 399 - 2 - 3
        sharpness = run.rows(at, at + 1)[0, run.index["gd.sharpness"]]
        assert f"cursor at step {at}" in text_of(app)
        assert f"{sharpness:.6g}" in text_of(app)
        await pilot.press("escape")
        assert app.screen.timeline.cursor is None


async def test_zoom_pan_and_reset_change_the_steps_in_view(runs):
    async with opened(make_run(runs)) as (app, pilot):
        line = app.screen.timeline
        assert line.window() == (0, 399)
        await pilot.press("+")
        assert line.window() == (399 - 199.5, 399)
        await pilot.press("[")
        assert line.window()[1] < 399
        await pilot.press("]", "-", "0")
        assert line.window() == (0, 399)


async def test_formula_shows_words_symbol_formula_and_place(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("i")
        await pilot.pause()
        shown = text_of(app)
        assert "sharpness of gradient descent" in shown
        assert "λ1(∇²L(θ_t))" in shown
        assert "Section 1" in shown
        await pilot.press("escape")
        assert isinstance(app.screen, Dashboard)


async def test_the_journal_lists_every_event(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("v")
        await pilot.pause()
        assert isinstance(app.screen, Events)
        for event in app.screen._events:
            assert event.text in text_of(app)
        await pilot.press("escape")


async def test_a_screenshot_is_saved_and_its_place_is_said(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("w")
        await pilot.pause()
        ansi, svg, text = sorted(Path.cwd().glob("eos-made-*"))
        assert "\x1b[" in ansi.read_text()
        assert "http" not in svg.read_text().replace("http://www.w3.org", "").replace("https://www.textualize.io", "")
        assert svg.read_text().startswith("<svg")
        assert "ηS/2" in text.read_text()
        assert svg.stem in notified(app).replace("\n", "")


async def test_every_theme_draws(runs):
    async with opened(make_run(runs)) as (app, pilot):
        seen = set()
        for _ in theme.THEMES:
            seen.add(app.theme)
            await pilot.press("t")
            await frames(app, 2)
        assert seen == {each.name for each in theme.THEMES}


async def test_q_detaches_and_leaves_the_engine_alone(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("q")
            await until(lambda: app._exit)
        assert app.return_value == 0
        assert engine.commands == []
        assert run.liveness() == "running"


# -- help, palette, launcher


async def test_help_names_every_key_of_its_place(runs):
    async with opened(make_run(runs), (120, 70)) as (app, pilot):
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        shown = text_of(app)
        for key in keys.offered("dashboard"):
            assert key.label in shown
        await pilot.press("escape")
        assert isinstance(app.screen, Dashboard)


async def test_the_palette_finds_an_action_by_a_part_of_its_name(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("ctrl+p")
        await pilot.press(*"log axis")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Dashboard) and app.screen.query_one("#sharpness", LinePlot).spec.log)


async def test_the_launcher_describes_presets_and_lists_runs(runs):
    make_run(runs, name="older")
    make_run(runs, name="newer")
    async with opened(size=(120, 40)) as (app, pilot):
        assert isinstance(app.screen, Launcher)
        shown = text_of(app)
        assert "fashion" in shown
        assert "toy" in shown
        assert "older" in shown
        assert "completed 399 steps" in shown
        await pilot.press("tab", "enter")
        await until(lambda: isinstance(app.screen, Dashboard))
        assert app.screen.source.run.name == "newer"
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, Launcher))
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Dashboard))


async def test_the_launcher_starts_a_preset(runs, monkeypatch):
    started = []
    monkeypatch.setattr("engine.launch.start", lambda run: started.append(run.spec.name) or 1)
    async with opened() as (app, pilot):
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Dashboard))
        assert started == ["fashion"]


async def test_removing_a_run_asks_first_and_spares_one_that_is_live(runs):
    live = make_run(runs, name="live", finished=False)
    make_run(runs, name="old")
    with FakeEngine(live):
        async with opened() as (app, pilot):
            await until(lambda: len(app.screen._entries) == 2)
            await pilot.press("tab", "d")
            assert isinstance(app.screen, Confirm)
            await pilot.press("n")
            await pilot.press("d", "y")
            await until(lambda: [entry.run.name for entry in app.screen._entries] == ["live"])
            await pilot.press("d", "y")
            await pilot.pause()
            assert "still running" in notified(app)
    assert [run.name for run in store.all_runs(runs)] == ["live"]


@pytest.mark.parametrize("size", SIZES)
async def test_the_launcher_opens_at_every_size(runs, size):
    make_run(runs)
    async with opened(size=size) as (app, pilot):
        await pilot.press("tab", "tab", "question_mark", "escape")
        await frames(app, 2)


async def test_corrupt_runs_do_not_keep_the_launcher_from_opening(runs):
    make_run(runs, name="good")
    (make_run(runs, name="bad").path / "spec.toml").write_bytes(b"\xff\xfe")
    (make_run(runs, name="odd").path / "state.json").write_text("[" * 5000)
    (runs / "stray").mkdir()
    async with opened() as (app, _):
        assert {entry.run.name for entry in app.screen._entries} == {"good", "odd"}


# -- one table of keys


def test_every_key_of_the_table_has_its_action():
    owners = {"dashboard": Dashboard, "tour": Learn, "launcher": Launcher, "anywhere": EosApp}
    for key in keys.TABLE:
        assert hasattr(owners[key.place], f"action_{key.method}"), key


def test_no_key_does_two_things_in_one_place():
    for place in ("dashboard", "launcher"):
        names = [name for key in keys.offered(place) for name in key.keys.split(",")]
        assert len(names) == len(set(names))


def test_keys_that_a_multiplexer_takes_are_left_alone():
    taken = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+q", "ctrl+z"}
    assert not taken & {name for key in keys.TABLE for name in key.keys.split(",")}


def test_the_key_table_of_the_readme_has_every_key():
    assert keys.markdown().count("\n") == len(keys.TABLE) + 2


@pytest.mark.parametrize("width", [40, 80, 120, 250])
def test_the_footer_fits_and_always_offers_help_and_the_way_out(width):
    shown = fitting("dashboard", width)
    assert {"detach", "keys"} <= {key.method for key in shown}
    assert sum(len(f"{key.shown} {key.label}  ") for key in shown) <= width


# -- clock, time axis, source


async def test_the_clock_waits_for_the_terminal_and_goes_on_without_one():
    drawn, questions = [], []
    pace = Pace(fps=10)

    async def draw() -> None:
        drawn.append(len(questions))

    def ask() -> bool:
        questions.append(True)
        return True

    task = asyncio.create_task(pace.run(draw, ask))
    await asyncio.sleep(0.35)
    assert len(drawn) == 1  # no answer: the next frame waits
    pace.answered()
    await until(lambda: len(drawn) == 2)
    pace.answered()
    await until(lambda: len(drawn) == 3)
    task.cancel()
    free = Pace(fps=10)
    task = asyncio.create_task(free.run(draw, lambda: False))
    await until(lambda: free.frames >= 3, seconds=2)
    task.cancel()


async def test_a_terminal_that_never_answers_is_drawn_once_a_second(monkeypatch):
    monkeypatch.setattr("eos_tui.pace.PATIENCE_SECONDS", 0.05)
    pace = Pace(fps=10)

    async def draw() -> None:
        pass

    task = asyncio.create_task(pace.run(draw, lambda: True))
    await until(lambda: pace.slow)
    before = pace.frames
    await asyncio.sleep(0.5)
    assert pace.frames - before <= 1
    pace.hurry()  # a key is answered at once all the same
    await until(lambda: pace.frames > before, seconds=0.5)
    task.cancel()


def test_the_axis_grows_in_strides():
    line, limits = Timeline(), set()
    for step in range(5000):
        line.reach(step)
        limits.add(line.window()[1])
        assert line.window()[1] >= step
    assert len(limits) < 25


def test_zooming_about_the_cursor_keeps_it_where_it_stands():
    line = Timeline()
    line.reach(1000, final=True)
    line.cursor = 250
    line.zoom(0.5)
    start, stop = line.window()
    assert stop - start == pytest.approx(500)
    assert (250 - start) / (stop - start) == pytest.approx(0.25)


def test_a_zoomed_view_follows_until_it_is_moved_and_again_at_the_end():
    line = Timeline()
    line.reach(1000)
    line.zoom(0.1)
    line.reach(1200)
    assert line.window()[1] == 1200
    line.pan(-1)
    line.reach(1300)
    assert line.window()[1] < 1200
    for _ in range(20):
        line.pan(1)
    line.reach(1400)
    assert line.window()[1] == 1400


def test_the_cursor_stays_on_the_run_and_in_view():
    line = Timeline()
    line.reach(100, final=True)
    line.toggle_cursor()
    for _ in range(300):
        line.move_cursor(1)
    assert line.cursor == 100
    line.zoom(0.1)
    for _ in range(300):
        line.move_cursor(-1, single=True)
        start, stop = line.window()
        assert start <= line.cursor <= stop
    assert line.cursor == 0


def test_a_torn_last_row_is_not_shown_and_comes_when_it_is_whole(runs):
    run = make_run(runs, steps=200)
    body = rows_of(run, 200, 201).tobytes()
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[:100])
    source = Source(run)
    source.take(source.read())
    assert len(source.history) == 200
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[100:])
    source.take(source.read())
    assert len(source.history) == 201


def test_values_of_the_approach_are_not_shown_as_those_of_the_edge(runs):
    source = Source(make_run(runs, steps=EDGE - 10))
    source.take(source.read())
    row = source.row()
    assert math.isnan(row["gd.x"])
    assert row["gd.sharpness"] == pytest.approx(20 + 0.8 * (EDGE - 11))


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 0.999, 1.0, 1.1, 1.2, 7.0, math.nan, math.inf])
@pytest.mark.parametrize("cells", [12, 24, 36])
def test_the_gauge_keeps_its_width_and_its_mark(value, cells):
    shown = gauge(value, cells, lambda role: "red").plain
    assert len(shown) == cells
    assert shown[round(cells / 1.2)] == "┃"
    assert len(gauge(value, cells, lambda role: "red", ascii=True).plain.encode()) == cells


def test_plots_show_only_what_the_run_records(runs):
    run = make_run(runs)
    kept = [column for column in run.columns if not column.name.startswith(("flow.", "transported.", "code."))]
    names = {column.name for column in kept}
    for plot in panels.line_plots(kept, panels.CHOICES[2]):
        assert {curve.column for curve in plot.curves} <= names


# -- boundaries


def test_the_view_opens_without_jax():
    code = ("import json, sys, eos_tui.app, eos_tui.cli; "
            "print(json.dumps([m for m in ('jax', 'jaxlib', 'flax', 'tensorflow_datasets') if m in sys.modules]))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parent.parent)
    assert json.loads(found.stdout) == []


async def test_the_portrait_follows_the_choice_of_predictions(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("p", "p", "p")
        assert tuple(app.screen.query_one(PhasePortrait).forms) == ()


async def test_a_command_that_is_not_answered_is_said_to_wait(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.screens.driving.PATIENCE_SECONDS", 0.1)
    run = make_run(runs, finished=False)
    with store.Writer(run):  # an engine in the middle of a long step
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("k")
            await until(lambda: "No answer yet" in notified(app))
