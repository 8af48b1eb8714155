"""Memory told before a run and when it has run out, and examples shared out to several devices."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.base.errors import BAD_INPUT, UserError
from engine.base.text import bytes_words
from engine.commands.main import main
from engine.phases.memory import estimate
from engine.problems import build
from engine.process import endings
from engine.process.runner import Runner
from engine.record import store
from engine.record.writer import Writer
from engine.spec import load_spec, with_overrides

from places import ROOT, TESTS
from small import chebyshev_problem, chebyshev_spec, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
TOY = toy_spec(0.05, flow=False, predictions=[], gauges_every=0, landscape_every=0)
"""A run that compiles little."""


def test_the_estimate_counts_the_data_and_falls_with_the_micro_batch():
    spec = with_overrides(chebyshev_spec(), ["problem.data.examples=4096", "problem.model.widths=[64, 64]"])
    whole, theta, _ = build.build(spec)
    parts = build.build(with_overrides(spec, ["problem.micro_batch=64"]))[0]
    at_once, in_parts = estimate(whole, theta), estimate(parts, theta)
    assert at_once.examples == in_parts.examples == sum(np.asarray(leaf).nbytes for leaf in whole.data)
    assert at_once.hvp > 4096 * 64 * 4  # one layer's outputs at least
    for name in ("gradient", "hvp", "third_derivative"):
        assert getattr(in_parts, name) < getattr(at_once, name) / 4, name
    assert bytes_words(at_once.total).endswith(" MB")
    assert [bytes_words(count) for count in (12, 1234, 5_600_000_000)] == ["12 B", "1.23 kB", "5.6 GB"]


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")])
def test_a_device_without_memory_ends_the_run_with_advice_and_the_checkpoint_stands(error, monkeypatch):
    run = store.create(with_overrides(TOY, ["recording.checkpoint_seconds=1e-9"]), "small")
    with Writer(run) as writer:
        engine = Runner(run, writer)
        blocks = engine.blocks()
        next(blocks), next(blocks)
        monkeypatch.setattr(engine.experiment, "advance", lambda _: (_ for _ in ()).throw(error))
        assert list(blocks) == []
    assert run.state().outcome.kind == "failed"
    assert "has not enough memory for this problem; the last checkpoint, step-" in run.state().outcome.text
    assert run.row_count() == int(run.checkpoints()[-1].stem.removeprefix("step-"))
    on_examples = store.create(chebyshev_spec(), "another")
    assert "`eos run small --set problem.micro_batch=N` goes on with N examples a pass" in endings.out_of_memory(on_examples)


def exhausted(*_):
    """jax's own error where there is not enough memory: 8 TB in one array."""
    return jax.jit(lambda x: jnp.sin(x + jnp.arange(10**12)).reshape(10**6, -1) @ jnp.ones(10**6))(1.0).block_until_ready()


def test_what_jax_says_where_there_is_no_memory_is_understood(monkeypatch):
    run = store.create(with_overrides(TOY, ["recording.checkpoint_seconds=1e-9"]), "small")
    with Writer(run) as writer:
        blocks = (engine := Runner(run, writer)).blocks()
        next(blocks)
        monkeypatch.setattr(engine.experiment, "advance", exhausted)
        assert list(blocks) == []
    assert run.state().outcome.text.startswith("CPU ×1 has not enough memory for this problem; the last checkpoint, step-")


def test_a_preset_for_which_there_is_no_memory_is_reported_with_what_it_needs(monkeypatch, capfd):
    monkeypatch.setattr("engine.complaints", exhausted)
    assert main(["check", "fashion", "--set", "problem.model.widths=[4]"]) == BAD_INPUT
    stderr = capfd.readouterr().err.splitlines(keepends=True)[-1]
    assert stderr.startswith("eos: fashion: needs about ")
    assert stderr.endswith(" MB, more than there is here; --set problem.micro_batch=N brings it down\n")
    assert main(["check", "chebyshev"]) == BAD_INPUT
    assert " of it go with the parameters: make the model smaller\n" in capfd.readouterr().err


def test_more_devices_than_there_are_is_reported():
    with pytest.raises(UserError, match=r"\[problem\] devices = 64: this machine has \d+ for jax; expected up to"):
        build.build(with_overrides(chebyshev_spec(), ["problem.devices=64"]))


