"""The pages above the dashboard that live as the run does: the assumptions as gauges, and the spectrum."""

import asyncio
import math
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from engine import control, store
from engine.gauges import GAUGES
from engine.spec import load_spec
from eos_tui import theme
from eos_tui.app import EosApp
from eos_tui.screens.assumptions import ASCII_BARS, Assumptions, latest, sparkline
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.spectrum import Spectrum, unstable_since
from eos_tui.series import History

from synthetic import ALPHA, BETA, EDGE, LEARNING_RATE, FakeEngine, make_run, rows_of

RHO3 = 15.0


@asynccontextmanager
async def opened(run, size=(120, 40), ascii=False):
    """The app on this run, running without a terminal."""
    app = EosApp(run, fps=10.0, ascii=ascii)
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.pace.frames >= 1)
        yield app, pilot


async def until(holds, seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def text_of(app: EosApp) -> str:
    """The screen as text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def gauged(where: Path, steps: int = 400, **changed: float) -> store.Run:
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
    with store.Writer(bare) as writer:
        writer.append(rows)
        writer.event(control.EigenvalueUnstable(step=110, text="λ1 is above 2/η", number=1))
        writer.event(control.EigenvalueUnstable(step=340, text="λ2 is above 2/η", number=2))
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
            control.send(run.path, control.Advance(steps=7))
            await until(lambda: "step 406" in text_of(app))


@pytest.mark.parametrize("name", [each.name for each in theme.THEMES])
async def test_the_assumptions_draw_in_every_theme_and_in_ascii(tmp_path, name):
    async with opened(gauged(tmp_path), (80, 24), ascii=True) as (app, pilot):
        app.theme = name
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "x red" in text_of(app))
        assert not set(text_of(app)) & set("▁▂▃▄▅▆▇█●▲✗")


async def test_an_assumption_that_failed_has_a_page_that_says_so(tmp_path):
    async with opened(gauged(tmp_path, constrained__alpha=-3.0, constrained__epsilon=math.nan)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, Assumptions) and "λ2(θ†)" in text_of(app))
        lines = text_of(app).splitlines()
        assert "red" in next(line for line in lines if "α = −∇L·∇S" in line)
        assert "none" in next(line for line in lines if "∇²L(v⊥,v⊥)" in line)  # O(ε), and there is no ε


@pytest.mark.parametrize("preset", ["phase", "fashion"])
async def test_runs_without_values_have_pages_that_say_why(tmp_path, preset):
    run = store.create(load_spec(preset), "empty", tmp_path)
    async with opened(run, (80, 24)) as (app, pilot):
        await pilot.press("a")
        await until(lambda: ("no θ†" if preset == "phase" else "begins at the edge") in text_of(app))
        await pilot.press("a", "u")
        await until(lambda: ("no Hessian" if preset == "phase" else "from the edge on") in text_of(app))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_the_spectrum_draws_every_eigenvalue_and_says_since_when_it_is_unstable(tmp_path, size):
    async with opened(gauged(tmp_path), size) as (app, pilot):
        await pilot.press("u")
        await until(lambda: isinstance(app.screen, Spectrum) and "3 followed" in text_of(app))
        shown = text_of(app)
        assert [curve.label for curve in app.screen._plot.spec.curves] == ["λ1", "λ2", "λ3", "1.5/η"]
        if size[0] >= 80:
            assert "λ1 from step 110 · λ2 from step 340" in shown
            assert "2/η" in shown
            assert "1.5/η" in shown
        assert app.screen._history.last("followed_from") == pytest.approx(1.5 / LEARNING_RATE)
        await pilot.press("u")
        assert isinstance(app.screen, Dashboard)


def test_a_new_learning_rate_forgets_what_was_unstable_before():
    events = [
        control.EigenvalueUnstable(step=5, text="", number=1), control.LearningRateChanged(step=9, text="", learning_rate=0.01),
        control.EigenvalueUnstable(step=12, text="", number=1), control.EigenvalueUnstable(step=14, text="", number=2),
    ]
    assert unstable_since(events) == {1: 12, 2: 14}


def history_of(run: store.Run) -> History:
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
