"""The dashboard by pilot: what it shows of a run, and the keys that change the view."""

import itertools
import math
import re

import numpy as np
import pytest
from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget

from engine.base.errors import UserError
from engine.record import store
from engine.record.messages import Anchored
from engine.record.reader import Outcome, State
from engine.record.writer import Writer
from eos_tui.app import EosApp
from eos_tui.draw import panels, theme
from eos_tui.model.source import Source
from eos_tui.screens.arrangement import LAYOUTS, arranged, grid, pages
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.journal import Events
from eos_tui.widgets.header import gauge, kept_whole, story
from eos_tui.widgets.journal import with_time
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import Drawing, LinePlot
from eos_tui.widgets.portrait import PhasePortrait

from piloting import SIZES, frames, opened, text_of, until
from synthetic import LEARNING_RATE, FakeEngine, make_run, rows_of


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


def ids(app):
    return [panel.id for panel in app.screen.visible_panels()]


async def test_wide_screens_show_six_plots_others_four_and_narrow_ones_turn_pages_of_two(runs):
    run = make_run(runs)
    async with opened(run, (120, 40)) as (app, _):
        assert ids(app) == ["sharpness", "loss", "x", "portrait", "y", "distance"]
    async with opened(run, (80, 24)) as (app, pilot):
        assert ids(app) == ["sharpness", "x"]
        assert "page 1/3" in text_of(app)
        await pilot.press("n")
        await frames(app)
        assert ids(app) == ["loss", "portrait"]
        await pilot.press("pagedown", "pagedown", "b")
        await frames(app)
        assert "page 3/3" in text_of(app)
        assert [panel.region.y < 12 for panel in app.screen.visible_panels()] == [True, False]


@pytest.mark.parametrize(("size", "by_frame"), [
    ((120, 40), [["sharpness", "loss", "portrait", "distance"], ["x", "y"]]),
    ((80, 24), [["sharpness", "x"]]),
])  # fmt: skip
async def test_a_new_row_goes_to_the_focused_panel_at_once_and_to_four_or_more_in_turn(runs, monkeypatch, size, by_frame):
    run, painted, update = make_run(runs, finished=False), [], Drawing.update
    with FakeEngine(run) as engine:
        async with opened(run, size) as (app, _):
            await frames(app, 2)
            monkeypatch.setattr(Drawing, "update", lambda panel: (painted.append((app.pace.frames, panel.id)), update(panel))[1])
            engine.writer.append(rows_of(run, 400, 401))
            engine.say()
            await until(lambda: len(painted) >= sum(map(len, by_frame)))
            await frames(app, 2)
            assert [[name for _, name in group] for _, group in itertools.groupby(painted, lambda each: each[0])] == by_frame
            assert all(panel.history.last_step == 400 for panel in app.screen.visible_panels())


async def test_eighty_columns_have_a_second_row_for_the_sentence_once_it_is_long(runs):
    async with opened(make_run(runs), (80, 24)) as (app, pilot):
        await frames(app)
        assert all(line.strip() for line in text_of(app).splitlines())
        await pilot.press("c")
        await frames(app)
        assert app.screen.header.has_class("tall")
        assert ids(app) == ["sharpness", "x"]


