"""Line plots: what is drawn is what was recorded, whatever was recorded, at any size."""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from textual.app import App
from textual.color import Color

from engine.record.columns import Column, columns_for
from engine.spec import load_spec
from eos_tui.draw import axes, decorations, line_plot, panels, plot_spec, theme, traces
from eos_tui.draw.line_plot import Curve, PlotSpec, Window, heading
from eos_tui.draw.plot_spec import Axis, Overlay, Span
from eos_tui.model.history import History
from eos_tui.model.pyramid import BLOCK
from eos_tui.widgets.plot import LinePlot

from places import ROOT

NAMES = {"step": "t", "learning_rate": "η", "gd.loss": "L(θ)", "gd.sharpness": "S(θ)", "generalized.sharpness": "S⋆",
         "gd.x": "x", "flow.sharpness": "S(θ_GF)"}
COLUMNS = tuple(Column(name, symbol, name, "", "", "") for name, symbol in NAMES.items())
SHARPNESS = PlotSpec("sharpness", "sharpness S", (
    Curve("gd.sharpness", "gradient descent", "gd"),
    Curve("generalized.sharpness", "generalized", "generalized", dashed=True),
), threshold=True)
FLOW = PlotSpec("flow", "sharpness S", (
    Curve("gd.sharpness", "gradient descent", "gd"), Curve("flow.sharpness", "gradient flow", "flow"),
))
LOSS = PlotSpec("loss", "training loss L", (Curve("gd.loss", "gradient descent", "gd"),))
SWING = PlotSpec("x", "x", (Curve("gd.x", "gradient descent", "gd"),), zero=True)


def history_of(count, **columns):
    """A history of `count` steps; columns by name with "_" for ".", NaN where not given."""
    rows = np.full((count, len(COLUMNS)), np.nan)
    rows[:, 0], rows[:, 1] = np.arange(count), 0.02
    for name, values in columns.items():
        index = list(NAMES).index(name if name == "learning_rate" else name.replace("_", ".", 1))
        rows[:, index] = values
    history = History(COLUMNS)
    history.extend(rows)
    return history


def oscillating(count):
    t = np.arange(count)
    return history_of(
        count, gd_loss=np.exp(-t / count), gd_x=(-1.0) ** t, gd_sharpness=100 + (-1.0) ** t,
        generalized_sharpness=100 + np.sin(t),
    )


def lines(spec, history, window, width=60, height=16, **options):
    return [strip.text for strip in line_plot.draw(spec, history, window, width, height, **options)]


def cells(rows, pattern="[⠁-⣿]"):
    return sum(len(re.findall(pattern, row)) for row in rows)


@pytest.mark.parametrize("width", [0, 1, 5, 9, 10, 38, 58, 118])
@pytest.mark.parametrize("spec", [SHARPNESS, SWING, LOSS._replace(log=True)])
def test_every_row_has_exactly_the_cells_asked_for(spec, width):
    histories = (History(COLUMNS), oscillating(700))
    for history, size in itertools.product(histories, [(width, height) for height in (0, 1, 3, 4, 5, 9, 12, 36)]):
        strips = line_plot.draw(spec, history, Window(0, 900, 333), *size)
        assert len(strips) == size[1]
        assert all(strip.cell_length == size[0] == sum(s.cell_length for s in strip) for strip in strips)


def test_the_threshold_is_in_sight_before_any_sharpness_is_and_far_above_it():
    for history in (history_of(3), history_of(50, gd_sharpness=np.linspace(1, 2, 50))):
        shown = lines(SHARPNESS, history, Window(0, 50))
        row = next(row for row in shown[1:] if "2/η" in row)
        assert cells([row]) >= 15
        assert any("100" in row[-4:] for row in shown)


def test_the_threshold_moves_where_the_learning_rate_does():
    rate = np.where(np.arange(400) < 200, 0.02, 0.04)
    shown = lines(SHARPNESS, history_of(400, learning_rate=rate, gd_sharpness=80.0), Window(0, 400))
    marked = [row for row in shown[1:] if row.rstrip().endswith("2/η")]
    assert len(marked) == 1
    assert cells([marked[0][:30]]) == 0  # at 50 only in the second half
    assert cells([marked[0][32:]]) >= 8


