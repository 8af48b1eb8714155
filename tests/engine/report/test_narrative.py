"""The sentence on what is happening: true to the row it is made from, and short enough for the header."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.record.columns import columns_for
from engine.record.reader import Outcome, State
from engine.report.narrative import LENGTH, STAGE_WORDS, sentence, shortened
from engine.spec import load_spec

ETA = 0.02
COLUMNS = [column.name for column in columns_for(load_spec("fashion"))]
AT_EDGE = {
    "learning_rate": ETA, "threshold": 2 / ETA,
    "stage": 3.0, "gd.sharpness": 101.0, "gd.lambda2": 45.0, "constrained.alpha": 25.0, "constrained.lambda2": 45.0,
    "constrained.epsilon": 0.1, "generalized.x": 0.3, "generalized.since_anchor": 60.0, "generalized.correlation": 0.99,
}  # fmt: skip


def said(phase: str = "edge", **changed: float) -> str:
    row = dict.fromkeys(COLUMNS, math.nan) | AT_EDGE | {name.replace("__", "."): value for name, value in changed.items()}
    return sentence(State(status="running", phase=phase, step=700, learning_rate=ETA), row)


def test_the_approach_tells_how_far_the_sharpness_is():
    assert said("approach", gd__midpoint_sharpness=63.0).startswith("Stable: the sharpness is at 63% of 2/η")
    assert "not measured yet" in said("approach")
    assert "the edge is here" in said("approach", gd__midpoint_sharpness=100.5)


@pytest.mark.parametrize("stage", STAGE_WORDS)
def test_each_stage_has_its_words(stage):
    assert said(stage=stage).startswith(STAGE_WORDS[stage])


def test_it_says_that_the_prediction_holds():
    assert said().endswith("as predicted (ε = 0.1, correlation 0.99)")
    assert said(generalized__since_anchor=3.0).endswith("the theory applies (ε = 0.1)")


def test_it_says_which_condition_fails_the_gravest_first():
    assert "α ≤ 0" in said(constrained__alpha=-1.0, constrained__lambda2=96.0)
    assert "λ2 is at 96% of 2/η" in said(constrained__lambda2=96.0, constrained__epsilon=0.3)
    assert "ε = 0.19 is large" in said(constrained__epsilon=0.19, generalized__x=math.nan)
    assert "the prediction is lost" in said(generalized__x=math.nan)
    assert "drifted off (correlation 0.35)" in said(generalized__correlation=0.35)


SEVERAL = {
    "constrained__directions": 2.0, "constrained__active": 2.0, "constrained__lambda2": 99.0, "covariance__trace": 0.5, "gd__x_norm": 0.7,
}  # fmt: skip


def test_with_several_directions_it_says_how_many_and_why_the_sharpness_hovers():
    turning = "2 directions at the edge: λ1 hovers above 2/η because x turns; as predicted (ε = 0.1, correlation 0.99)"
    assert said(**SEVERAL) == turning
    assert said(**SEVERAL | {"constrained__directions": 3.0}).startswith("3 directions at the edge, 2 swing: λ1 hovers above 2/η because")
    assert said(**SEVERAL | {"constrained__active": 1.0}).startswith("2 directions at the edge, one swings: with one x does not turn;")
    assert said(**SEVERAL | {"constrained__active": 0.0}).startswith("2 directions at the edge, and S ≤ 2/η holds θ† back in none;")
    small = {"gd__x_norm": 0.07, "generalized__correlation": 0.2}
    assert said(**SEVERAL | small).endswith("|x| is at 10% of √tr X†: too small to predict yet")


def test_a_second_direction_that_is_followed_ends_no_theory():
    assert said(constrained__directions=1.0, constrained__lambda2=93.0).endswith("λ2 is at 93% of 2/η, soon a second direction")
    assert said(constrained__directions=1.0).startswith(STAGE_WORDS[3])
    assert "too close for the theory" not in said(**SEVERAL)


def test_without_a_constrained_trajectory_the_eigenvalues_are_said():
    assert said("gradient descent", gd__lambda2=98.0).endswith("the sharpness is at 101% of 2/η, λ2 at 98%")


def test_on_batches_it_tells_the_batch_sharpness_first_and_both_against_two_over_eta():
    on_batches = {"batch__sharpness": 98.0, "gd__sharpness": 61.0, "threshold": 190.0}  # whose edge is that of momentum
    assert said("training", **on_batches) == "Training on batches: the batch sharpness is at 98% of 2/η, that of the full loss at 61%"
    assert said("training", batch__sharpness=math.nan) == "Training on batches; the batch sharpness is not measured yet"


def test_a_training_tells_its_sharpness_and_what_it_gets_right():
    assert said("training", test__accuracy=0.713) == "Training: the sharpness is at 101% of 2/η; 71.3% of the test examples are right"
    assert said("training") == "Training: the sharpness is at 101% of 2/η"
    assert "not measured yet" in said("training", gd__sharpness=math.nan)


def test_an_ended_run_tells_its_outcome():
    outcome = Outcome(kind="diverged", step=12, text="diverged at step 12: try a smaller learning rate")
    assert sentence(State(status="finished", phase="edge", outcome=outcome), {}) == "Diverged at step 12: try a smaller learning rate"


def test_a_long_text_is_cut_at_a_word():
    assert shortened("one two three", 9) == "one two…"
    assert shortened("one two", 7) == "one two"


@example("approach", {"threshold": 1.0, "learning_rate": 0.0}, False)
@example("edge", {"constrained.lambda2": 0.0, "generalized.correlation": 1.0, "constrained.alpha": 1.0}, True)
@given(
    st.sampled_from(["starting", "approach", "edge", "gradient descent", "training", "phase portrait", "unheard of"]),
    st.dictionaries(
        st.sampled_from([
            *sorted(AT_EDGE), "gd.midpoint_sharpness", "test.accuracy", *(name.replace("__", ".") for name in sorted(SEVERAL)),
        ]), st.floats(width=16)),
    st.booleans(),
)
def test_whatever_the_row_the_sentence_is_one_short_line(phase, row, full):
    text = sentence(State(phase=phase, learning_rate=ETA), (dict.fromkeys(COLUMNS, math.nan) | row) if full else row)
    assert 0 < len(text) <= LENGTH
    assert "\n" not in text
    assert "nan" not in text
