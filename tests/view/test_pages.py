"""The pages above the dashboard that live as the run does: gauges, spectrum, the loss along u, Theorem 1; the data's name."""

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from textual.widgets import Static

from engine.record import messages, store
from engine.record.reader import Gpu, HostLoad, Run, State
from engine.record.writer import Writer
from engine.report.gauges import GAUGES
from engine.spec import load_spec, load_spec_text
from eos_tui.draw import theme
from eos_tui.draw.theme import role_color
from eos_tui.model.history import History
from eos_tui.model.source import DataFacts
from eos_tui.screens.assumptions import ASCII_BARS, Assumptions, latest, sparkline
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula, numbers
from eos_tui.screens.landscape import Landscape, drawn, verdict
from eos_tui.screens.spectrum import Spectrum
from eos_tui.screens.theorem import CLAIM, Theorem, held, unclaimed
from eos_tui.widgets import header
from eos_tui.widgets.cross_section import section
from eos_tui.widgets.options import Options
from eos_tui.widgets.valley import LINES, PlaneSample, framed, level_lines, levels
from eos_tui.widgets.valley import sampled as read_plane

from piloting import opened, text_of, until
from sampling import DELTA, PLANE_X, PLANE_Y, sampled, valley
from synthetic import ALPHA, BETA, EDGE, LEARNING_RATE, SPEC, THRESHOLD, FakeEngine, make_run, rows_of

RHO3 = 15.0


def gauged(where: Path, steps: int = 400, **changed: float) -> Run:
    """A run whose gauges are measured every 50 steps from the edge, and whose λ1 to λ3 are known from there."""
    bare = make_run(where, EDGE, "gauged", finished=False)
    rows = rows_of(bare, EDGE, steps)
    since = rows[:, 0] - EDGE
    values = {
        "constrained.gamma": 0.6, "constrained.lambda2": 45.0, "gd.lambda2": 60 + 50 * since / since.max(), "gd.lambda3": 60.0,
        "assumption.stabilization": math.sqrt(BETA) / RHO3, "assumption.quartic": 30.0, "assumption.cubic_displacement": 0.04,
        "assumption.cubic_gradient": 0.9, "assumption.quadratic_displacement": 0.01,
    } | {name.replace("__", "."): value for name, value in changed.items()}
    for name, value in values.items():
        column = np.broadcast_to(np.asarray(value, float), since.shape)
        rows[:, bare.index[name]] = np.where(since % 50 == 0, column, np.nan) if name.startswith("assumption.") else column
    with Writer(bare) as writer:
        writer.append(rows)
        writer.event(messages.EigenvalueUnstable(step=110, text="λ1 is above 2/η", number=1))
        writer.event(messages.EigenvalueUnstable(step=340, text="λ2 is above 2/η", number=2))
    return bare


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_every_gauge_is_readable_with_its_word_rule_and_place(tmp_path, size):
    async with opened(gauged(tmp_path), size) as (app, pilot):
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "λ2(θ†)" in text_of(app))
        shown = text_of(app)
        lines = [line.strip(" │") for line in shown.splitlines()]
        for gauge in GAUGES:
            place = next(k for k, line in enumerate(lines) if line.startswith(f"{gauge.label} ") and gauge.formula in line)
            assert gauge.claim in lines[place + 1]
            assert "red" in lines[place + 1]
            assert gauge.source in lines[place + 1] or size[0] < 100
        for formula, value, word in [
            ("ε = η√α", f"{LEARNING_RATE * math.sqrt(ALPHA):.3f}", "green"), ("ρ4/(ηρ3²)", "30.0", "amber"),
            ("‖∇³L(g⊥,g⊥)‖", "0.900", "red"), ("‖∇S⊥‖/ρ3", "0.667", "green"), ("η·λ2(θ†)", "0.900", "green"),
        ]:
            line = next(line for line in lines if formula in line)
            assert value in line
            assert word in line
        await pilot.press("escape")
        assert isinstance(app.screen, Dashboard)


