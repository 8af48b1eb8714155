"""Vectors of p numbers in shares on eight devices: each has an eighth, and everything is what it is on one.

p = 97 is no multiple of eight: the last share is filled up with zeros, which nothing may see.
"""

import json
import os
import subprocess
import sys

import jax
import legs
import numpy as np
import pytest

import engine
from engine.base.errors import UserError
from engine.curvature.eigensolver import DENSE_UP_TO
from engine.phases.experiment import Experiment
from engine.problems import build
from engine.problems.examples import Spread
from engine.process.runner import Runner
from engine.record import store
from engine.record.writer import Writer
from engine.spec import with_overrides
from engine.xla.shares import FEW

from places import ROOT, TESTS
from small import chebyshev_spec, rows

pytestmark = pytest.mark.usefixtures("x64")
ROUNDING = 1e-13
"""Size of what a sum comes to where it should be 0: no digit of it is anything."""

PREAMBLE = """
import json, sys
from pathlib import Path
import numpy as np
import jax
import engine
engine.configure()
import jax.numpy as jnp
from flax import linen
from engine.phases.experiment import Experiment
from engine.problems.build import build
from engine.spec import with_overrides
from small import chebyshev_spec, rows

def listed(table):
    return {name: np.asarray(column).tolist() for name, column in table.items()}

def lies(state, shares):
    "Of each leaf that is made of vectors of p numbers: its path, its bytes, and those on each device."
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    vectors = [(path, leaf) for path, leaf in paths if isinstance(leaf, jax.Array) and leaf.size and leaf.shape[-1:] == (shares.size,)]
    return [(jax.tree_util.keystr(path), leaf.nbytes, [shard.data.nbytes for shard in leaf.addressable_shards]) for path, leaf in vectors]
"""


def on_devices(count: int, script: str, *arguments: str):
    """What a script prints as JSON where jax sees so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    command = [sys.executable, "-c", PREAMBLE + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def worst(one: dict, other: dict) -> dict[str, float]:
    """How far each column is from another, in units of its largest number, but for rounding and the sign of u."""
    apart = {}
    for name in one:
        a, b = (np.abs(np.array(each[name], float)) for each in (one, other))
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        if not np.isnan(a).all():
            apart[name] = max(np.nanmax(np.abs(a - b)) - ROUNDING, 0) / max(np.nanmax(a), ROUNDING)
    return apart


DERIVATIVES = """
x, y, w = np.sin(np.arange(36.0)).reshape(12, 3), np.arange(12) % 2, 1 + np.arange(12.0) % 5
module = linen.Sequential([linen.Dense(15), jnp.tanh, linen.Dense(2)])
params = {"W": np.cos(np.arange(70.0)).reshape(10, 7), "b": np.ones(1)}

def plain(p, d):
    return jnp.sum(jnp.tanh(p["W"] @ d.astype(p["W"].dtype)) ** 2) * p["b"][0] ** 3

def made(shard):
    here = {} if shard == "one" else {"devices": 8, "shard": shard}
    spec = with_overrides(chebyshev_spec(), [f"problem.{name}={value}" for name, value in here.items()])
    of_parameters = here | ({} if shard == "one" else {"shard": "parameters"})
    return [
        build(spec)[:2], engine.from_flax(module, x, y, weights=w, test=(x[:5], y[:5]), **here),
        engine.from_loss(plain, params, x[:7, 0], **of_parameters),
    ]

@jax.jit
def derivatives(problem, theta, v):
    "Of one vector, and of several at once."
    several = jax.vmap(problem.product_at(theta))(jnp.stack([v, 2 * v, v**2])), jax.vmap(problem.gradient)(jnp.stack([theta, theta + v]))
    return problem.loss(theta), (problem.gradient(theta), problem.hvp(theta, v), problem.derivative(theta, 3, v, v), *several)

