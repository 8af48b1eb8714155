"""Dots, lines and axes, against what they are defined to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from eos_tui.draw import axes, octants
from eos_tui.draw.axes import Limits
from eos_tui.draw.raster import BRAILLE, Canvas, connect, draw_solid, outline, polyline, spans, strokes
from eos_tui.draw.row import Row

RED, BLUE = Style(color="red"), Style(color="blue")


def text_of(canvas):
    return [strip.text for strip in canvas.strips()]


def test_octants_fill_the_places_of_the_braille_dots_and_are_those_of_unicode():
    """Of the 256 patterns 230 are octants, U+1CD00 to U+1CDE5; spot values are from the names in Unicode 16."""
    signs = {code: sign for code, sign in octants.SIGNS.items() if 0x1CD00 <= ord(sign) <= 0x1CDE5}
    assert sorted(map(ord, signs.values())) == [*range(0x1CD00, 0x1CDE6)]
    assert len(set(octants.SIGNS.values())) == 256
    named = {"3": 0x1CD00, "23": 0x1CD01, "123": 0x1CD02, "4": 0x1CD03, "234": 0x1CD08, "5": 0x1CD09, "25": 0x1CD0B}
    for digits, code in named.items():
        braille = octants.BRAILLE + sum(octants.PLACES[int(digit) - 1] for digit in digits)
        assert octants.SIGNS[braille] == chr(code)
    assert octants.SIGNS[octants.BRAILLE + 0xFF] == "█"
    assert all(cell_len(sign) == 1 for sign in octants.SIGNS.values())


def test_dots_are_solid_where_asked_and_a_picture_has_braille():
    canvas, dots = Canvas(4, 2), np.arange(64).reshape(8, 8) % 3 == 0
    canvas.dots(dots, 0, 0, Style())
    braille = [strip.text for strip in canvas.strips()]
    try:
        draw_solid(True)
        solid = [strip.text for strip in canvas.strips()]
    finally:
        draw_solid(False)
    assert solid == [text.translate(octants.SIGNS) for text in braille]
    assert [strip.text for strip in canvas.strips()] == braille
    assert all(sign.translate(octants.DOTS).translate(octants.SIGNS) == sign for sign in "".join(solid))


def test_each_dot_sets_its_own_bit_of_the_braille_cell():
    bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    for row in range(4):
        for column in range(2):
            dots = np.zeros((4, 2), bool)
            dots[row, column] = True
            canvas = Canvas(1, 1)
            canvas.dots(dots, 0, 0, RED)
            assert text_of(canvas) == [chr(BRAILLE + bits[row, column])]


def test_every_row_of_a_canvas_is_exactly_as_wide_as_it():
    canvas = Canvas(7, 3)
    canvas.text(0, 5, "beyond", RED)
    canvas.text(1, -2, "before", RED)
    canvas.text(2, 0, "S(θ̄)✓⚠", RED)  # a combining stroke and signs of doubtful width
    canvas.text(9, 0, "nowhere", RED)
    assert [strip.cell_length for strip in canvas.strips()] == [7, 7, 7]
    assert [sum(segment.cell_length for segment in strip) for strip in canvas.strips()] == [7, 7, 7]
    assert text_of(canvas)[:2] == ["     be", "fore   "]


def test_the_layer_painted_last_owns_the_cell():
    canvas = Canvas(2, 1)
    full = np.ones((4, 4), bool)
    thin = np.zeros((4, 4), bool)
    thin[0, :2] = True
    canvas.dots(full, 0, 0, BLUE)
    canvas.dots(thin, 0, 0, RED)
    assert text_of(canvas) == ["⠉⣿"]
    assert [segment.style for segment in canvas.strips()[0]] == [RED, BLUE]


def test_merging_keeps_the_dots_beneath():
    canvas = Canvas(1, 1)
    low, high = np.zeros((2, 4, 2), bool)
    low[3], high[0] = True, True
    canvas.dots(low, 0, 0, BLUE)
    canvas.dots(high, 0, 0, RED, merge=True)
    assert text_of(canvas) == ["⣉"]


def test_blanks_go_on_in_the_style_before_them_only_where_it_does_not_show():
    canvas = Canvas(6, 1)
    canvas.text(0, 0, "ab", RED + Style(reverse=True))
    canvas.text(0, 4, "c", BLUE)
    shown = [(segment.text, segment.style) for segment in canvas.strips()[0]]
    assert shown == [("ab", RED + Style(reverse=True)), ("  ", None), ("c ", BLUE)]


def test_ascii_draws_no_braille():
    canvas = Canvas(3, 1, ascii=True)
    canvas.dots(np.ones((4, 6), bool), 0, 0, RED, "+")
    assert text_of(canvas) == ["+++"]


def test_a_polyline_covers_in_each_column_what_straight_lines_cover():
    x = np.array([0.5, 2.5, 2.75, 6.0])
    y = np.array([0.0, 2.0, -1.0, 0.3])
    lo, hi = polyline(x, y, np.ones(3, bool), 6)
    fine = np.linspace(0.5, 6.0, 200_001)
    heights = np.interp(fine, x, y)
    for k in range(6):
        inside = heights[(fine >= k) & (fine <= k + 1)]
        assert lo[k] == pytest.approx(inside.min(), abs=1e-3)
        assert hi[k] == pytest.approx(inside.max(), abs=1e-3)


def test_a_line_that_is_not_joined_leaves_a_gap():
    lo, _ = polyline(np.array([0.5, 4.5]), np.array([1.0, 1.0]), np.zeros(1, bool), 5)
    assert np.isnan(lo).tolist() == [False, True, True, True, False]


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), min_size=2, max_size=60))
def test_connected_columns_touch_and_lose_nothing(pairs):
    lo, hi = np.sort(np.array(pairs), axis=1).T
    new_lo, new_hi = connect(lo, hi)
    assert (new_lo <= lo).all()
    assert (new_hi >= hi).all()
    slack = 1e-9
    assert (new_lo[1:] <= new_hi[:-1] + slack).all()
    assert (new_lo[:-1] <= new_hi[1:] + slack).all()
    assert new_lo.min() >= lo.min()
    assert new_hi.max() <= hi.max()


def test_sparse_points_are_bridged_and_a_wide_gap_is_not():
    lo = np.full(40, np.nan)
    lo[:20:4] = 1.0  # every fourth column, then nothing for 14
    lo[30:] = 2.0
    joined, _ = connect(lo, lo)
    assert not np.isnan(joined[:17]).any()
    assert np.isnan(joined[17:30]).all()


def test_the_outline_of_a_band_is_its_edge_and_a_thin_line_stays_whole():
    band = np.zeros((8, 9), bool)
    band[1:7] = True
    assert outline(band).sum(axis=0)[1:-1].tolist() == [2] * 7
    line = np.eye(8, dtype=bool)
    assert (outline(line) == line).all()


def test_spans_fill_between_the_extremes_and_nothing_where_there_is_none():
    dots = spans(np.array([0.0, np.nan, 2.2]), np.array([1.5, np.nan, 2.9]), 4)
    assert dots[::-1].T.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_strokes_follow_a_closed_curve_without_holes_and_stay_inside():
    phase = np.linspace(0, 2 * np.pi, 40)
    dots = strokes(20 + 15 * np.cos(phase), 20 + 19 * np.sin(phase), 40, 40)
    assert dots.any(axis=0)[5:35].all()
    assert dots.any(axis=1)[1:39].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_no_numbers_break_a_stroke_and_never_raise(bad):
    dots = strokes(np.array([1.0, 2.0, bad, 8.0, 9.0]), np.array([1.0, 1.0, bad, 1.0, 1.0]), 10, 4)
    assert dots[2].tolist() == [column in (1, 2, 8, 9) for column in range(10)]
    assert dots.sum() == 4
    assert strokes(np.array([]), np.array([]), 4, 4).sum() == 0


# -- axes


def test_limits_stay_while_the_data_fit_and_fill_enough():
    first = axes.settle(None, 10, 20)
    assert first == Limits(9, 21)
    assert axes.settle(first, 10.5, 20.9) is first
    assert axes.settle(first, 10.5, 21.5) != first
    assert axes.settle(first, 13, 18) is first  # 5 of 12 used
    assert axes.settle(first, 14, 18).span < first.span  # 4 of 12: too little


def test_an_axis_of_positive_data_does_not_go_below_zero():
    assert axes.settle(None, 0.01, 10).lo == 0
    assert axes.settle(None, -0.01, 10).lo < 0


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12))
def test_limits_always_hold_the_data_and_have_a_width(lo, room):
    limits = axes.settle(None, lo, lo + room)
    assert limits.lo <= lo
    assert lo + room <= limits.hi
    assert limits.span > 0


@given(st.floats(-1e9, 1e9), st.floats(1e-12, 1e9), st.integers(3, 9))
def test_ticks_lie_within_the_limits_and_say_their_values(lo, room, count):
    limits = axes.settle(None, lo, lo + room)
    marks = axes.ticks(limits, count)
    assert len(marks.values) >= 2
    for value, label in zip(marks.values, marks.labels, strict=True):
        assert limits.lo - 1e-6 * limits.span <= value <= limits.hi + 1e-6 * limits.span
        assert float(label) * 10.0**marks.exponent == pytest.approx(value, abs=1e-6 * limits.span)
        assert len(label) <= axes.LABEL
    assert len(set(marks.labels)) == len(marks.labels)


def test_small_numbers_share_a_power_of_ten():
    marks = axes.ticks(Limits(0, 4.4e-5), 4)
    assert marks.labels == ("0", "2", "4")
    assert marks.exponent == -5
    assert axes.superscript(-5) == "×10⁻⁵"
    assert axes.superscript(-5, ascii=True) == "x1e-5"


def test_a_logarithmic_axis_is_marked_in_decades_or_in_round_values():
    assert axes.log_ticks(Limits(-4.2, 0.3), 5).labels == ("1e-4", "1e-3", "0.01", "0.1", "1")
    inner = axes.log_ticks(Limits(0.05, 0.8), 4)
    assert inner.labels == ("2", "4", "6")
    assert inner.values == pytest.approx(np.log10([2, 4, 6]))


def test_steps_are_marked_in_thousands_and_never_rounded():
    assert axes.step_ticks(0, 2000, 4).labels == ("0", "500", "1k", "1.5k", "2k")
    assert axes.step_ticks(0, 20_000_000, 2).labels == ("0", "10M", "20M")
    assert axes.step_ticks(10_000, 10_004, 4).labels == ("10k", "10001", "10002", "10003", "10004")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(40.0, "40.00"), (39.996, "40.00"), (0.067134, "0.06713"), (1.2345e-5, "1.234e-5"), (-1234.56, "-1235"),
     (123456.0, "1.235e5"), (0.0, "0.000"), (float("nan"), "–"), (float("inf"), "∞")],
)
def test_numbers_show_four_honest_digits(value, shown):
    assert axes.number(value) == shown


def test_a_row_is_a_strip_with_all_that_textual_keeps_in_one():
    parts = [Segment("ab", RED), Segment("⣿ c", BLUE)]
    row, strip = Row(parts, 5), Strip(parts, 5)
    for name in Strip.__slots__:
        assert type(getattr(row, name)) is type(getattr(strip, name))
    assert row == strip
    assert row.divide([5]) == [row]
    assert row.divide([2, 5]) == strip.divide([2, 5])
    assert row.crop(1, 4) == strip.crop(1, 4)
    assert row.apply_style(BLUE) == strip.apply_style(BLUE)
    with pytest.raises(AttributeError, match="Row has no width"):
        row.width  # noqa: B018