async def test_the_assumptions_go_on_as_the_run_does(tmp_path):
    run = gauged(tmp_path)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await pilot.press("a")
            await until(lambda: "step 399" in text_of(app))
            messages.send(run.path, messages.Advance(steps=7))
            await until(lambda: "step 406" in text_of(app))


@pytest.mark.parametrize("name", [each.name for each in theme.THEMES])
async def test_the_assumptions_draw_in_every_theme_and_in_ascii(tmp_path, name):
    async with opened(gauged(tmp_path), (80, 24), ascii=True) as (app, pilot):
        app.theme = name
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "x red" in text_of(app))
        assert not set(text_of(app)) & set("▁▂▃▄▅▆▇█●▲✗")


async def test_the_assumptions_are_told_whole_in_eighty_columns(tmp_path):
    async with opened(gauged(tmp_path), (80, 24)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "red beyond or above 0.5 · Ass. 5" in text_of(app))
        assert "…" not in text_of(app)


async def test_an_assumption_that_failed_has_a_page_that_says_so(tmp_path):
    async with opened(gauged(tmp_path, constrained__alpha=-3.0, constrained__epsilon=math.nan)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "λ2(θ†)" in text_of(app))
        lines = text_of(app).splitlines()
        assert "red" in next(line for line in lines if "α = −∇L·∇S" in line)
        assert "none" in next(line for line in lines if "∇²L(v⊥,v⊥)" in line)  # O(ε), and there is no ε


@pytest.mark.parametrize("width", [40, 44, 50, 58, 66, 120])
async def test_gauges_keep_their_values_and_colours_at_any_width(tmp_path, width):
    async with opened(gauged(tmp_path), (width, 50)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "green" in text_of(app))
        shown = text_of(app)
        for value in ("25.0", "0.1"):  # α and ε
            assert re.search(rf"{re.escape(value)}\d*  . (green|amber|red)", shown), shown
        assert "0.01" in shown  # the last word of a reason


@pytest.mark.parametrize("preset", ["phase", "fashion"])
async def test_runs_without_values_have_pages_that_say_why(tmp_path, preset):
    run = store.create(load_spec(preset), "empty", tmp_path)
    async with opened(run, (80, 24)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: ("no θ†" if preset == "phase" else "begins at the edge") in text_of(app))
        await pilot.press("a", "L")
        await until(lambda: ("no Hessian" if preset == "phase" else "from the edge on") in text_of(app))


async def test_where_steps_feel_the_hessian_preconditioned_spectrum_and_valley_are_of_that(tmp_path):
    run = store.create(load_spec("adam"), "adam", tmp_path)
    rows = np.full((60, len(run.columns)), np.nan)
    for name, values in {"step": np.arange(60), "learning_rate": 0.01, "threshold": 3800.0, "gd.loss": 0.1, "gd.sharpness": 5.0,
                         "preconditioned.sharpness": np.linspace(1000, 3990, 60)}.items():
        rows[:, run.index[name]] = values
    with Writer(run) as writer:
        writer.append(rows)
    async with opened(run) as (app, pilot):
        await pilot.press("L")
        await until(lambda: isinstance(app.screen, Spectrum) and "1 followed" in text_of(app))
        assert "first above edge: λ1 from step 56" in text_of(app)
        assert [curve.label for curve in app.screen.plot.spec.curves] == ["λ1"]
        await pilot.press("L", "U", "tab", "tab")
        await until(lambda: isinstance(app.screen, Landscape) and app.screen.across)
        shown = section(app.screen.source.history)
        assert (shown.ratio, shown.edge) == (pytest.approx(3990 / 3800), "edge")
        await until(lambda: "wider" in text_of(app))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_the_spectrum_draws_every_eigenvalue_and_says_since_when_it_is_unstable(tmp_path, size):
    async with opened(gauged(tmp_path), size) as (app, pilot):
        await pilot.press("L")
        await until(lambda: isinstance(app.screen, Spectrum) and "3 followed" in text_of(app))
        shown = text_of(app)
        assert [curve.label for curve in app.screen.plot.spec.curves] == ["λ1", "λ2", "λ3", "1.5/η"]
        if size[0] >= 80:
            assert "λ1 from step 131 · λ2 from step 340" in shown
            assert "formula · esc closes" in shown  # whole, and beside the words or below them
            assert "2/η" in shown
            assert "1.5/η" in shown
        assert app.screen.history.last("followed_from") == pytest.approx(1.5 / LEARNING_RATE)
        await pilot.press("L")
        assert isinstance(app.screen, Dashboard)


