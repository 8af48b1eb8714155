"""The launcher by pilot."""

import os
import time
from operator import is_

import pytest

from engine.base import atomic, files
from engine.record import store
from engine.record.tags import tags_of
from engine.spec import load_spec, preset_names, preset_words
from eos_tui.model import preset_groups
from eos_tui.model.ages import ago
from eos_tui.model.listing import Listing
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.prompts import Ask, Confirm

from piloting import SIZES, frames, notified, opened, text_of, until
from synthetic import FakeEngine, make_run

EXTREMES = (SIZES[0], (80, 24), SIZES[-1])


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


@pytest.mark.parametrize("size", [pytest.param(size, marks=[pytest.mark.slow] * (size not in EXTREMES)) for size in SIZES])
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


# -- groups, filters, marks and tags


def test_every_preset_is_in_a_group_with_its_time():
    groups = preset_groups.grouped(preset_names())
    assert list(groups) == list(preset_groups.GROUPS)
    assert sorted(name for names in groups.values() for name in names) == sorted([*preset_names(), *preset_groups.WAYS])
    assert [name for name in preset_names() if preset_groups.lasting(preset_words(name).takes) == ""] == []
    assert {name for name in preset_names() if load_spec(name).optimizer.__struct_config__.tag != "gradient_descent"} == {
        *preset_groups.OPTIMIZERS
    }  # fmt: skip


@pytest.mark.parametrize(("takes", "short"), [
    ("about twenty seconds on two cores", "20 s"), ("under ten seconds on two cores", "<10 s"), ("a few seconds", "few s"),
    ("about three quarters of a minute", "¾ min"), ("instant", "at once"),
    ("to the edge in about 10 s, 500 steps there in under two minutes", "<2 min"),
    ("estimated, for each η: days on a CPU, half an hour on a GPU", "GPU ½ h"), ("weeks", "weeks"), ("as it takes", ""),
])  # fmt: skip
def test_a_time_is_a_word(takes, short):
    assert preset_groups.lasting(takes) == short


def test_an_age_is_told_in_the_unit_that_it_fills():
    now = 1.8e9
    ages = [ago(now - seconds, now) for seconds in (-5, 59, 60, 7200, 3 * 86400, 30 * 86400)]
    assert ages == ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "3 d ago", time.strftime("%Y-%m-%d", time.localtime(now - 30 * 86400))]


async def test_presets_are_filtered_as_words_are_typed(runs):
    async with opened() as (app, pilot):
        await pilot.press("slash", *"momentum edge")
        await pilot.pause()
        ids = [option.id for option in app.screen.presets.options if option.id]
        assert ids == ["adam", "momentum", "nesterov"]
        await pilot.press("enter", "down")
        assert app.screen._preset() == "momentum"
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen._preset() == "momentum"
        assert app.screen.presets.option_count == len(preset_names()) + len(preset_groups.WAYS) + len(preset_groups.GROUPS)


async def test_runs_are_told_by_how_they_ended_filtered_marked_tagged_and_removed(runs):
    for name in ("one", "two", "three"):
        make_run(runs, name=name)
        os.utime(runs / name / "spec.toml", (time.time() - 7200, 1e9 + len(name)))
    state = runs / "two" / "state.json"
    atomic.replace_with(state, state.read_bytes().replace(b"completed 399 steps", b"stopped at step 610; `eos resume two` goes on"))
    async with opened(size=(120, 40)) as (app, pilot):
        await until(lambda: len(app.screen.entries) == 3)
        await pilot.press("tab")
        shown = text_of(app)
        assert "η 0.02 · stopped at step 610" in shown
        assert "resume" not in shown
        assert "2001-09-09" in shown
        await pilot.press("slash", *"stopped 610", "enter")
        assert [entry.run.name for entry in app.screen.shown] == ["two"]
        assert "runs · 1 of 3" in text_of(app)
        await pilot.press("T")
        assert isinstance(app.screen, Ask)
        await pilot.press(*"good", "enter")
        await until(lambda: [entry.tags for entry in app.screen.entries if entry.tags] == [("good",)])
        assert "two  2001-09-09 #good" in text_of(app)
        await pilot.press("escape", "slash", *"#good", "enter")
        assert [entry.run.name for entry in app.screen.shown] == ["two"]
        await pilot.press("escape", "home", "space", "space")
        assert len(app.screen.marked) == 2
        await pilot.press("T", *"both", "enter")
        await until(lambda: sum("both" in tags_of(runs / name) for name in ("one", "two", "three")) == 2)
        await pilot.press("d")
        assert isinstance(app.screen, Confirm)
        assert "Delete 2 runs" in app.screen.question
        await pilot.press("y")
        await until(lambda: len(app.screen.entries) == 1)
        assert app.screen.marked == set()


async def test_marked_runs_are_opened_together(runs):
    for name in ("one", "two", "three"):
        make_run(runs, name=name)
    async with opened() as (app, pilot):
        await until(lambda: len(app.screen.entries) == 3)
        names = [entry.run.name for entry in app.screen.entries]
        await pilot.press("tab", "space", "m")
        assert "Mark two runs" in notified(app)
        await pilot.press("space", "m")
        await until(lambda: isinstance(app.screen, Dashboard))
        assert (app.screen.source.run.name, [run.name for run in app.screen._beside]) == (names[0], names[1:2])


async def test_of_a_long_list_only_what_is_in_sight_is_drawn(runs):
    """Textual's own list took half a second at each change of three thousand."""
    make_run(runs)
    async with opened(size=(120, 40)) as (app, pilot):
        await until(lambda: app.screen.entries)
        screen = app.screen
        screen.entries = screen.entries * 3000
        screen._listing.look = lambda: screen.entries
        drawn, real = [], screen.runs._line
        screen.runs._line = lambda item: drawn.append(item) or real(item)
        screen._show_runs()
        await pilot.press("tab", "end")
        await pilot.pause()
        assert screen.runs.highlighted == 2999
        assert max(drawn) == 2999
        assert len(set(drawn)) < 60
        await pilot.press("pageup", "up", "down", "home", "up")
        assert screen.runs.highlighted == 2999
