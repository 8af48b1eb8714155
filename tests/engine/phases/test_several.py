"""Directions that join the edge and leave it, from step to step of a run."""

import numpy as np
import pytest
from msgspec.structs import replace

from engine import spec as specs
from engine.phases import several
from engine.phases.experiment import Experiment
from engine.record import messages
from engine.xla.leaves import unpack

from small import compilations

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.05
SPARE = 70
"""Flat directions more: the Hessian is too large to be formed. One problem for most of these tests, compiled once."""


def own(function, spare, arguments=None, **tracking):
    tracking = {
        "gauges_every": 0, "landscape_every": 0, "predictions": ["transported", "generalized"], "flow": False, "eigen_tolerance": 1e-9,
        "sharpness_tolerance": 1e-9, "gradient_tolerance": 1e-9, "eigenvalues": 4, "max_eigenvalues": 4,
    } | tracking
    return Experiment(specs.from_tree(
        {
            "name": "own", "problem": {
                "kind": "own", "function": f"own_problems:{function}", "self_test": False,
                "arguments": {"spare": spare} | (arguments or {}),
            },
            "optimizer": {"learning_rate": ETA}, "tracking": tracking,
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
        },
        "test",
    ))


def drive(experiment, steps, limit=10_000):
    """The table of so many steps, and the events."""
    rows, events = [], []
    while experiment.clock.step < steps:
        progress = experiment.advance(min(limit, steps - experiment.clock.step))
        rows += [*progress.rows]
        events += progress.events
        assert progress.outcome is None, progress.outcome
    experiment.settle()
    return dict(zip(experiment.setup.column_index, np.array(rows).T, strict=True)), events


def test_a_direction_that_joins_compiles_nothing():
    experiment = own("comes_and_goes", SPARE)
    drive(experiment, 5)
    experiment.settle()
    with compilations() as compiled:
        _, events = drive(experiment, 40)
    assert any(isinstance(event, messages.DirectionJoined) for event in events)
    assert compiled == []


@pytest.mark.parametrize("spare", [pytest.param(0, marks=pytest.mark.slow), SPARE])  # the Hessian formed, and not
def test_a_direction_joins_above_the_limit_and_leaves_below_it(spare):
    table, events = drive(own("comes_and_goes", spare), 70)
    number, second = table["constrained.directions"], table["constrained.lambda2"] * ETA
    edge = np.isfinite(number)
    assert (number[edge & (second >= 1.9)] == 2).all()
    assert (number[edge & (second < 1.85)] == 1).all()
    joined = [event for event in events if isinstance(event, messages.DirectionJoined)]
    left = [event for event in events if isinstance(event, messages.DirectionLeft)]
    assert [event.count for event in joined] == [2] * len(joined)
    assert len(joined) >= 2
    assert len(left) == len(joined) - (number[-1] == 2)
    assert "2 directions are at the edge" in joined[0].text
    assert "one direction is at the edge" in left[0].text
    two = number == 2
    assert (table["constrained.gradient_share"][two] < 1e-9).all()  # ∇L is 0 along both
    assert (table["constrained.active"][edge] <= 1).all()  # λ2 never reaches 2/η: its constraint is slack
    assert np.isfinite(table["gd.x2"][two]).all()
    assert np.isnan(table["gd.x2"][number == 1]).all()
    np.testing.assert_allclose(table["gd.x_norm"][two], np.hypot(table["gd.x1"], table["gd.x2"])[two], rtol=1e-12)
    # Gradient descent is on the toy exactly, and so are the predictions, whatever joins and leaves beside it.
    assert (table["transported.error"][edge][5:] < 1e-6).all()
    assert not any(isinstance(event, messages.TrackingEnded) for event in events)


def test_what_is_read_does_not_hang_on_how_many_steps_are_taken_at_once():
    whole, _ = drive(own("comes_and_goes", SPARE), 60)
    parts, _ = drive(own("comes_and_goes", SPARE), 60, limit=7)
    for name, column in whole.items():
        np.testing.assert_array_equal(column, parts[name], err_msg=name)


@pytest.mark.parametrize("spare", [pytest.param(0, marks=pytest.mark.slow), SPARE])
def test_equal_eigenvalues_are_followed_along_the_space_of_both(spare):
    table, events = drive(own("twins", spare), 60)
    edge = np.isfinite(table["constrained.loss"])
    assert (table["constrained.directions"][edge] == 2).all()
    assert (table["constrained.active"][edge][1:] == 2).all()
    np.testing.assert_allclose(table["constrained.sharpness"][edge], 2 / ETA, rtol=1e-8)
    np.testing.assert_allclose(table["constrained.lambda2"][edge], 2 / ETA, rtol=1e-8)
    np.testing.assert_allclose(table["covariance.lambda1"][edge], 4, rtol=5e-5)  # 2α/β, two toys beside each other
    np.testing.assert_allclose(table["covariance.lambda2"][edge], 2, rtol=5e-5)
    assert (table["transported.error"][edge][5:] < 1e-5).all()
    assert not any(isinstance(event, messages.EigenvectorsSwapped) for event in events)


