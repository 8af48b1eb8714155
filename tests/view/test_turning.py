"""Several directions at the edge on the screen: x turning over its ellipses, the spectra with who swings, means and variances."""

import math

import numpy as np
import pytest

from engine.record import messages
from engine.record.columns import Column
from engine.record.export import chosen_columns, export
from engine.record.writer import Writer
from eos_tui.draw import panels, theme, turning
from eos_tui.draw.line_plot import Window, draw
from eos_tui.draw.plot_spec import pens
from eos_tui.model import bursts
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.spectrum import Spectrum
from eos_tui.screens.turning import Turning

from piloting import frames, opened, text_of, until
from several_runs import COVARIANCE, EDGE, JOINS, make_several, several_rows
from synthetic import LEARNING_RATE, make_run

PERIOD = 2 * math.pi * math.sqrt(2) / 0.1
"""Steps of an even turn at ε = 0.1."""


def even(steps: int = 400, size: float = 0.3, turns: float = 1.0) -> History:
    """A run of which x turns evenly on the circle |x|² = 2σ², `turns` times in a period, its sign alternating."""
    step = np.arange(steps, dtype=float)
    angle, radius = 2 * np.pi * turns * step / PERIOD, math.sqrt(2) * size
    sign = (-1) ** step
    columns = {
        "step": step, "learning_rate": LEARNING_RATE, "constrained.epsilon": 0.1, "constrained.directions": 2.0, "gd.x_norm": radius,
        "gd.x1": sign * radius * np.cos(angle), "gd.x2": sign * radius * np.sin(angle), "covariance.trace": 2 * size**2,
        "covariance.x1x1": size**2, "covariance.x1x2": 0.0, "covariance.x2x2": size**2,
    }
    history = History([Column(name, name, name, "", "", "") for name in columns])
    history.extend(np.stack(np.broadcast_arrays(*columns.values()), axis=1))
    return history


# -- the path and its ellipses


def test_the_path_without_its_alternating_sign_is_smooth_and_goes_round_once_in_a_period():
    shown = turning.turn(even(), Window(0, 399), 1, 2)
    assert np.abs(np.diff(shown.x)).max() < 2.1 * math.pi * 0.3 * math.sqrt(2) / PERIOD
    np.testing.assert_allclose(shown.x**2 + shown.y**2, 2 * 0.3**2)
    assert shown.turned == pytest.approx(int(PERIOD) / PERIOD, rel=1e-9)
    assert shown.size == pytest.approx(1)
    assert turning.turn(even(turns=-2), Window(0, 399), 1, 2).turned == pytest.approx(-2 * int(PERIOD) / PERIOD, rel=1e-9)


def test_the_path_ends_at_the_cursor():
    history = even()
    at = turning.turn(history, Window(0, 399, 200.0), 1, 2)
    assert (at.x[-1], at.y[-1]) == (history.value("gd.x1", 200), history.value("gd.x2", 200))  # at an even step
    assert len(at.x) == int(PERIOD) + 1


@pytest.mark.parametrize("scale", [1.0, math.sqrt(2)])
def test_the_points_of_an_ellipse_are_so_many_deviations_away(scale):
    covariance = COVARIANCE[:2, :2]
    points = turning.ellipse(covariance, scale)
    np.testing.assert_allclose(np.einsum("ip,ij,jp->p", points, np.linalg.inv(covariance), points), scale**2, rtol=1e-12)
    np.testing.assert_allclose(points @ points.T / points.shape[1], covariance * scale**2 / 2, rtol=0.02, atol=1e-6)


def test_an_ellipse_of_rank_one_is_a_line():
    points = turning.ellipse(np.array([[4.0, 0.0], [0.0, 0.0]]), 1.0)
    assert np.abs(points[1]).max() == 0
    assert points[0].max() == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("size", [(78, 20), (98, 26), (118, 36)])
def test_a_circle_is_drawn_as_one(size):
    """In dots, of which a cell has two across and four upward."""
    shown = turning.turn(even(), Window(0, 399), 1, 2)
    strips, (x, y) = turning.paint(shown, *size, ascii=False, theme=theme.DARK)
    columns, rows = size[0] - 7, size[1] - 2
    assert 2 * columns / x.span == pytest.approx(4 * rows / y.span)
    assert len(strips) == size[1]
    assert {strip.cell_length for strip in strips} == {size[0]}