async def test_the_spectrum_of_a_run_without_events_says_since_when_by_its_rows(tmp_path):
    run = store.create(load_spec_text(SPEC + '[tracking]\nmode = "sharpness"', "a test"), "trained", tmp_path)
    rows = np.full((50, len(run.columns)), np.nan)
    step = np.arange(50)
    values = {"step": step, "learning_rate": LEARNING_RATE, "threshold": THRESHOLD, "gd.sharpness": THRESHOLD * step / 30}
    for name, value in (values | {"gd.lambda2": THRESHOLD * step / 60}).items():
        rows[:, run.index[name]] = value
    with Writer(run) as writer:
        writer.append(rows)
    async with opened(run, (80, 24)) as (app, pilot):
        await pilot.press("L")
        await until(lambda: "first above 2/η: λ1 from step 31\n" in text_of(app))


async def test_the_spectrum_tells_since_when_of_the_threshold_in_force(tmp_path):
    run = store.create(load_spec_text(SPEC + '[tracking]\nmode = "sharpness"', "a test"), "changed", tmp_path)
    rows = np.full((60, len(run.columns)), np.nan)
    step = np.arange(60)
    rate = np.where(step < 40, LEARNING_RATE, LEARNING_RATE / 2)
    values = {"step": step, "learning_rate": rate, "threshold": 2 / rate, "gd.sharpness": THRESHOLD * step / 25, "gd.lambda2": 1.0}
    for name, value in values.items():
        rows[:, run.index[name]] = value
    with Writer(run) as writer:
        writer.append(rows[:45])
        async with opened(run, (120, 24)) as (app, pilot):
            await pilot.press("L")
            await until(lambda: "first above 2/η since η became 0.01 at step 40: none yet ·" in text_of(app))
            writer.append(rows[45:])
            await until(lambda: "since η became 0.01 at step 40: λ1 from step 51 ·" in text_of(app))


def history_of(run: Run) -> History:
    history = History(run.columns)
    history.extend(run.rows())
    return history


