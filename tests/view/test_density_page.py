"""The views of the whole spectrum: the density, the Gauss–Newton shares and the sharpness by layer, on the page of the spectrum."""

import math

import numpy as np
import pytest

from engine.record import messages, store
from engine.record.arrays import save_density
from engine.spec import load_spec
from eos_tui.draw import theme
from eos_tui.draw.axes import Limits
from eos_tui.model.whole_spectrum import Layer, read
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.formula import Formula
from eos_tui.screens.spectrum import Spectrum
from eos_tui.widgets.density import heights, limits
from eos_tui.widgets.layers import clipped, fitting

from piloting import notified, opened, text_of, until
from sampling import a_reading
from synthetic import THRESHOLD, FakeEngine, make_run


def read_at(where, *steps: int, finished: bool = True, **changed):
    """A run whose whole spectrum was read at these steps."""
    run = make_run(where, finished=finished)
    for step in steps:
        save_density(run, step, a_reading(**changed))
    return run


async def to_density(app, pilot) -> None:
    """Open the page of the spectrum and turn to the density."""
    await pilot.press("L")
    await until(lambda: isinstance(app.screen, Spectrum))
    await pilot.press(*["tab"] * app.screen.views.index("density"))


@pytest.mark.parametrize(("size", "ascii"), [
    ((40, 12), False), ((80, 24), True), ((120, 40), False),
    *(pytest.param(*other, marks=pytest.mark.slow) for other in (((40, 12), True), ((80, 24), False), ((120, 40), True))),
])  # fmt: skip
async def test_tab_turns_to_the_density_and_to_the_layers_and_tall_pages_show_both(tmp_path, size, ascii):
    async with opened(read_at(tmp_path, 350), size, ascii=ascii) as (app, pilot):
        await to_density(app, pilot)
        await until(lambda: "spectral density" in text_of(app))
        tall = size[1] >= 30
        assert ("sharpness by layer" in text_of(app)) == tall
        if size[0] >= 80:
            shown = text_of(app)
            assert "step 350: reading 1 of 1, the newest" in shown
            assert "Gauss–Newton share of λ1, λ2, …: 0.987 1.012" in shown
            assert f"2/η = {THRESHOLD:.1f}" in shown
            assert ("▲" in shown) != ascii
        await pilot.press("tab")
        await until(lambda: "sharpness by layer" in text_of(app) and "all layers" in text_of(app))
        lines = text_of(app).splitlines()
        sign, names = "=" if ascii else "━", ("0/bias", "0/kernel", "1/kernel")
        bars = {name: next(line for line in lines if name in line).count(sign) for name in names}
        assert bars["0/bias"] == 0  # below zero
        assert abs(bars["1/kernel"] - 2 * bars["0/kernel"]) <= 2
        if size[0] >= 80:
            assert "Sharpest by itself: Dense_1/kernel (928 parameters), 51.00 = 0.500 λ1" in text_of(app)
            assert "25.50  0.250" in text_of(app)
        await pilot.press("tab")
        await until(lambda: "spectrum of gradient descent" in text_of(app))
        await pilot.press("shift+tab", "i")
        await until(lambda: isinstance(app.screen, Formula) and "λ1(H_BB)" in text_of(app))
        await pilot.press("escape", "L")
        assert isinstance(app.screen, Dashboard)


@pytest.mark.parametrize("name", [each.name for each in theme.THEMES])
async def test_the_whole_spectrum_draws_in_every_theme(tmp_path, name):
    async with opened(read_at(tmp_path, 350), (120, 40)) as (app, pilot):
        app.theme = name
        await to_density(app, pilot)
        await until(lambda: "share of all eigenvalues per unit of λ" in text_of(app) and "all layers" in text_of(app))


async def test_a_key_has_the_engine_read_and_its_progress_is_shown(tmp_path):
    run = read_at(tmp_path, finished=False)
    with FakeEngine(run) as engine:
        async with opened(run, (80, 24)) as (app, pilot):
            await until(lambda: app.screen.source.live)
            await to_density(app, pilot)
            await until(lambda: "was not read yet: d has the engine read it" in " ".join(text_of(app).replace("│", "").split()))
            await pilot.press("d")
            await until(lambda: messages.Density in map(type, engine.commands))
            save_density(run, 399, a_reading())
            await until(lambda: "step 399: reading 1 of 1, the newest" in text_of(app))
            await until(lambda: "spectral density at step 399" in notified(app))
            engine.task = "spectral density: vector 3 of 8"
            engine.say()
            await until(lambda: "No step is taken meanwhile: spectral density: vector 3 of 8" in text_of(app))
            await pilot.press("escape")
            await until(lambda: "meanwhile: spectral density: vector 3 of 8" in text_of(app))  # the header says it too