def test_directions_of_very_different_size_have_each_a_scale_of_its_own():
    history = even()
    shown = turning.turn(history, Window(0, 399), 1, 2)
    flat = shown._replace(y=shown.y / 100, covariance=np.diag([0.09, 0.09e-4]))
    _, (x, y) = turning.paint(flat, 78, 20, ascii=False, theme=theme.DARK)
    assert x.span == pytest.approx(100 * y.span, rel=1e-6)


def test_rows_of_any_kind_are_drawn_without_a_word():
    shown = turning.turn(even(), Window(0, 399), 1, 2)
    nothing = np.full_like(shown.x, np.nan)
    still = 0 * shown.x
    for x, y, covariance in ((nothing, nothing, None), (nothing, shown.y * 1e200, shown.covariance), (still, still, np.zeros((2, 2)))):
        odd = shown._replace(x=x, y=y, covariance=covariance)
        with np.errstate(all="ignore"):
            strips, _ = turning.paint(odd, 60, 15, ascii=True, theme=theme.ANSI)
            turning.words(odd, 60)
        assert len(strips) == 15
    for width, height in ((0, 0), (3, 3), (12, 2), (12, 5)):
        strips, _ = turning.paint(shown, width, height, ascii=False, theme=theme.DARK)
        assert len(strips) == height


# -- its page


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_the_page_shows_the_path_and_says_what_the_ellipses_are(runs, size, ascii):
    async with opened(make_several(runs), size, ascii=ascii) as (app, pilot):
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, Turning) and "x2 against x1" in text_of(app))
        shown = text_of(app)
        assert ("@" if ascii else "●") in shown
        if size[0] >= 80:
            assert "times round in 198 steps" in shown
            assert "one standard deviation" in shown
            assert "√2 of it" in shown
            assert "mean |x|²/tr X†" in shown
        assert not ascii or not {sign for sign in shown if "\u2500" <= sign <= "\u25ff" or "\u2800" <= sign <= "\u28ff"}
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula) and ("U turning as little as it can" in text_of(app) or size[0] < 80))
        await pilot.press("i", "X")
        assert isinstance(app.screen, Dashboard)


@pytest.mark.parametrize("name", [each.name for each in theme.THEMES])
async def test_path_and_ellipses_differ_without_colour(runs, name):
    async with opened(make_several(runs), (80, 24)) as (app, pilot):
        app.theme = name
        await pilot.press("X")
        await until(lambda: "━━ path of x  ╴╴ X†: one standard deviation  ╌╌ √2 of it: an even turn" in text_of(app))


async def test_arrows_choose_the_two_directions(runs):
    async with opened(make_several(runs, count=3), (80, 24)) as (app, pilot):
        await pilot.press("X")
        await until(lambda: "x2 against x1" in text_of(app) and "←→ ↑↓ directions" in text_of(app))
        for key, words in (("up", "x3 against x1"), ("right", "x3 against x2"), ("up", "x1 against x2"), ("left", "x1 against x3"),
                           ("down", "x2 against x3"), ("left", "x2 against x1")):
            await pilot.press(key)
            await until(lambda words=words: words in text_of(app))


async def test_with_one_direction_it_says_that_nothing_turns_and_what_to_run(runs):
    async with opened(make_several(runs, steps=JOINS), (80, 24)) as (app, pilot):
        await pilot.press("X")
        await until(lambda: "with one nothing turns" in text_of(app) and "`eos run several`" in text_of(app))
        await pilot.press("right", "up", "i", "i")  # these keys have nothing to choose
        assert isinstance(app.screen, Turning)


async def test_before_the_edge_it_waits(runs):
    async with opened(make_run(runs, 50), (80, 24)) as (app, pilot):
        await pilot.press("X")
        await until(lambda: "x in several directions: no data" in text_of(app))