def test_a_sparkline_holds_what_is_measured_now_and_then(tmp_path):
    ramp = np.arange(300.0)
    history = history_of(gauged(tmp_path, assumption__quartic=ramp))
    drawn = sparkline(history, "assumption.quartic", 12, ascii=True)
    assert len(drawn) == 12
    assert drawn[0] == ASCII_BARS[0]
    assert drawn[-1] == ASCII_BARS[-1]
    heights = [ASCII_BARS.index(bar) for bar in drawn]
    assert heights == sorted(heights)
    assert set(sparkline(history, "constrained.gamma", 12, ascii=True)) == {ASCII_BARS[len(ASCII_BARS) // 2]}  # a constant
    assert sparkline(history, "assumption.rho4", 12) == ""


def test_a_gauge_is_judged_by_the_epsilon_of_its_own_step(tmp_path):
    varying = np.linspace(0.1, 0.4, 300)
    history = history_of(gauged(tmp_path, constrained__epsilon=varying))
    now = latest(next(gauge for gauge in GAUGES if gauge.label == "6"), history)
    assert now.step == EDGE + 250
    assert now.epsilon == pytest.approx(varying[250])


# -- the loss along u, and Theorem 1


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_the_landscape_names_its_shape_and_sets_the_predicted_sharpness_beside_the_measured_one(tmp_path, size):
    async with opened(sampled(tmp_path), size) as (app, pilot):
        await pilot.press("U")
        await until(lambda: isinstance(app.screen, Landscape) and "sub-quadratic: ηF(δ)/δ² = 0.9000" in text_of(app))
        shown = text_of(app)
        assert ("0.6000 × 2/η" in shown and "0.6100 × 2/η" in shown) or size[0] < 80
        assert ("limit, the paper" in shown and "limit, ours" in shown) or size[0] < 80
        if size[0] >= 80:
            assert "step 350: sample 6 of 6, the newest" in shown
            assert "mean of the 100 steps" in shown
            assert "━━ F along u, even part" in shown
            assert "−δ" in shown
            assert " 4" in shown  # x in units of δ
        await pilot.press("U")
        assert isinstance(app.screen, Dashboard)


@pytest.mark.parametrize(("size", "ascii"), [
    ((40, 12), False), ((80, 24), True), ((120, 40), False),
    *(pytest.param(*other, marks=pytest.mark.slow) for other in (((40, 12), True), ((80, 24), False), ((120, 40), True))),
])  # fmt: skip
async def test_tab_turns_to_the_plane_and_wide_pages_show_both(tmp_path, size, ascii):
    async with opened(sampled(tmp_path), size, ascii=ascii) as (app, pilot):
        await pilot.press("U")
        await until(lambda: isinstance(app.screen, Landscape) and "sub-quadratic" in text_of(app))
        assert ("level lines" in text_of(app)) == (size[0] == 120)
        await pilot.press("tab")
        await until(lambda: "level lines" in text_of(app) and "S = 2/η + y" in text_of(app))
        assert ("F along u" in text_of(app)) == (size[0] == 120)
        assert ("◆" in text_of(app)) != ascii
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula) and "L−L†" in text_of(app))
        await pilot.press("escape", "tab")
        await until(lambda: "the valley cut across" in text_of(app) and "½(2/η + y)x²" in text_of(app))
        assert ("level lines" in text_of(app)) == (size[0] == 120)
        assert ("@" in text_of(app) or "/_\\" in text_of(app)) == ascii
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula) and "α(1 − x²/δ²)" in text_of(app))
        await pilot.press("escape", "tab")
        await until(lambda: "sub-quadratic" in text_of(app))
        await pilot.press("shift+tab")
        await until(lambda: "the valley cut across" in text_of(app))


def test_the_plane_is_the_polynomial_through_its_sample():
    plane = PlaneSample(PLANE_X / DELTA, PLANE_Y, valley(PLANE_X[:, None], PLANE_Y) * LEARNING_RATE / DELTA**2)
    x, y = np.array([-5.0, 0.0, 1.0, *plane.x[:3], 4.9]), np.array([-20.0, *plane.y[:2], 0.0, 7.3])
    exact = valley(DELTA * x[:, None], y) * LEARNING_RATE / DELTA**2
    np.testing.assert_allclose(plane.at(x, y), exact, atol=1e-11)


@pytest.mark.parametrize("reach", [1.5, 5.0])
def test_level_lines_stand_where_the_loss_takes_their_levels(reach):
    """Of x²/δ² alone they are columns, evenly spaced and one at |x| = δ; a valley that is narrower above leans inwards there."""
    x = np.linspace(-reach, reach, 401)
    upright = level_lines(np.tile(x**2, (41, 1)), levels(reach))
    assert (upright == upright[0]).all()
    crossings = ((x[:-1] + x[1:])[upright[0]] / 2)[x[:-1][upright[0]] > 0]
    spaced = 1 / math.ceil(LINES / reach)
    np.testing.assert_allclose(crossings / spaced, np.arange(1, len(crossings) + 1), atol=0.1)
    assert len(crossings) >= LINES - 1
    assert np.abs(crossings - 1).min() < x[1] - x[0]
    sharper = np.linspace(1.3, 0.7, 41)
    for row, factor in zip(level_lines(x**2 * sharper[:, None], np.array([1.0]))[:-1], sharper, strict=False):
        innermost = x[np.flatnonzero(row & (x[:-1] >= 0))[:1]]
        assert innermost == pytest.approx(1 / math.sqrt(factor), abs=2 * (x[1] - x[0]))


