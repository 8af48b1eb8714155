"""One table of keys: bindings, footer, help and palette say the same."""

import inspect
from pathlib import Path

import pytest

from eos_tui import keys
from eos_tui.app import EosApp
from eos_tui.screens.assumptions import Assumptions
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.help import Help
from eos_tui.screens.journal import Events
from eos_tui.screens.landscape import Landscape
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.learn import Learn
from eos_tui.screens.live import LivePage
from eos_tui.screens.play import Play
from eos_tui.screens.spectrum import Spectrum
from eos_tui.screens.system import System
from eos_tui.screens.theorem import Theorem
from eos_tui.screens.turning import Turning
from eos_tui.topics.topics import code, key_tables
from eos_tui.widgets.footer import fitting
from eos_tui.widgets.plot import LinePlot

from piloting import opened, text_of, until
from synthetic import make_run


async def test_help_names_every_key_of_its_place(runs):
    async with opened(make_run(runs), (120, 150)) as (app, pilot):
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


SCREENS = {
    "dashboard": Dashboard, "page": LivePage, "spectrum": Spectrum, "turning": Turning, "landscape": Landscape, "events": Events,
    "help": Help, "launcher": Launcher, "tour": Learn, "play": Play, "anywhere": EosApp,
}  # fmt: skip
PAGES = {"U": Landscape, "L": Spectrum, "X": Turning, "T": Theorem, "a": Assumptions, "v": Events, "i": Formula, "H": System}


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
    assert not {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+q"} & set(every)
    if place != "page" and place not in keys.WITHIN:  # they have no footer
        assert {"q", "?"} <= {key.shown for key in fitting(place, 80)}


@pytest.mark.parametrize("opened_by", [pytest.param(key, marks=[pytest.mark.slow] * (key not in "UTi")) for key in PAGES])
async def test_what_works_anywhere_works_on_a_page(runs, opened_by):
    async with opened(make_run(runs), (120, 40)) as (app, pilot):
        await pilot.press(opened_by)
        await until(lambda: isinstance(app.screen, PAGES[opened_by]))
        page, theme, app.pictures = app.screen, app.theme, str(Path.cwd())
        await pilot.press("t")
        assert app.theme != theme
        await pilot.press("w")
        await until(lambda: [*Path.cwd().glob("eos-made-*.svg")])
        await pilot.press("question_mark")
        await until(lambda: isinstance(app.screen, Help))
        text = text_of(app)
        assert all(f" {key.label} " in text for key in keys.offered(page.place))
        await pilot.press("question_mark")
        assert app.screen is page
        await pilot.press(opened_by)  # the key that opened it closes it
        assert isinstance(app.screen, Dashboard)
        await pilot.press(opened_by, "ctrl+c")
    assert app.return_code == 0


@pytest.mark.parametrize("opened_by", [key for key in PAGES if key != "i"])
async def test_every_page_tells_its_formulas(runs, opened_by):
    async with opened(make_run(runs), (120, 40)) as (app, pilot):
        await pilot.press(opened_by)
        await until(lambda: isinstance(app.screen, PAGES[opened_by]))
        page = app.screen
        await pilot.press("i")
        where = "state.json" if opened_by == "H" else "column "
        await until(lambda: isinstance(app.screen, Formula) and where in text_of(app))
        await pilot.press("i")
        assert app.screen is page


async def test_the_palette_on_a_page_offers_what_the_page_can_do(runs):
    async with opened(make_run(runs), (120, 40)) as (app, pilot):
        await pilot.press("U")
        await until(lambda: isinstance(app.screen, Landscape))
        await pilot.press("ctrl+p", *"other picture")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Landscape) and app.screen.planar)
        await pilot.press("ctrl+p", *"pause")
        await pilot.pause(0.3)
        assert "Pause the engine" not in text_of(app)


def test_the_topic_of_keys_has_every_key_by_its_name():
    text = key_tables()
    assert all(f"| {code(key.shown)} | `{key.name}` | " in text for key in keys.TABLE)


@pytest.mark.parametrize("width", [40, 80, 120, 250])
@pytest.mark.parametrize("labels", [{}, {"zoom_plot": "unzoom", "freeze": "unfreeze", "toggle_engine": "resume"}])
def test_the_footer_fits_and_always_offers_help_and_the_way_out(width, labels):
    shown = fitting("dashboard", width, labels=labels)
    assert {"detach", "keys"} <= {key.method for key in shown}
    assert sum(len(f"{key.shown} {labels.get(key.method, key.label)}  ") for key in shown) <= width
