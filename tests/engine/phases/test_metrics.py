"""Quantities of the user's own: what they are given, when they are read, and what becomes of a run where one fails."""

import json

import numpy as np
import own_metrics
import pytest

import engine
from engine import spec as specs
from engine.base.errors import UserError
from engine.phases.experiment import Experiment
from engine.phases.metrics import Metrics, reads_eigenpair
from engine.problems.build import build
from engine.record import trust
from engine.record.columns import columns_for
from engine.record.messages import MetricFailed
from engine.report.comparison import outcomes, rows_of

from small import chebyshev_spec, dense_hessian, digits_spec, toy_spec

pytestmark = pytest.mark.usefixtures("x64")

ALL = 'metrics=["own_metrics:norm", "own_metrics:gradient_norm", "own_metrics:sharpness", "own_metrics:rayleigh", "own_metrics:step"]'


def table(experiment, until, limit=10_000):
    """The columns up to a step, and the events."""
    record, events = [], []
    while experiment.clock.step < until:
        progress = experiment.advance(min(limit, until - experiment.clock.step))
        record += progress.rows
        events += progress.events
    return dict(zip([column.name for column in experiment.columns], np.array(record).T, strict=True)), events


def with_metrics(spec, *overrides):
    return specs.with_overrides(spec, [ALL, *overrides])


def compare_with_a_run_without(spec, until):
    """The columns of a run with metrics at every third step, which are those of the same run without, but for what it costs."""
    bare, _ = table(Experiment(spec), until)
    record, _ = table(Experiment(with_metrics(spec, "metrics.every=3")), until)
    for name, column in bare.items():
        if not name.startswith("cost."):
            np.testing.assert_array_equal(record[name], column, err_msg=name)
    due = np.arange(until) % 3 == 0
    np.testing.assert_array_equal(np.isfinite(record["metric.step"]), due)
    np.testing.assert_array_equal(record["metric.step"][due], np.arange(until)[due])
    np.testing.assert_allclose(record["metric.gradient_norm"][due], record["gd.gradient_norm"][due], rtol=1e-12)
    np.testing.assert_allclose(record["metric.rayleigh"][due], record["metric.sharpness"][due], rtol=1e-9)
    at_edge = due & np.isfinite(record["gd.sharpness"])
    np.testing.assert_allclose(record["metric.sharpness"][at_edge], record["gd.sharpness"][at_edge], rtol=1e-3)
    return record


def test_metrics_are_given_what_there_is_at_the_step_and_change_nothing_of_a_run():
    compare_with_a_run_without(chebyshev_spec(0.2), 25)
    assert np.isfinite(compare_with_a_run_without(toy_spec(), 25)["gd.x"]).all()


@pytest.mark.slow
def test_metrics_are_read_over_the_approach_the_edge_and_beyond():
    record = compare_with_a_run_without(specs.with_overrides(chebyshev_spec(0.2), ["tracking.on_second_eigenvalue=gradient_descent"]), 420)
    assert np.isfinite(record["gd.x"]).any()


def test_the_sharpness_that_a_metric_is_given_is_that_of_the_dense_hessian():
    experiment = Experiment(with_metrics(digits_spec(), "metrics.every=5"))
    problem, _, _ = build(experiment.spec)
    for step in (0, 5, 10):
        theta = experiment.state.theta
        record, _ = table(experiment, step + 5)
        assert record["metric.sharpness"][0] == pytest.approx(float(np.linalg.eigvalsh(dense_hessian(problem, theta))[-1]), rel=1e-4)
        assert record["metric.norm"][0] == pytest.approx(float(np.linalg.norm(theta)), rel=1e-12)


@pytest.mark.parametrize("limit", [1, 4])
def test_values_do_not_depend_on_how_many_steps_are_taken_at_once(limit):
    whole, cut = (Experiment(with_metrics(digits_spec("tracking.sharpness_every=3"), "metrics.every=2")) for _ in range(2))
    expected, given = table(whole, 14)[0], table(cut, 14, limit)[0]
    for name in expected:
        if name.startswith("metric."):
            np.testing.assert_array_equal(given[name], expected[name])


def test_a_run_goes_on_from_a_checkpoint_with_the_same_values():
    first, second = (Experiment(with_metrics(toy_spec(), "metrics.every=2")) for _ in range(2))
    table(first, 11)
    second.restore(first.leaves())
    expected, given = table(first, 30)[0], table(second, 30)[0]
    for name in expected:
        if name.startswith("metric."):
            np.testing.assert_array_equal(given[name], expected[name])


