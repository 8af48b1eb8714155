"""The keys that drive the engine, by pilot, on an engine that only answers."""


import math

import pytest

from engine.base.errors import UserError
from engine.record import messages
from engine.record.writer import Writer
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.prompts import Ask, AskLearningRate, a_count, a_learning_rate

from piloting import frames, notified, opened, text_of, until
from synthetic import FakeEngine, make_run


@pytest.mark.parametrize(("pressed", "command"), [
    (["space"], messages.Pause()),
    (["."], messages.Advance(steps=1)),
    (["S", *"25", "enter"], messages.Advance(steps=25)),
    (["e", *"0.05", "enter"], messages.SetLearningRate(learning_rate=0.05)),
    (["}", "up", "down", "enter"], messages.SetLearningRate(learning_rate=0.022)),
    (["{", "enter"], messages.SetLearningRate(learning_rate=0.0181818)),
    (["N"], messages.AdvanceTo(what="stage")),
    (["E"], messages.AdvanceTo(what="event")),
    (["r"], messages.Anchor()),
    (["R", *"40", "enter"], messages.Anchor(every=40)),
    (["k"], messages.Checkpoint()),
    (["x", "y"], messages.Stop()),
])  # fmt: skip
async def test_a_key_becomes_a_command_and_its_answer_is_shown(runs, pressed, command):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press(*pressed)
            await until(lambda: engine.commands)
            received = engine.commands[0]
            assert type(received) is type(command)
            for field in command.__struct_fields__:
                if field not in ("id", "engine"):  # of this command, and of the engine that it is for
                    assert getattr(received, field) == getattr(command, field)
            await until(lambda: any(event.answers == received.id for event in app.screen.source.events))
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
            assert isinstance(engine.commands[1], messages.Resume)


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


@pytest.mark.parametrize(("threshold", "keys", "words"), [
    (190.0, ["up"], "Now η = 0.02 and 2/η = 190; with this η it is 172.727."),
    (190.0, ["x"], "with this η it is –."),
    (math.nan, ["up"], "Now η = 0.02."),
])  # fmt: skip
async def test_the_prompt_for_a_learning_rate_shows_where_the_threshold_goes(runs, threshold, keys, words):
    async with opened(make_run(runs)) as (app, pilot):
        await app.push_screen(AskLearningRate(0.02, threshold))
        await pilot.press(*keys)
        await until(lambda: words in str(app.screen.query_one("#hint").content))


async def test_a_finished_run_takes_no_commands_and_says_why(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("space")
        await pilot.pause()
        assert "has finished: no engine takes commands; F forks it" in notified(app)
        for key in ("S", "e", "R", "x"):  # they would ask first
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, Dashboard)
        assert list((run.path / "inbox").iterdir()) == []


@pytest.mark.parametrize("text", ["", "-3", "0", "1.5", "x", "9" * 30, "٣"])
def test_a_count_is_a_whole_number_from_one(text):
    with pytest.raises(UserError):
        a_count(1)(text)


@pytest.mark.parametrize("text", ["", "0", "-0.1", "nan", "inf", "1e13", "η"])
def test_a_learning_rate_is_positive_and_finite(text):
    with pytest.raises(UserError):
        a_learning_rate(text)


async def test_a_command_that_is_not_answered_is_said_to_wait(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.screens.driving.PATIENCE_SECONDS", 0.1)
    run = make_run(runs, finished=False)
    with Writer(run):  # an engine in the middle of a long step
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("k")
            await until(lambda: "No answer yet" in notified(app))


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_an_invalid_learning_rate_says_what_is_wrong(runs, size):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run, size) as (app, pilot):
            await until(lambda: app.screen.source.live)
            for given, said in (("abc", "abc: expected a number"), ("-1", "η must be greater than 0"), ("", "nothing: expected a number")):
                await pilot.press("e")
                await pilot.press("ctrl+u", "delete", *given, "enter")
                await until(lambda said=said: said in " ".join(text_of(app).replace("│", "").split()))
                await pilot.press("escape")
            assert engine.commands == []


async def test_a_prediction_anchored_while_paused_stands_on_the_real_orbit(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live and app.screen.portrait.present)
            real, predicted = app.screen.portrait.scene().orbits[:2]
            assert real.now != predicted.now
            await pilot.press("r")
            await until(lambda: app.screen.portrait.anchored)
            real, predicted = app.screen.portrait.scene().orbits[:2]
            assert real.now == predicted.now
            await pilot.press(".")
            await until(lambda: not app.screen.portrait.anchored)
