"""A run in a few numbers, each of them checked against rows whose answer is known."""

import msgspec
import numpy as np
import pytest

from engine.record import messages, store
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer
from engine.report.averages import averages
from engine.report.summary import FULL_SPAN, SETTLED_ROWS, Summary, as_json, summarize, words
from engine.spec import load_spec_text, with_overrides

from synthetic import EDGE, LEARNING_RATE, SPEC, THRESHOLD, make_run


def run_of(steps: int, *overrides: str, **columns) -> Run:
    """A run that records these columns and nothing else: η and its threshold at every step, NaN wherever no value is given."""
    run = store.create(with_overrides(load_spec_text(SPEC, "a test"), overrides), "made")
    table = np.full((steps, len(run.columns)), np.nan)
    columns = {"step": np.arange(steps), "learning_rate": LEARNING_RATE} | columns
    for name, values in (columns | {"threshold": 2 / columns["learning_rate"]}).items():
        table[:, run.index[name.replace("__", ".")]] = values
    with Writer(run) as writer:
        writer.append(table)
    return run


def test_a_run_at_the_edge_is_summed_up(tmp_path):
    run = make_run(tmp_path, steps=400)
    summary = summarize(run)
    table = run.table()
    assert (summary.run, summary.outcome, summary.steps, summary.edge_step, summary.seconds) == ("made", "completed", 400, EDGE, 3.0)
    assert summary.sharpness_over_threshold == pytest.approx(table["gd.sharpness"][-SETTLED_ROWS:].mean() / THRESHOLD)
    assert summary.sharpness_over_threshold == pytest.approx(1, abs=0.01)


def test_a_run_without_a_row_has_no_numbers():
    summary = summarize(store.create(load_spec_text(SPEC, "a test"), "fresh"))
    assert summary == Summary("fresh", "starting", 0, None, None, None, None, None, 0.0, averages({}), None)


def test_a_run_whose_engine_is_gone_is_called_crashed(tmp_path):
    assert summarize(make_run(tmp_path, finished=False)).outcome == "crashed"


def test_an_outcome_is_said_by_its_kind():
    run = run_of(3)
    outcome = Outcome(kind="diverged", step=3, text="diverged at step 3")
    with Writer(run) as writer:
        writer.state(State(status="finished", step=3, seconds=1.2345, outcome=outcome))
    assert (summarize(run).outcome, summarize(run).seconds) == ("diverged", 1.23)


def test_steps_are_those_taken_whichever_of_rows_and_state_came_last():
    run = run_of(30)
    assert summarize(run).steps == 30
    with Writer(run) as writer:
        writer.state(State(status="running", step=42))
    assert summarize(run).steps == 42


def test_the_edge_is_where_it_was_first_reached():
    run = run_of(3)
    with Writer(run) as writer:
        for step in (111, 222):
            writer.event(messages.EdgeReached(step=step, text="2/η", sharpness=THRESHOLD))
    assert summarize(run).edge_step == 111


def test_on_the_approach_the_sharpness_is_the_latest_midpoint():
    measured = np.where(np.arange(30) % 10 == 5, np.arange(30.0), np.nan)
    assert summarize(run_of(30, gd__midpoint_sharpness=measured)).sharpness_over_threshold == pytest.approx(25 / THRESHOLD)


def test_readings_now_and_then_are_averaged_over_the_last_rows_alone():
    sharpness = np.where(np.arange(300) % 40 == 0, THRESHOLD * (np.arange(300) >= 200), np.nan)
    assert summarize(run_of(300, gd__sharpness=sharpness)).sharpness_over_threshold == pytest.approx(1)


def test_a_period_two_oscillation_averages_out():
    sharpness = THRESHOLD + 7 * (-1.0) ** np.arange(300)
    assert summarize(run_of(300, gd__sharpness=sharpness)).sharpness_over_threshold == pytest.approx(1)


def test_the_sharpness_is_measured_by_the_learning_rate_of_its_own_row():
    rate = np.repeat([0.02, 0.04], 100)
    assert summarize(run_of(200, learning_rate=rate, gd__sharpness=2 / rate)).sharpness_over_threshold == pytest.approx(1)


def test_the_correlation_is_read_a_hundred_steps_after_the_latest_anchor():
    since = np.concatenate([np.arange(131), np.arange(131), np.arange(40)]).astype(float)
    correlation = 1 - since / 1000
    correlation[131:262] -= 0.5
    summary = summarize(run_of(len(since), generalized__since_anchor=since, generalized__correlation=correlation))
    assert summary.prediction_correlation == pytest.approx(1 - (FULL_SPAN - 1) / 1000 - 0.5)


def test_the_correlation_is_that_of_the_latest_stretch_where_each_has_a_hundred_steps():
    since = np.tile(np.arange(100.0), 3)
    correlation = np.repeat([0.9, 0.5, 0.2], 100)
    summary = summarize(run_of(300, generalized__since_anchor=since, generalized__correlation=correlation))
    assert summary.prediction_correlation == pytest.approx(0.2)


def test_the_correlation_of_a_short_run_is_that_of_its_longest_stretch():
    since = np.concatenate([np.arange(60), np.arange(20)]).astype(float)
    correlation = np.where(since > 0, since / 100, np.nan)
    summary = summarize(run_of(80, generalized__since_anchor=since, generalized__correlation=correlation))
    assert summary.prediction_correlation == pytest.approx(0.59)


