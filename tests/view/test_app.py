"""The app by pilot: themes, screenshots, and the way out."""

import json
import subprocess
import sys
from pathlib import Path

from eos_tui.draw import theme

from piloting import frames, notified, opened, text_of, until
from places import ROOT
from synthetic import FakeEngine, make_run


async def test_a_screenshot_is_saved_and_its_place_is_said(runs, monkeypatch):
    monkeypatch.setenv("XDG_PICTURES_DIR", str(runs / "pictures"))
    here = sorted(Path.cwd().iterdir())
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("w")
        await pilot.pause()
        assert sorted(Path.cwd().iterdir()) == here
        ansi, svg, text = sorted((runs / "pictures" / "eos").glob("eos-made-*"))
        assert "\x1b[" in ansi.read_text()
        assert "http" not in svg.read_text().replace("http://www.w3.org", "").replace("https://www.textualize.io", "")
        assert svg.read_text().startswith("<svg")
        assert "ηS/2" in text.read_text()
        assert svg.stem in notified(app).replace("\n", "")


async def test_screenshots_go_where_the_settings_say(runs):
    async with opened(make_run(runs)) as (app, pilot):
        app.pictures = str(runs.parent / "mine")
        await pilot.press("w")
        await pilot.pause()
        assert len([*(runs.parent / "mine").glob("eos-made-*")]) == 3


async def test_q_is_called_detach_where_an_engine_is_attached(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await until(lambda: "q detach" in text_of(app))
            await pilot.press("l")
            await until(lambda: "q quit" in text_of(app))
    async with opened(make_run(runs, name="over")) as (app, _):
        await until(lambda: "q quit" in text_of(app))


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


def test_the_view_opens_without_jax():
    code = ("import json, sys, eos_tui.app, eos_tui.cli; "
            "print(json.dumps([m for m in ('jax', 'jaxlib', 'flax', 'tensorflow_datasets') if m in sys.modules]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == []


async def test_a_frame_that_is_on_its_way_when_a_screen_is_taken_down_finds_nothing_missing(runs):
    run = make_run(runs)
    async with opened(run, (120, 40)) as (app, _):
        dashboard = app.screen
        await dashboard.query("*").remove()
        dashboard._laid_out = dashboard._shown = None
        dashboard._arrange()
        dashboard.paint()
    async with opened(None, (120, 40)) as (app, _):
        launcher = app.screen
        await launcher.query("*").remove()
        launcher._show_runs()
        launcher._describe()
