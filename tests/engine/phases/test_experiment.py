"""How an experiment goes from phase to phase, on problems small enough to take it through all of them."""

import re

import numpy as np
import pytest

from engine import spec as specs
from engine import theory
from engine.curvature import eigensolver, guards
from engine.curvature.eigensolver import forms_hessian
from engine.phases import approach, edge
from engine.phases.approach import COMPILING, MEASURING
from engine.phases.experiment import Experiment
from engine.record import messages

from small import chebyshev_spec, compilations, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")


def drive(experiment: Experiment, until: int, limit: int = 10_000):
    """Rows, events and the outcome up to a step."""
    record, events, outcome = [], [], None
    while experiment.clock.step < until and outcome is None:
        progress = experiment.advance(min(limit, until - experiment.clock.step))
        record += progress.rows
        events += progress.events
        outcome = progress.outcome
    return np.array(record), events, outcome


def test_the_toy_begins_at_the_edge_and_goes_through_the_four_stages():
    experiment = Experiment(toy_spec(0.01, flow=False))
    record, events, _ = drive(experiment, 500)
    assert isinstance(events[0], messages.EdgeReached)
    assert [event.stage for event in events if isinstance(event, messages.StageChanged)] == [1, 2, 3, 4, 1]
    names = ("gd.x", "gd.y", "constrained.delta", "stage")
    x, y, delta, stage = (record[:, experiment.setup.column_index[name]] for name in names)
    np.testing.assert_array_equal(stage, theory.stage(x, np.where(abs(y) < 1e-9, 0, y), delta))  # y_0 is rounding
    assert (np.diff(y)[stage[:-1] > 2] < 0).all()
    assert (np.diff(y)[stage[:-1] < 3] > 0).all()


@pytest.mark.parametrize("limit", [pytest.param(limit, marks=pytest.mark.slow) for limit in (1, 7)])
def test_the_approach_finds_the_edge_to_the_step_whatever_the_limits(limit):
    whole = Experiment(chebyshev_spec(0.2, flow=False))
    cut = Experiment(specs.with_overrides(chebyshev_spec(0.2, flow=False), ["approach.check_times=[8, 8, 8]"]))
    drive(whole, 330)
    record, _, _ = drive(cut, 330, limit=limit)
    assert whole.edge_step == cut.edge_step == 318
    np.testing.assert_array_equal(whole.state.theta, cut.state.theta)
    np.testing.assert_array_equal(record[:, 0], np.arange(330))


def test_the_first_row_waits_for_one_solver_to_be_compiled(monkeypatch):
    """It is compiled for the rows of a look; for the eigenvectors alone it would be another."""
    experiment, given = Experiment(chebyshev_spec(0.2, flow=False)), set()

    def solve_at(problem, theta, start, *args, **options):
        given.add(start.shape)
        return solved(problem, theta, start, *args, **options)

    solved = eigensolver.solve_at
    for module in (eigensolver, guards):
        monkeypatch.setattr(module, "solve_at", solve_at)
    progress = experiment.advance(1)
    assert len(progress.rows) == 1
    assert len(given) == 1


def test_a_first_check_finds_all_compiled_beside_one_another():
    experiment = Experiment(chebyshev_spec(0.2, flow=False))
    assert not forms_hessian(experiment.state.theta)
    approach.compile_check(experiment.setup, experiment.state)
    approach.check(experiment.setup, experiment.state)  # what is compiled once in a process, by whichever comes first
    experiment = Experiment(specs.with_overrides(chebyshev_spec(0.2, flow=False), ["problem.model.widths=[9, 8]"]))
    approach.compile_check(experiment.setup, experiment.state)
    with compilations() as compiled:
        approach.check(experiment.setup, experiment.state)
    assert compiled == [], compiled


def test_a_check_says_that_its_solver_is_to_be_compiled_first():
    spec = specs.with_overrides(chebyshev_spec(0.2, flow=False), ["approach.check_times=[0.2, 0.2, 0.2]"])  # at every step
    experiment, said = Experiment(spec), []
    for _ in range(4):
        said.append(experiment.doing)
        experiment.advance(1)
    assert said == [COMPILING, COMPILING, MEASURING, MEASURING]  # one looks around, those after it do not


def test_the_midpoint_of_the_edge_step_is_the_first_beyond_the_threshold():
    experiment = Experiment(chebyshev_spec(0.2, flow=False))
    record, _, _ = drive(experiment, 319)
    sharpness = record[:, experiment.setup.column_index["gd.midpoint_sharpness"]]
    checked = sharpness[np.isfinite(sharpness)]
    assert (checked < 10).all()
    assert checked[-1] > 9.8


