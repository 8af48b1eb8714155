"""The means over the stretch past the edge, each against rows whose means are known, and the reason where there are none."""

import json

import numpy as np
import pytest

from engine.report.averages import BURSTS, Mean, active, as_json, averages, words

ETA, STEPS = 0.4, 300
EPSILON = BURSTS * 2 * np.pi / np.sqrt(2) / 250
"""At which 250 steps are two bursts."""


def table_of(steps: int = STEPS, **changed) -> dict[str, np.ndarray]:
    """Rows whose means are round numbers: X† of trace 0.06, L(θ†) = 1, ‖∇L(θ†)‖ = 0.1."""
    sign = (-1.0) ** np.arange(steps)
    columns = {
        "step": np.arange(steps), "learning_rate": ETA, "threshold": 2 / ETA, "gd.loss": 1.1 + 0.3 * sign,
        "gd.gradient_norm": 2 + sign, "gd.x_norm": 0.2 + 0.1 * sign, "constrained.loss": 1.0, "constrained.gradient_norm": 0.1,
        "constrained.epsilon": EPSILON, "covariance.trace": 0.06, "covariance.lambda1": 0.04, "covariance.lambda2": 0.02,
        "covariance.lambda3": 0.0,
    } | {name.replace("__", "."): values for name, values in changed.items()}
    return {name: np.broadcast_to(np.asarray(values, float), (steps,)) for name, values in columns.items() if values is not None}


def test_the_means_are_measured_predicted_and_those_of_theta_dagger_alone():
    means = averages(table_of())
    assert means.loss == pytest.approx(Mean(1.1, 1 + 0.06 / ETA, 1.0))
    assert means.gradient_squared == pytest.approx(Mean(5.0, 0.1**2 + 4 * 0.06 / ETA**2, 0.1**2))
    assert means.covariance_trace == pytest.approx(Mean(0.05, 0.06, 0.0))
    assert (means.steps, means.bursts, means.reason) == (STEPS, 2.4, None)


def test_a_stretch_of_fewer_than_two_bursts_has_no_means():
    assert averages(table_of(251)).loss is not None
    means = averages(table_of(125))
    assert (means.loss, means.gradient_squared, means.covariance_trace, means.steps, means.bursts) == (None, None, None, 125, 1.0)
    assert means.reason == "1 bursts of the 2 that a mean needs, in 125 steps with θ†"


def test_steps_without_an_epsilon_count_for_the_means_and_not_for_the_bursts():
    epsilon = np.where(np.arange(STEPS) < 251, EPSILON, np.nan)
    assert averages(table_of(constrained__epsilon=epsilon)).steps == STEPS
    assert averages(table_of(constrained__epsilon=np.where(np.arange(STEPS) < 100, EPSILON, np.nan))).loss is None


def test_rows_before_the_edge_count_for_nothing():
    before = np.where(np.arange(2 * STEPS) < STEPS, np.nan, 1.0)
    loss = np.where(np.arange(2 * STEPS) < STEPS, 50.0, 1.1)
    means = averages(table_of(2 * STEPS, constrained__loss=before, gd__loss=loss))
    assert means.loss == pytest.approx(Mean(1.1, 1.15, 1.0))
    assert means.steps == STEPS


@pytest.mark.parametrize(("changed", "reason"), [
    ({"constrained__loss": None}, "no θ† was followed"),
    ({"constrained__loss": np.nan}, "no θ† was followed"),
    ({"covariance__trace": None}, "the record has no covariance"),
    ({"gd__x_norm": None}, "the record has no covariance"),
])  # fmt: skip
def test_where_nothing_can_be_compared_the_reason_says_so(changed, reason):
    means = averages(table_of(**changed))
    assert means.loss is None
    assert means.reason.startswith(reason)


def test_numbers_beyond_all_bounds_are_not_said():
    with np.errstate(all="ignore"):
        assert averages(table_of(gd__gradient_norm=1e300)).loss is None


def test_the_rank_is_the_largest_of_the_stretch():
    third = np.where(np.arange(STEPS) == 7, 0.01, 0.06e-6)
    assert active(table_of()) == 2
    assert active(table_of(covariance__lambda3=third)) == 3
    assert active(table_of(covariance__trace=0.0, covariance__lambda1=0.0, covariance__lambda2=np.nan)) == 0
    assert active(table_of(covariance__trace=np.nan)) is None
    assert active(table_of(covariance__trace=None)) is None


def test_as_json_every_mean_has_its_three_numbers():
    plain = json.loads(json.dumps(as_json(averages(table_of()))))
    assert set(plain["loss"]) == set(plain["gradient_squared"]) == set(plain["covariance_trace"]) == {"measured", "predicted", "without"}
    assert plain["reason"] is None
    assert as_json(averages({}))["loss"] is None


def test_in_words_there_is_a_line_for_each_mean_or_one_with_the_reason():
    assert words(averages(table_of()))[0] == ("mean training loss", "1.1 measured, 1.15 predicted, 1 of θ† alone")
    assert words(averages({})) == [("means at the edge", "– (no θ† was followed at the learning rate in force)")]
