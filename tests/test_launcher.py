"""The launcher by pilot."""


import pytest

from engine import store
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.prompts import Confirm

from piloting import SIZES, frames, notified, opened, text_of, until
from synthetic import FakeEngine, make_run


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


@pytest.mark.parametrize("size", [(20, 6), (20, 7), (24, 8), (40, 6), (250, 6), (120, 40)])
async def test_a_page_may_be_turned_in_a_list_without_a_line(runs, size):
    make_run(runs)
    async with opened(size=size) as (app, pilot):
        for key in ("pagedown", "pageup", "tab", "pagedown", "pageup"):
            await pilot.press(key)
            await pilot.pause()
        assert isinstance(app.screen, Launcher)


async def test_the_launcher_starts_a_preset(runs, monkeypatch):
    started = []
    monkeypatch.setattr("engine.launch.start", lambda run, group=None: started.append(run.spec.name) or 1)
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