def test_the_edge_finds_all_compiled_beside_the_approach():
    """Of steps that look around, of one beside what θ† saw, and of others; of gauges and the landscape, too."""
    experiment = Experiment(chebyshev_spec(0.35, max_eigenvalues=2, on_second_eigenvalue="keep"))
    experiment.advance(1)
    assert edge.precompile(experiment.setup, experiment.state, lambda: False) == "edge"
    while experiment.phase != "edge":
        experiment.advance(500)
    with compilations() as compiled:
        drive(experiment, experiment.edge_step + 9)
    assert compiled == [], compiled


def test_an_overshoot_goes_back_and_tests_every_step():
    spec = specs.with_overrides(chebyshev_spec(0.2, flow=False), ["approach.check_times=[8, 8, 8]"])
    experiment = Experiment(spec)
    record, _, _ = drive(experiment, 320)
    assert experiment.edge_step == 318
    np.testing.assert_array_equal(record[:, 0], np.arange(320))


def test_a_run_that_never_gets_there_says_how_far_it_came():
    spec = specs.with_overrides(chebyshev_spec(0.02), ["budget.steps=60"])
    experiment = Experiment(spec)
    record, _, _ = drive(experiment, 60)
    assert experiment.budget_left() == 0
    outcome = experiment.budget_outcome()
    assert outcome.kind == "edge_never_reached"
    assert "edge never reached in 60 steps" in outcome.text
    assert len(record) == 60


def test_a_diverging_run_keeps_every_row_up_to_there():
    experiment = Experiment(toy_spec(0.01, x0=300.0, flow=False))
    record, _, outcome = drive(experiment, 500)
    assert outcome.kind == "diverged"
    assert outcome.step == len(record) > 1
    assert np.isfinite(record[:, experiment.setup.column_index["gd.loss"]]).all()


def test_changing_the_learning_rate_moves_the_threshold_and_restarts_there():
    experiment = Experiment(chebyshev_spec(0.2, flow=False))
    drive(experiment, 325)
    events = experiment.set_learning_rate(messages.SetLearningRate(learning_rate=0.15, id="ab"))
    assert experiment.phase == "approach"
    assert events[0].answers == "ab"
    assert events[0].step == 325
    progress = [experiment.advance(10_000)]
    while experiment.phase == "approach":
        progress.append(experiment.advance(10_000))
    assert experiment.phase == "edge"
    first = next(row for each in progress for row in each.rows)
    assert first[experiment.setup.column_index["learning_rate"]] == 0.15
    [reached] = [event for each in progress for event in each.events if isinstance(event, messages.EdgeReached)]
    assert abs(reached.sharpness - 2 / 0.15) < 1e-3


def test_an_anchor_sets_every_prediction_to_the_true_displacement():
    experiment = Experiment(chebyshev_spec(0.2, flow=False))
    drive(experiment, 330)
    index = experiment.setup.column_index
    before = drive(experiment, 331)[0][0]
    assert before[index["transported.x"]] != before[index["gd.x"]]
    events = experiment.anchor(messages.Anchor(every=5))
    assert events[0].step == 331
    record, more, _ = drive(experiment, 343)
    for form in ("generalized", "transported", "code"):
        assert record[0, index[f"{form}.x"]] == record[0, index["gd.x"]]
        np.testing.assert_array_equal(record[:, index[f"{form}.since_anchor"]], [0, 1, 2, 3, 4] * 2 + [0, 1])
    assert [event.step for event in more if isinstance(event, messages.Anchored)] == [336, 341]


def test_a_snapshot_goes_on_as_if_never_interrupted():
    first = Experiment(chebyshev_spec(0.2))
    drive(first, 325)
    leaves = first.leaves()
    second = Experiment(chebyshev_spec(0.2))
    second.restore({name: np.array(leaf) for name, leaf in leaves.items()})
    a, b = drive(first, 345)[0], drive(second, 345)[0]
    np.testing.assert_array_equal(a, b)


def test_a_snapshot_of_another_problem_is_refused():
    leaves = Experiment(toy_spec()).leaves()
    with pytest.raises(ValueError, match="3 numbers, the problem 97"):
        Experiment(chebyshev_spec()).restore(leaves)


def test_tracking_ends_or_goes_on_when_the_second_eigenvalue_rises():
    low = {"flow": False, "second_eigenvalue_limit": 1.0}
    stopped = drive(Experiment(chebyshev_spec(0.2, on_second_eigenvalue="stop", **low)), 400)
    assert stopped[2].kind == "second_eigenvalue"
    alone = Experiment(chebyshev_spec(0.2, on_second_eigenvalue="gradient_descent", **low))
    record, events, outcome = drive(alone, 400)
    assert outcome is None
    assert alone.phase == "gradient descent"
    assert len(record) == 400
    assert any(isinstance(event, messages.TrackingEnded) for event in events)
    assert np.isfinite(record[-1, alone.setup.column_index["gd.sharpness"]])
    kept = Experiment(chebyshev_spec(0.2, on_second_eigenvalue="keep", **low))
    _, events, outcome = drive(kept, 400)
    assert kept.phase == "edge"
    assert [e.assumption for e in events if isinstance(e, messages.AssumptionFailed)] == [2]


