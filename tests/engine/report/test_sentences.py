"""What is said of a run: every number in a sentence is that of the row it speaks of, at the learning rate in force."""

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine import spec as specs
from engine.jobs.launch import BAD_ENDS
from engine.phases import context, derived, several
from engine.phases.derived import Reported
from engine.phases.edge_state import Projected
from engine.phases.experiment import Experiment
from engine.problems.problem import Problem
from engine.record import messages, store
from engine.record.reader import State
from engine.record.writer import Writer
from engine.report.comparison import outcomes
from engine.report.narrative import percent, sentence
from engine.report.summary import summarize
from eos_tui.model.source import Source

from small import chebyshev_spec, dense_hessian, toy_spec, under

NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?)"


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that stand where the pattern has an N."""
    return [float(number) for number in re.findall(re.escape(pattern).replace("N", NUMBER), text)]


# -- the header's sentence

SHARES = st.floats(0.01, 3)


@given(SHARES, SHARES, st.floats(1e-3, 0.5), st.floats(-1, 1), st.floats(1e-3, 3), st.floats(0.01, 1))
def test_the_header_tells_the_numbers_of_its_row(first, second, epsilon, correlation, size, eta):
    row = {
        "learning_rate": eta,
        "stage": 2.0, "gd.sharpness": first * 2 / eta, "gd.lambda2": second * 2 / eta, "gd.midpoint_sharpness": first * 2 / eta,
        "constrained.alpha": 1.0, "constrained.lambda2": second * 2 / eta, "constrained.epsilon": epsilon, "constrained.delta": 0.1,
        "gd.x": -0.1 * size, "generalized.x": 0.1, "generalized.since_anchor": 50.0, "generalized.correlation": correlation,
    }  # fmt: skip
    for phase in ("approach", "edge", "gradient descent", "training"):
        text = sentence(State(status="running", phase=phase, learning_rate=eta), row)
        for number in numbers("sharpness is at N%", text):
            assert number / 100 == pytest.approx(first, abs=0.00501)
        for number in numbers("λ2 is at N%", text) + numbers("λ2 at N%", text):
            assert number / 100 == pytest.approx(second, abs=0.00501)
        for number in numbers("ε = N", text):
            assert number == pytest.approx(epsilon, abs=0.00501)
        for number in numbers("|x| is at N%", text):
            assert number / 100 == pytest.approx(size, abs=0.00501)
        for number in numbers("correlation N", text):
            assert number == pytest.approx(correlation, abs=0.00501)
        assert ("Two directions" in text) <= (second >= 0.95)
        assert ("drifted off" in text) <= (size >= 0.25)
        assert ("too small to predict" in text) <= (size < 0.25)
        assert ("Stable" in text) <= (first < 1 + 1e-12)  # 2/η times η/2 may be a last digit under 1


@given(st.floats(0, 3))
def test_a_share_that_is_not_whole_is_not_rounded_to_it(share):
    printed = float(percent(share)[:-1]) / 100
    assert printed == pytest.approx(share, abs=0.00501)
    assert printed != 1 or share == 1 or abs(share - 1) < 1e-5


def test_only_the_second_eigenvalue_decides_that_there_is_no_single_unstable_direction():
    row = {"learning_rate": 0.02, "gd.sharpness": 120.0, "gd.lambda2": 30.0}
    alone = sentence(State(phase="gradient descent", learning_rate=0.02), row)
    assert alone == "Gradient descent goes on without θ†: the sharpness is at 120% of 2/η, λ2 at 30%"
    both = sentence(State(phase="gradient descent", learning_rate=0.02), row | {"gd.lambda2": 97.0})
    assert both.startswith("Two directions at the edge, so no θ†")


# -- events from rows


@given(st.lists(st.tuples(st.floats(-2, 2) | st.just(math.nan), st.floats(0, 3) | st.just(math.nan)), min_size=1, max_size=30))
def test_assumptions_are_judged_by_the_readings_of_their_step(rows):
    alpha, second = np.array(rows).T
    table = {"step": np.arange(len(rows), dtype=float), "learning_rate": np.full(len(rows), 0.5), "stage": np.zeros(len(rows)),
             "constrained.alpha": alpha, "constrained.lambda2": second / 0.5}
    _, events = derived.events(table, Reported(0, 0, 0), specs.CoupledTracking(predictions=()), specs.GradientDescent(learning_rate=1.0))
    for event in events:
        value = (alpha if event.assumption == 1 else second)[event.step]
        [number] = numbers("α = N" if event.assumption == 1 else "λ2 = N/η", event.text)
        assert number == pytest.approx(value, rel=5e-3)
        fails = value <= 0 if event.assumption == 1 else value >= 1.9
        assert isinstance(event, messages.AssumptionFailed) == fails


def test_where_no_projection_converges_the_sharpness_said_is_that_of_gradient_descent(x64, monkeypatch):
    experiment = Experiment(chebyshev_spec(0.2, flow=False, predictions=[]))
    project_afresh = several.project_afresh

    def wandered(*given):
        center, normals, projection = project_afresh(*given)
        eigen = center.eigen._replace(values=center.eigen.values * math.nan)
        return Projected(center._replace(eigen=eigen), normals, projection._replace(usable=jnp.array(False)))

    monkeypatch.setattr(several, "project_afresh", wandered)
    events: list[messages.AnyEvent] = []
    while experiment.phase != "gradient descent":
        events += experiment.advance(10_000).events
    [lost] = [event for event in events if isinstance(event, messages.ConstraintLost)]
    sharpness = np.linalg.eigvalsh(dense_hessian(experiment.setup.problem, experiment.state.theta))[-1]
    assert numbers("is N × 2/η", lost.text) == [pytest.approx(sharpness * 0.2 / 2, abs=6e-4)]
    row = experiment.advance(1).rows[0]
    assert row[experiment.setup.column_index["gd.sharpness"]] == pytest.approx(sharpness, rel=1e-3)
    assert not any("nan" in event.text for event in events)
    assert messages.edge_in_force(events) == lost.step
    assert "Gradient descent goes on without θ†" in sentence(
        State(phase="gradient descent", learning_rate=0.2), {"learning_rate": 0.2, "gd.sharpness": sharpness, "gd.lambda2": 3.0})


# -- how a run ended


@pytest.mark.parametrize(("first", "last", "grows"), [
    ([1.0, 2.0], 5e87, True), ([1.0, 2.0], 2.1e6, True), ([1.0, 2.0], 1.9e6, False), ([math.nan], 1e9, False), ([0.0], 1e9, False),
    ([-1.0], -0.5, False), ([1.0], math.nan, False), ([1.0], math.inf, False),
])  # fmt: skip
def test_a_finite_loss_beyond_any_descent_is_divergence(first, last, grows):
    outcome = context.grown(np.array(first), last, 700)
    assert (outcome is not None) == grows
    if outcome is not None:
        assert (outcome.kind, numbers("at step N", outcome.text)) == ("diverged", [700])
        assert numbers("the loss is N", outcome.text) == [pytest.approx(last, rel=5e-3)]
        assert numbers("times the N", outcome.text) == [max(first)]


@pytest.mark.parametrize("mode", ["coupled", "sharpness"])
def test_a_run_that_completes_at_an_enormous_loss_has_diverged(x64, mode):
    """The map at x0 = 150 comes to losses of 1e122 in the seventeenth row, and its gradient leaves float64 in the next."""
    alone = {"flow": False, "predictions": []} if mode == "coupled" else {"mode": mode}
    record = engine.run(specs.with_overrides(toy_spec(0.01, x0=150.0, **alone), ["budget.steps=17"]))
    assert np.isfinite(record["gd.loss"]).all()
    assert record.outcome.kind == "diverged"
    assert record.outcome.kind in BAD_ENDS
    assert numbers("the loss is N", record.outcome.text) == [pytest.approx(record["gd.loss"][-1], rel=5e-3)]


@pytest.mark.parametrize("mode", ["coupled", "sharpness"])
def test_a_loss_that_is_nan_from_the_start_is_not_called_divergence(x64, mode):
    experiment = Experiment(chebyshev_spec(0.2, mode=mode))
    spoilt = Problem(lambda theta, data: theta @ theta * data[0], jnp.array([math.nan]))
    experiment = under(experiment, experiment.setup._replace(problem=spoilt))
    outcome = experiment.advance(10).outcome
    assert (outcome.kind, experiment.clock.step) == ("failed", 0)
    assert "smaller learning rate" not in outcome.text
    assert "data" in outcome.text


# -- after a change of the learning rate


@pytest.fixture(scope="module")
def lowered(x64, tmp_path_factory):
    """Forty steps of the toy at its edge, then twenty at 0.8 of η: far below the new 2/η."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EOS_HOME", str(tmp_path_factory.mktemp("lowered")))
        spec = specs.with_overrides(toy_spec(0.01, flow=False), ["optimizer.raises=[[40, 0.008]]", "budget.steps=60"])
        return engine.run(spec, name="lowered")