PREAMBLE = """
import json, sys
import numpy as np
import jax
import engine
engine.configure()
from engine.phases.experiment import Experiment
from engine.problems.build import build
from engine.spec import with_overrides
from small import chebyshev_spec, rows
assert jax.local_device_count() == 8
base = chebyshev_spec(0.2, flow=False, landscape_every=0, gauges_every=0, predictions=["transported"])
"""
DERIVATIVES = """
from flax import linen
derivatives, own = [], []
x, y, w = np.sin(np.arange(36.0)).reshape(12, 3), np.arange(12) % 2, 1 + np.arange(12.0) % 5
module = linen.Sequential([linen.Dense(3), jax.numpy.tanh, linen.Dense(2)])

def parts_of(problem, theta):
    assert len(problem.data.weights.sharding.device_set) == devices
    v = jax.numpy.sin(jax.numpy.arange(theta.size))
    parts = jax.jit(lambda p, t, v: (p.loss(t), p.gradient(t), p.hvp(t, v), p.derivative(t, 3, v, v)))(problem, theta, v)
    parts += jax.jit(lambda p, t, v, k: (p.on(k).gradient(t), p.on(k).hvp(t, v)))(problem, theta, v, np.array([9, 2, 11, 0, 4, 7]))
    return [np.asarray(part).tolist() for part in parts]

for devices, size in CASES:  # 12 examples: the last of eight equal shares are filled up
    derivatives.append(parts_of(*build(with_overrides(base, [f"problem.devices={devices}", f"problem.micro_batch={size}"]))[:2]))
    if devices == 1 or size:
        mine = engine.from_flax(module, x, y, weights=w, micro_batch=size, devices=devices, test=(x[:5], y[:5]))
        own.append([*parts_of(*mine), *(float(mean.loss(mine.theta)) for mean in mine.problem.readings.values())])
json.dump([derivatives, own], sys.stdout)
"""
RUNS = """
records = []
for devices, per_call in ((1, "one"), (8, "one"), (8, "many")):
    experiment = Experiment(with_overrides(base, [f"problem.devices={devices}", f'tracking.steps_per_call="{per_call}"']))
    records.append({name: values.tolist() for name, values in rows(experiment, 330).items()})
    assert experiment.edge_step is not None
json.dump(records, sys.stdout)
"""


def on_eight_devices(script: str) -> list:
    """What a script prints as JSON where jax sees eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    command = [sys.executable, "-c", PREAMBLE + script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("cases", [((1, 0), (8, 5)), pytest.param(((1, 0), (8, 0), (8, 5)), marks=pytest.mark.slow)])
def test_eight_devices_give_the_derivatives_of_one_to_rounding_and_those_of_a_batch(cases):
    """Of a network of eos, and of a module of one's own with weights and held-out examples: devices and the examples of a pass."""
    for one, *others in on_eight_devices(f"CASES = {cases}\n{DERIVATIVES}"):
        for derivatives in others:
            for a, b in zip(one, derivatives, strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-13)


NEEDED = """
from engine.phases import memory
from engine.problems.problem import Problem
deep = with_overrides(base, ["problem.data.examples=4096", "problem.model.widths=[64, 64]"])
needs = []
for count in (1, 8):
    problem, theta, _ = build(with_overrides(deep, [f"problem.devices={count}"]))
    devices = jax.devices()[:count]
    replicated = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("examples",)), jax.sharding.PartitionSpec())
    theta = jax.device_put(theta, replicated)
    shards = [shard for leaf in (*jax.tree.leaves(problem.data), theta) for shard in leaf.addressable_shards]
    compiled = {}
    for name, call, given in (
        ("gradient", Problem.gradient, [theta]), ("hvp", Problem.hvp, [theta] * 2),
        ("third_derivative", Problem.grad_sharpness, [theta] * 2),
    ):
        analysis = jax.jit(call).lower(problem, *given).compile().memory_analysis()
        arguments = analysis.argument_size_in_bytes - len(given) * theta.nbytes
        compiled[name] = [arguments, analysis.temp_size_in_bytes + analysis.output_size_in_bytes]
    lies = [sum(shard.data.nbytes for shard in shards if shard.device == device) - theta.nbytes for device in devices]
    needs.append([memory.estimate(problem, theta, memory.Formats("float64", "float64"))._asdict(), compiled, lies])
json.dump(needs, sys.stdout)
"""


@pytest.mark.slow
def test_the_estimate_is_of_one_device_which_has_its_share_of_the_examples_and_all_of_the_parameters():
    """Against what lies on each of eight devices, and what the compiler counts for θ as a run has it: on all of them."""
    one, eight = on_eight_devices(NEEDED)
    for needed, compiled, lies in (one, eight):
        for name in ("gradient", "hvp", "third_derivative"):
            assert compiled[name] == [needed["examples"], needed[name]], name
        assert set(lies) == {needed["examples"]}
    assert (len(one[2]), len(eight[2])) == (1, 8)
    assert eight[0]["examples"] * 8 == one[0]["examples"]
    assert eight[0]["parameters"] == one[0]["parameters"]
    for name in ("gradient", "hvp", "third_derivative"):
        assert eight[0][name] < one[0][name] / 7, name  # what vectors of p numbers need stays


@pytest.mark.slow
def test_a_run_on_eight_devices_is_that_on_one():
    """Through the edge, to 1e-6 of each column: sums go in another order; with one step in a call and with many. Compiling for eight
    devices takes most of a minute."""
    one, *others = on_eight_devices(RUNS)
    names = ["gd.loss", "gd.gradient_norm", "gd.midpoint_sharpness", "gd.sharpness"]
    for name in [*names, *(f"constrained.{name}" for name in ("loss", "sharpness", "lambda2", "alpha", "beta", "delta", "epsilon"))]:
        for eight in others:
            np.testing.assert_allclose(np.array(eight[name], float), np.array(one[name], float), rtol=1e-6, err_msg=name)