def spoilt(state, factor):
    """The state with the code form of the predictions multiplied by `factor`."""
    track = state.coupled.predicted
    moved = track._replace(displacements=track.displacements | {"code": track.displacements["code"] * factor})
    return state._replace(coupled=state.coupled._replace(predicted=moved))


def test_a_lost_prediction_becomes_nan_and_says_so_once():
    experiment = Experiment(chebyshev_spec(0.2, flow=False))
    drive(experiment, 330)
    index, state = experiment.setup.column_index, experiment.state
    experiment.state = spoilt(state, np.inf)
    record, events, outcome = drive(experiment, 335)
    assert outcome is None
    assert np.isnan(record[:, index["code.x"]]).all()
    assert np.isfinite(record[:, index["generalized.x"]]).all()
    assert [event.form for event in events if isinstance(event, messages.PredictionLost)] == ["code"]


def test_a_lost_prediction_is_anchored_again_when_asked():
    experiment = Experiment(chebyshev_spec(0.2, flow=False, anchor_lost=True))
    drive(experiment, 330)
    index, state = experiment.setup.column_index, experiment.state
    experiment.state = spoilt(state, np.nan)
    record, events, _ = drive(experiment, 335)
    assert [(event.step, event.forms) for event in events if isinstance(event, messages.Anchored)] == [(331, ("code",))]
    assert record[1, index["code.x"]] == record[1, index["gd.x"]]
    assert record[1, index["transported.since_anchor"]] == 331 - experiment.edge_step


def test_a_phase_portrait_keeps_lemma_3_and_its_map_gains_energy():
    spec = specs.from_tree(
        {"name": "p", "problem": {"kind": "phase", "starts": [0.3, 0.9]}, "optimizer": {"learning_rate": 0.01},
         "budget": {"steps": 1000}}, "test")
    experiment = Experiment(spec)
    record, _, _ = drive(experiment, 1000)
    from engine.record.columns import columns_for

    index = {column.name: k for k, column in enumerate(columns_for(spec))}
    assert record.shape == (1000, len(index))
    assert np.ptp(record[:, index["ode1.energy"]]) < 1e-8
    growth = record[-1, index["map2.energy"]] / record[0, index["map2.energy"]]
    eps = theory.epsilon(0.01, 1.0)
    assert growth == pytest.approx((1 + 2 * eps**2) ** 999, rel=0.05)


def test_gradients_may_be_in_a_narrower_format_than_products():
    """What is predicted stays in that of θ: a call of many steps gives back the formats that it was given."""
    spec = specs.with_overrides(toy_spec(), [f'precision.{part}="float32"' for part in ("approach", "edge")])
    experiment = Experiment(spec)
    record, _, outcome = drive(experiment, 40)
    assert outcome is None
    assert {v.dtype.name for v in experiment.state.coupled.predicted.displacements.values()} == {"float32"}
    assert np.isfinite(record[:, experiment.setup.column_index["transported.x"]]).all()


def test_a_portrait_does_not_depend_on_how_it_is_cut():
    spec = specs.from_tree(
        {"name": "p", "problem": {"kind": "phase"}, "optimizer": {"learning_rate": 0.01}}, "test")
    whole, cut = Experiment(spec), Experiment(spec)
    a, _, _ = drive(whole, 300)
    b, _, _ = drive(cut, 300, limit=17)
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)  # Y passes through 0


def test_rows_fill_every_column_they_should():
    record = rows(Experiment(toy_spec(0.01)), 30)
    empty = [name for name, values in record.items() if np.isnan(values).all()]
    unseen = [f"gd.lambda{k}" for k in range(3, 9)]  # λ2 of the toy is far below 1.5/η
    horizons = [f"{form}.horizon" for form in ("generalized", "transported", "code")]
    others = [name for name in empty if not OF_MORE_DIRECTIONS.fullmatch(name)]
    assert others == ["gd.midpoint_sharpness", *unseen, *horizons, "cost.seconds"]


OF_MORE_DIRECTIONS = re.compile(r"constrained\.lambda\d+|gd\.x[2-9]|covariance\.(lambda|x\dx)[2-9]|covariance\.measured_.*|average\..*")
"""Columns of a second direction at the edge, and of means that 30 steps are too few for."""