async def test_a_replay_turns_as_the_run_did(runs):
    async with opened(make_several(runs), (80, 24)) as (app, pilot):
        source = app.screen.source
        await pilot.press("g", "space", "X")
        source.replay.seek(JOINS - 20)
        await until(lambda: "with one nothing turns" in text_of(app))
        source.replay.seek(JOINS + 240)
        await until(lambda: "times round" in text_of(app) and app.screen.path.turn is not None)
        row = source.history.row_near(JOINS + 240)
        await until(lambda: app.screen.path.turn.x[-1] == source.history.value("gd.x1", row))


# -- the dashboard


@pytest.mark.parametrize(("size", "pages"), [((80, 24), 4), ((120, 40), 2), ((250, 70), 1)])
async def test_several_directions_have_a_plot_of_variances(runs, size, pages):
    async with opened(make_several(runs), size) as (app, pilot):
        await until(lambda: app.screen.pages == pages)
        assert "covariance" in [panel.id for panel in app.screen.panel_order]
        for _ in range(pages):
            if "variance of x" in text_of(app):
                break
            await pilot.press("n")
            await frames(app, 2)
        assert "variance of x" in text_of(app)


async def test_one_direction_has_none_and_a_second_brings_it(runs):
    run = make_several(runs, steps=JOINS, finished=False)
    async with opened(run, (120, 40)) as (app, _):
        assert [panel.id for panel in app.screen.panel_order] == ["sharpness", "loss", "x", "portrait", "y", "distance"]
        with Writer(run) as writer:
            writer.append(several_rows(run, JOINS + 30)[JOINS:])
        await until(lambda: "covariance" in [panel.id for panel in app.screen.visible_panels()])
        assert [panel.id for panel in app.screen.visible_panels()] == ["sharpness", "loss", "x", "turning", "y", "covariance"]
        await until(lambda: "4 x turns: x2 against x1" in text_of(app))


async def test_the_sentence_says_how_many_directions_and_why_the_sharpness_hovers(runs):
    async with opened(make_several(runs, finished=False), (120, 40)) as (app, _):
        await until(lambda: "2 directions at the edge: λ1 hovers above 2/η because x turns; the theory applies" in text_of(app))


def specs(run):
    return {spec.id: spec for spec in panels.line_plots(run.columns, ())}


def test_predicted_variances_are_dashed_in_the_colour_of_theta_dagger_and_measured_ones_solid(runs):
    curves = specs(make_several(runs))["covariance"].curves
    measured, predicted = curves[: len(curves) // 2], curves[len(curves) // 2 :]
    assert {(curve.role, curve.dashed) for curve in measured} == {("gd", False)}
    assert {(curve.role, curve.dashed) for curve in predicted} == {("constrained", True)}
    assert [curve.column for curve in measured] == [f"covariance.measured_lambda{i}" for i in (1, 2, 3, 4)]
    assert len({pen.mark for pen in pens(curves)}) == len(curves)


def test_a_curve_that_is_added_has_the_colour_of_what_it_is_of():
    columns = [Column(name, name, name, "", "", "") for name in (
        "average.loss", "average.predicted_loss", "covariance.trace", "covariance.measured_trace")]
    added = panels.adapted(specs_of(columns), panels.PlotOptions(added=tuple(column.name for column in columns)), columns)
    assert [(curve.role, curve.dashed) for curve in added.curves[-4:]] == [
        ("gd", False), ("constrained", True), ("constrained", True), ("gd", False)]


def specs_of(columns):
    return panels.line_plots([*columns, Column("gd.x", "x", "x", "", "", "")], ())[-1]


# -- means that claim nothing yet


def loss_of(run) -> str:
    history = Source(run).history
    history.extend(run.rows())
    return "\n".join(strip.text for strip in draw(specs(run)["loss"], history, Window(0, history.last_step), 90, 24))


def test_the_loss_has_its_mean_and_the_predicted_one_and_says_what_they_wait_for(runs):
    window = math.ceil(4 * math.pi / (math.sqrt(2) * LEARNING_RATE * math.sqrt(1e4 * COVARIANCE[0, 0])))
    waiting = loss_of(make_several(runs, steps=EDGE + window - 1, name="waiting"))
    assert "means need two bursts: 1 more steps" in waiting
    assert "mean, predicted" not in waiting
    there = loss_of(make_several(runs, steps=EDGE + window + 1, name="there"))
    assert "means need" not in there
    assert "─· mean  " in there
    assert "mean, predicted" in there


def test_means_begin_anew_with_another_learning_rate(runs):
    run = make_several(runs)
    rows = run.rows()
    rows[-30:, run.index["learning_rate"]] *= 2
    rows[-30:, run.index["average.loss"]] = np.nan
    history = Source(run).history
    history.extend(rows)
    assert bursts.words(history) == f"means need two bursts: {199 - 30} more steps"


def test_a_window_too_long_to_keep_is_said_to_be(runs):
    run = make_several(runs)
    rows = run.rows()
    rows[:, run.index["average.steps"]], rows[:, run.index["average.loss"]] = 300.0, np.nan
    history = Source(run).history
    history.extend(rows)
    assert bursts.words(history) == "means need two bursts: 300 steps are too many to keep"


def test_a_run_without_means_waits_for_nothing(runs):
    run = make_run(runs)
    history = Source(run).history
    history.extend(run.rows())
    assert bursts.words(history) == ""


# -- the spectra


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_spectrum_of_theta_dagger_says_who_is_at_the_edge_and_who_swings(runs, size):
    async with opened(make_several(runs, count=3, ranks=2), size) as (app, pilot):
        await pilot.press("L")
        await until(lambda: isinstance(app.screen, Spectrum) and "spectrum of gradient descent" in text_of(app))
        if size[1] < 30:
            assert "spectrum of θ†" not in text_of(app)
            await pilot.press("tab")
        await until(lambda: "spectrum of θ†" in text_of(app) and "3 directions at the edge, 2 swing, so x turns" in text_of(app))
        assert "λ1 swings" in text_of(app)
        assert [curve.label for curve in app.screen.center.spec.curves] == ["λ1 swings", "λ2 swings", "λ3 at the edge"]
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula) and ("λ2(∇²L(θ†_t))" in text_of(app)) == (size[1] < 30))