def test_the_plane_is_framed_by_the_orbit():
    plane = PlaneSample(np.array([-5.0, 5.0]), np.array([-20.0, 20.0]), np.zeros((2, 2)))
    assert framed(plane, (2.0, 8.0)) == (2.6, 10.4)
    assert framed(plane, (50.0, 0.1)) == (5.0, 2.0)  # no more than was sampled, and no less than can be read
    assert framed(plane, (0.0, 0.0)) == (5.0, 20.0)


def test_the_valley_cut_across_is_that_of_the_newest_row(tmp_path):
    history = history_of(make_run(tmp_path))
    history.limit = EDGE + 31
    now = section(history)
    assert now.ratio == pytest.approx(1 + history.value("gd.y", EDGE + 30) / THRESHOLD)
    assert now.x == pytest.approx(history.value("gd.x", EDGE + 30) / DELTA)
    assert now.force == pytest.approx(1 - now.x**2)
    half_way = section(history, 0.5)
    assert half_way.x == pytest.approx((now.x + history.value("gd.x", EDGE + 31) / DELTA) / 2)
    history.limit = EDGE - 10
    before = section(history)
    assert (before.x, before.ratio) == (0.0, pytest.approx(history.last("gd.sharpness") / THRESHOLD))
    history.limit = 0
    assert section(history) is None


def test_a_sample_of_a_delta_that_nothing_can_be_divided_by_is_none(tmp_path):
    path = tmp_path / "landscape-1.npz"
    axis, curve = np.arange(3.0), np.ones(5)
    np.savez(path, delta=1e-310, plane_x=axis, plane_y=axis, plane=np.ones((3, 3)), x=np.arange(5.0), F_even=curve, quadratic=curve)
    assert read_plane(path, 0.1) is None
    assert drawn(path) is None


@pytest.mark.parametrize("delta", [0.0, 1e-320, np.nan])
def test_the_valley_cut_across_takes_a_damaged_record(tmp_path, delta):
    """Where x/δ is no number there is no ball, and no error."""
    run = make_run(tmp_path)
    rows = run.rows()
    rows[:, run.index["constrained.delta"]] = delta
    history = History(run.columns)
    history.extend(rows)
    history.limit = EDGE + 31
    now = section(history, 0.5)
    assert math.isfinite(now.ratio)
    assert math.isnan(now.x)


@pytest.mark.parametrize("changed", [
    {"plane": np.zeros((3, 3))}, {"plane_x": PLANE_X[::-1]}, {"plane_y": np.full(7, np.nan)}, {"delta": np.array(-1.0)},
    {"plane_x": np.arange(4000.0), "plane": np.zeros((4000, 7))}, {"delta": np.array([1.0, 2.0])}, {"plane": np.array("words")},
    {"plane": None},
])  # fmt: skip
def test_what_is_no_plane_is_not_taken_for_one(tmp_path, changed):
    arrays = {"delta": np.array(DELTA), "plane_x": PLANE_X, "plane_y": PLANE_Y, "plane": np.zeros((13, 7))} | changed
    np.savez(tmp_path / "sample.npz", **{name: array for name, array in arrays.items() if array is not None})
    assert read_plane(tmp_path / "sample.npz", LEARNING_RATE) is None


async def test_the_arrows_step_through_the_samples_and_the_end_follows_the_newest(tmp_path):
    run = sampled(tmp_path)
    with FakeEngine(run):
        async with opened(run) as (app, pilot):
            await pilot.press("U")
            await until(lambda: "sample 6 of 6" in text_of(app))
            for key, words in (("left", "step 300: sample 5 of 6"), ("home", "step 100: sample 1 of 6"), ("left", "sample 1 of 6"),
                              ("right", "step 150: sample 2 of 6"), ("end", "step 350: sample 6 of 6, the newest")):
                await pilot.press(key)
                await until(lambda words=words: words in text_of(app))
            await pilot.press("i")
            await until(lambda: isinstance(app.screen, Formula) and "Appendix F" in text_of(app) and "at step 350" in text_of(app))


