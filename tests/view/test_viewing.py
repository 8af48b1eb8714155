"""What is shown of a run, by pilot: time axis, cursor, curves, other runs, a replay, a start in the portrait, the mouse."""

import asyncio
import json
import os
import socket

import numpy as np
import pytest
from textual.events import MouseScrollDown, MouseScrollUp

from engine.record import messages, store
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer
from engine.spec import load_spec
from eos_tui.draw import panels
from eos_tui.model.comparing import labels
from eos_tui.model.placed_orbit import Start
from eos_tui.model.replay import FOLLOWED, Replay
from eos_tui.screens.choose_curves import ChooseCurves
from eos_tui.screens.compare import Compare, others
from eos_tui.screens.formula import Formula
from eos_tui.screens.prompts import Ask
from eos_tui.widgets.plot import LinePlot
from eos_tui.widgets.portrait import PhasePortrait

from piloting import frames, notified, opened, text_of, until
from synthetic import EDGE, LEARNING_RATE, FakeEngine, make_run, rows_of


def spec_of(app, name="sharpness"):
    return app.screen.query_one(f"#{name}", LinePlot).spec


# -- how a plot is drawn


async def test_s_smooths_and_o_splits_the_focused_plot_alone(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("s", "s", "o")
        await frames(app, 2)
        assert (spec_of(app).smooth, spec_of(app).strands) == (50, True)
        assert (spec_of(app, "loss").smooth, spec_of(app, "loss").strands) == (0, False)
        assert "mean 50" in text_of(app)
        await pilot.press("s", "s", "o")
        assert (spec_of(app).smooth, spec_of(app).strands) == (0, False)


async def test_curves_are_chosen_from_everything_recorded(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("tab", "h")
        assert isinstance(app.screen, ChooseCurves)
        shown = app.screen.checklist
        await until(lambda: shown.chosen)
        assert "[x]" in text_of(app)
        first = shown.shown[0]
        await pilot.press("space", *["down"] * shown.shown.index("constrained.alpha"), "space", "enter")
        await frames(app, 2)
        drawn = [curve.column for curve in spec_of(app, "loss").curves]
        assert first not in drawn
        assert "constrained.alpha" in drawn
        await pilot.press("h", "escape")
        assert [curve.column for curve in spec_of(app, "loss").curves] == drawn


async def test_a_plot_without_any_curve_is_refused(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("h")
        shown = app.screen.checklist
        await until(lambda: shown.chosen)
        shown.chosen.clear()
        await pilot.press("enter")
        assert isinstance(app.screen, ChooseCurves)
        assert "one curve at least" in notified(app)


async def test_the_portrait_says_what_it_has_not(runs):
    async with opened(make_run(runs)) as (app, pilot):
        app.screen.portrait.focus()
        await pilot.press("y", "s", "o", "h")
        await pilot.pause()
        assert notified(app).count("The portrait has no") == 4


def test_an_adapted_plot_keeps_a_curve_when_all_are_hidden(runs):
    run = make_run(runs)
    plot = panels.line_plots(run.columns, ())[0]
    hidden = panels.PlotOptions(hidden=frozenset(curve.column for curve in plot.curves))
    assert panels.adapted(plot, hidden, run.columns).curves == plot.curves


# -- the axis and the cursor


async def test_u_counts_steps_then_time_then_steps_since_the_edge(runs):
    async with opened(make_run(runs)) as (app, pilot):
        for label, end in (("ηt", "5"), ("t−edge", "200"), ("step", "200")):
            await pilot.press("u")
            await frames(app, 2)
            foot = next(line for line in text_of(app).splitlines() if f"{label} " in line and "step   " not in line)
            assert end in foot.split("││")[0], foot


async def test_the_cursor_stands_on_all_plots_copies_the_stored_numbers_and_i_tells_six_digits(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("c", "shift+left")
        await frames(app, 2)
        assert text_of(app).count("t 398") == 5
        stored = float(run.rows(398, 399)[0, run.index["gd.sharpness"]])
        assert repr(stored) in app.screen.clipping()
        await pilot.press("i")
        assert isinstance(app.screen, Formula)
        await pilot.pause()
        assert f"at step 398 {stored:.6g}" in text_of(app)


async def test_the_wheel_zooms_about_the_step_under_it_and_a_click_puts_the_cursor_there(runs):
    async with opened(make_run(runs)) as (app, pilot):
        plot, line = app.screen.query_one("#sharpness", LinePlot), app.screen.timeline
        column = 20
        step = plot.painted.step_at(column - 1, app.screen.source.history)
        await pilot._post_mouse_events([MouseScrollUp], plot, offset=(column, 6))
        await pilot.pause()
        start, stop = line.window()
        assert stop - start == pytest.approx(399 / 2)
        assert (step - start) / (stop - start) == pytest.approx(step / 399, abs=0.02)
        await pilot._post_mouse_events([MouseScrollDown], plot, offset=(column, 6), shift=True)
        await pilot.pause()
        assert line.window()[0] < start
        await pilot.press("0")
        await pilot.click(plot, offset=(column, 6))
        await pilot.pause()
        assert line.cursor == pytest.approx(step, abs=399 / 28)
        assert app.focused is plot


# -- other runs


async def test_another_run_is_chosen_and_laid_over_edge_on_edge(runs):
    run = make_run(runs)
    other = make_run(runs, steps=300, name="other")
    with open(other.path / "events.jsonl", "wb") as journal:
        journal.write(messages.encode(messages.EdgeReached(step=150, text="edge", sharpness=100.0)) + b"\n")
    async with opened(run) as (app, pilot):
        await pilot.press("m")
        assert isinstance(app.screen, Compare)
        await until(lambda: app.screen.checklist.option_count)
        await until(lambda: "edge at step 150" in text_of(app))
        assert "nothing: the same run again" in text_of(app)
        await pilot.press("space", "enter")
        await frames(app, 3)
        [overlay] = app.screen.overlays()
        assert (overlay.label, overlay.edge, overlay.at) == ("other", 150, EDGE)
        assert len(overlay.history) == 300
        assert "other" in text_of(app)
        await pilot.press("m")
        await until(lambda: app.screen.checklist.option_count)
        await pilot.press("space", "enter")
        await frames(app, 2)
        assert app.screen.overlays() == ()


async def test_runs_that_are_opened_together_are_laid_over_the_first_and_as_many_as_there_are_pens(runs):
    run, *beside = [make_run(runs, steps=200 + 10 * k, name=f"swept-{k}") for k in range(10)]
    async with opened(run, beside=beside) as (app, pilot):
        await frames(app, 3)
        assert [(overlay.label, len(overlay.history)) for overlay in app.screen.overlays()] == [
            (f"swept-{k}", 200 + 10 * k) for k in range(1, 9)
        ]  # fmt: skip
        assert "swept-1" in text_of(app)
        sharpness, x = (app.screen.query_one(f"#{name}", LinePlot) for name in ("sharpness", "x"))
        assert (len(sharpness._overlays), len(x._overlays)) == (8, 0)
        await pilot.press("M")
        await frames(app, 2)
        assert len(x._overlays) == 8
        await pilot.press("m")
        await until(lambda: app.screen.checklist.option_count)
        assert text_of(app).count("[x]") == 8


async def test_runs_are_called_by_what_they_differ_in_as_it_was_used(runs):
    """η is the one in force: that of the engine's last word, not that of the specification."""
    run, other, wider = (make_run(runs, name=name) for name in ("one", "two", "three"))
    spec = (wider.path / "spec.toml").read_text()
    (wider.path / "spec.toml").write_text(spec.replace("seed = 0", "seed = 3"))
    state = json.loads((other.path / "state.json").read_bytes())
    (other.path / "state.json").write_text(json.dumps(state | {"learning_rate": 0.05}))
    async with opened(run, beside=[other, Run(wider.path)]) as (app, _):
        await frames(app, 3)
        assert app.screen.labels == ["η 0.02 · seed 0", "η 0.05 · seed 0", "η 0.02 · seed 3"]
        assert "this run: η 0.02 · seed 0" in text_of(app)


def test_labels_tell_runs_apart_by_few_words():
    def run(name, **fields):
        return name, {"optimizer.learning_rate": 0.1, "problem.model.widths": [200, 200], "seed": 0} | fields

    assert labels([run("a"), run("b")]) == ["a", "b"]
    assert labels([run("a"), run("b", **{"problem.model.widths": [50, 20]})]) == ["width 200", "width 50×20"]
    assert labels([run("a"), run("b", seed=1), run("c", seed=1)]) == ["seed 0", "seed 1 (b)", "seed 1 (c)"]
    many = dict.fromkeys(("p", "q", "r", "s"), 1)
    assert labels([run("a"), run("b", **many, seed=1)]) == ["a", "b"]


async def test_curves_and_runs_to_compare_are_filtered(runs):
    run = make_run(runs)
    for name in ("first", "second"):
        make_run(runs, name=name)
    async with opened(run) as (app, pilot):
        await pilot.press("m")
        await until(lambda: app.screen.checklist.option_count == 2)
        await pilot.press("slash", *"second", "enter")
        assert app.screen.checklist.option_count == 1
        await pilot.press("space", "enter")
        await frames(app, 2)
        assert [overlay.label for overlay in app.screen.overlays()] == ["second"]
        await pilot.press("h")
        every = app.screen.checklist.option_count
        await pilot.press("slash", *"GENERALIZED LOSS")
        assert 0 < app.screen.checklist.option_count < every
        await pilot.press("escape")
        assert app.screen.checklist.option_count == every
        assert app.screen.checklist.chosen


def test_runs_are_named_by_what_they_differ_in(runs):
    run = make_run(runs)
    store.create(run.spec, "same")
    assert [candidate.differs for candidate in others(run)] == [()]
    used = make_run(runs, name="used")
    state = json.loads((used.path / "state.json").read_bytes())
    (used.path / "state.json").write_text(json.dumps(state | {"learning_rate": 0.05}))
    assert {candidate.name: candidate.differs for candidate in others(run)}["used"] == ("optimizer.learning_rate = 0.05",)


# -- a replay


def test_a_replay_moves_by_the_clock_and_stops_at_the_newest_step():
    now = [0.0]
    replay = Replay(0, 3000, clock=lambda: now[0])
    assert replay.speed == 128
    now[0] += 2
    replay.tick(3000)
    assert replay.step == 256
    replay.change_speed(2)
    replay.toggle()
    now[0] += 5
    replay.tick(3000)
    assert replay.step == 256
    replay.seek(2999)
    replay.toggle()
    now[0] += 1
    replay.tick(3000)
    assert (replay.step, replay.playing, replay.over) == (3000, False, True)
    replay.toggle()
    assert (replay.step, replay.playing) == (0, True)


async def test_a_replay_shows_the_run_as_it_stood(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("g", "space")
        source = app.screen.source
        for step, phase in ((EDGE - 10, "approach"), (EDGE + 50, "edge")):
            source.replay.seek(step)
            await frames(app, 2)
            assert len(source.history) == step + 1
            assert source.state.phase == phase
            assert source.state.outcome is None
            assert all(event.step <= step for event in source.events)
            shown = text_of(app)
            assert "‖ replay" in shown.splitlines()[0]
            assert f"{step} " in shown.splitlines()[0]
            stored = run.rows(step, step + 1)[0]
            assert source.row()["gd.sharpness"] == stored[run.index["gd.sharpness"]]
            np.testing.assert_equal(source.row()["gd.x"], stored[run.index["gd.x"]])
        await pilot.press(".", "shift+right", "shift+left")
        await frames(app, 2)
        assert source.step == EDGE + 51
        await pilot.press(">", ">")
        assert source.replay.speed == 64
        await pilot.press("escape")
        await frames(app, 2)
        assert source.replay is None
        assert len(source.history) == 400
        assert "Completed" in text_of(app)


async def test_a_replay_is_followed_over_its_last_bursts_and_the_axis_of_the_whole_run_stays(runs):
    async with opened(make_run(runs)) as (app, pilot):
        line = app.screen.timeline
        await pilot.press("g", "space")
        app.screen.source.replay.seek(150)
        await frames(app, 2)
        assert line.window()[1] - line.window()[0] == 250  # five bursts of 2π/(√2 ε) = 44 steps
        assert 150 <= line.window()[1] <= 250
        await pilot.press("0")
        assert line.window() == (0, 399)
        await pilot.press("+", "+")
        assert 150 <= line.window()[1] <= 150 + 100 / 16
        await pilot.press("g", "0")
        await frames(app, 2)
        assert line.window() == (0, 399)


async def test_a_replay_sends_the_engine_nothing(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("g", "space", ".", "r", "k", "N")
            await frames(app, 2)
            assert engine.commands == []
            assert "This is a replay" in notified(app)
            await pilot.press("g", ".")
            await until(lambda: engine.commands)


async def test_a_replay_plays_by_itself(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("g")
        source = app.screen.source
        source.replay.change_speed(8)
        seen = []
        while not source.replay.over:
            seen.append(len(source.history))
            await asyncio.sleep(0.05)
        assert len(set(seen)) > 3
        assert seen == sorted(seen)


# -- a fork


async def test_a_fork_goes_on_from_the_cursor_and_is_opened(runs, monkeypatch):
    started = []
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: started.append(run) or 1)
    run = make_run(runs)
    with Writer(run) as writer:
        writer.checkpoint(200, {"state": np.array(1)}, keep=3)
    async with opened(run) as (app, pilot):
        await pilot.press("c")
        app.screen.timeline.point(250)
        await pilot.press("F")
        assert isinstance(app.screen, Ask)
        app.screen.query_one("Input").value = "seed=4"
        await pilot.press("enter")
        assert "depends on it" in str(app.screen.query_one("#error").render())
        app.screen.query_one("Input").value = "optimizer.learning_rate=0.03"
        await pilot.press("enter")
        await until(lambda: started)
        [made] = started
        assert made.row_count() == 200
        await until(lambda: getattr(app.screen, "source", None) and app.screen.source.run.name == made.name)


async def test_without_a_checkpoint_a_fork_says_so(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("F")
        await pilot.pause()
        assert "no checkpoint at or before step 399" in notified(app)


# -- a start in the portrait


async def test_a_start_is_placed_moved_and_taken_away(runs):
    async with opened(make_run(runs)) as (app, pilot):
        portrait = app.screen.query_one(PhasePortrait)
        await pilot.press("d")
        await frames(app, 2)
        assert app.focused is portrait
        before = portrait.start
        assert before.learning_rate == LEARNING_RATE
        assert "start X" in text_of(app)
        assert "|X| ≤" in text_of(app)
        await pilot.press("right", "up")
        assert portrait.start.x > before.x
        assert portrait.start.y > before.y
        await pilot.press("d")
        assert portrait.start is None
        await pilot.click(portrait, offset=(20, 6))
        await pilot.pause()
        assert portrait.start is not None


async def test_before_the_edge_there_is_nothing_to_start_from(runs):
    async with opened(make_run(runs, steps=EDGE - 5)) as (app, pilot):
        await pilot.press("d")
        await pilot.pause()
        assert "no constants to go on from" in notified(app)


def test_the_flow_from_a_start_closes_and_the_map_spirals_out():
    start = Start(0.3, 0.0, 4.0, 60.0, 0.01)
    flow, mapped = start.orbits()
    turn = round(start.period())
    assert flow[0] == pytest.approx((0.3, 0.0))
    assert flow[turn] == pytest.approx((0.3, 0.0), abs=0.02)
    assert mapped[:, 0].max() > flow[:, 0].max()
    aged = start
    while aged.older() != aged:
        aged = aged.older()
    assert aged.age == len(flow) - 1
    assert start.moved(-1, 1e9).x > 0


def test_rows_that_arrive_while_frozen_or_replayed_are_not_lost(runs):
    from eos_tui.model.source import Source

    run = make_run(runs, finished=False)
    source = Source(run)
    source.take(source.read())
    source.frozen = True
    with Writer(run) as writer:
        writer.append(rows_of(run, 400, 420))
    source.take(source.read())
    assert len(source.history) == 400
    source.frozen = False
    source.take(source.read())
    assert len(source.history) == 420


@pytest.mark.parametrize(("alpha", "beta"), [(1e300, 1e300), (1e300, 1.0), (1.0, 1e-300)])
def test_a_start_under_constants_out_of_all_measure_is_drawn_without_its_flow_and_nothing_is_printed(alpha, beta, capfd):
    flow, mapped = Start(0.5, 0.0, alpha, beta, 0.02).older().orbits()
    assert flow.shape == mapped.shape
    assert np.isnan(flow).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("preset", ["toy", "phase"])
async def test_the_simplest_problems_are_played_from_their_first_step(tmp_path, preset):
    run = store.create(load_spec(preset), preset, tmp_path)
    rows = np.full((200, len(run.columns)), 0.1)
    rows[:, run.index["step"]] = np.arange(200)
    with Writer(run) as writer:
        writer.append(rows)
        outcome = Outcome(kind="completed", step=199, text="completed 199 steps")
        writer.state(State(status="finished", phase="edge", step=199, learning_rate=0.02, outcome=outcome))
    async with opened(run) as (app, pilot):
        await until(lambda: app.screen.source.replay is not None)
        replay = app.screen.source.replay
        assert replay.speed == FOLLOWED
        assert replay.step < 199
        await until(lambda: 0 < app.screen.source.step < 199)
        await pilot.press("g")
        await until(lambda: app.screen.source.step == 199)


async def test_a_run_of_the_toy_that_goes_on_is_shown_where_it_stands(tmp_path):
    run = store.create(load_spec("toy"), "toy", tmp_path)
    rows = np.full((200, len(run.columns)), 0.1)
    rows[:, run.index["step"]] = np.arange(200)
    with Writer(run) as writer:
        writer.append(rows)
        writer.state(State(status="paused", phase="edge", step=199, learning_rate=0.02, pid=os.getpid(), host=socket.gethostname()))
        async with opened(run) as (app, _):
            await until(lambda: app.screen.source.step == 199)
            assert app.screen.source.replay is None