def test_a_period_two_oscillation_shows_as_a_filled_band():
    shown = lines(SWING, oscillating(5000), Window(0, 5000), height=20)
    full = [row.count("⣿") for row in shown]
    assert sum(count > 45 for count in full) >= 10


def test_a_continuous_curve_is_connected():
    t = np.arange(3000)
    for count in (40, 3000):
        history = history_of(count, gd_loss=np.sin(t[:count] * 9 / count))
        dots = _dots(lines(LOSS, history, Window(0, count - 1)))
        columns = [np.flatnonzero(column) for column in dots.T if column.any()]
        assert len(columns) > 90
        for one, other in itertools.pairwise(columns):
            assert one.min() <= other.max() + 1
            assert other.min() <= one.max() + 1


def _dots(shown):
    """The braille dots of a drawn plot, top row first."""
    bits = {(0, 0): 1, (1, 0): 2, (2, 0): 4, (3, 0): 64, (0, 1): 8, (1, 1): 16, (2, 1): 32, (3, 1): 128}
    codes = np.array([[max(ord(c) - 0x2800, 0) if 0x2800 <= ord(c) < 0x2900 else 0 for c in row] for row in shown])
    dots = np.zeros((4 * codes.shape[0], 2 * codes.shape[1]), bool)
    for (row, column), bit in bits.items():
        dots[row::4, column::2] = codes & bit > 0
    return dots


def test_missing_values_make_a_gap():
    values = np.ones(600)
    values[200:400] = np.nan
    for window in (Window(0, 600), Window(180, 420)):
        shown = lines(LOSS, history_of(600, gd_loss=values), window)
        assert any(re.search(r"[⠁-⣿] {8,}[⠁-⣿]", row) for row in shown)