async def test_a_replay_shows_the_samples_taken_by_then(tmp_path):
    async with opened(sampled(tmp_path)) as (app, pilot):
        await pilot.press("g", "space")
        app.screen.source.replay.seek(260)
        await until(lambda: app.screen.source.history.last_step == 260)
        await pilot.press("U")
        await until(lambda: "step 250: sample 4 of 4, the newest" in text_of(app))


@pytest.mark.parametrize(("spec", "why"), [
    (SPEC, "from the edge on, every 50 steps"),
    (SPEC + "[tracking]\nlandscape_every = 0", "landscape_every is 0"),
    (SPEC + '[tracking]\nmode = "sharpness"', "follows no θ†"),
    ('name = "p"\n[problem]\nkind = "phase"\nalpha = 1.0\nbeta = 1.0\n[optimizer]\nlearning_rate = 0.02', "A phase portrait"),
])
async def test_a_run_without_samples_says_why(tmp_path, spec, why):
    run = store.create(load_spec_text(spec, "a test"), "bare", tmp_path)
    async with opened(run, (80, 24)) as (app, pilot):
        await pilot.press("U")
        await until(lambda: isinstance(app.screen, Landscape) and why in " ".join(text_of(app).replace("│", " ").split()))
        await pilot.press("left", "end", "i", "escape", "escape", "T")
        await until(lambda: isinstance(app.screen, Theorem) and "Theorem 1" in text_of(app))


async def test_where_delta_is_undefined_the_landscape_says_so_and_keeps_the_last_sample(tmp_path):
    async with opened(sampled(tmp_path, constrained__alpha=-3.0), (120, 40)) as (app, pilot):
        await pilot.press("U")
        await until(lambda: "δ = √(2α/β) is undefined while α ≤ 0, and α = -3.00 now" in text_of(app))
        assert "sample 6 of 6" in text_of(app)


async def test_a_damaged_sample_is_reported_not_raised(tmp_path):
    run = sampled(tmp_path)
    run.curves()[-1].write_bytes(b"PK nothing")
    async with opened(run) as (app, pilot):
        await pilot.press("U")
        await until(lambda: "The sample of step 350 cannot be read" in text_of(app))
        await pilot.press("left")
        await until(lambda: "sample 5 of 6" in text_of(app) and "cannot" not in text_of(app))


def test_a_sample_is_drawn_in_units_of_its_delta(tmp_path):
    history = drawn(sampled(tmp_path, 200).curves()[0])
    np.testing.assert_allclose(history.column("x"), np.linspace(-5, 5, 51))
    at_delta = history.row_near(1.0)
    assert LEARNING_RATE * history.value("F_even", at_delta) / DELTA**2 == pytest.approx(0.9)
    assert LEARNING_RATE * history.value("quadratic", at_delta) / DELTA**2 == pytest.approx(1)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_a_sample_without_a_delta_is_no_sample(tmp_path, delta):
    path = tmp_path / "step-000000001.npz"
    np.savez(path, x=np.arange(3.0), F_even=np.zeros(3), quadratic=np.zeros(3), delta=np.array(delta))
    assert drawn(path) is None


def test_the_measured_sharpness_is_of_the_steps_since_the_edge_at_one_learning_rate(tmp_path):
    run = sampled(tmp_path, 400)
    early = verdict(history_of(run), EDGE + 50)
    assert early.steps == 51
    table = run.table()
    assert early.measured == pytest.approx(table["gd.sharpness"][EDGE : EDGE + 51].mean())
    changed = run.rows()
    changed[:-30, run.index["learning_rate"]] *= 2
    history = History(run.columns)
    history.extend(changed)
    assert verdict(history, 399).steps == 30


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_theorem_1_stands_beside_its_orders_and_says_where_it_claims_nothing(tmp_path, size):
    run = sampled(tmp_path, spec=SPEC + "[tracking]\nbeta_every = 1")
    async with opened(run, size) as (app, pilot):
        await pilot.press("T")
        await until(lambda: isinstance(app.screen, Theorem) and "Theorem 1" in text_of(app))
        await until(lambda: "fails now" in text_of(app) or size[0] < 80)
        if size[0] >= 80:
            shown = text_of(app)
            for words in ("claims nothing at 25% of steps", "0.987", "37 of 299", "> 299", "0.2500", "(5) from β", "εδ²/η", "ε²/η"):
                assert words in shown
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Formula) and "|L(θ) − L(θ†) − x⋆²/η|" in text_of(app))


