"""What is shown of a run on batches: the batch sharpness with its error, and the sharpness of all examples, against 2/η."""

import numpy as np
import pytest

from engine.record import store
from engine.record.reader import Run, State
from engine.record.writer import Writer
from engine.spec import load_spec, with_overrides
from eos_tui.app import EosApp
from eos_tui.draw.line_plot import paint
from eos_tui.draw.panels import line_plots
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.model.history import History


def run_on_batches(*overrides: str, error: float = 1.0) -> Run:
    """160 steps of a run that read both sharpnesses at every eighth: that of batches is at 0.98 of 2/η = 100, that of all at 0.6."""
    spec = with_overrides(load_spec("fashion"), ["tracking.mode=sharpness", "batch.size=16", *overrides])
    run, steps = store.create(spec, "batches"), np.arange(160)
    table, read = np.full((160, len(run.columns)), np.nan), steps % 8 == 0
    columns = {"step": steps, "learning_rate": 0.02, "threshold": 100.0, "batch.loss": 1 + np.sin(steps)}
    sparse = {"batch.sharpness": 98.0, "batch.sharpness_error": error, "gd.sharpness": 60.0, "gd.loss": 1.0, "threshold_ratio": 0.98,
              "batch.gni": 130.0, "batch.gni_error": 3.0}
    for name, values in columns.items():
        table[:, run.index[name]] = values
    for name in set(sparse) & set(run.index):
        table[read, run.index[name]] = sparse[name]
    with Writer(run) as writer:
        writer.append(table)
        writer.state(State(status="running", phase="training", step=160, learning_rate=0.02))
    return run


@pytest.mark.parametrize("kind", ["gradient_descent", "momentum"])
def test_both_sharpnesses_stand_against_the_threshold_and_the_interaction_is_called_no_edge(kind):
    shown = {plot.id: plot for plot in line_plots(run_on_batches(f"optimizer.kind={kind}").columns, ())}
    first = shown["sharpness"].curves[:2]
    assert [curve.column for curve in first] == ["batch.sharpness", "gd.sharpness"]
    assert first[0].error == "batch.sharpness_error"
    assert shown["sharpness"].threshold
    assert "ratio" not in shown  # it would be the same once more
    assert "no edge" in shown["gni"].title
    assert [curve.column for curve in shown["loss"].curves] == ["gd.loss", "batch.loss"]


def test_gradient_descent_on_all_examples_has_none_of_it():
    plots = line_plots(store.create(load_spec("fashion"), "plain").columns, ())
    assert not [curve for plot in plots for curve in plot.curves if curve.column.startswith("batch.") or curve.error]


def test_a_value_with_an_error_has_a_bar_of_two_of_them_either_way():
    run = run_on_batches(error=10.0)
    history = History(run.columns)
    history.extend(run.rows())
    plain = Curve("batch.sharpness", "S_B", "gd")
    narrow, wide = (
        paint(PlotSpec("p", "p", (curve,)), history, Window(0, 160), 60, 16).limits
        for curve in (plain, plain._replace(error="batch.sharpness_error"))
    )
    assert narrow.hi - narrow.lo < 10
    assert wide.lo < 78
    assert wide.hi > 118


async def test_the_head_tells_the_batch_sharpness():
    app = EosApp(run_on_batches())
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        position, story = (str(app.screen.query_one(f"#{name}").content) for name in ("position", "story"))
        assert "ηS_B/2" in position
        assert "0.980" in position
        assert story == "Training on batches: the batch sharpness is at 98% of 2/η, that of the full loss at 60%"