def test_values_measured_now_and_then_are_joined():
    values = np.full(600, np.nan)
    values[::7] = 1.0
    for window in (Window(0, 600), Window(180, 220)):
        shown = lines(LOSS, history_of(600, gd_loss=values), window)
        assert not any(re.search(r"[⠁-⣿] +[⠁-⣿]", row) for row in shown)
        assert cells(shown) > 40


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -3.0])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("count", [30, 5000])
def test_a_diverging_run_is_drawn_up_to_where_it_diverged(bad, log, count):
    values = np.linspace(1, 2, count)
    values[count * 2 // 3 :] = bad
    shown = lines(LOSS._replace(log=log), history_of(count, gd_loss=values), Window(0, count))
    assert cells(shown) >= 20
    said = "\n".join(shown)
    if np.isinf(bad):
        assert f"non-finite from step {count * 2 // 3}" in said
    if np.isnan(bad):
        assert f"no value from step {count * 2 // 3}" in said
    if log and bad <= 0 and np.isfinite(bad):
        assert "not positive" in said


def test_curves_that_end_together_are_named_in_one_line_which_leaves_the_threshold_in_sight():
    ended = np.where(np.arange(120) < 90, 1.0, np.nan)
    history = history_of(120, gd_sharpness=99.9, generalized_sharpness=80 * ended, flow_sharpness=95 * ended)
    spec = SHARPNESS._replace(curves=(*SHARPNESS.curves, Curve("flow.sharpness", "gradient flow", "flow")))
    wide, narrow = (lines(spec, history, Window(0, 120), width) for width in (90, 42))
    assert sum("no value" in line for line in wide) == 1
    assert any("generalized, gradient flow: no value from step 90" in line for line in wide)
    assert any("S⋆, S(θ_GF): ended at 90" in line for line in narrow)
    assert not any("2/η" in line and ("no value" in line or "ended" in line) for line in (*wide, *narrow))


def test_a_column_read_now_and_then_has_not_ended_after_its_first_reading():
    sparse = np.where(np.arange(120) == 100, 95.0, np.nan)
    assert "no value" not in "\n".join(lines(FLOW, history_of(120, gd_sharpness=99.0, flow_sharpness=sparse), Window(0, 120)))
    assert "no value from step 11" in "\n".join(
        lines(FLOW, history_of(120, gd_sharpness=99.0, flow_sharpness=np.roll(sparse, -90)), Window(0, 120)))


@pytest.mark.parametrize("cursor", range(40, 61))
def test_the_cursors_number_leaves_no_part_of_another(cursor):
    last = lines(LOSS, oscillating(100), Window(0, 100, cursor=cursor), width=67)[-1]
    assert {int(number) for number in last.split()[1:]} <= {cursor, *range(0, 101, 10)}
    assert str(cursor) in last.split()


def test_a_prediction_that_runs_away_does_not_flatten_what_it_predicts():
    runaway = 100 + np.exp(np.arange(200) / 5.0)
    history = history_of(200, gd_sharpness=100 + np.sin(np.arange(200)), generalized_sharpness=runaway)
    shown = lines(SHARPNESS, history, Window(0, 200))
    assert f"generalized {axes.number(runaway[-1], 3)} ↑" in "\n".join(shown)
    drawn = _dots(lines(SHARPNESS._replace(curves=SHARPNESS.curves[:1]), history, Window(0, 200)))
    assert np.flatnonzero(drawn.any(axis=1)).size > 15


def test_an_empty_plot_says_when_it_will_not_be():
    waiting = history_of(10, gd_loss=1.0)
    assert "appears once at the edge" in " ".join(lines(SWING, waiting, Window(0, 10)))
    assert "waiting for the first step" in " ".join(lines(LOSS, History(COLUMNS), Window(0, 10)))
    assert "does not record" in " ".join(lines(LOSS, History(COLUMNS[:2]), Window(0, 10)))
    assert "nothing in view" in " ".join(lines(LOSS, waiting, Window(100, 200)))


@pytest.mark.parametrize(("alpha", "words"), [(np.nan, "no data yet: appears once at the edge"), (25.0, "no data yet")])
def test_what_appears_at_the_edge_is_not_promised_for_it_where_the_run_is_there(alpha, words):
    history = History((*COLUMNS, Column("constrained.alpha", "α", "α", "", "", "")))
    history.extend(np.column_stack([np.arange(3), np.full((3, len(COLUMNS) - 1), np.nan), np.full(3, alpha)]))
    assert decorations.why_empty(SWING, history) == words


def test_the_cursor_stands_at_its_step_and_reads_stored_values():
    history = oscillating(500)
    window = Window(0, 500, cursor=250)
    shown = lines(SWING, history, window)
    assert "250" in shown[-1]
    assert line_plot.values_line(SWING, history, window) == "t 250 · x 1.0"
    assert line_plot.values_line(SHARPNESS, history, Window(0, 500)).startswith("S(θ) 99.00 · S⋆ ")
    assert line_plot.values_line(SHARPNESS, history, Window(0, 500), width=15) == "S(θ) 99.00"


def test_curves_differ_by_more_than_colour():
    many = [Curve(f"c{k}", str(k), "gd", dashed) for k, dashed in enumerate((False, False, False, True, True, True))]
    pens = plot_spec.pens(tuple(many))
    assert len({(pen.on, pen.off) for pen in pens}) == 6
    assert len({pen.sample for pen in pens}) == 6
    assert len({pen.mark for pen in pens}) == 6
    shown = lines(SHARPNESS, oscillating(500), Window(0, 500), width=70)
    assert "━━ gradient descent  ╴╴ 2/η  ╌╌ generalized" in shown[0]


def test_a_narrow_legend_uses_the_symbols_of_the_paper():
    shown = lines(SHARPNESS, oscillating(500), Window(0, 500), width=38, height=9)
    assert "━━ S(θ)  ╴╴ 2/η  ╌╌ S⋆" in shown[0]


def test_ascii_output_draws_in_ascii():
    drawn = lines(SWING, oscillating(500), Window(0, 500, 100), ascii=True)
    assert all(row.isascii() for row in drawn)
    assert sum(row.count("*") for row in drawn) > 100


def test_an_axis_kept_from_the_frame_before_leaves_all_other_rows_unchanged():
    rising, window = 1.0 + np.arange(910) / 1e3, Window(0, 1250)
    before = line_plot.paint(LOSS, history_of(900, gd_loss=rising[:900]), window, 60, 16)
    after = line_plot.paint(LOSS, history_of(910, gd_loss=rising), window, 60, 16, limits=before.limits)
    changed = [y for y, (old, new) in enumerate(zip(before.strips, after.strips, strict=True)) if old != new]
    assert 1 <= len(changed) <= 2


def test_a_printed_frame_is_text_with_or_without_colours():
    history = oscillating(300)
    plain = line_plot.render_text(SHARPNESS, history, Window(0, 300), 60, 14, colour=False)
    assert plain.startswith("sharpness S")
    assert len(plain.splitlines()) == 14
    assert "\x1b" not in plain
    colourful = line_plot.render_text(SHARPNESS, history, Window(0, 300), 60, 14, colour=True)
    assert "\x1b[" in colourful
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colourful).splitlines()
    assert [row.rstrip() for row in stripped] == plain.splitlines()