@pytest.mark.parametrize("name", [each.name for each in theme.THEMES])
async def test_both_pages_draw_in_every_theme_and_in_ascii(tmp_path, name):
    async with opened(sampled(tmp_path), (80, 24), ascii=True) as (app, pilot):
        app.theme = name
        await pilot.press("U")
        await until(lambda: "sub-quadratic" in text_of(app))
        await pilot.press("escape", "T")
        await until(lambda: "claims nothing" in text_of(app))
        assert not {sign for sign in text_of(app) if "\u2500" <= sign <= "\u25ff" or "\u2800" <= sign <= "\u28ff"}


def test_the_share_without_a_claim_is_that_of_the_steps_in_view(tmp_path):
    history = history_of(sampled(tmp_path))
    assert unclaimed(history, EDGE, EDGE + 99) == (25, 100)
    assert unclaimed(history, 0, EDGE - 1) == (0, 0)
    assert held(math.nan, 12.0) == "> 12"
    assert held(7.0, 12.0) == "7"


# -- where the data come from


async def test_the_name_and_sum_of_the_data_and_the_number_formats_are_one_key_away(tmp_path):
    run = sampled(tmp_path)
    sha = "0123456789abcdef" * 4
    with Writer(run) as writer:
        writer.provenance({"problem": {"data": "fashion", "sha256": sha, "rule": "the first 5 examples", "origin": "ships with eos"}})
    async with opened(run, (160, 40)) as (app, pilot):
        await until(lambda: app.screen.source.data is not None)
        assert sha[:8] not in text_of(app)
        await pilot.press("i")
        await until(lambda: "the first 5 examples" in text_of(app) and "ships with eos" in text_of(app) and sha in text_of(app))


def test_words_of_a_strangers_provenance_do_not_steer_the_terminal():
    assert DataFacts.of({"problem": {"data": "a\x1b[2J", "sha256": 3}})[:2] == ("a\\x1b[2J", "3")
    assert DataFacts.of({"problem": ["data"]}) is None
    assert DataFacts.of({}) is None


async def test_the_spectrum_and_the_portrait_tell_formulas_of_what_no_column_holds(tmp_path):
    async with opened(sampled(tmp_path), (120, 40)) as (app, pilot):
        await pilot.press("L", "i")
        await until(lambda: isinstance(app.screen, Formula) and "1.5/η" in text_of(app) and "λ1(∇²L(θ_t))" in text_of(app))
        await pilot.press("escape", "escape", "4", "i")
        await until(lambda: isinstance(app.screen, Formula) and "δ√(−W₋₁(−e^(−1−g)))" in text_of(app) and "Lemma 3" in text_of(app))


async def test_formulas_have_the_colours_of_their_curves_six_digits_and_the_number_formats(tmp_path):
    async with opened(sampled(tmp_path), (120, 60)) as (app, pilot):
        await until(lambda: len(app.screen.source.history))
        history = app.screen.source.history
        curves = app.screen.focused_panel.spec.curves
        await pilot.press("c", "i")
        await until(lambda: isinstance(app.screen, Formula) and f"{history.last('gd.sharpness'):.6g}" in text_of(app))
        assert repr(history.last("gd.sharpness")) not in text_of(app)
        for curve in curves[:2]:
            head = next(each for each in app.screen.query(Static) if f"{history.symbols[curve.column]}  " in str(each.content))
            assert role_color(app.theme, curve.role) in str(head.content.spans)


def test_device_and_number_formats_are_said_together():
    head, rest = numbers(State(device="CPU ×2", precision="f32 → f64"))
    assert "CPU ×2" in head.plain
    assert rest.plain == "f32 → f64"