def test_the_correlation_is_that_of_the_first_form_recorded():
    since, correlation = np.arange(50.0), np.full(50, 0.7)
    forms = "tracking.predictions=['transported', 'code']"
    columns = {"transported__since_anchor": since, "transported__correlation": correlation, "code__correlation": 0.1}
    assert summarize(run_of(50, forms, **columns)).prediction_correlation == pytest.approx(0.7)


def test_without_predictions_there_is_no_correlation():
    assert summarize(run_of(10, "tracking.predictions=[]")).prediction_correlation is None


def test_the_means_are_those_of_the_stretch_at_the_rate_in_force():
    rate = np.repeat([0.02, 0.04], 300)
    columns = {
        "learning_rate": rate, "gd__loss": np.repeat([9.0, 1.1], 300), "gd__gradient_norm": 2.0, "gd__x_norm": 0.1,
        "constrained__loss": 1.0, "constrained__gradient_norm": 0.5, "constrained__epsilon": 0.1,
        "covariance__trace": np.repeat([0.5, 0.004], 300), "covariance__lambda1": np.repeat([0.25, 0.004], 300),
        "covariance__lambda2": np.repeat([0.25, 0.0], 300),
    }
    summary = summarize(run_of(600, **columns))
    assert summary.averages.loss == pytest.approx((1.1, 1 + 0.004 / 0.04, 1.0))
    assert (summary.averages.steps, summary.active) == (300, 1)


def test_a_phase_portrait_has_neither_sharpness_nor_correlation():
    spec = load_spec_text('name = "p"\n[problem]\nkind = "phase"\n[optimizer]\nlearning_rate = 0.1\n', "a test")
    summary = summarize(store.create(spec, "portrait"))
    assert (summary.edge_step, summary.sharpness_over_threshold, summary.prediction_correlation) == (None, None, None)


def test_the_words_say_every_number_and_a_dash_where_there_is_none():
    summary = Summary("fashion-1", "running", 535, None, 1.00512, 0.99, 0.08931, 0.98934, 4.0, averages({}), 2)
    assert words(summary) == [
        ("run", "fashion-1"), ("outcome", "running"), ("steps", "535"), ("edge step", "–"),
        ("sharpness over threshold", "1.005"), ("threshold ratio", "0.99"), ("training loss", "0.08931"),
        ("correlation over 100 steps", "0.9893"), ("seconds", "4"),
        ("directions that swing", "2"), ("means at the edge", "– (no θ† was followed at the learning rate in force)"),
    ]  # fmt: skip


def test_a_summary_is_one_json_object_without_nan(tmp_path):
    for made in (make_run(tmp_path), store.create(load_spec_text(SPEC, "a test"), "fresh")):
        assert "nan" not in msgspec.json.encode(as_json(summarize(made))).decode().lower()


def run_under(optimizer: str, problem: str = '[problem]\nkind = "toy"\n', **columns) -> Run:
    """Rows 0 to 9 of a run of an optimizer that records these columns."""
    text = f'name = "o"\n{problem}[optimizer]\nkind = "{optimizer}"\nlearning_rate = 0.1\n[tracking]\nmode = "sharpness"'
    run = store.create(load_spec_text(text, "a test"), f"under-{optimizer}")
    table = np.full((10, len(run.columns)), np.nan)
    for name, values in ({"step": np.arange(10), "learning_rate": 0.1, "threshold": 20.0} | columns).items():
        table[:, run.index[name]] = values
    with Writer(run) as writer:
        writer.append(table)
    return run


def test_the_ratio_to_the_edge_is_the_median_of_the_second_half_of_an_optimizer_that_has_one():
    ratio = np.array([9, 9, 9, 9, 9, 0.9, np.nan, 1.1, 1.0, np.nan])
    under = summarize(run_under("momentum", threshold_ratio=ratio))
    assert (under.threshold_ratio, as_json(under)["threshold_ratio"]) == (1.0, 1.0)
    assert under.sharpness_over_threshold == pytest.approx(np.nanmean(ratio))
    plain = summarize(run_of(10, gd__sharpness=np.where(np.arange(10) < 5, 1, 1 / LEARNING_RATE)))
    assert plain.threshold_ratio == pytest.approx(0.5)


BATCHES = """[problem]
kind = "network"
data = { name = "digits", examples = 30 }
model = { kind = "mlp" }
[batch]
size = 4
"""


def test_on_batches_the_ratio_is_that_of_the_batch_sharpness_and_the_sharpness_that_of_the_full_loss():
    columns = {"threshold_ratio": np.repeat([0.5, 0.9], 5), "batch.sharpness": 18.0, "gd.sharpness": 10.0}
    summary = summarize(run_under("gradient_descent", BATCHES, **columns))
    assert (summary.threshold_ratio, summary.sharpness_over_threshold) == (0.9, 0.5)
    momentum = summarize(run_under("momentum", BATCHES, **{"batch.sharpness": 18.0, "gd.sharpness": 10.0}))
    assert (momentum.threshold_ratio, momentum.sharpness_over_threshold) == (None, 0.5)


@pytest.mark.parametrize("optimizer", ["sign", "muon"])
def test_a_step_in_a_norm_of_its_own_has_no_ratio_to_an_edge(optimizer):
    run = run_under(optimizer, **{"gd.sharpness": 3.0, "smoothness.directional": 19.0})
    summary = summarize(run)
    assert summary.threshold_ratio is summary.sharpness_over_threshold is None
