"""The tour: its words fit, its conditions find what they claim, and it drives real runs by one key."""

import math
import random
import re
import signal

import numpy as np
import pytest

from engine.jobs import launch
from engine.record import store
from engine.record.columns import columns_for
from engine.record.messages import Advance, Pause, Resume, Stop
from engine.record.writer import Writer
from engine.spec import load_spec
from eos_tui import keys, lessons
from eos_tui.app import EosApp
from eos_tui.draw import panels
from eos_tui.lessons import STEPS, happened, stages
from eos_tui.screens import learn
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.learn import Learn

import waiting
from piloting import text_of, until
from synthetic import EDGE, FakeEngine, make_run
from terminals import Terminal


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


# -- the words


@pytest.mark.parametrize("step", STEPS, ids=[step.title for step in STEPS])
def test_every_step_speaks_of_what_its_run_records(step):
    spec = load_spec(step.preset)
    recorded = {column.name for column in columns_for(spec)}
    plots = {plot.id for plot in panels.line_plots(columns_for(spec), step.forms)} | {panels.PORTRAIT}
    assert set(step.plots) <= plots
    assert set(step.gauge.split()) <= recorded
    assert step.gauge
    assert set(step.forms) <= set(spec.tracking.predictions)
    assert len(step.text) <= 400
    assert step.watch[-1] != "."  # the screen ends the sentence


def test_the_tour_tells_the_whole_story_and_looks_at_the_toy_and_the_default():
    assert 9 <= len(STEPS) <= 12
    assert {"toy", "fashion"} <= {step.preset for step in STEPS}


# -- the conditions


def test_nothing_has_happened_before_there_are_rows():
    empty = {column.name: np.empty(0) for column in columns_for(load_spec("fashion"))}
    assert [happened(step, empty) for step in STEPS] == [None] * len(STEPS)


def test_the_edge_is_found_at_its_row(runs):
    table = make_run(runs).table()
    assert happened(STEPS[1], table) == EDGE
    half = happened(STEPS[0], table)
    assert table["gd.sharpness"][half] >= 50 > table["gd.sharpness"][half - 1]


def test_stages_are_found_in_their_order_alone():
    table = {"step": np.arange(8.0), "stage": np.array([4, 1, 2, 3, 4, 1, 2, 3.0])}
    assert [int(np.flatnonzero(stages(*chain)(table))[0]) for chain in ((3,), (3, 4), (3, 4, 1, 2), (3, 4, 1, 2, 3))] == [3, 4, 6, 7]


def test_a_prediction_that_lost_its_way_holds_only_after_another_anchor():
    rows = 400
    table = {"step": np.arange(rows, dtype=float), "learning_rate": np.full(rows, 0.02)}
    table["constrained.sharpness"] = np.where(table["step"] >= 100, 100.0, np.nan)
    table["generalized.since_anchor"] = np.where(table["step"] >= 230, table["step"] - 230, table["step"] - 100)
    table["generalized.correlation"] = np.full(rows, 0.95)
    table["generalized.horizon"] = np.where((table["step"] >= 140) & (table["step"] < 230), 40.0, np.nan)
    assert happened(STEPS[8], table) == 140
    assert happened(STEPS[9], table) == 290


def test_a_second_direction_holds_where_the_covariance_has_rank_two():
    table = {"step": np.arange(4.0), "covariance.trace": np.array([np.nan, 1e-3, 1e-3, 1e-3])}
    step = next(step for step in STEPS if step.preset == "chebyshev-several")
    assert happened(step, table | {"covariance.lambda2": np.array([np.nan, np.nan, -1e-12, 1e-5])}) == 3
    assert happened(step, table) is None


def test_adam_comes_to_its_edge_after_its_first_steps():
    table = {"step": np.arange(6.0), "threshold_ratio": np.array([30.0, 2.0, 0.2, np.nan, 0.8, 1.01])}
    assert STEPS[-1].preset == "adam"
    assert happened(STEPS[-1], table) == 5


def test_gradient_flow_has_left_once_it_is_twice_as_far_as_gradient_descent_ever_was():
    """And gradient descent has come back from a burst: the picture says what the step does."""
    table = {"step": np.arange(6.0), "constrained.delta": np.ones(6), "gd.x": np.array([0.1, 2, 3, 0.5, 0.4, 0.3]),
             "gd.distance": np.array([0.1, 2, 3, 0.5, 0.4, 0.3]), "flow.distance": np.array([1.0, 5, 5.9, 5.9, 6.1, 7])}
    assert happened(STEPS[7], table) == 4


def test_columns_that_a_run_lacks_count_as_no_value():
    assert np.isnan(lessons.column({"step": np.arange(3.0)}, "gd.lambda2")).all()


# -- the screen, on runs made by the test