async def test_the_theorem_page_opens_with_what_is_claimed_where_there_is_room(tmp_path):
    async with opened(sampled(tmp_path), (120, 40)) as (app, pilot):
        await pilot.press("T")
        await until(lambda: isinstance(app.screen, Theorem) and CLAIM[:40] in text_of(app) and "over its order" in text_of(app))
        assert CLAIM.count(". ") == 1  # two sentences
        await pilot.resize_terminal(80, 20)
        await until(lambda: CLAIM[:40] not in text_of(app))


# -- filters


async def test_keys_and_topics_of_help_are_filtered(runs):
    async with opened(make_run(runs), (100, 30)) as (app, pilot):
        await pilot.press("question_mark", "slash", *"wheel")
        await pilot.pause()
        assert "Show fewer or more steps" in text_of(app)
        assert "re-anchor" not in text_of(app)
        await pilot.press("enter", "tab")
        await pilot.press("slash", "escape", "slash", *"density probes")
        await pilot.pause()
        listed = [option.id for option in app.screen.query_one(Options).options]
        assert "commands" in listed
        assert "presets" not in listed
        await pilot.press("escape", "escape")
        assert isinstance(app.screen, Dashboard)


async def test_events_are_filtered(runs):
    async with opened(make_run(runs), (100, 30)) as (app, pilot):
        await pilot.press("v", "slash", *"reached 2/η")
        await pilot.pause()
        assert "events · 1 of 3" in text_of(app)
        assert "the engine took up the run" not in text_of(app).partition("events · 1 of 3")[2].partition("closes")[0]
        await pilot.press("escape", "escape")
        assert isinstance(app.screen, Dashboard)


# -- the host, and waiting


async def test_the_host_of_the_engine_is_shown_from_its_last_word(runs):
    run = make_run(runs, finished=False)
    gpu = Gpu(name="NVIDIA H200", load=87.0, memory=3 * 1024**3, memory_total=140 * 1024**3)
    with FakeEngine(run) as engine:
        engine.more = {"load": HostLoad(
            cpu=150.0, host_cpu=60.0, cores=2, memory=1024**3, host_memory=8 * 1024**3, host_memory_total=16 * 1024**3, gpus=(gpu,))}
        engine.say()
        async with opened(run, (80, 24)) as (app, pilot):
            await until(lambda: app.screen.source.engine.load is not None)
            await pilot.press("H")
            await pilot.pause()
            shown = text_of(app)
            for words in ("1.5 of 2 cores", "60 %", "1.00 GiB", "8.0 of 16.0 GiB", "GPU 0: NVIDIA H200", "87 %", "3.0 of 140.0 GiB"):
                assert words in shown
            await pilot.press("i", "escape", "H")
            assert isinstance(app.screen, Dashboard)


async def test_a_run_whose_engine_told_nothing_of_its_host_says_so(runs):
    async with opened(make_run(runs), (80, 24)) as (app, pilot):
        await pilot.press("H")
        await pilot.pause()
        assert "No reading: its engine told nothing of its load" in " ".join(text_of(app).split())


async def test_what_no_step_is_taken_for_is_told_with_its_seconds_and_an_estimate(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run) as engine:
        engine.task, engine.more = "compiling the steps at the edge", {"task_seconds": 12.0, "task_estimate": 20.0}
        engine.say()
        async with opened(run, (120, 40)) as (app, _):
            await until(lambda: "for 12 s of about 20 s: compiling the steps at the edge" in text_of(app))


async def test_a_rate_of_nothing_is_no_rate_and_a_row_that_does_not_come_is_told(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run):
        async with opened(run, (120, 40)) as (app, _):
            source = app.screen.source
            await until(lambda: source.condition == "running")
            assert "/s" in text_of(app).splitlines()[0]
            source.engine = msgspec.structs.replace(source.engine, rate=0.0)
            source._moved_at -= 30
            shown = header.identity(source, lambda role: "red", 120), header.story(source, source.row(), lambda role: "red")
            assert "/s" not in shown[0].plain
            assert "no new step for 30 s" in shown[1].plain
            source.engine = msgspec.structs.replace(source.engine, rate=0.1)
            assert "a step takes about 10 s" in header.story(source, source.row(), lambda role: "red").plain