def test_drawing_does_not_depend_on_the_length_of_the_history(rows_looked_at):
    """Of a million rows it looks at the ragged ends of the pixel columns alone: at most two blocks a column and curve."""
    history, width = oscillating(1_000_000), 100
    line_plot.draw(SHARPNESS, history, Window(0, 1_000_000), width, 20)
    rows_looked_at.clear()
    line_plot.draw(SHARPNESS, history, Window(1, 999_999), width, 20)
    assert 0 < sum(rows_looked_at) <= 2 * BLOCK * 2 * width * len(SHARPNESS.curves)  # two pixels a cell


# -- what is measured lies over what it is compared with


def _painted(strips):
    """Each cell's sign and style."""
    return [[(sign, segment_style) for text, segment_style, _ in strip for sign in text] for strip in strips]


@pytest.mark.parametrize("name", [theme.DARK, theme.LIGHT, theme.ANSI])
@pytest.mark.parametrize("count", [60, 900])
@pytest.mark.parametrize("log", [False, True])
def test_where_a_measured_curve_and_a_prediction_both_fall_stands_the_measured_one(name, count, log):
    t = np.arange(count)
    loss = 1 + 0.4 * np.sin(t / count * 20) + (t == count // 2) * 3.0
    history = history_of(count, gd_sharpness=100 * loss, generalized_sharpness=102 * np.roll(loss, 2),
                         flow_sharpness=90.0 + t / count)
    compared = (Curve("generalized.sharpness", "generalized", "generalized", dashed=True), Curve("flow.sharpness", "flow", "flow"))
    spec = PlotSpec("sharpness", "S", (Curve("gd.sharpness", "gd", "gd"), *compared), threshold=True, log=log)
    whole = line_plot.paint(spec, history, Window(0, count), 80, 20, theme=name)
    box, limits = whole.box, whole.limits

    def of(curves):  # in the same box: the threshold's name is beside it
        some = spec._replace(curves=curves)
        return _painted(line_plot.paint(some, history, Window(0, count), 80, 20, theme=name, limits=limits).strips)

    shown, measured, others = _painted(whole.strips), of(spec.curves[:1]), of(compared)
    both, colour = 0, theme.role_style(name, "gd").color
    for y, x in itertools.product(range(box.top, box.top + box.height), range(box.left, box.left + box.width)):
        own, own_style = measured[y][x]
        if cells([own]) and own_style.color == colour:
            assert shown[y][x][1].color == colour
            assert shown[y][x][0] == own or (own == "⣿" and cells([shown[y][x][0]]))  # within a band the prediction is a line left out
            both += cells([others[y][x][0]]) and others[y][x][1].color != theme.role_style(name, "threshold").color
    assert both > 10


def test_a_prediction_within_a_filled_band_is_a_line_of_dots_left_out_of_it():
    t = np.arange(4000)
    spec = PlotSpec("S", "S", SHARPNESS.curves)
    history = history_of(4000, gd_sharpness=100 + 10 * (-1.0) ** t, generalized_sharpness=100 + 4 * (-1.0) ** t)
    rows = [row for row in lines(spec, history, Window(0, 4000), height=20) if row.count("⣿") > 20 or cells([row]) > 40]
    left_out = [row for row in rows if row.count("⣿") < 10]
    assert len(left_out) in (3, 4)  # the prediction's two ends, and of the band those that fill no cell


def test_a_measured_line_is_twice_as_thick_as_a_prediction_and_as_continuous():
    t = np.arange(300)
    history = history_of(300, gd_sharpness=100.0 + t, generalized_sharpness=400.0 - t)
    one, other = (_dots(lines(SHARPNESS._replace(curves=(curve,), threshold=False), history, Window(0, 299), width=67, height=20)[1:-2])
                  for curve in SHARPNESS.curves)
    assert set(one.sum(axis=0)[14:]) <= {2, 3}
    assert set(other.sum(axis=0)[14:]) <= {0, 1, 2}


def test_the_scale_follows_what_is_drawn_when_predictions_are_hidden():
    plot, history = LinePlot(SHARPNESS), oscillating(50)
    plot.show(history, Window(0, 50))
    plot.limits = axes.Limits(0.0, 1e6)
    plot.show(history, Window(0, 50))
    assert plot.limits is not None
    plot.spec = SHARPNESS._replace(curves=SHARPNESS.curves[:1])
    plot.show(history, Window(0, 50))
    assert plot.limits is None


@pytest.mark.parametrize(("count", "window"), [(600, Window(0, 600)), (600, Window(250, 350)), (6000, Window(0, 6000))])
def test_the_sharpness_is_one_line_from_the_first_reading_on_the_approach_to_the_edge_and_beyond(count, window):
    t = np.arange(count)
    level, edge = 100 * np.minimum(t / (count / 2), 1), t >= count / 2
    read = (t % 50 == 0) & (t < count / 4) | (t % 20 == 3) & (t >= count / 4)
    columns = (COLUMNS[0], COLUMNS[1], COLUMNS[3], Column("gd.midpoint_sharpness", "S½", "", "", "", ""))
    history = History(columns)
    history.extend(np.stack([t, np.full(count, 0.02), np.where(edge, level, np.nan), np.where(read & ~edge, level, np.nan)], axis=1))
    spec = PlotSpec("sharpness", "S", (
        Curve("gd.sharpness", "gradient descent", "gd"), Curve("gd.midpoint_sharpness", "at midpoints", "gd", joins="gd.sharpness")))
    shown = lines(spec, history, window, width=87)
    drawn = np.flatnonzero(_dots(shown[1:-2]).any(axis=0))
    assert drawn.size >= 155
    assert np.diff(drawn).max() == 1
    assert "at midpoints" not in shown[0]


# -- what can be chosen of a plot


def test_under_the_cursor_stands_the_stored_number_where_there_is_room():
    history = history_of(100, gd_loss=np.linspace(0.1, 0.2, 100) / 3)
    window = Window(0, 100, cursor=41)
    stored = history.at("gd.loss", 41)[1]
    exact = line_plot.values_line(LOSS, history, window)
    assert float(exact.split("L(θ) ")[1]) == stored
    for width, digits in ((24, 9), (21, 6), (19, 4)):
        shown = line_plot.values_line(LOSS, history, window, width)
        assert len(shown) <= width
        assert shown.split("L(θ) ")[1] == f"{stored:#.{digits}g}"


def test_the_axis_counts_time_or_steps_since_the_edge():
    rows = np.stack([np.arange(500.0), np.arange(500) * 0.02, np.ones(500)], axis=1)
    history = History((COLUMNS[0], Column("time", "τ", "", "", "", ""), COLUMNS[2]))
    history.extend(rows)
    timed = lines(LOSS, history, Window(0, 500, 250, Axis("time", 0.0, "ηt")))
    assert timed[-1].split() == ["ηt", "0", "2", "4", "5.0000", "6", "8", "10"]
    since = lines(LOSS, history, Window(0, 500, 250, Axis("step", 100.0, "t−edge")))
    assert since[-1].split()[:3] == ["t−edge", "-100", "0"]
    assert "150" in since[-1].split()  # the cursor


def test_a_changed_learning_rate_stretches_the_axis_of_time():
    t = np.arange(1000)
    time = np.cumsum(np.where(t < 500, 0.01, 0.03))
    history = History((COLUMNS[0], Column("time", "τ", "", "", "", ""), COLUMNS[2]))
    history.extend(np.stack([t, time, np.where(t < 500, 1.0, 2.0)], axis=1))
    dots = _dots(lines(LOSS, history, Window(0, 999, None, Axis("time", 0.0, "ηt")), width=67))
    low = np.flatnonzero(dots[dots.shape[0] * 2 // 3 :].any(axis=0))
    assert np.ptp(low) / np.ptp(np.flatnonzero(dots.any(axis=0))) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("count", [60, 5000])
def test_strands_are_two_lines_and_the_band_between_them_is_empty(count):
    shown = lines(SWING._replace(strands=True), oscillating(count), Window(0, count), height=20)
    assert not any("⣿" in row for row in shown)
    ends = [row for row in shown[1:] if cells([row]) > 40]
    assert len(ends) == 2


def test_an_even_mean_takes_the_oscillation_out_and_leaves_it_in_sight():
    history = oscillating(5000)
    plain = line_plot.draw(SWING, history, Window(0, 5000), 60, 20)
    smooth = line_plot.draw(SWING._replace(smooth=50), history, Window(0, 5000), 60, 20)
    rows = [strip.text for strip in smooth]
    assert sum(row.count("⣿") for row in rows) > 0.8 * sum(strip.text.count("⣿") for strip in plain)
    bright = {y for y, strip in enumerate(smooth) for text, style, _ in strip if style and style.bold and text.strip()}
    assert len(bright) == 1  # the mean is 0 everywhere
    assert "mean 50" in line_plot.heading(SWING._replace(smooth=50))


@pytest.mark.parametrize("count", [30, 3000])
def test_a_mean_lies_within_the_curve_and_ends_where_it_ends(count):
    history = history_of(count, gd_loss=np.sin(np.arange(count) * 6 / count))
    window = Window(0, count * 1.5)
    mean = traces.mean(history, "gd.loss", Span.of(history, window), 100, False, 10)
    known = np.flatnonzero(~np.isnan(mean.lo))
    assert known[0] <= 1
    assert known[-1] == pytest.approx(66, abs=2)
    assert np.nanmax(mean.hi) <= 1
    centre = (known + 0.5) / 100 * count * 1.5
    np.testing.assert_allclose(mean.lo[known][3:-3], np.sin(centre * 6 / count)[3:-3], atol=0.25 if count == 30 else 0.02)


def test_the_stages_are_bands_behind_the_plot_and_stand_along_the_axis_by_sign_and_name():
    history = History((COLUMNS[0], COLUMNS[2], Column("stage", "", "", "", "", "")))
    stage = np.repeat([np.nan, 1, 2, 3, 4, 1], 100)
    history.extend(np.stack([np.arange(600), np.ones(600), stage], axis=1))
    shown = lines(LOSS, history, Window(0, 600), width=67)
    assert re.fullmatch(r" {6}└─+╱━+< blowup ━*╲━+> return ━*╱━+", shown[-2].replace("┬", "─"))
    assert re.fullmatch(r" {6}\+[-+]+/-+< blowup -*\\-+> return -*/-+", lines(LOSS, history, Window(0, 600), width=67, ascii=True)[-2])
    for name in (theme.DARK, theme.LIGHT):
        first = _painted(line_plot.draw(LOSS, history, Window(0, 600), 67, 16, theme=name))[1]
        grounds = [style.bgcolor if style else None for _, style in first[line_plot.GUTTER :]]
        bands = [None, *(theme.role_ground(name, role, decorations.BAND).bgcolor for role in decorations.STAGE_ROLES[1:])]
        assert grounds == [bands[k] for k in (0, 1, 2, 3, 4, 1) for _ in range(10)]
        low = _painted(line_plot.draw(LOSS, history, Window(0, 600), 67, 7, theme=name))  # without a row for the axis
        assert [style.bgcolor if style else None for _, style in low[1][line_plot.GUTTER :]] == grounds
    assert not any(style and style.bgcolor for row in _painted(line_plot.draw(LOSS, history, Window(0, 600), 67, 16, theme=theme.ANSI))
                   for _, style in row)
    fast = History(history.columns)
    fast.extend(np.stack([np.arange(600), np.ones(600), np.arange(600) % 4 + 1], axis=1))
    assert not set("╱<╲>") & set(lines(LOSS, fast, Window(0, 600), width=67)[-2])
    mixed = History(history.columns)
    mixed.extend(np.stack([np.arange(600), np.ones(600), np.where(np.arange(600) < 400, np.arange(600) % 4 + 1, 2)], axis=1))
    assert re.search(r"< blowup ━{8,}", lines(LOSS, mixed, Window(0, 600), width=67)[-2])  # the long one stays


def test_another_run_is_laid_over_with_its_edge_on_this_ones():
    jump = history_of(400, gd_loss=np.where(np.arange(400) < 100, 1.0, 2.0))
    later = history_of(600, gd_loss=np.where(np.arange(600) < 250, 1.1, 1.9))
    other = Overlay(later, "later", "warn", plot_spec.OTHERS[0], edge=250, at=100)
    drawn = line_plot.paint(LOSS, jump, Window(0, 400), 67, 16, overlays=[other])
    rows = [strip.text for strip in drawn.strips]
    assert "╍╍ later" in rows[0]
    amber = theme.role_style(theme.DARK, "warn").color
    seen = [sum(segment.cell_length for segment in row[:k]) for row in (list(strip) for strip in drawn.strips[1:])
            for k, segment in enumerate(row) if segment.style and segment.style.color == amber]
    assert set(seen) & {21, 22, 23}  # its jump at its step 250 stands at 100 of 400


# -- colours


@pytest.mark.parametrize("name", [theme.DARK, theme.LIGHT])
@pytest.mark.parametrize("sight", ["full", "protanopia", "deuteranopia", "tritanopia"])
def test_trajectories_differ_to_most_eyes(name, sight):
    seen = {  # Machado, Oliveira and Fernandes (2009), severity 1
        "full": np.eye(3),
        "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
        "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
        "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
    }[sight]
    roles = ("gd", "constrained", "flow", "central", "generalized", "transported", "code", "threshold")
    colours = {role: _lab(seen @ _linear(theme.role_color(name, role))) for role in roles}
    ground = _lab(_linear(next(each.background for each in theme.THEMES if each.name == name)))
    assert all(abs(colour[0] - ground[0]) > 30 for colour in colours.values())
    for one, other in itertools.combinations(roles, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 12, (one, other)


def _linear(colour):
    srgb = np.array(Color.parse(colour).rgb) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-6))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_theme_has_every_role():
    for each in theme.THEMES:
        for role in theme.ROLES:
            assert role in each.variables
            assert theme.role_style(each.name, role).color is not None
    assert theme.role_color("textual-light", "gd") == theme.role_color(theme.LIGHT, "gd")
    assert theme.role_color("ansi-light", "gd") == theme.role_color(theme.ANSI, "gd")
    assert theme.role_color("nord", "gd") == theme.role_color(theme.DARK, "gd")


# -- the widget


class OnePlot(App):
    CSS = "LinePlot { width: 60; height: 18; }"

    def compose(self):
        yield LinePlot(LOSS)

    def on_mount(self):
        for each in theme.THEMES:
            self.register_theme(each)
        self.theme = theme.DARK


async def test_the_widget_repaints_only_the_rows_that_changed():
    app = OnePlot()
    async with app.run_test(size=(80, 24)) as pilot:
        plot = app.query_one(LinePlot)
        plot.show(history_of(900, gd_loss=1.0 + np.arange(900) / 1e3), Window(0, 1250))
        await pilot.pause()
        screen = [strip.text for strip in app.screen._compositor.render_strips()]
        assert "training loss L" in screen[0]
        assert "L(θ) 1.899" in screen[17]
        asked = []
        plain = plot.refresh
        plot.refresh = lambda *regions, **options: (asked.append(regions), plain(*regions, **options))[1]
        longer = history_of(910, gd_loss=1.0 + np.arange(910) / 1e3)
        longer_limits = plot.limits
        plot.history = longer  # the same run, grown
        plot.show(longer, Window(0, 1250))
        assert plot.limits is longer_limits
        [regions] = [regions for regions in asked if regions]
        assert 1 <= len(regions) <= 3  # a row or two of dots, and the values below
        assert plot.titles(plot.size.width)[1] == "L(θ) 1.909"
        plot.show(longer, Window(0, 1250))
        assert len([regions for regions in asked if regions]) == 1  # nothing new, nothing sent


async def test_the_widget_draws_again_for_a_new_size_theme_and_axis():
    app = OnePlot()
    async with app.run_test(size=(80, 24)) as pilot:
        plot = app.query_one(LinePlot)
        history = history_of(900, gd_loss=10.0 ** -np.linspace(0, 4, 900))
        plot.show(history, Window(0, 1000))
        await pilot.pause()
        first = plot.render_line(3)
        assert first.cell_length == 58
        app.theme = theme.LIGHT
        await pilot.pause()
        assert plot.render_line(3) != first
        plot.spec = LOSS._replace(log=True)
        plot.show(history, Window(0, 1000))
        assert any("1e-3" in plot.render_line(y).text for y in range(plot.size.height))
        assert "log" in plot.titles(plot.size.width)[0]
        plot.styles.width = 40
        await pilot.pause()
        assert {plot.render_line(y).cell_length for y in range(plot.size.height)} == {38}


def test_no_two_pens_have_the_same_sample():
    pens = (*plot_spec.SOLID, *plot_spec.DASHED, *plot_spec.OTHERS, plot_spec.THRESHOLD)
    assert len({pen.sample for pen in pens}) == len(pens)


def test_a_run_that_is_over_is_not_waited_for():
    followed = History((*COLUMNS, Column("constrained.alpha", "α", "", "", "", "")))
    followed.extend(np.full((1, len(COLUMNS) + 1), np.nan))
    unstarted, without = History(COLUMNS), history_of(10, gd_loss=1.0)
    unstarted.over = followed.over = without.over = True
    assert "it ended before its first step" in " ".join(lines(LOSS, unstarted, Window(0, 10)))
    assert "it ended before the edge" in " ".join(lines(SWING, followed, Window(0, 10)))
    assert "edge" not in " ".join(lines(SWING, without, Window(0, 10)))


def test_a_new_trajectory_is_one_row_of_the_table_of_families(tmp_path):
    """The row alone, in a copy of the tree: its columns are curves of the plots, in its colour under each theme."""
    for package in ("engine", "eos_tui"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    theme_file = tmp_path / "eos_tui" / "draw" / "theme.py"
    row = '    "rod": Family("rod flow", Colours("#ff8800", "#884400", "ansi_red")),\n'
    at = '    "flow": Family('
    assert theme_file.read_text().count(at) == 1
    theme_file.write_text(theme_file.read_text().replace(at, row + at))
    code = (
        "from engine.record.columns import Column\nfrom eos_tui.draw import panels, theme\n"
        "names = ('step', 'gd.loss', 'gd.sharpness', 'rod.loss', 'rod.sharpness', 'rod.distance')\n"
        "plots = panels.line_plots([Column(name, name, '', '', '', '') for name in names], ('generalized',))\n"
        "print({plot.id: [(curve.label, curve.role) for curve in plot.curves if curve.column.startswith('rod')] for plot in plots})\n"
        "print([theme.role_color(each.name, 'rod') for each in theme.THEMES])\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    plots, colours = map(ast.literal_eval, done.stdout.splitlines())
    assert plots == {plot: [("rod flow", "rod")] for plot in ("sharpness", "loss", "distance")}
    assert colours == ["#ff8800", "#884400", "ansi_red"]


def test_a_title_says_in_plain_words_what_is_shown_where_there_is_room():
    spec = panels.line_plots(columns_for(load_spec("fashion")), ())[0]
    assert heading(spec, 60) == "sharpness S: how curved the valley is"
    assert heading(spec, 36) == heading(spec) == "sharpness S"
    assert heading(spec._replace(log=True), 60) == "sharpness S: how curved the valley is · log"


def test_the_legend_names_every_run_that_is_compared_where_a_dashboard_has_six_plots():
    history = oscillating(500)
    names = "toy-2", "chebyshev-1", "several-1"
    others = [Overlay(oscillating(400), name, "warn", pen) for name, pen in zip(names, plot_spec.OTHERS, strict=False)]
    shown = line_plot.paint(SHARPNESS, history, Window(0, 500), 37, 14, overlays=others).strips
    legend = "\n".join(strip.text for strip in shown[:4])
    for name in ("S(θ)", "2/η", "S⋆", *names):
        assert name in legend
    assert "…" not in legend
    assert cells(strip.text for strip in shown[4:]) > 30  # and the curves have room
