"""The phase portrait: orbits of the simplified system lie on the level sets of Lemma 3, in the coordinates on the axes."""

import numpy as np
import pytest
from textual.app import App

from engine import theory
from engine.record.columns import Column
from engine.spec import PREDICTIONS
from eos_tui.draw import orbits, phase_portrait, theme
from eos_tui.draw.line_plot import Window
from eos_tui.draw.phase_portrait import Scale
from eos_tui.model.history import History
from eos_tui.widgets.portrait import PhasePortrait

ETA, ALPHA, BETA = 0.02, 4.0, 60.0
DELTA = theory.delta(ALPHA, BETA)
NAMES = ("step", "learning_rate", "gd.x", "gd.y", "generalized.x", "generalized.y", "constrained.alpha", "constrained.beta",
         "constrained.delta")


def history_of(names, *columns):
    history = History([Column(name, name, name, "", "", "") for name in names])
    history.extend(np.stack(np.broadcast_arrays(*columns), axis=1))
    return history


def training(alpha=ALPHA, start=0.3, steps=160):
    orbit = theory.map_orbit(start * DELTA, 0.0, ALPHA, BETA, ETA, steps - 1)
    delta = theory.delta(alpha, BETA)
    return history_of(NAMES, np.arange(steps), ETA, *orbit.T, *(1.1 * orbit).T, alpha, BETA, delta)


def phase(steps=200, eta=0.02):
    names, columns = ["step", "learning_rate"], [np.arange(steps), np.full(steps, eta)]
    for k, start in enumerate((0.2, 0.6), 1):
        for family, orbit in (
            ("ode", theory.flow_orbit(start * DELTA, 0, ALPHA, BETA, eta * np.arange(steps))),
            ("map", theory.map_orbit(start * DELTA, 0, ALPHA, BETA, eta, steps - 1)),
        ):
            names += [f"{family}{k}.x", f"{family}{k}.y"]
            columns += [*orbit.T]
    return history_of(names, *columns)


class OnePortrait(App):
    CSS = "PhasePortrait { width: 1fr; height: 1fr; }"

    def __init__(self, portrait):
        super().__init__()
        self.portrait = portrait

    def compose(self):
        yield self.portrait

    def on_mount(self):
        for each in theme.THEMES:
            self.register_theme(each)
        self.theme = theme.DARK


async def shown(history, window, portrait=None, size=(60, 20)):
    portrait = portrait or PhasePortrait()
    app = OnePortrait(portrait)
    async with app.run_test(size=size) as pilot:
        portrait.show(history, window)
        await pilot.pause()
        rows = [portrait.render_line(y) for y in range(portrait.size.height)]
        assert {row.cell_length for row in rows} == {portrait.size.width}
        return [row.text for row in rows], portrait


async def test_the_portrait_marks_fixed_point_orbits_and_constants():
    rows, portrait = await shown(training(), Window(0, 200))
    text = "\n".join(rows)
    assert "◆" in text
    assert "●" in text
    assert "○" in text
    assert "━━ real  ╌╌ generalized" in rows[0]
    assert f"δ {DELTA:.3f}" in text
    assert "ε 0.0400" in text
    assert portrait.titles(portrait.size.width)[1].startswith("|x|/δ ")


async def test_the_period_in_the_caption_is_that_of_the_orbit():
    history = training(start=0.3, steps=400)
    rows, _ = await shown(history, Window(0, 150), size=(80, 20))
    said = int(next(row for row in rows if "period" in row).split("period ")[1].split()[0])
    above = history.column("gd.y") > 0
    crossings = np.flatnonzero(above[1:] & ~above[:-1])
    assert said == pytest.approx(np.diff(crossings)[0], rel=0.15)  # the map spirals out, its period grows


async def test_the_fixed_point_stands_where_x_is_delta_and_y_is_zero():
    rows, portrait = await shown(training(start=0.9), Window(0, 200))
    row = next(row for row in rows if "◆" in row)
    assert row[:7].strip() == "0┤"
    limits = portrait.scale.x
    assert row.index("◆") - 7 == int((1.0 - limits.lo) / limits.span * (len(row) - 7))


async def test_the_cursor_shows_the_orbit_as_it_stood():
    history = training()
    _, portrait = await shown(history, Window(0, 200, cursor=60))
    x, y = abs(history.column("gd.x")[60]) / DELTA, history.column("gd.y")[60]
    assert portrait.titles(portrait.size.width)[1] == f"|x|/δ {x:#.3g} · y {y:#.3g}"


