"""What is shown of a run whose optimizer has another edge than gradient descent: the ratio to it, and a line at 1."""

import math

import numpy as np
import pytest

from engine.record import store
from engine.record.columns import columns_for
from engine.record.reader import Run, State
from engine.record.writer import Writer
from engine.report.narrative import sentence
from engine.spec import load_spec, load_spec_text, with_overrides
from eos_tui.app import EosApp
from eos_tui.draw.line_plot import paint
from eos_tui.draw.panels import line_plots
from eos_tui.draw.plot_spec import Window
from eos_tui.model.history import History

KINDS = ("momentum", "rmsprop", "adam", "sam", "sign", "muon")


def run_under(kind: str, rows: int = 120) -> Run:
    """A run that comes to the edge of its optimizer: far above it in the first step, then from below."""
    text = f'name = "{kind}"\n[problem]\nkind = "toy"\n[optimizer]\nkind = "{kind}"\nlearning_rate = 0.1\n[tracking]\nmode = "sharpness"\n'
    run = store.create(load_spec_text(text, "a test"), kind)
    table, steps = np.full((rows, len(run.columns)), np.nan), np.arange(rows)
    ratio = np.where(steps == 0, 40.0, np.minimum(0.2 + steps / 80, 1 + 0.02 * (-1.0) ** steps))
    columns = {"step": steps, "learning_rate": 0.1, "threshold": 20.0, "gd.loss": 1 / (1 + steps), "gd.sharpness": 3.0,
               "threshold_ratio": ratio, "preconditioned.sharpness": 20 * ratio, "smoothness.directional": 20 * ratio}
    for name in set(columns) & set(run.index):
        table[:, run.index[name]] = columns[name]
    with Writer(run) as writer:
        writer.append(table)
        writer.state(State(status="running", phase="training", step=rows, learning_rate=0.1))
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_its_plots_are_those_of_its_edge_first(kind):
    run = run_under(kind)
    shown = {plot.id: plot for plot in line_plots(run.columns, ())}
    norm = kind in ("sign", "muon")
    assert ("ratio" in shown) == ("preconditioned" in shown) == (not norm)
    assert ("smoothness" in shown) == norm
    assert not shown["sharpness"].threshold  # λ1(H) is not read against this edge
    assert "gradient descent" not in {curve.label for plot in shown.values() for curve in plot.curves}


def test_gradient_descent_is_shown_as_ever():
    shown = {plot.id: plot for plot in line_plots(columns_for(load_spec("fashion")), ())}
    assert shown["sharpness"].threshold
    assert not {"ratio", "smoothness", "preconditioned"} & set(shown)


def test_the_ratio_has_a_line_at_one_and_the_first_steps_do_not_squeeze_it():
    run = run_under("adam")
    history = History(run.columns)
    history.extend(run.rows())
    (plot,) = (each for each in line_plots(run.columns, ()) if each.id == "ratio")
    painted = paint(plot, history, Window(0, 120), 60, 16)
    assert painted.limits.hi < 2.5
    text = "\n".join(strip.text for strip in painted.strips)
    assert "edge" in text
    assert "1.00" in text


async def test_the_head_tells_the_ratio_to_the_edge():
    for kind, label, words in (
        ("adam", "S/edge", "of their edge"), ("sign", "ηD/2", "no eigenvalue has an edge here"),
    ):
        app = EosApp(run_under(kind))
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause()
            head = [str(app.screen.query_one(f"#{name}").content) for name in ("position", "story")]
            assert label in head[0]
            assert "0.980" in head[0]
            assert words in head[1]


@pytest.mark.parametrize("kind", ["momentum", "adam"])
async def test_the_valley_is_read_against_its_own_edge(kind):
    app = EosApp(run_under(kind))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await pilot.press("U")
        await pilot.pause()
        page = app.screen
        for _ in range(3):
            if page.across:
                break
            await pilot.press("tab")
            await pilot.pause()
        words = "\n".join(str(line.content) for line in page._lines)
        assert page._edge != "2/η"
        assert f"½({page._edge} + y)x²" in words
        assert "2/η +" not in words
        assert "not followed in this run" in words


def test_a_sentence_says_where_no_edge_is_known():
    state = State(status="running", phase="training", step=3, learning_rate=0.1)
    row = {"threshold_ratio": math.nan, "threshold": math.nan, "gd.loss": 1.0}
    assert sentence(state, row) == "Training; of this optimizer no edge is known"


def test_a_sweep_over_kinds_takes_what_each_has():
    spec = load_spec("adam")
    for kind in KINDS:
        assert with_overrides(spec, [f"optimizer.kind={kind}"]).optimizer.learning_rate == spec.optimizer.learning_rate
