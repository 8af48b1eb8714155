"""Problems and functions that a script hands over as they are."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import own_metrics
import pytest

import engine
from engine import spec as specs
from engine.base.errors import UserError
from engine.jobs.fork import fork
from engine.problems import handed_over, imported
from engine.record.store import resolve

import own_problems

FORMATS = ["precision.approach=float64"]


def own_spec():
    return specs.from_tree({"name": "own", "problem": "own_problems:valley", "optimizer": {"learning_rate": 0.05}}, "test")


pytestmark = pytest.mark.usefixtures("x64")


def test_what_was_just_built_runs_and_its_record_says_where_it_can_go_on(own_home):
    made = own_problems.valley()
    record = engine.run(made, learning_rate=0.05, steps=20)
    assert record.outcome.kind == "completed"
    from_elsewhere = engine.run(made.problem, jnp.asarray([0.2, 0, 0]), learning_rate=np.float64(0.05), steps=20)
    assert record["gd.loss"][0] == pytest.approx(40 * 0.3**2 / 2)
    assert from_elsewhere["gd.loss"][0] == pytest.approx(40 * 0.2**2 / 2)
    assert "alone can build it" in record.spec.shows
    rows = list(engine.stream(made, learning_rate=0.05, steps=20))
    assert [row["gd.loss"] for row in rows] == record["gd.loss"].tolist()


def test_it_is_the_same_run_as_that_of_the_function_in_a_file(own_home):
    by_name = engine.run(own_spec(), overrides=FORMATS, steps=20, trust=True)
    handed = engine.run(own_problems.valley(), learning_rate=0.05, overrides=FORMATS, steps=20)
    np.testing.assert_array_equal(handed["gd.loss"], by_name["gd.loss"])


def test_a_run_of_this_process_forks_here_and_elsewhere_its_name_says_why_not(own_home):
    record = engine.run(own_problems.valley(), learning_rate=0.05, steps=20)
    made = fork(record.run, 20, ["budget.steps=30"])
    assert made.spec.problem == record.spec.problem
    function = record.spec.problem.function
    script = f"from engine.problems import imported; imported.function_of({function!r}, '', 'problem')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "was handed over in Python" in ended.stderr
    assert resolve(record.name).spec.problem.function == function


@pytest.mark.parametrize(("arguments", "why"), [
    (lambda: (own_problems.valley,), "expected a preset's name"),
    (lambda: (own_problems.valley().problem,), "no θ to start from"),
    (lambda: (own_problems.valley(),), "no learning rate"),
    (lambda: ("toy", np.zeros(3)), "theta: what to start from"),
])  # fmt: skip
def test_what_is_missing_is_said(arguments, why, own_home):
    with pytest.raises(UserError, match=why):
        engine.run(*arguments())


def test_what_is_of_this_process_does_not_run_apart(own_home):
    with pytest.raises(UserError, match="handed over to this process alone"):
        engine.run(own_problems.valley(), learning_rate=0.1, apart=True)


def test_a_function_that_a_file_holds_is_named_by_it_and_any_other_handed_over():
    assert handed_over.named(own_metrics.norm).function == "own_metrics:norm"
    assert imported.function_of(*handed_over.named(own_metrics.norm), "metrics") is own_metrics.norm
    inner = handed_over.named(lambda context: 1.0)
    assert handed_over.is_handed_over(inner.function)
    assert imported.function_of(*inner, "metrics")(None) == 1.0


def test_problems_are_printed_on_a_line():
    made = own_problems.line()
    assert repr(made.problem) == "<Problem Sequential on data (6, 1), (6, 1)>"
    assert repr(made) == "<Made <Problem Sequential on data (6, 1), (6, 1)>, from θ of 4 numbers>"
