"""The stability threshold of a record: its column, or 2/η where a record has none, read in one place."""

import ast
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.record.columns import Column, arranged
from engine.record.reader import State
from engine.record.threshold import at_rate, column_of, in_force, of_gradient_descent, read_threshold, threshold
from engine.report.narrative import sentence
from eos_tui.draw import line_plot, traces
from eos_tui.draw.plot_spec import Axis, Curve, PlotSpec, Span, Window
from eos_tui.lessons import ratio
from eos_tui.model.history import History

from places import ROOT

ETA, MOMENTUM = 0.02, 0.9
HEAVY_BALL = (2 + 2 * MOMENTUM) / ETA


def history_of(**columns):
    history = History([Column(name, name, name, "", "", "") for name in columns])
    history.extend(np.stack(np.broadcast_arrays(*columns.values()), axis=1).astype(float))
    return history


def test_a_recorded_threshold_goes_before_that_of_gradient_descent():
    row = {"learning_rate": ETA, "threshold": HEAVY_BALL}
    assert threshold(row) == HEAVY_BALL
    assert threshold({"learning_rate": ETA}) == 2 / ETA
    table = {"learning_rate": np.full(3, ETA), "threshold": np.array([HEAVY_BALL, math.nan, -1.0])}
    np.testing.assert_array_equal(threshold(table), [HEAVY_BALL, np.nan, np.nan])
    assert column_of(row.__contains__) == "threshold"
    with pytest.raises(KeyError, match="learning_rate"):
        threshold({"step": 1.0})
    assert column_of({"step": 1.0}.__contains__) is None


@given(st.floats())
def test_of_a_rate_and_of_rates_it_is_the_same_number(rate):
    one, [other] = of_gradient_descent(rate), of_gradient_descent(np.array([rate]))
    assert one == other or (math.isnan(one) and math.isnan(other))
    assert math.isnan(one) or one > 0


def test_at_another_learning_rate_it_goes_in_inverse_proportion():
    assert at_rate(HEAVY_BALL, ETA, ETA) == HEAVY_BALL
    assert math.isnan(at_rate(HEAVY_BALL, 0.0, ETA))
    assert at_rate(HEAVY_BALL, ETA, 2 * ETA) == pytest.approx(HEAVY_BALL / 2)
    assert in_force({"learning_rate": ETA}, 0.05) == pytest.approx(2 / 0.05)
    assert math.isnan(in_force({}, ETA))
    assert math.isnan(in_force({"learning_rate": math.nan}, ETA))


def test_rows_of_a_record_without_it_have_it_in_a_record_with_it():
    rows = np.array([[0.0, 0.02], [1.0, 0.04]])
    block = arranged(rows, {"step": 0, "learning_rate": 1}, {"step": 0, "threshold": 1, "learning_rate": 2})
    np.testing.assert_array_equal(block, [[0, 100, 0.02], [1, 50, 0.04]])


def test_the_line_of_a_plot_is_the_recorded_threshold():
    steps, span = np.arange(100), Span(0, 100, None, Axis())
    for columns, level in (({}, 2 / ETA), ({"threshold": HEAVY_BALL}, HEAVY_BALL)):
        line = traces.threshold(history_of(step=steps, learning_rate=ETA, **columns), span, 50, False)
        np.testing.assert_array_equal(line.lo, np.full(50, level))
    changing = history_of(step=steps, learning_rate=ETA, threshold=np.where(steps < 50, HEAVY_BALL, HEAVY_BALL / 2))
    line = traces.threshold(changing, span, 50, True)
    np.testing.assert_allclose(10**line.hi, np.repeat([HEAVY_BALL, HEAVY_BALL / 2], 25))
    spec = PlotSpec("sharpness", "sharpness S", (Curve("gd.sharpness", "gradient descent", "gd"),), threshold=True)
    history = history_of(step=steps, learning_rate=ETA, threshold=HEAVY_BALL, **{"gd.sharpness": 150.0})
    text = "\n".join(strip.text for strip in line_plot.draw(spec, history, Window(0, 100), 60, 20))
    assert f"{HEAVY_BALL:.0f}" in text


def test_sentences_and_the_tour_read_the_recorded_threshold():
    row = {"learning_rate": ETA, "threshold": HEAVY_BALL, "gd.sharpness": 0.9 * HEAVY_BALL}
    assert "90% of 2/η" in sentence(State(status="running", phase="training", learning_rate=ETA), row)
    table = {name: np.array([value]) for name, value in row.items()} | {"step": np.zeros(1)}
    assert ratio(table, "gd.sharpness") == pytest.approx([0.9])
    assert read_threshold(lambda name: row[name], row.__contains__) == HEAVY_BALL


def test_no_file_of_the_view_computes_it():
    """No division of 2, and no halving of a product with a learning rate; words and symbols are no computation."""
    strays = []
    for path in sorted((ROOT / "eos_tui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                above, below = (side.value if isinstance(side, ast.Constant) else ast.unparse(side) for side in (node.left, node.right))
                if above == 2 or (below == 2 and re.search(r"rate|eta\b", str(above))):
                    strays.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert strays == []