def test_a_snapshot_with_two_directions_goes_on_as_if_never_interrupted():
    experiment = own("comes_and_goes", SPARE)
    drive(experiment, 12)
    assert int(experiment.state.coupled.constrained.directions.number) == 2
    snapshot = experiment.leaves()
    on, _ = drive(experiment, 30)
    again = own("comes_and_goes", SPARE)
    again.restore(snapshot)
    restored, _ = drive(again, 30)
    for name, column in on.items():
        np.testing.assert_array_equal(column, restored[name], err_msg=name)


def test_a_checkpoint_from_before_there_were_directions_has_one():
    experiment = own("comes_and_goes", SPARE)
    drive(experiment, 5)
    snapshot = {path: leaf for path, leaf in experiment.leaves().items() if ".directions." not in path and ".covariance" not in path}
    snapshot["state.coupled.constrained.active"] = snapshot["state.coupled.constrained.active"] > 0
    state = unpack(type(experiment.state), snapshot, "state.", experiment.phases["edge"].kinds(experiment.state.theta))
    assert int(state.coupled.constrained.directions.number) == 0
    assert state.coupled.constrained.active.dtype == int


@pytest.mark.parametrize(("rule", "kind"), [("stop", "second_eigenvalue"), ("gradient_descent", None)])
def test_the_rules_of_the_paper_end_the_trajectory_at_the_second_eigenvalue(rule, kind):
    experiment = own("comes_and_goes", SPARE, on_second_eigenvalue=rule)
    progress, events = experiment.advance(1), []
    while experiment.clock.step < 60 and progress.outcome is None:
        events += progress.events
        progress = experiment.advance(60)
    assert (progress.outcome and progress.outcome.kind) == kind
    assert "constrained.directions" not in experiment.setup.column_index
    if kind is None:
        assert experiment.phase == "gradient descent"
        assert any(isinstance(event, messages.TrackingEnded) for event in events + progress.events)


def test_more_directions_than_may_be_followed_are_named():
    """Of the two that are followed, with a limit that the flat ones are above."""
    experiment = own("comes_and_goes", SPARE)
    drive(experiment, 12)
    setup, state = experiment.setup, experiment.state
    assert several.exhausted(setup, state) == ""
    low = replace(setup.tracking, second_eigenvalue_limit=0.01)
    words = several.exhausted(setup._replace(spec=replace(setup.spec, tracking=low)), state)
    assert words.startswith("λ3 = 0.05/η at step 12, not below 0.01/η: more directions are at the edge than the 2 that θ† is followed")


@pytest.mark.slow
def test_more_directions_than_may_be_followed_end_the_trajectory_and_say_so():
    experiment, events = own("comes_and_goes", 0, {"valleys": 2}, eigenvalues=2, max_eigenvalues=2), []
    for _ in range(5):
        events += experiment.advance(5).events
    assert experiment.phase == "gradient descent"
    ended = next(event for event in events if isinstance(event, messages.TrackingEnded))
    assert "more directions are at the edge than the 2 that θ† is followed along" in ended.text


@pytest.mark.parametrize("spare", [pytest.param(0, marks=pytest.mark.slow), SPARE])
def test_an_oscillation_is_begun_where_none_had_and_only_there(spare):
    """Of two valleys one swings at 0.2, over a tenth of σ = √2, and one at 1e-3: it is moved to σ = 2, and the other is left alone."""
    experiment = own("twins", spare, {"start": 1e-3}, seed_oscillation=True)
    table, events = drive(experiment, 12)
    seeded = [event for event in events if isinstance(event, messages.OscillationSeeded)]
    assert len(seeded) == 1
    row = seeded[0].step
    assert table["gd.x_norm"][row] == pytest.approx(np.hypot(2, 0.2), rel=1e-3)
    assert "σ = 2," in seeded[0].text
    calm, _ = drive(own("twins", spare, {"start": 1e-3}), 12)
    assert calm["gd.x_norm"].max() < 0.3
    for name in ("transported", "generalized"):  # the predictions were moved with it
        assert (table[f"{name}.error"][row + 1 :] < 1e-4).all()