def test_a_metric_that_fails_has_no_more_values_and_an_event_says_why():
    functions = 'metrics=["own_metrics:until_three", "own_metrics:vector", "own_metrics:by_numpy"]'
    record, events = table(Experiment(specs.with_overrides(toy_spec(), [functions])), 6)
    np.testing.assert_array_equal(np.isfinite(record["metric.until_three"]), np.arange(6) < 3)
    assert np.isnan(record["metric.vector"]).all()
    assert np.isfinite(record["metric.by_numpy"]).all()
    assert np.isfinite(record["gd.loss"]).all()
    failed = {event.metric: event for event in events if isinstance(event, MetricFailed)}
    assert {name: event.step for name, event in failed.items()} == {"until_three": 3, "vector": 0}
    assert "RuntimeError: no more" in failed["until_three"].text
    assert "own_metrics.py, line" in failed["until_three"].text
    assert "gives an array of shape (3,)" in failed["vector"].text


def test_eigenpairs_are_solved_for_only_where_a_metric_reads_them():
    problem, theta, _ = build(toy_spec())
    names = ("norm", "loss", "sharpness", "rayleigh", "step")
    assert [name for name in names if reads_eigenpair(getattr(own_metrics, name), problem, theta)] == ["sharpness", "rayleigh"]
    none = Metrics({"norm": own_metrics.norm}, 1, 0, "float64").read(problem, 0, 0.1, theta, np.eye(2, 3))
    assert "cost.hvps" not in none


def test_the_words_of_a_column_are_the_first_line_of_the_docstring_and_nothing_is_executed(tmp_path, own_home):
    code = 'raise SystemExit\ndef f(context):\n    """The loudest parameter.\n\n    More."""\ndef g(context): ...\n'
    (tmp_path / "loud.py").write_text(code)
    spec = specs.with_overrides(toy_spec(), ['metrics=["loud:f", "loud:g"]', f"metrics.folder={json.dumps(str(tmp_path))}"])
    from engine.record import store

    words = {column.name: column.words for column in store.create(spec).columns if column.name.startswith("metric.")}
    assert words == {"metric.f": "The loudest parameter", "metric.g": "loud:g, a quantity of your own"}


def test_metrics_are_named_in_a_list_or_by_name_and_the_rest_of_their_section_stays():
    spec = specs.with_overrides(toy_spec(), ["metrics.every=5", 'metrics=["a:f", "b.c:g"]', 'metrics.functions.h="d:e"'])
    assert spec.metrics.functions == {"f": "a:f", "g": "b.c:g", "h": "d:e"}
    assert spec.metrics.every == 5
    assert [column.name for column in columns_for(spec) if column.name.startswith("metric.")] == ["metric.f", "metric.g", "metric.h"]
    assert specs.load_spec_text(specs.to_toml(spec), "again") == spec
    assert set(trust.code_of(spec)) == {"metrics.functions"}


@pytest.mark.parametrize(("override", "why"), [
    ('metrics=["a:f", "b:f"]', "both be the column metric.f"),
    ('metrics=["af"]', 'af = .af.; expected "module:name"'),
    ("metrics=3", 'expected "module:name"'),
    ('metrics={functions={"no name"="a:f"}}', 'no name = .a:f.; expected "module:name"'),
    ("metrics.every=0", r"\[metrics\] every = 0"),
])  # fmt: skip
def test_what_is_no_metric_is_refused_by_name(override, why):
    with pytest.raises(UserError, match=why):
        specs.with_overrides(toy_spec(), [override])


def test_a_module_that_is_not_there_ends_a_run_before_it_begins(own_home):
    with pytest.raises(UserError, match="no module nowhere_to_be_seen"):
        engine.run(toy_spec(), metrics={}, overrides=['metrics=["nowhere_to_be_seen:f"]'], trust=True)


def test_a_script_gives_its_own_functions_and_the_record_has_their_columns(own_home):
    def second(context):
        """The second parameter."""
        return context.theta[1]

    record = engine.run(toy_spec(), steps=8, metrics={"second": second, "size": own_metrics.norm, "bound": own_metrics.Module().norm})
    assert list(record)[-7:-4] == ["metric.second", "metric.size", "metric.bound"]
    np.testing.assert_array_equal(record["metric.size"], record["metric.bound"])
    assert record.spec.metrics.functions["size"] == "own_metrics:norm"
    assert {column.name: column.words for column in record.run.columns}["metric.second"] == "The second parameter"
    ends = outcomes(record.run)
    assert ends.metrics["metric.second"] == record["metric.second"][-1]
    assert "metric.size" in rows_of([ends])[0]
    with pytest.raises(UserError, match="two of the name norm"):
        engine.run(toy_spec(), metrics=[own_metrics.norm, own_metrics.norm])