async def test_of_a_run_that_is_over_it_is_said_how_to_come_by_a_reading(tmp_path):
    async with opened(read_at(tmp_path), (80, 24)) as (app, pilot):
        await pilot.press("L", "d")
        await until(lambda: "`eos density made` reads it now" in " ".join(text_of(app).replace("│", "").split()))
        assert "eos density made" in notified(app)
        assert "d takes one" not in text_of(app)


async def test_a_phase_portrait_says_that_it_has_no_spectrum(tmp_path):
    async with opened(store.create(load_spec("phase"), "empty", tmp_path), (80, 24)) as (app, pilot):
        await to_density(app, pilot)
        await until(lambda: "A phase portrait has no loss" in text_of(app))


async def test_arrows_step_through_readings_and_a_replay_shows_those_up_to_its_step(tmp_path):
    async with opened(read_at(tmp_path, 0, 120, 350), (80, 24)) as (app, pilot):
        await to_density(app, pilot)
        await until(lambda: "step 350: reading 3 of 3, the newest" in text_of(app))
        await pilot.press("left")
        await until(lambda: "step 120: reading 2 of 3 " in text_of(app))
        await pilot.press("right", "escape", "g", "space")
        await until(lambda: app.screen.source.replay is not None)
        app.screen.source.replay.seek(119.0)
        app.pace.hurry()
        await to_density(app, pilot)
        await until(lambda: "step 120: reading 2 of 2, the newest" in text_of(app))  # θ of step 120 is what step 119 led to


async def test_a_loss_without_the_structure_says_why_there_is_no_share(tmp_path):
    changed = {"gauss_newton": np.full(2, np.nan), "gauss_newton_absent": np.array("toy: its loss is given as a whole")}
    async with opened(read_at(tmp_path, 350, **changed), (120, 24)) as (app, pilot):
        await to_density(app, pilot)
        await until(lambda: "No Gauss–Newton share: toy: its loss is given as a whole" in text_of(app))


def test_a_file_that_is_no_reading_is_none_and_names_in_it_are_harmless(tmp_path):
    run = read_at(tmp_path, 1)
    assert read(run.densities()[1]).layers[1] == Layer("Dense_0/kernel", 64, pytest.approx(0.25 * 1.02 * THRESHOLD))
    for name, value in {
        "grid": np.zeros(401), "density": np.full(401, np.nan), "threshold": np.array(-1.0), "width": np.array([1.0, 2.0]),
        "layers": np.array(["a"]), "nodes": np.zeros(3), "eigenvalues": np.zeros(5), "parameters": np.array("x"),
    }.items():
        save_density(run, 2, a_reading(**{name: value}))
        assert read(run.densities()[2]) is None, name
    save_density(run, 2, a_reading(layers=np.array(["\x1b[2J", "b", "c"])))
    assert read(run.densities()[2]).layers[0].name == "\\x1b[2J"


def test_the_axis_of_the_density_begins_at_a_tenth_of_a_single_eigenvalue(tmp_path):
    spectrum = read(read_at(tmp_path, 1).densities()[1])
    x, y = limits(spectrum)
    assert x.lo < 0 < THRESHOLD < spectrum.grid[-1] < x.hi
    assert 10**y.lo == pytest.approx(0.1 * spectrum.one)
    at = heights(spectrum, x, 400)
    peak = at[np.argmin(np.abs(x.lo + x.span * (np.arange(400) + 0.5) / 400 - spectrum.eigenvalues[0]))]
    assert peak == pytest.approx(math.log10(spectrum.one), abs=1e-2)
    np.testing.assert_allclose(heights(spectrum, Limits(spectrum.grid[0], spectrum.grid[-1]), 3).max(), math.log10(spectrum.density.max()))


def test_the_sharpest_layers_are_shown_where_not_all_fit():
    layers = tuple(Layer(f"l{k}", 1, top) for k, top in enumerate([3.0, -1.0, 5.0, 4.0]))
    assert fitting(layers, 2) == ([layers[2], layers[3]], 2)
    assert fitting(layers, 9) == (list(layers), 0)
    assert (clipped("encoder/layer/kernel", 10), clipped("bias", 10)) == ("…er/kernel", "bias")
