"""The launcher by pilot."""

import os
from operator import is_

import pytest

from engine.base import atomic, files
from engine.record import store
from eos_tui.model.listing import Listing
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
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: started.append(run.spec.name) or 1)
    async with opened() as (app, pilot):
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Dashboard))
        assert started == ["fashion"]


async def test_removing_a_run_asks_first_and_spares_one_that_is_live(runs):
    live = make_run(runs, name="live", finished=False)
    make_run(runs, name="old")
    with FakeEngine(live):
        async with opened() as (app, pilot):
            await until(lambda: len(app.screen.entries) == 2)
            await pilot.press("tab", "d")
            assert isinstance(app.screen, Confirm)
            await pilot.press("n")
            await pilot.press("d", "y")
            await until(lambda: [entry.run.name for entry in app.screen.entries] == ["live"])
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
        assert {entry.run.name for entry in app.screen.entries} == {"good", "odd"}


def test_what_has_not_changed_is_not_read_again(runs, monkeypatch):
    """Two hundred runs at rest cost a fifth of a core where each was read anew every second."""
    for k in range(3):
        make_run(runs, name=f"r{k}")
        os.utime(runs / f"r{k}", (1e9, 1e9))
    (runs / "stray").mkdir()
    os.utime(runs / "stray", (1e9, 1e9))
    listing, read = Listing(), []
    first = listing.look()
    real = files.descriptor_of
    monkeypatch.setattr(files, "descriptor_of", lambda path, *rest: read.append(path.parent.name) or real(path, *rest))
    assert all(map(is_, listing.look(), first))
    assert read == []
    state = runs / "r1" / "state.json"
    atomic.replace_with(state, state.read_bytes().replace(b"completed 399 steps", b"completed another way"))
    read.clear()
    again = {entry.run.name: entry for entry in listing.look()}
    assert set(read) == {"r1"}
    assert "another way" in again["r1"].state.outcome.text
    assert again["r0"] is next(entry for entry in first if entry.run.name == "r0")


def test_a_run_in_another_s_place_is_another(runs):
    make_run(runs, steps=50, name="one")
    listing = Listing()
    assert listing.look()[0].state.step == 49
    (runs / "one").rename(runs / "two")
    make_run(runs, steps=80, name="one")
    assert {entry.run.name: entry.state.step for entry in listing.look()} == {"two": 49, "one": 79}


async def test_a_folder_of_runs_that_cannot_be_listed_is_reported(runs, monkeypatch):
    (runs / "pipe").touch()
    monkeypatch.setenv("EOS_HOME", str(runs / "pipe"))
    async with opened() as (app, _):
        await until(lambda: "the runs cannot be listed (Not a directory)" in notified(app))
        assert isinstance(app.screen, Launcher)