SPARING = """
import json, sys
import engine
engine.configure(sparing=True)
from engine.phases import memory
from engine.problems import build
from engine.spec import load_spec
deep = ["problem.model.widths=[32, 32, 32, 32, 32, 32, 32, 32, 32]", "problem.model.activation=swish"]
estimates = []
for again in ("false", "true"):
    built, theta, _ = build.build(load_spec("fashion-10", [*deep, f"problem.rematerialize={again}"]))
    estimates.append(memory.estimate(built, theta)._asdict())
json.dump(estimates, sys.stdout)
"""


@pytest.mark.slow
def test_a_deep_network_needs_less_memory_where_its_layers_are_computed_again():
    """By the compiler's own count of temporaries: nine layers in sections of three take three quarters for every derivative."""
    done = subprocess.run([sys.executable, "-c", SPARING], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    kept, again = json.loads(done.stdout)
    assert again["examples"] == kept["examples"]
    for name in ("gradient", "hvp", "third_derivative"):
        assert again[name] < 0.85 * kept[name], (name, again, kept)


def test_scaling_is_measured_against_one_device_in_the_same_rounds(monkeypatch):
    monkeypatch.syspath_prepend(TESTS / "bench")
    import scaling

    def took(strong: float, weak: float) -> scaling.Times:
        return {law: dict.fromkeys(scaling.WORK, seconds) for law, seconds in (("strong", strong), ("weak", weak))}

    strong, weak = scaling.scaled("processes", 4, [took(1.0, 1.0)] * 3, [took(0.5, 1.25), took(0.5, 1.25), took(9.0, 9.0)])
    assert (strong.law, strong.workers, strong.examples, strong.gradient_s) == ("strong", 4, scaling.EXAMPLES, 0.5)
    assert (strong.gradient_efficiency, weak.hvp_efficiency) == (0.5, 0.8)
    assert weak.examples == 4 * scaling.EXAMPLES


def test_a_batch_is_timed_against_one_after_the_other(monkeypatch, capfd):
    monkeypatch.syspath_prepend(TESTS / "bench")
    import batched

    monkeypatch.setattr(batched, "PRESETS", ("toy",))
    assert main(["bench", "batch", "--rounds", "1", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)
    assert [(entry["work"], entry["members"]) for entry in entries] == [("descent", 4), ("products", 4)]
    assert all(entry["faster"] == entry["one_by_one_s"] / entry["batch_s"] for entry in entries)
    built, theta, _ = build.build(load_spec("toy"))
    batch = jax.vmap(batched.descent, (None, 0, 0))(built, jnp.stack([theta] * 4), jnp.asarray(batched.LEARNING_RATES))
    for rate, member in zip(batched.LEARNING_RATES, batch, strict=True):
        np.testing.assert_allclose(member, batched.descent(built, theta, jnp.asarray(rate)), rtol=1e-9)


@pytest.mark.slow
def test_a_step_with_two_directions_is_timed_against_its_own_products(monkeypatch, capfd):
    """On the toy of five parameters a solve takes five products, and the one form one."""
    monkeypatch.syspath_prepend(TESTS / "bench")
    import several

    monkeypatch.setattr(several, "PRESET", "toy-k")
    more = ["tracking.eigenvalues=3", "tracking.max_eigenvalues=3", 'tracking.predictions=["transported"]', 'tracking.flow="none"']
    monkeypatch.setattr(several, "OVERRIDES", ["problem.y0=[0.0, 0.0]", "tracking.gauges_every=0", "tracking.landscape_every=0", *more])
    for name, small in {"AFTER": 1, "STEPS": 2, "SINGLY": 1}.items():
        monkeypatch.setattr(several, name, small)
    assert main(["bench", "several", "--rounds", "2", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert (entry["directions"], entry["eigenvalues"], entry["steps"]) == (2, 3, 4)
    assert (entry["descent_hvps"], entry["flow_hvps"], entry["forms_hvps"]) == (5, 0, 1)
    assert entry["hvps"] == entry["constrained_hvps"] + 6
    assert entry["constrained_contractions"] == 5  # D_ij for i ≤ j, and a tilt each
    assert entry["over_floor"] > 0
    assert entry["goals"] == several.GOALS


@pytest.mark.slow
def test_the_scaling_benchmark_measures_devices_and_processes():
    """Only this starts all its workers: over a core to each it takes a minute where the machine has sixteen."""
    command = [sys.executable, "-m", "engine", "bench", "scaling", "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Barrier" not in done.stderr
    entries = json.loads(done.stdout)
    expected = {"devices", "processes"} if len(os.sched_getaffinity(0)) > 1 else set()
    assert {entry["what"] for entry in entries if entry["workers"] > 1} == expected
    assert all(entry["gradient_s"] > 0 and "says nothing of a network" in entry["note"] for entry in entries)


def test_one_device_is_as_before():
    built, theta = chebyshev_problem()
    assert len(built.data.weights.sharding.device_set) == 1
    assert jnp.isfinite(built.loss(theta))