results = {}
for shard in ("one", "both", "parameters"):
    for k, (problem, theta) in enumerate(made(shard)):
        shares = problem.shares
        v = np.sin(np.arange(float(shares.numbers if shares else theta.size)))
        loss, vectors = derivatives(problem, theta, shares.place(v) if shares else v)
        assert shares is None or [vector.sharding for vector in vectors] == [shares.along_last(vector.ndim) for vector in vectors]
        cut = [np.asarray(vector)[..., : v.size] for vector in vectors]
        assert all(np.all(np.asarray(vector)[..., v.size :] == 0) for vector in vectors)
        readings = [float(each.loss(theta)) for each in problem.readings.values()]
        results[f"{shard} {k}"] = [float(loss), readings, *(vector.tolist() for vector in cut)]
json.dump(results, sys.stdout)
"""


def test_derivatives_of_what_lies_in_shares_are_those_on_one_device_and_lie_in_shares():
    """Of a network, of a module of one's own with weights, and of a loss that is no mean; of one vector and of several at once."""
    results = on_devices(8, DERIVATIVES)
    for k in range(3):
        for shard in ("both", "parameters"):
            for a, b in zip(results[f"one {k}"], results[f"{shard} {k}"], strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12, err_msg=f"{shard} {k}")


def test_what_cannot_be_shared_out_is_refused_and_one_device_is_told_of():
    spec = with_overrides(chebyshev_spec(), ["problem.shard=both"])
    with pytest.raises(UserError, match=r'\[problem\] shard = "both": one device has nothing to share out, and \[problem\] devices = 1 '):
        build.build(spec)
    with pytest.raises(UserError, match=r'shard = "halves"; expected one of "examples", "parameters", "both"'):
        engine.from_loss(lambda w: w @ w, np.ones(70), devices=0, shard="halves")
    with pytest.raises(UserError, match=r'shard = "both": belongs to a loss that gives a number for each example'):
        engine.from_loss(lambda w: w @ w, np.ones(70), devices=0, shard="both")
    with pytest.raises(UserError, match=r"the loss has 64 parameters, and up to 64 are not shared out"):
        Spread(tuple(jax.devices()), "parameters").shares(FEW, "[problem] shard")
    assert FEW >= DENSE_UP_TO
    if jax.device_count() == 1:  # as many as there are: a run that was begun on several goes on
        problem, theta, facts = build.build(with_overrides(spec, ["problem.devices=0"]))
        assert (theta.size, problem.shares) == (97, None)
        assert facts["devices"] == '1, which has all: shard = "both" changes nothing here'
        made = engine.from_loss(lambda w: w @ w, np.ones(70), devices=0, shard="parameters")
        assert made.problem.notes == ('devices: 1, which has all: shard = "parameters" changes nothing here',)


RUNS = """
base = chebyshev_spec(0.2, landscape_every=0, gauges_every=0, beta_every=4, seed_oscillation=True)
records = []
for devices, shard, per_call in ((1, "examples", "one"), (8, "both", "one")):
    experiment = Experiment(with_overrides(base, [f"problem.devices={devices}", f"problem.shard={shard}"]))
    records.append(listed(rows(experiment, 340)))
    assert experiment.phase == "edge"
kept = experiment.leaves()
assert not [path for path, leaf in kept.items() if leaf.shape[-1:] == (experiment.setup.problem.shares.size,)]
onward = [listed(rows(experiment, 343))]
for devices, shard in ((4, "both"), (1, "examples")):
    other = Experiment(with_overrides(base, [f"problem.devices={devices}", f"problem.shard={shard}"]))
    other.restore(kept)
    onward.append(listed(rows(other, 343)))
json.dump([records, onward, lies(experiment.state, experiment.setup.problem.shares)], sys.stdout)
"""