async def test_older_parts_of_an_orbit_are_fainter():
    _, portrait = await shown(training(steps=160), Window(0, 200))
    inks = {segment.style.color for strip in portrait.strips for segment in strip if segment.style}
    assert {theme.role_style(theme.DARK, "gd", age).color for age in (0, 1, 2)} <= inks


async def test_undefined_delta_is_said_plainly():
    rows, _ = await shown(training(alpha=-0.5), Window(0, 200))
    said = " ".join(" ".join(rows).split())
    assert "δ = √(2α/β) is undefined here: α = -0.5000" in said
    assert "Assumption 1" in said


async def test_before_the_edge_the_portrait_says_when_it_appears():
    nothing = history_of(NAMES, np.arange(5), ETA, *[np.nan] * 7)
    rows, _ = await shown(nothing, Window(0, 10))
    assert "appears once at the edge" in " ".join(rows)


async def test_a_phase_run_is_drawn_with_the_constants_it_is_given():
    rows, _ = await shown(phase(), Window(0, 200), PhasePortrait((), (ALPHA, BETA)))
    text = "\n".join(rows)
    assert "━━ map (3)  ╌╌ flow (4)" in rows[0]
    assert "◆" in text
    assert text.count("●") >= 1
    rows, _ = await shown(phase(), Window(0, 200))
    assert "not known" in " ".join(rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
async def test_an_orbit_that_overflows_never_raises(bad):
    history = training()
    rows = np.stack([history.column(name) for name in NAMES], axis=1)[-1:].repeat(20, axis=0)
    rows[:, 0] = np.arange(160, 180)
    rows[:, 2:6] = bad
    history.extend(rows)
    shown_rows, _ = await shown(history, Window(0, 200))
    assert "◆" in "\n".join(shown_rows)


async def test_without_unicode_the_portrait_is_drawn_in_ascii_dots():
    rows, _ = await shown(training(), Window(0, 200), PhasePortrait(ascii=True))
    text = "\n".join(rows)
    assert "@" in text
    assert not any("⠀" <= character <= "⣿" for character in text)


async def test_the_legend_of_a_narrow_portrait_names_every_orbit_on_as_many_rows_as_it_takes():
    portrait = PhasePortrait()
    await shown(training(), Window(0, 200), portrait, (42, 20))
    assert portrait.place((0.5, 0.0))
    rows, _ = await shown(training(), Window(0, 200), portrait, (42, 20))
    legend = "\n".join(rows[:3])
    assert all(name in legend for name in ("real", "generalized", "flow (4) from +", "map (3) from +"))
    portrait.forms = tuple(PREDICTIONS)
    scene = portrait.scene()
    pens = [orbit.pen for orbit in (*scene.orbits, *scene.own)]
    assert len({pen.sample for pen in pens}) == len({pen.mark for pen in pens}) == len({orbit.label for orbit in scene.orbits}) + 2


async def test_level_sets_stay_put_while_alpha_hardly_moves():
    portrait = PhasePortrait()
    app = OnePortrait(portrait)
    async with app.run_test(size=(60, 20)):
        portrait.show(training(alpha=4.0), Window(0, 200))
        before = portrait.scale
        history = training(alpha=4.2)
        portrait.history = history
        portrait.show(history, Window(0, 200))
        assert portrait.scale == before


@pytest.mark.parametrize("size", [(4, 3), (12, 6), (38, 11), (120, 40)])
async def test_the_portrait_fits_any_size(size):
    await shown(training(), Window(0, 200), size=size)


async def test_a_row_with_a_delta_of_zero_raises_nothing():
    history = training()
    row = np.array([[160, ETA, 0.1, 0.2, 0.1, 0.2, ALPHA, BETA, 0.0]])
    history.extend(row)
    await shown(history, Window(0, 200))


def test_a_portrait_is_a_function_of_its_scene_and_scale():
    scene = orbits.scene(training(), Window(0, 200), ("generalized",), None, None)
    painted = phase_portrait.paint(scene, Scale(), 60, 20, ascii=False, theme=theme.DARK)
    assert {strip.cell_length for strip in painted.strips} == {60}
    again = phase_portrait.paint(scene, painted.scale, 60, 20, ascii=False, theme=theme.DARK)
    assert (again.strips, again.scale) == (painted.strips, painted.scale)