async def test_a_hundred_columns_by_thirty_rows_have_four_plots_and_no_blank_row(runs):
    async with opened(make_run(runs), (100, 30)) as (app, _):
        assert ids(app) == ["sharpness", "loss", "x", "portrait"]
        assert {(panel.outer_size.width, panel.outer_size.height // 12) for panel in app.screen.visible_panels()} == {(50, 1)}
        assert all(line.strip() for line in text_of(app).splitlines())


async def test_plots_are_numbered_and_a_number_jumps_to_its_plot(runs):
    async with opened(make_run(runs), (100, 30)) as (app, pilot):
        assert all(f"{k} {title}" in text_of(app) for k, title in enumerate(("sharpness", "training loss", "swing x", "phase portrait"), 1))
        await pilot.press("6")
        await frames(app)
        assert app.focused.id == "distance"
        assert ids(app) == ["y", "distance"]
        await pilot.press("4", "enter")
        assert ids(app) == ["portrait"]


async def test_the_layout_has_all_plots_two_large_ones_or_one_and_keeps_the_focused_one(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("3")
        shown = []
        for _ in range(3):
            await pilot.press("G")
            shown.append(ids(app))
            assert app.focused.id == "x"
        assert shown == [["sharpness", "x"], ["x"], ["sharpness", "loss", "x", "portrait", "y", "distance"]]


async def test_the_users_own_order_stands_first(runs):
    app = EosApp(make_run(runs), fps=10, layout="two", order=("y", "norm", "portrait"))
    async with app.run_test(size=(120, 40)):
        await until(lambda: app.pace.frames >= 1)
        assert [panel.id for panel in app.screen.panel_order] == ["y", "portrait", "sharpness", "loss", "x", "distance"]
        assert len(ids(app)) == 2


@pytest.mark.parametrize("width", [60, 80, 100, 120])
async def test_the_footer_follows_the_focused_plot_and_has_a_replays_keys_in_a_replay(runs, width):
    async with opened(make_run(runs), (width, 30)) as (app, pilot):
        def foot():
            return text_of(app).splitlines()[-1]

        await pilot.press("4")
        await frames(app)
        assert "d place a start" in foot()
        assert "log axis" not in foot()
        await pilot.press("3")
        await frames(app)
        assert "o odd and even" in foot()
        await pilot.press("g")
        await frames(app)
        steering = ("space pause", "← back", "→ on", "< slower", "> faster", "g live")
        assert all(words in foot() for words in steering[: 6 if width > 60 else 4])


def test_plots_fill_what_header_and_journal_leave():
    sizes = itertools.product(range(38, 250, 7), (11, 12, 15, 24, 30, 36, 50, 80), LAYOUTS, (1, 4, 6, 9))
    for width, height, layout, count in sizes:
        share = arranged(width, height, count, layout)
        if share is None:
            assert width < 40 or height < 12
            continue
        of_pages = pages(count, share.per_page)
        assert sorted(place for page in of_pages for place in page) == [*range(count)]
        for page in of_pages:
            columns, rows, last = grid(len(page), share.columns)
            assert len(page) - 1 + last == columns * rows
            assert (height - share.header - share.journal - 1) // rows >= min(9, height - 4)


async def test_a_resize_while_running_lays_out_anew(runs):
    async with opened(make_run(runs), (120, 40)) as (app, pilot):
        for size in [*SIZES, (120, 40)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await frames(app)
        assert len(app.screen.visible_panels()) == 6


async def test_the_header_tells_condition_stage_and_device(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run) as (app, _):
            shown = text_of(app)
    assert "● live" in shown
    assert re.search(r"stage [1-4] of 4", shown)
    assert " cpu" in shown
    assert "float64" not in shown  # number formats are told with the formulas
    assert "synthetic" in shown


async def test_an_engine_that_died_looks_unlike_one_that_finished(runs):
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
        with pytest.raises(UserError, match="was removed: no engine takes commands, and nothing can be resumed"):
            app.screen.source.need_engine()


async def test_a_plot_draws_its_rows_and_border_as_textual_would(runs):
    async with opened(make_run(runs, 120)) as (app, pilot):
        app.theme = theme.DARK
        for key in ("tab", "c", "left", "y", "enter", "escape", "t", "tab", "t", "tab"):
            await pilot.press(key)
            await frames(app)
            await pilot.pause()
            for plot in app.screen.query(Drawing):
                if plot.display and plot.size:
                    for part in (Region(0, 0, *plot.outer_size), Region(3, 1, 9, 3)):
                        shown = [list(_cells(row)) for row in plot.render_lines(part)]
                        plot._styles_cache.clear()
                        assert shown == [list(_cells(row)) for row in plot.by_textual(part)]


async def test_a_border_with_other_words_is_as_textual_would_draw_it(runs, monkeypatch):
    async with opened(make_run(runs, 120)) as (app, _):
        plot = app.screen.query(LinePlot).first()
        for words in ("", "θ", *("‖θ−θ†‖ 字" * 9)[: plot.size.width + 4 : 3], "", "x 1.5", *("y" * k for k in range(plot.size.width + 3))):
            monkeypatch.setattr(plot, "titles", lambda width, words=words: (words, words[::-1]))
            plot.retitle(plot.size.width)
            for y in (0, plot.outer_size.height - 1):
                drawn = plot.by_textual(Region(0, y, plot.outer_size.width, 1))[0]
                assert list(_cells(plot.edge_strip(plot.border_drawn, y))) == list(_cells(drawn))


async def test_a_line_of_text_is_as_textual_would_draw_it(runs):
    async with opened(make_run(runs, 120)) as (app, _):
        for line in app.screen.query(Line):
            for text in (line.content, Content(""), Content.assemble("a\nb"), Content.assemble(("θ 字" * 60, "bold red"), "end")):
                line.show(text)
                whole = Region(0, 0, *line.outer_size)
                shown = [list(_cells(row)) for row in line.render_lines(whole)]
                line._styles_cache.clear()
                assert shown == [list(_cells(row)) for row in Widget.render_lines(line, whole)]


def _cells(row):
    """Character and look of each cell: a blank has no use for a foreground."""
    return ((character, style.background_style if character == " " else style.clear_meta_and_links())
            for text, style, _ in row for character in text)


async def test_a_run_at_rest_is_not_painted_and_what_comes_is(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.screens.dashboard.RESTING_SECONDS", 3600)
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await frames(app, 3)
        painted = []
        monkeypatch.setattr(app.screen, "paint", lambda: painted.append(app.pace.frames))
        await frames(app, 5)
        assert not painted
        await pilot.press("c")
        await until(lambda: len(painted) == 1)
        with Writer(run) as writer:
            writer.append(rows_of(run, 400, 401))
        await until(lambda: len(painted) == 2)
        await pilot.press("g")
        await until(lambda: len(painted) > 4)


async def test_a_diverged_run_stays_drawable(runs):
    run = make_run(runs, finished=False)
    rows = rows_of(run, 400, 440)
    for name in ("gd.loss", "gd.sharpness", "gd.x", "generalized.x", "generalized.y"):
        rows[20:, run.index[name]] = math.inf
    rows[30:, 3:] = math.nan
    with Writer(run) as writer:
        writer.append(rows)
        outcome = Outcome(kind="diverged", step=420, text="diverged at step 420")
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
        assert [panel.id for panel in app.screen.visible_panels()] == ["loss"]
        await pilot.press("tab")
        await frames(app)
        assert [panel.id for panel in app.screen.visible_panels()] == ["x"]
        assert [panel.id for panel in app.screen.plots if panel.display] == ["x"]
        await pilot.press("escape")
        await frames(app)
        assert len(app.screen.visible_panels()) == 6


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


async def test_the_cursor_tells_the_last_reading_of_what_is_measured_now_and_then(runs):
    run = make_run(runs, 90, finished=False)
    rows = run.rows()
    rows[:, run.index["gd.sharpness"]] = np.nan
    rows[::20, run.index["gd.midpoint_sharpness"]] = 61.5
    rows.astype("<f8").tofile(run.path / "metrics.f64")
    async with opened(run) as (app, pilot):
        await pilot.press("c", "shift+left", "shift+left")
        await frames(app, 2)
        assert "cursor at step 87, ηt 1.74000:  S½ 61.5 at 80" in text_of(app)


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


def test_a_long_event_goes_on_below_its_own_words():
    event = Anchored(step=652, text="generalized, transported, code: set to the true displacement at step 652", forms=("code",))
    lines = with_time(event, lambda role: "", 60).plain.splitlines()
    assert len(lines) == 2
    assert len(max(lines, key=len)) <= 60
    assert lines[0].index("generalized") == len(lines[1]) - len(lines[1].lstrip())


async def test_the_journal_lists_every_event_also_those_to_come(runs):
    run = make_run(runs)
    async with opened(run) as (app, pilot):
        await pilot.press("v")
        await pilot.pause()
        assert isinstance(app.screen, Events)
        assert app.screen.source.events
        for event in app.screen.source.events:
            assert event.text in text_of(app)
        with Writer(run) as writer:
            writer.event(Anchored(step=399, text="a new one, while the page is open", forms=()))
        await until(lambda: "a new one" in text_of(app))
        await pilot.press("escape")


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 0.999, 1.0, 1.1, 1.2, 7.0, math.nan, math.inf])
@pytest.mark.parametrize("cells", [12, 24, 36])
def test_the_gauge_keeps_its_width_and_its_mark(value, cells):
    shown = gauge(value, cells, lambda role: "red").plain
    assert len(shown) == cells
    assert shown[round(cells / 1.2)] == "┃"
    assert len(gauge(value, cells, lambda role: "red", ascii=True).plain.encode()) == cells


@pytest.mark.parametrize("width", range(20, 90))
def test_no_line_of_the_head_ends_within_a_formula(width):
    text = Content("The sharpness is above 2/η, so the oscillation grows; the theory applies (ε = 0.11)").stylize("bold", 4, 13)
    wrapped = kept_whole(text, width)
    assert wrapped.plain.replace("\n", " ") == text.plain
    assert wrapped.spans == text.spans
    assert any("(ε = 0.11)" in line for line in wrapped.plain.splitlines())
    assert max(map(len, wrapped.plain.splitlines())) <= width


def test_plots_show_only_what_the_run_records(runs):
    run = make_run(runs)
    kept = [column for column in run.columns if not column.name.startswith(("flow.", "transported.", "code."))]
    names = {column.name for column in kept}
    for plot in panels.line_plots(kept, panels.CHOICES[2]):
        assert {curve.column for curve in plot.curves} <= names


async def test_the_portrait_follows_the_choice_of_predictions(runs):
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("p", "p", "p")
        assert tuple(app.screen.query_one(PhasePortrait).forms) == ()


@pytest.mark.parametrize("log", ["", "started\nkilled by the host\n"])
def test_the_end_of_an_engine_without_a_word_is_told_in_whole_sentences(runs, log):
    run = make_run(runs)
    source = Source(run)
    source.condition, source.log = "crashed", log
    said = story(source, {}, lambda role: role).plain
    assert said.endswith("every row on disk is kept. " + ("Its log ends: killed by the host" if log else "Its log is empty."))