def begun_adam(runs):
    """The first rows of a run of Adam."""
    run = store.create(load_spec("adam"), "adam-run", runs)
    rows = np.full((3, len(run.columns)), np.nan)
    rows[:, run.index["step"]], rows[:, run.index["threshold_ratio"]] = range(3), (30.0, 9.0, 0.4)
    with Writer(run) as writer:
        writer.append(rows)
    return run


@pytest.fixture
def begun(runs, monkeypatch):
    """Presets begun by the tour, each a run with an engine that only answers."""
    engines = {}

    def begin(preset):
        run = make_run(runs, 60, f"{preset}-run", finished=False) if preset != "adam" else begun_adam(runs)
        engines[preset] = FakeEngine(run).__enter__()
        return run, 0

    monkeypatch.setattr(learn.launch, "begin", begin)
    yield engines
    for engine in engines.values():
        engine.__exit__()


def touring(app):
    return isinstance(app.screen, Learn) and app.screen.is_mounted


async def test_space_drives_the_whole_tour_and_leaving_stops_its_engines(begun):
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(lambda: touring(app))
        for at in range(len(STEPS) - 1):
            assert app.screen.at == at
            assert app.screen.source.run.name == f"{STEPS[at].preset}-run"
            await pilot.press("space")
            await pilot.pause()
        assert app.screen.at == len(STEPS) - 1
        await pilot.press("space", "b")
        assert app.screen.at == len(STEPS) - 2
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Launcher))
        await until(lambda: all(isinstance(engine.commands[-1], Stop) for engine in begun.values()))
    kinds = [type(command) for command in begun["fashion"].commands]
    assert kinds[0] is Resume
    assert Advance in kinds  # it goes a little further while the toy is looked at
    assert Pause in [type(command) for command in begun["toy"].commands]


async def test_a_step_waits_then_holds_the_engine_and_goes_on_by_itself(begun, monkeypatch):
    monkeypatch.setattr(learn, "READING_SECONDS", 0.3)
    monkeypatch.setattr(learn, "WORDS_A_SECOND", 1e9)
    monkeypatch.setattr(learn, "PAUSE_SECONDS", 0.3)
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(lambda: touring(app) and app.screen.seen_at is not None)  # 60 rows: half the way to the edge
        assert not app.screen.by_itself  # by default every step waits for the key
        await pilot.press("a")
        await until(lambda: any(isinstance(command, Pause) for command in begun["fashion"].commands))
        await until(lambda: app.screen.at == 1)
        assert app.screen.seen_at is None
        await until(lambda: "Waiting until S reaches 2/η" in app.screen.waiting.content.plain)


async def test_by_hand_the_tour_stays_where_it_is(begun, monkeypatch):
    monkeypatch.setattr(learn, "READING_SECONDS", 0.0)
    monkeypatch.setattr(learn, "WORDS_A_SECOND", 1e9)
    monkeypatch.setattr(learn, "PAUSE_SECONDS", 60.0)
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(lambda: touring(app) and app.screen.seen_at is not None)
        await until(lambda: "Space goes on" in app.screen.waiting.content.plain)
        await pilot.press("a")
        await until(lambda: "On in 6" in app.screen.waiting.content.plain)
        await pilot.press("space", "b")
        assert not app.screen.by_itself  # going back holds
        assert math.isfinite(app.screen.seconds_left())
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula))


def test_the_countdown_lasts_as_long_as_the_words_are_read():
    assert learn.READING_SECONDS >= 20
    assert all(20 < step.words / learn.WORDS_A_SECOND < 45 for step in STEPS)


@pytest.mark.parametrize(("size", "shown"), [((80, 24), 1), ((100, 30), 2), ((120, 40), 2)])
async def test_two_plots_stand_where_there_is_room_and_a_step_changes_in_one_frame(begun, size, shown):
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=size) as pilot:
        await until(lambda: touring(app) and app.pace.frames >= 2)
        assert sum(panel.display and panel.size.height >= 8 for panel in app.screen.panels) == shown
        before = text_of(app)
        await app.screen.action_next_step()
        await pilot.pause()
        after = text_of(app)
        assert "Progressive sharpening" in before
        assert "Progressive sharpening" not in after
        assert "The threshold 2/η" in after
        assert after.count("sharpness S") >= 1


async def test_the_toy_is_shown_at_a_speed_one_can_follow_and_stops_where_it_happens(runs):
    run = make_run(runs, 400)  # its engine was quicker
    history = learn.Source(run)
    trip = learn.Trip(history)
    trip.take(history.read())
    assert not trip.play(0.5, 60.0, 100.0, 150.0)
    assert history.history.last_step == 130
    assert trip.play(0.5, 60.0, 100.0, 150.0)
    assert history.history.last_step == 150
    history.history.limit = None
    assert not trip.play(10.0, 60.0, 100.0, None)
    assert history.history.last_step == 399  # it has not happened in what there is