def test_after_a_smaller_rate_everything_is_read_at_the_one_in_force(lowered):
    run, midpoint = lowered.run, lowered["gd.midpoint_sharpness"]
    share = midpoint[np.isfinite(midpoint)][-1] * 0.008 / 2
    assert share < 0.85
    summary, row = summarize(run), outcomes(run)
    assert (summary.outcome, summary.edge_step, summary.prediction_correlation) == ("completed", None, None)
    assert summary.sharpness_over_threshold == pytest.approx(share)
    assert (row.learning_rate, row.edge_step, row.delta, row.epsilon, row.horizon) == (0.008, None, None, None, None)
    text = lowered.outcome.text
    assert numbers("reached at step N", text) == [0]
    assert numbers("at η = N", text) == [0.008]
    [number] = numbers("sharpness is at N%", text)
    assert number / 100 == pytest.approx(share, abs=0.006)


def test_before_the_first_reading_at_a_new_rate_none_is_said(lowered, tmp_path):
    run = store.create(lowered.run.spec, "cut", tmp_path)
    kept = lowered.run.rows(0, 40)
    with Writer(run) as writer:
        writer.append(kept)
        for event in lowered.events:
            if event.step <= 40 and not isinstance(event, messages.Finished):
                writer.event(event)
        writer.state(State(status="paused", phase="approach", step=40, learning_rate=0.008))
    summary = summarize(run)
    assert (summary.edge_step, summary.sharpness_over_threshold) == (None, None)
    source = Source(run)
    source.take(source.read())
    row = source.row()
    assert math.isnan(row["gd.sharpness"])
    assert math.isnan(row["gd.lambda2"])
    assert sentence(source.state, row) == (
        "η is 0.008 now, and was 0.01: the next step measures how far the sharpness is from the new edge"
    )


def test_the_edge_in_force_is_the_first_since_the_rate_last_changed():
    def reached(step):
        return messages.EdgeReached(step=step, text="", sharpness=1.0)

    def changed(step, eta):
        return messages.LearningRateChanged(step=step, text="", learning_rate=eta)

    assert messages.edge_in_force([reached(3), reached(5)]) == 3
    assert messages.edge_in_force([reached(3), changed(4, 0.1)]) is None
    assert messages.edge_in_force([reached(3), changed(4, 0.1), reached(6), changed(7, 0.1), reached(9)]) == 6
    assert messages.edge_in_force([]) is None