@pytest.mark.slow
def test_a_run_whose_vectors_lie_in_shares_is_that_on_one_device_and_goes_on_on_four_and_on_one():
    """Through approach and edge, with all forms, the flow, formula (5) and an oscillation that is begun: to 1e-6 of each column's largest
    number. Each of eight devices has an eighth of every vector of the state. Compiling for eight devices takes most of a minute."""
    (one, eight), onward, leaves = on_devices(8, RUNS)
    apart = worst(one, eight)
    assert {"gd.x", "constrained.sharpness", "transported.x", "flow.loss", "unrolled.y"} <= set(apart)
    assert max(apart.values()) < 1e-6, sorted(apart.items(), key=lambda each: -each[1])[:5]
    for other in onward[1:]:
        assert max(worst(onward[0], other).values()) < 1e-6
    names = {path for path, _, _ in leaves}
    assert len(names) > 15
    assert all(held == [size / 8] * 8 for _, size, held in leaves), leaves
    ratio = sum(held[0] for _, _, held in leaves) / sum(size for _, size, _ in leaves)
    print(f"{len(names)} leaves of vectors of p numbers: each device holds {ratio:.4f} of {sum(size for _, size, _ in leaves)} bytes")
    assert ratio == 1 / 8


def gone_on_with(run, *ways):
    """The record of a run after so many steps on so many devices each, all of them in shares."""
    for devices, steps in ways:
        legs.take(run, steps, devices)
    return run.table()


def assert_alike(one: dict, other: dict, *loose: str) -> None:
    """The same rows to 1e-6 of each column's largest number, but for what it cost, how far within a tolerance a solver came, and what is
    solved for but loosely."""
    read = [name for name in one if not name.startswith("cost.") and not name.endswith(("residual", *loose))]
    apart = worst(*({name: each[name] for name in read} for each in (one, other)))
    assert max(apart.values()) < 1e-6, sorted(apart.items(), key=lambda each: -each[1])[:5]


SHARED = ["problem.devices=0", "problem.shard=both", "budget.steps=68"]
"""In shares on as many devices as there are."""


