"""One table of keys: bindings, footer, help and palette say the same."""

import inspect

import pytest

from eos_tui import keys
from eos_tui.app import EosApp
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.help import Help
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.learn import Learn
from eos_tui.widgets.footer import fitting
from eos_tui.widgets.plot import LinePlot

from piloting import opened, text_of, until
from synthetic import make_run


async def test_help_names_every_key_of_its_place(runs):
    async with opened(make_run(runs), (120, 110)) as (app, pilot):
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


SCREENS = {"dashboard": Dashboard, "launcher": Launcher, "tour": Learn, "anywhere": EosApp}


@pytest.mark.parametrize("key", keys.TABLE, ids=[key.id for key in keys.TABLE])
def test_every_key_has_an_action_where_it_is_offered(key):
    owner = EosApp if key.action.startswith("app.") else SCREENS[key.place]
    action = getattr(owner, f"action_{key.method}")
    given = key.action.partition("(")[2].rstrip(")")
    inspect.signature(action).bind(None, *filter(None, given.split(",")))
    assert key.help.endswith(".")
    assert key.label


@pytest.mark.parametrize("place", keys.PLACES)
def test_no_key_means_two_things_in_a_place_and_none_belongs_to_tmux_or_the_terminal(place):
    every = [one for key in keys.offered(place) for one in key.keys.split(",")]
    assert sorted(set(every)) == sorted(every)
    assert not {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+q", "ctrl+z"} & set(every)
    shown = [key.shown for key in fitting(place, 80)]
    assert {"q", "?"} <= set(shown)


def test_the_key_table_of_the_readme_has_every_key():
    assert keys.markdown().count("\n") == len(keys.TABLE) + 2


@pytest.mark.parametrize("width", [40, 80, 120, 250])
@pytest.mark.parametrize("labels", [{}, {"zoom_plot": "unzoom", "freeze": "unfreeze", "toggle_engine": "resume"}])
def test_the_footer_fits_and_always_offers_help_and_the_way_out(width, labels):
    shown = fitting("dashboard", width, labels=labels)
    assert {"detach", "keys"} <= {key.method for key in shown}
    assert sum(len(f"{key.shown} {labels.get(key.method, key.label)}  ") for key in shown) <= width
