"""Vectors of p numbers in shares on eight devices: each has an eighth, and everything is what it is on one.

p = 97 is no multiple of eight: the last share is filled up with zeros, which nothing may see.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import engine
from engine.base.errors import UserError
from engine.curvature.eigensolver import DENSE_UP_TO
from engine.problems import build
from engine.problems.examples import Spread
from engine.spec import with_overrides
from engine.xla.shares import FEW

from places import ROOT, TESTS
from small import chebyshev_spec

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


MANY = """
base = chebyshev_spec(0.2, landscape_every=0, gauges_every=0, predictions=["transported"], seed_oscillation=True)
records = []
for devices, shard, per_call in ((1, "examples", "one"), (8, "parameters", "many")):
    experiment = Experiment(with_overrides(base, [
        f"problem.devices={devices}", f"problem.shard={shard}", f'tracking.steps_per_call="{per_call}"',
    ]))
    records.append(listed(rows(experiment, 340)))
json.dump([records, lies(experiment.state, experiment.setup.problem.shares)], sys.stdout)
"""


@pytest.mark.slow
def test_many_steps_in_a_call_leave_their_vectors_in_shares():
    """With the parameters alone shared out: what the one program of an accelerator hands back lies as what it was given."""
    (one, eight), leaves = on_devices(8, MANY)
    apart = {name: size for name, size in worst(one, eight).items() if not name.startswith("cost.")}  # one program counts otherwise
    assert max(apart.values()) < 1e-6, sorted(apart.items(), key=lambda each: -each[1])[:5]
    assert leaves
    assert all(held == [size / 8] * 8 for _, size, held in leaves), leaves


OWN = """
x = np.sin(0.3 + np.arange(12.0))[:, None]  # of no symmetry: Adam would make steps of gradients that are rounding
module = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(8), jnp.tanh, linen.Dense(1)])
records = []
for here in ({}, {"devices": 8, "shard": "both"}, {"devices": 8, "shard": "parameters"}):
    made = engine.from_flax(module, x, x**3 + np.cos(2 * x), "half_mse", test=(x[:4], x[:4]), **here)
    record = engine.run(made, learning_rate=0.01, overrides=[
        'tracking.mode="sharpness"', "tracking.sharpness_every=3", "budget.steps=13", 'optimizer.kind="adam"',
        'problem.readings=["test.loss"]',
        *(f'precision.{part}="float64"' for part in ("approach", "edge", "curvature")),
    ])
    records.append(listed({name: record[name] for name in record.run.index}))
json.dump(records, sys.stdout)
"""


@pytest.mark.slow
def test_a_problem_of_ones_own_trains_by_adam_in_shares_as_it_does_on_one_device(own_home):
    """Its first and second moments lie in shares too, and no loss reads the zeros that fill up the last: P is ε there."""
    one, *others = on_devices(8, OWN)
    for other in others:
        read = [name for name in one if not name.startswith("cost.") and not name.endswith(("residual", "lambda2"))]  # loosely solved for
        apart = worst(*({name: each[name] for name in read} for each in (one, other)))
        assert apart["gd.sharpness"] < 1e-6
        assert max(apart.values()) < 1e-6, sorted(apart.items(), key=lambda each: -each[1])[:5]