def test_a_training_in_shares_goes_on_from_its_checkpoint_on_one_device():
    """Snapshots, which several devices wrote, and projections are those of θ: no number that fills up a share is in them."""
    kept = ["budget.steps=14", "recording.snapshots_every=5", "recording.projections=2", "recording.projections_every=1"]
    spec = with_overrides(chebyshev_spec(0.2, mode="sharpness", sharpness_every=5), [*SHARED, *kept])
    run, whole = store.create(spec, "shared"), store.create(spec, "whole")
    legs.take(run, 8, 2)
    for each in (run, whole):
        with Writer(each) as writer:
            assert Runner(each, writer).work().kind == "completed"
    assert_alike(whole.table(), run.table(), "lambda2")
    pairs = [*zip(*(engine.load(each.path).snapshots() for each in (whole, run)), strict=True)]
    assert [one.step for one, _ in pairs] == [0, 5, 10]
    for one, other in pairs:
        np.testing.assert_allclose(other.vector(), one.vector(), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_a_run_past_the_edge_goes_on_on_any_number_of_devices_as_on_one():
    """From a checkpoint on the approach, and from those of tracked steps, on eight, four, two and one, and on eight again."""
    tracking = {"landscape_every": 0, "gauges_every": 0, "flow": "none", "predictions": ["transported"], "seed_oscillation": True}
    spec = with_overrides(chebyshev_spec(0.7, **tracking), SHARED)
    one = Experiment(with_overrides(spec, ["problem.devices=1", "problem.shard=examples"]))
    whole = rows(one, 68)
    assert one.edge_step is not None
    assert 40 < one.edge_step < 56
    assert_alike(whole, gone_on_with(store.create(spec, "moving"), (8, 40), (4, 18), (2, 3), (1, 3), (8, 4)))


SEVERAL = """
from engine.phases import step_in_parts
several = {"max_eigenvalues": 4, "second_eigenvalue_limit": 1.2, "seed_oscillation": True}
base = with_overrides(chebyshev_spec(0.4, landscape_every=0, gauges_every=0, flow="none", **several), [
    "recording.snapshots_every=7", 'recording.snapshots=["theta", "constrained", "eigenvectors"]', "recording.projections=3",
    "recording.projections_every=1",
])

def here(devices, shard):
    return Experiment(with_overrides(base, [f"problem.devices={devices}", f"problem.shard={shard}"]))

def driven(experiment, until):
    record, taken = [], []
    while experiment.clock.step < until:
        progress = experiment.advance(1 if experiment.edge_step else until - experiment.clock.step)
        assert progress.outcome is None, progress.outcome
        record += progress.rows
        taken += [[each.step, {name: array.ravel().tolist() for name, array in each.arrays.items()}] for each in progress.snapshots]
    return listed(dict(zip(experiment.setup.column_index, np.array(record).T))), taken

results, onward = [], []
for devices, shard, large in ((1, "examples", step_in_parts.LARGE), (8, "both", step_in_parts.LARGE), (8, "both", 1)):
    step_in_parts.LARGE = large
    experiment = here(devices, shard)
    results.append(driven(experiment, 140))
    kept, before = experiment.leaves(), experiment.state
    onward.append(driven(experiment, 144)[0])
    assert before.theta.is_deleted() == (large == 1)
for devices, shard in ((4, "both"), (1, "examples")):
    experiment = here(devices, shard)
    experiment.restore(kept)
    onward.append(driven(experiment, 144)[0])
json.dump([results, onward], sys.stdout)
"""


@pytest.mark.slow
def test_several_directions_at_the_edge_in_shares_are_those_on_one_device():
    """Two from the edge on, with their snapshots and projections; where a step's new state lies in the place of the old one, too; and gone
    on with on four devices and on one."""
    ((one, taken), (eight, shared), (overwritten, _)), onward = on_devices(8, SEVERAL)
    assert one["constrained.directions"][-1] == 2
    assert_alike(one, eight)
    assert_alike(one, overwritten)
    for other in onward[1:]:
        assert_alike(onward[0], other)
    assert [step for step, _ in taken] == [*range(0, 140, 7)]
    assert any(name.startswith("constrained/") for name in taken[-1][1])
    for (_, whole), (_, shares) in zip(taken, shared, strict=True):
        for name, numbers in whole.items():  # eigenvectors to the solver's tolerance, and to their sign
            absolute = 1e-4 if name.startswith("eigenvectors/") else 1e-9
            np.testing.assert_allclose(np.abs(shares[name]), np.abs(numbers), rtol=0, atol=absolute, err_msg=name)


MANY = """
from engine.phases import edge
base = chebyshev_spec(0.2, landscape_every=0, gauges_every=0, predictions=["transported"], seed_oscillation=True)
records = []
for devices, shard, per_call in ((1, "examples", "one"), (8, "parameters", "many")):
    experiment = Experiment(with_overrides(base, [
        f"problem.devices={devices}", f"problem.shard={shard}", f'tracking.steps_per_call="{per_call}"',
    ]))
    if per_call == "many":
        edge.LARGE = 1
    head = rows(experiment, 336)
    before, tail = experiment.state, rows(experiment, 340)
    assert before.center.theta.is_deleted() == (per_call == "many")
    records.append(listed({name: np.concatenate([head[name], tail[name]]) for name in head}))
json.dump([records, lies(experiment.state, experiment.setup.problem.shares)], sys.stdout)
"""


@pytest.mark.slow
def test_many_steps_in_a_call_leave_their_vectors_in_shares():
    """With the parameters alone shared out: what the one program of an accelerator hands back lies as what it was given, and in its place
    where there are many."""
    (one, eight), leaves = on_devices(8, MANY)
    apart = {name: size for name, size in worst(one, eight).items() if not name.startswith("cost.")}  # one program counts otherwise
    assert max(apart.values()) < 1e-6, sorted(apart.items(), key=lambda each: -each[1])[:5]
    assert leaves
    assert all(held == [size / 8] * 8 for _, size, held in leaves), leaves


TRACKED = """
import own_metrics
x = np.sin(0.3 + np.arange(12.0))[:, None]
module = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(8), jnp.tanh, linen.Dense(1)])

def criterion(outputs, targets):
    return jnp.sum(jnp.cosh(outputs - targets) - 1, axis=-1)

def numbers(context):
    return sum(leaf.size for leaf in jax.tree.leaves(context.parameters))

results = []
for here in ({}, {"devices": 8, "shard": "both"}):
    made = engine.from_flax(module, x, x**3 + np.cos(2 * x), criterion, **here)
    record = engine.run(made, learning_rate=0.6, metrics=[own_metrics.norm, own_metrics.rayleigh, numbers], overrides=[
        "budget.edge_steps=12", "tracking.landscape_every=0", "tracking.gauges_every=0", "tracking.seed_oscillation=true",
        'tracking.flow="none"', "metrics.every=3", "recording.snapshots_every=6",
        *(f'precision.{part}="float64"' for part in ("approach", "edge", "curvature")),
    ])
    table = {name: record[name] for name in record.run.index}
    results.append([listed(table), [each.vector().tolist() for each in record.snapshots()]])
json.dump(results, sys.stdout)
"""


@pytest.mark.slow
def test_a_problem_of_ones_own_with_metrics_of_ones_own_is_tracked_past_the_edge_in_shares_as_on_one_device(own_home):
    """A module, a criterion and quantities of one's own; u in a metric is without what fills up the last share, as θ is."""
    (one, taken), (shared, others) = on_devices(8, TRACKED)
    assert np.isfinite(np.array(one["constrained.loss"], float)).sum() > 10
    assert np.nanmax(np.array(one["metric.numbers"], float)) == 97
    assert {"metric.norm", "metric.rayleigh"} <= set(one)
    assert_alike(one, shared)
    np.testing.assert_allclose(others, taken, rtol=0, atol=1e-9)


OWN = """
kind, learning_rate = sys.argv[1:]
x = np.sin(0.3 + np.arange(12.0))[:, None]  # of no symmetry: these make steps of gradients that are rounding
module = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(8), jnp.tanh, linen.Dense(1)])
records = []
own = kind.startswith("own_optimizers:")
chosen = ["optimizer.kind=own", f'optimizer.function="{kind}"'] if own else [f'optimizer.kind="{kind}"']
for here in ({}, *({"devices": 8, "shard": shard} for shard in (["examples"] if own else ["both", "parameters"]))):
    made = engine.from_flax(module, x, x**3 + np.cos(2 * x), "half_mse", test=(x[:4], x[:4]), **here)
    record = engine.run(made, learning_rate=float(learning_rate), overrides=[
        'tracking.mode="sharpness"', "tracking.sharpness_every=3", "budget.steps=13", *chosen,
        'problem.readings=["test.loss"]',
        *(f'precision.{part}="float64"' for part in ("approach", "edge", "curvature")),
    ])
    records.append(listed({name: record[name] for name in record.run.index}))
json.dump(records, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "learning_rate"), [("adam", 0.01), ("sign", 0.02), ("muon", 0.002), ("own_optimizers:rmsprop", 0.003)])
def test_a_problem_of_ones_own_trains_in_shares_as_it_does_on_one_device(kind, learning_rate, own_home):
    """Adam's moments lie in shares too, and no loss reads the zeros that fill up the last: P is ε there. Muon's step is 1e-5 of itself
    from another's whose gradients are the same to rounding: it goes as far along singular values that are near rounding. With an
    optimizer of one's own it is the examples alone that are shared out."""
    one, *others = on_devices(8, OWN, kind, str(learning_rate))
    assert "gd.sharpness" in one
    for other in others:
        assert_alike(one, other, "lambda2")