async def test_the_run_of_a_step_opens_and_its_engine_goes_on(begun):
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(lambda: touring(app))
        await pilot.press("o")
        await until(lambda: isinstance(app.screen, Dashboard))
        commands = begun["fashion"].commands
        await until(lambda: len(commands) >= 2 and isinstance(commands[-1], Resume))
        assert all(isinstance(command, Resume | Pause) for command in commands)


@pytest.mark.parametrize("size", [(40, 12), (60, 20), (80, 24), (120, 40), (200, 50)])
async def test_every_size_shows_words_and_plots_or_says_that_it_is_too_small(begun, size):
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=size) as pilot:
        await until(lambda: touring(app) and app.pace.frames >= 2)
        await pilot.pause()
        shown = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
        if size < (60, 20):
            assert "Too small" in shown
            return
        words = " ".join(shown.split())
        assert "Progressive sharpening" in words
        assert "Watch:" in words
        assert any(panel.display and panel.size.height >= 3 for panel in app.screen.panels)


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40)])
async def test_no_line_of_the_words_ends_within_a_formula(runs, size):
    """`1 − ηS` and `|x| > δ` stay on a line each, wherever the words wrap."""
    made = {preset: make_run(runs, name=preset) for preset in {step.preset for step in STEPS}}
    app = EosApp()
    async with app.run_test(size=size) as pilot:
        tour = Learn(app.pace, runs=made)
        await app.push_screen(tour)
        for k, step in enumerate(STEPS):
            tour.at = k
            tour._arrange()
            await pilot.pause()
            region = tour.words.region
            words = [line[region.x : region.right].strip() for line in text_of(app).splitlines()[region.y : region.bottom]]
            assert step.text in " ".join(words)
            assert not [line for line in words if re.search(r"^[<>=≤≥≪−←] | [<>=≤≥≪−←]$", line)], words


async def test_a_run_that_ends_before_is_said_to_have(runs, monkeypatch):
    monkeypatch.setattr(learn.launch, "begin", lambda preset: (make_run(runs, 10, preset), 0))
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(80, 24)):
        await until(lambda: touring(app) and "The run is finished before" in app.screen.waiting.content.plain)


@pytest.mark.parametrize("leave", ["q", "hang-up"])
def test_leaving_the_terminal_stops_the_engines_of_the_tour(runs, leave):
    run = make_run(runs, 60, finished=False)
    code = ("import sys\nfrom engine.record.store import resolve\nfrom eos_tui import cli\nfrom eos_tui.screens import learn\n"
            "learn.launch.begin = lambda preset: (resolve('made'), 0)\nsys.exit(cli.main(['learn']))")
    with FakeEngine(run) as engine, Terminal(runs, "-c", code) as terminal:
        terminal.wait_for("Progressive sharpening")
        terminal.wait_for("The engine waits")
        if leave == "q":
            terminal.press("q")
        else:
            terminal.process.send_signal(signal.SIGHUP)
        assert terminal.wait_for_end() == (0 if leave == "q" else 129)
        waiting.until(lambda: isinstance(engine.commands[-1], Stop), 5)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_no_keys_and_sizes_in_any_order_break_the_tour_or_the_launcher(begun, seed):
    chance = random.Random(seed)
    known = [one for place in ("tour", "launcher", "anywhere") for key in keys.offered(place) for one in key.keys.split(",")]
    pressed = [key for key in known if key not in ("q", "ctrl+c", "w", "Y", "r")] + ["x", "5", "up", "down", "home"]
    app = EosApp(None, fps=10, tour=True)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(lambda: touring(app))
        for _ in range(40):
            if chance.random() < 0.15:
                await pilot.resize_terminal(*chance.choice([(20, 6), (60, 20), (80, 24), (120, 40), (250, 70)]))
            await pilot.press(chance.choice(pressed))
        assert app.is_running


# -- on the real toy


async def test_the_toy_shows_its_steps_in_a_real_run(runs, monkeypatch):
    """Steps 3 to 6 of the tour, with a larger ε so that two cycles take 200 steps."""
    monkeypatch.setattr(lessons, "STEPS", STEPS[2:6])
    monkeypatch.setattr(learn, "STEPS", STEPS[2:6])
    faster = ("optimizer.learning_rate=0.1", "budget.steps=400", "tracking.predictions=[]", "tracking.flow=false")
    run, _ = launch.begin("toy", faster)
    app = EosApp(None, fps=10)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(Learn(app.pace, runs={"toy": run}))
        moments = []
        for at in range(4):
            await until(lambda at=at: app.screen.at == at and app.screen.seen_at is not None, 60)
            moments.append(int(app.screen.seen_at))
            await pilot.press("space")
        assert moments == sorted(set(moments))
    assert run.table()["stage"][moments].tolist() == [3, 4, 2, 3]
