"""Snapshots of the parameters and projections of θ: what they hold, in every phase, whatever interrupts the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save

import engine
from engine import spec as specs
from engine.base.errors import UserError
from engine.commands.main import main
from engine.phases.experiment import Experiment
from engine.phases.snapshots import planned, project
from engine.problems.build import build
from engine.problems.parameters import parameters
from engine.problems.problem import Problem
from engine.record import messages, store
from engine.record.reader import Run
from engine.record.safe_read import NoTensorsError, read_tensors
from engine.record.snapshots import contents

from small import chebyshev_spec, dense_hessian, digits_spec, loss_at, toy_spec

pytestmark = pytest.mark.usefixtures("x64")

ALL = 'recording.snapshots=["theta", "eigenvectors", "constrained"]'
TRAINED = ["recording.snapshots_every=3", 'recording.snapshots=["theta", "eigenvectors"]', "recording.projections=4"]


def taken(experiment, until, limit=10_000):
    """The snapshots up to a step by their steps, and the columns."""
    snapshots, rows = {}, []
    while experiment.clock.step < until:
        progress = experiment.advance(min(limit, until - experiment.clock.step))
        rows += progress.rows
        snapshots |= {each.step: each for each in progress.snapshots}
    return snapshots, dict(zip([column.name for column in experiment.columns], np.array(rows).T, strict=True))


def flat(snapshot, prefix=""):
    """A part of a snapshot as one array (…, p)."""
    names = [f"{prefix}{name}" for name in snapshot.facts["names"]]
    lead = snapshot.arrays[names[0]].shape[:1] if prefix == "eigenvectors/" else ()
    return np.concatenate([snapshot.arrays[name].reshape(*lead, -1) for name in names], axis=-1)


@pytest.mark.parametrize("overrides", [
    [], pytest.param(["optimizer.kind=adam", "optimizer.learning_rate=0.003"], marks=pytest.mark.slow),
    pytest.param(["batch.size=6"], marks=pytest.mark.slow),
])  # fmt: skip
def test_a_training_keeps_its_parameters_and_the_eigenvectors_there_and_its_record_is_the_same(overrides):
    spec = specs.with_overrides(digits_spec(), overrides)
    experiment = Experiment(specs.with_overrides(spec, TRAINED))
    thetas = {}
    for step in (0, 3, 6):
        thetas[step] = np.asarray(experiment.state.theta)
        snapshots, _ = taken(experiment, step + 3)
        assert list(snapshots) == [step]
        np.testing.assert_array_equal(flat(snapshots[step]), thetas[step])
        tree = experiment.setup.problem.unravel(jnp.asarray(thetas[step]))
        np.testing.assert_array_equal(snapshots[step].arrays["Dense_0.kernel"], tree["Dense_0"]["kernel"])
        values = np.linalg.eigvalsh(dense_hessian(experiment.setup.problem, thetas[step]))[::-1]
        vectors = flat(snapshots[step], "eigenvectors/")
        np.testing.assert_allclose(snapshots[step].facts["eigenvalues"], values[: len(vectors)], rtol=1e-6)
        image = dense_hessian(experiment.setup.problem, thetas[step]) @ vectors.T
        assert np.linalg.norm(image - vectors.T * values[: len(vectors)], axis=0).max() < 2e-4 * values[0]
    _, bare = taken(Experiment(spec), 9)
    _, recorded = taken(Experiment(specs.with_overrides(spec, TRAINED)), 9, limit=2)
    for name in bare:
        if not name.startswith("cost."):
            np.testing.assert_array_equal(recorded[name], bare[name], err_msg=name)


@pytest.mark.slow
def test_snapshots_of_a_coupled_run_cross_the_edge_and_hold_the_constrained_trajectory_from_there():
    spec = specs.with_overrides(chebyshev_spec(0.2, flow=False, predictions=["transported"], gauges_every=0, landscape_every=0), [
        "recording.snapshots_every=30", ALL, "recording.projections=3", "recording.projections_every=7",
    ])  # fmt: skip
    experiment = Experiment(spec)
    snapshots, recorded = taken(experiment, 361)
    assert list(snapshots) == list(range(0, 361, 30))
    problem, edge = experiment.setup.problem, experiment.edge_step
    assert 300 < edge < 330
    for step, snapshot in snapshots.items():
        theta = jnp.asarray(flat(snapshot))
        assert float(loss_at(problem, theta)) == pytest.approx(recorded["gd.loss"][step], rel=1e-12)
        assert ("constrained" in snapshot.facts["parts"]) == (step >= edge)
        if step >= edge:
            distance = np.linalg.norm(theta - flat(snapshot, "constrained/"))
            assert distance == pytest.approx(recorded["gd.distance"][step], rel=1e-9)
            assert snapshot.facts["eigenvalues"][0] == pytest.approx(recorded["gd.sharpness"][step], rel=1e-5)
        if step % 7 == 0:
            shown = [recorded[f"projection.{k}"][step] for k in (1, 2, 3)]
            np.testing.assert_allclose(shown, np.asarray(project(theta, 3)), rtol=1e-12)
    assert np.array_equal(np.isfinite(recorded["projection.1"]), np.arange(361) % 7 == 0)


def test_projections_are_on_signs_that_keep_distances():
    v = jnp.asarray(np.random.default_rng(0).normal(size=500))
    columns = np.asarray(jax.jacfwd(lambda v: project(v, 64))(v))  # (64, 500): the directions themselves
    assert set(np.unique(columns)) == {-1.0, 1.0}
    np.testing.assert_allclose(project(v, 64), columns @ np.asarray(v), rtol=1e-10)
    np.testing.assert_array_equal(project(v, 3), project(v, 64)[:3])
    assert np.abs(columns @ columns.T / 500 - np.eye(64)).max() < 5 / np.sqrt(500)  # of independent signs, five deviations
    assert float(jnp.mean(project(v, 64) ** 2) / (v @ v)) == pytest.approx(1, abs=4 * np.sqrt(2 / 64))


RECORDED = ["recording.snapshots_every=7", ALL, "recording.projections=2"]


def stopped_and_resumed(spec, at):
    """A run that is stopped at a step by closing its rows, and gone on with after its snapshots from there on were spoilt."""
    rows = engine.stream(spec, name="cut")
    for row in rows:
        if row["step"] == at:
            break
    rows.close()
    run = store.resolve("cut")
    for path in run.snapshots():
        if int(path.stem[-9:]) >= run.state().step:
            path.write_bytes(b"what a lost future wrote")
    (run.path / "snapshots" / "step-000000035.safetensors").write_bytes(b"torn")
    return engine.resume("cut")


def test_a_run_stopped_and_resumed_has_the_same_snapshots_bit_for_bit(own_home):
    spec = specs.with_overrides(toy_spec(flow=False, landscape_every=0, gauges_every=0), ["budget.steps=50", *RECORDED])
    whole, cut = engine.run(spec, name="whole"), stopped_and_resumed(spec, 20)
    for record in (whole, cut):
        assert [each.step for each in record.snapshots()] == list(range(0, 50, 7))
    for mine, theirs in zip(cut.snapshots(), whole.snapshots(), strict=True):
        assert mine.path.read_bytes() == theirs.path.read_bytes()
    np.testing.assert_array_equal(cut["projection.2"], whole["projection.2"])
    third = whole.snapshots()[3]
    assert third.vector().shape == (3,)
    assert third.vector("eigenvectors").shape == (2, 3)
    assert third.facts["learning_rate"] == 0.01
    assert float(loss_at(build(spec)[0], jnp.asarray(third.vector()))) == whole["gd.loss"][21]
    with pytest.raises(UserError, match=r"holds no 'flow'; it has \"theta\", \"constrained\", \"eigenvectors\""):
        third.load("flow")
    third.path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"step-000000021\.safetensors: cannot be read \(not a safetensors file"):
        third.load()
    assert store.discard("whole") == "whole"
    assert not whole.path.exists()


def test_any_reader_of_such_files_has_the_parameters_by_name_and_unravel_makes_a_tree_of_them(own_home):
    spec = specs.with_overrides(digits_spec(), ["budget.steps=4", "recording.snapshots_every=2", *TRAINED[1:]])
    record = engine.run(spec)
    first, last = record.snapshots()
    arrays = load_file(last.path)
    assert {"Dense_0.kernel", "Dense_1.bias", "eigenvectors/Dense_0.kernel"} <= set(arrays)
    tree = engine.unravel(record, last.load())
    np.testing.assert_array_equal(tree["Dense_0"]["kernel"], arrays["Dense_0.kernel"])
    np.testing.assert_array_equal(engine.unravel(record, last.vector())["Dense_1"]["bias"], arrays["Dense_1.bias"])
    vectors = engine.unravel(record.name, first.load("eigenvectors"))
    assert vectors["Dense_0"]["kernel"].shape == (2, 64, 3)
    np.testing.assert_array_equal(vectors["Dense_0"]["kernel"], engine.unravel(record, first.vector("eigenvectors"))["Dense_0"]["kernel"])
    problem, theta, _ = build(spec)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, engine.unravel(problem, theta), problem.unravel(theta)))
    with pytest.raises(UserError, match=r"no Dense_0\.bias \(3,\).*Dense_0\.bios \(3,\) is none of them; did you mean \"Dense_0\.bias\""):
        engine.unravel(record, {name.replace("0.bias", "0.bios"): each for name, each in last.load().items()})
    with pytest.raises(UserError, match=r"an array of shape \(5,\); expected θ, \(199,\)"):
        engine.unravel(record, np.ones(5))


def test_what_snapshots_will_take_is_told_by_check_and_before_the_first_step(own_home, capsys):
    spec = specs.with_overrides(toy_spec(flow=False, landscape_every=0, gauges_every=0), ["budget.steps=50", *RECORDED])
    record = engine.run(spec)
    problem, theta, _ = build(spec)
    files, most = planned(spec, problem, theta.size)
    held = sum(each.path.stat().st_size for each in record.snapshots())
    assert files == len(record.snapshots()) == 8
    assert held <= most <= 4 * held
    assert planned(spec, problem, theta.size, 21).files == 5
    announced = [event for event in record.events if isinstance(event, messages.SnapshotsPlanned)]
    assert [(event.step, event.text.partition(",")[0]) for event in announced] == [(0, "8 snapshots")]
    assert main(["check", "toy", "--set", "recording.snapshots_every=100"]) == 0
    assert "snapshots" in capsys.readouterr().out
    assert main(["show", record.name]) == 0
    assert "8, of steps 0 to 49" in capsys.readouterr().out
    assert Run(record.path).snapshots()[1].name == "step-000000007.safetensors"


@pytest.mark.parametrize(("spec", "overrides", "said"), [
    (toy_spec, ['recording.snapshots=["theta", "theta"]'], "expected each once"),
    (digits_spec, ["recording.snapshots_every=1", 'recording.snapshots=["constrained"]'], 'needs \\[tracking\\] mode = "coupled"'),
])  # fmt: skip
def test_snapshots_that_cannot_be_are_refused_before_a_run(spec, overrides, said):
    with pytest.raises(UserError, match=said):
        specs.with_overrides(spec(), overrides)
    with pytest.raises(UserError, match="a phase portrait has no parameters"):
        specs.load_spec("phase", ["recording.projections=2"])


def test_parameters_are_told_apart_by_name_where_unravel_takes_theta_apart():
    with pytest.raises(UserError, match="its unravel does not take θ apart in order"):
        parameters(Problem(lambda t, _: t @ t, (), "turned", lambda theta: {"a": theta[::-1]}), 3)
    with pytest.raises(UserError, match="come to one name"):
        parameters(Problem(lambda t, _: t @ t, (), "twice", lambda theta: {"a": {"b": theta[:1]}, "a.b": theta[1:]}), 3)


@pytest.mark.parametrize("name", ["__metadata__", "eigenvectors/a"])
def test_a_parameter_by_a_name_that_the_file_has_for_another_thing_is_refused_before_a_run(name, own_home):
    made = engine.from_loss(lambda tree: jnp.sum(tree[name] ** 2), {name: jnp.ones(2)})
    with pytest.raises(UserError, match=f"parameter {name}: snapshots call another thing that; give it another name"):
        engine.run(made, learning_rate=0.1, steps=2, mode="sharpness", snapshots_every=1, snapshots=["theta", "eigenvectors"])


def test_what_somebody_else_put_in_the_place_of_a_snapshot_is_told_and_never_followed(tmp_path):
    path = tmp_path / "snapshots" / "step-000000001.safetensors"
    path.parent.mkdir()
    whole = save({"a": np.arange(4.0)}, {"eos": '{"format": 1, "names": ["a"], "parts": ["theta"]}'})
    path.write_bytes(whole)
    np.testing.assert_array_equal(contents(path).parts["theta"]["a"], np.arange(4.0))
    for spoilt in (b"", whole[:40], whole[:-1], b"\xff" * 64, whole.replace(b"F64", b"F99"), whole[:8] + b"[" * (len(whole) - 8)):
        path.write_bytes(spoilt)
        with pytest.raises(UserError, match="cannot be read"):
            contents(path)
    for words in ('{"format": 2, "names": ["a"], "parts": ["theta"]}', '{"format": 1, "names": ["b"], "parts": ["theta"]}', "[", "3"):
        path.write_bytes(save({"a": np.arange(4.0)}, {"eos": words}))
        with pytest.raises(UserError, match="not a snapshot that eos has written"):
            contents(path)
    with pytest.raises(NoTensorsError, match="larger than"):
        read_tensors(path, limit=10)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a link"):
        contents(path)