async def test_one_direction_is_said_to_be_one(runs):
    async with opened(make_several(runs, steps=JOINS), (120, 40)) as (app, pilot):
        await pilot.press("L")
        await until(lambda: "one direction at the edge, one swings" in text_of(app))
        assert [curve.label for curve in app.screen.center.spec.curves] == ["λ1 swings", "λ2 below", "λ3 below"]


# -- as any other column


def test_a_change_of_the_learning_rate_leaves_variances_and_takes_eigenvalues(runs):
    run = make_several(runs)
    source = Source(run)
    source.take(source.read())
    source.journal.append(messages.LearningRateChanged(step=700, text="η is now 0.01", learning_rate=0.01))
    row = source.row()
    assert row["covariance.lambda2"] > 0
    assert math.isnan(row["gd.lambda2"])


def test_what_belongs_to_theta_dagger_ends_with_it(runs):
    run = make_several(runs)
    rows = run.rows()[-1:]
    rows[0, 0] += 1
    for name, place in run.index.items():
        if name.startswith(("constrained.", "covariance.", "average.")) or name in ("gd.x1", "gd.x_norm"):
            rows[0, place] = np.nan
    with Writer(run) as writer:
        writer.append(rows)
    source = Source(run)
    source.take(source.read())
    row = source.row()
    assert all(math.isnan(row[name]) for name in ("constrained.directions", "covariance.trace", "average.loss", "gd.x1"))


async def test_the_columns_are_compared_as_any_other(runs):
    run, other = make_several(runs), make_several(runs, name="three", count=3)
    async with opened(run, (120, 40), beside=[other]) as (app, pilot):
        await until(lambda: "╍╍ three" in text_of(app))
        await pilot.press("6", "enter", "M")
        await until(lambda: "variance of x" in text_of(app) and "╍╍ three" in text_of(app))


def test_the_columns_are_exported_as_any_other(runs, tmp_path):
    run = make_several(runs)
    names = ["step", "gd.x2", "covariance.x1x2", "average.predicted_loss", "constrained.directions"]
    export(run, "npz", chosen_columns(run, names), tmp_path / "columns.npz")
    with np.load(tmp_path / "columns.npz") as kept:
        for name in names:
            np.testing.assert_array_equal(kept[name], run.table()[name])
