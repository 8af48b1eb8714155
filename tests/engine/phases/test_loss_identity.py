"""What is computed is part of a run's identity: another loss is refused where the run would go on, whatever it is called."""

import os
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine.jobs.fork import fork
from engine.phases.experiment import Experiment
from engine.phases.loss_identity import Identity, changed, difference, direction, leaves_of
from engine.problems.problem import Problem
from engine.process.runner import Runner
from engine.record import messages, store
from engine.record.arrays import IDENTITY
from engine.record.reader import Run
from engine.record.safe_read import read_arrays
from engine.record.writer import Writer
from engine.spec import from_tree
from engine.xla.leaves import unpack

from small import chebyshev_spec, dense_hessian, digits_spec, gradient_at, loss_at, toy_spec, under

pytestmark = pytest.mark.usefixtures("x64")

MINE = """
import jax.numpy as jnp
import numpy as np

import engine

X = np.linspace(-1, 1, 20)


def make_problem():
    def loss(p, x):
        x = x.astype(p.dtype)
        return jnp.mean((p[0] * jnp.tanh(p[1] * x) - jnp.sin(3 * x)) ** 2)

    return engine.from_loss(loss, jnp.array([0.5, 0.7]), X)
"""


def edited(folder, before: str, after: str):
    """Write the module, as an editor would, and have it imported anew, as by another process."""
    path = folder / f"{name_in(folder)}.py"
    stamp = path.stat().st_mtime + 10 if path.exists() else None
    path.write_text(MINE.replace(before, after))
    if stamp is not None:
        os.utime(path, (stamp, stamp))  # its compiled copy is told apart by the second
    sys.modules.pop(name_in(folder), None)


def name_in(folder) -> str:
    """A module of its own for each test: folders stay on Python's path."""
    return f"edited_{folder.name}"


def mine(folder, **overrides) -> specs.RunSpec:
    problem = {"kind": "own", "function": f"{name_in(folder)}:make_problem", "folder": str(folder), "self_test": False}
    return from_tree({
        "name": "mine", "problem": problem, "optimizer": {"learning_rate": 0.2}, "budget": {"steps": 400}, **overrides,
    }, "test")  # fmt: skip


def work(run: Run, until: int | None = None):
    """Carry the run on to its end, or to a step; its outcome."""
    with Writer(run) as writer:
        runner = Runner(run, writer)
        blocks = runner.blocks()
        for _ in blocks:
            if until is not None and writer.last_step >= until:
                blocks.close()
    return runner.outcome


@pytest.mark.parametrize(("tracking", "where"), [({"flow": False}, "approach"), ({"mode": "sharpness"}, "training")])
def test_an_edited_loss_is_refused_and_the_one_before_goes_on(tracking, where, tmp_path):
    """Only the loss is edited: the start, the data and every name are as they were."""
    edited(tmp_path, "3", "3")
    run = store.create(mine(tmp_path, tracking=tracking), "mine")
    work(run, until=30)
    assert run.state().phase == where
    kept, step = run.row_count(), run.state().step
    edited(tmp_path, "sin(3 *", "sin(9 *")
    outcome = work(run)
    assert outcome.kind == "failed"
    assert outcome.text.startswith(f"run mine: its loss is not the one of its checkpoint at step {step}, where L(θ) is ")
    assert "bring that code and data back, or begin anew with `eos run`" in outcome.text
    assert run.row_count() == kept
    made = fork(run, 1000, name="made")
    assert "its loss is not the one of its checkpoint" in work(made).text
    other = fork(run, 1000, ["budget.steps=60"], name="other", other_loss=True)
    assert work(other).kind in ("completed", "edge_never_reached")
    assert any("the loss may be another from here" in event.text for event in other.events() if isinstance(event, messages.Forked))
    edited(tmp_path, "3", "3")
    work(run, until=kept + 5)
    assert run.row_count() > kept
    facts = run.provenance()["problem"]
    assert facts["file"] == str(tmp_path / f"{name_in(tmp_path)}.py")
    assert len(facts["source_sha256"]) == 64


@pytest.mark.parametrize("after", ["sin(3.0000001 *", "1e-4 + jnp.sin(3 *"])
def test_in_float64_a_change_in_the_eighth_digit_is_another_loss(after, tmp_path):
    edited(tmp_path, "3", "3")
    wide = {"approach": "float64", "edge": "float64", "curvature": "float64"}
    run = store.create(mine(tmp_path, precision=wide, tracking={"flow": False}), "mine")
    work(run, until=30)
    edited(tmp_path, "jnp.sin(3 *" if "jnp" in after else "sin(3 *", after)
    assert "its loss is not the one of its checkpoint" in work(run).text


def test_a_checkpoint_that_says_nothing_of_its_loss_goes_on(tmp_path):
    """As those of earlier versions do."""
    edited(tmp_path, "3", "3")
    run = store.create(mine(tmp_path, tracking={"mode": "sharpness"}, budget={"steps": 30}), "mine")
    work(run, until=20)
    path = run.checkpoints()[-1]
    leaves = read_arrays(path)
    assert [name for name in leaves if name.startswith(IDENTITY)] == [f"{IDENTITY}{name}" for name in Identity._fields]
    np.savez(path, **{name: leaf for name, leaf in leaves.items() if not name.startswith(IDENTITY)})
    assert work(run).kind == "completed"
    for path in run.checkpoints():
        np.savez(path, **leaves | {f"{IDENTITY}product": np.ones(5)})
    assert work(run).kind == "completed"
    texts = [event.text for event in run.events() if isinstance(event, messages.CheckpointSkipped | messages.Started)]
    assert "are not the numbers that an engine writes" in texts[-2]
    assert texts[-2].endswith("the run begins anew")
    assert texts[-1].startswith("started on")


@pytest.mark.parametrize("kind", ["toy", "toy_k"])
def test_a_fork_of_a_toy_to_another_learning_rate_keeps_its_loss(kind):
    """Which is made for its learning rate."""
    start = {"toy": "0.1", "toy_k": "[0.1]"}[kind]
    overrides = ["tracking.mode=sharpness", "budget.steps=9", f"problem.kind={kind}", f"problem.x0={start}"]
    run = store.create(specs.with_overrides(toy_spec(0.01), overrides), "toy")
    work(run)
    made = fork(run, 9, ["optimizer.learning_rate=0.008", "budget.steps=12"], name="made")
    assert (made.spec.problem.threshold, made.spec.optimizer.learning_rate) == (200, 0.008)
    assert work(made).kind == "completed"
    assert (made.table()["learning_rate"][9:] == 0.008).all()
    again = fork(made, 12, ["optimizer.learning_rate=0.007", "budget.steps=14"], name="again")
    assert again.spec.problem.threshold == 200
    assert work(again).kind == "completed"


def exact(problem: Problem, theta) -> tuple[float, float, np.ndarray]:
    hessian = np.asarray(dense_hessian(problem, theta))
    image = hessian @ (d := direction(theta.size, "float64"))
    return float(loss_at(problem, theta)), float(jnp.linalg.norm(gradient_at(problem, theta))), np.array([d @ image, np.linalg.norm(image)])


def check(taken: Experiment, problem: Problem):
    """The numbers against the Hessian formed, and how they compare."""
    leaves = taken.leaves() | leaves_of(taken.identify())
    assert changed(leaves, taken.identify, taken.state) == ""
    identity = unpack(Identity, leaves, IDENTITY)
    loss, norm, product = exact(problem, taken.state.theta)
    np.testing.assert_allclose(identity.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(identity.gradient_norm, norm, rtol=1e-11)
    np.testing.assert_allclose(identity.product, product, rtol=0, atol=1e-11 * product[1])
    leaves[f"{IDENTITY}loss"] = leaves[f"{IDENTITY}loss"] * (1 + 1e-7)
    assert changed(leaves, taken.identify, taken.state).startswith("L(θ) is ")


def test_the_numbers_are_those_of_the_loss_in_every_phase_and_compile_nothing_that_it_has_not():
    """Else the first checkpoint would wait for it."""
    lean = {"flow": False, "predictions": [], "second_eigenvalue_limit": 1.85, "on_second_eigenvalue": "gradient_descent"}
    taken, seen, traced = Experiment(chebyshev_spec(0.7, **lean)), [], []
    problem = taken.setup.problem

    def counted(theta, data):
        traced.append(theta.dtype)
        return problem.loss_of(theta, data)

    taken = under(taken, taken.setup._replace(problem=replace(problem, loss_of=counted)))
    for step in (5, 54, 70):
        while taken.clock.step < step:
            taken.advance(step - taken.clock.step)
        seen.append(taken.phase)
        before = len(traced)
        assert before
        check(taken, problem)
        assert len(traced) == before
    assert seen == ["approach", "edge", "gradient descent"]


@pytest.mark.parametrize("readings", [
    (), pytest.param(("tracking.sharpness_every=1", "tracking.eigenvalues=1"), marks=pytest.mark.slow),
])
def test_the_numbers_are_those_of_the_loss_in_training(readings):
    taken = Experiment(digits_spec("precision.approach=float64", "precision.curvature=float64", *readings))
    taken.advance(2)
    assert taken.phase == "training"
    check(taken, taken.setup.problem)


def test_where_the_hessian_is_formed_they_are_its_eigenvalues():
    taken = Experiment(toy_spec(0.01, flow=False))
    taken.advance(1)
    identity = unpack(Identity, leaves_of(taken.identify()), IDENTITY)
    values = np.linalg.eigvalsh(dense_hessian(taken.setup.problem, taken.state.theta))[::-1]
    np.testing.assert_allclose(identity.product, [values[1], values[0]], atol=1e-10 * values[0])


def test_each_number_is_compared_as_its_format_allows():
    def numbers(loss=2.0, norm=0.5, along=3.0, size=9.0, format="float64"):
        return Identity(np.array(loss, format), np.array(norm, format), np.array([along, size], format))

    theta = jnp.ones(4)
    for format, within, beyond in (("float64", 5e-10, 3e-9), ("float32", 5e-5, 3e-4)):
        then = numbers(format=format)
        for name, value in (("loss", 2.0), ("norm", 0.5), ("size", 9.0)):
            assert difference(then, numbers(format=format, **{name: value * (1 + within)}), theta) == ""
            assert difference(then, numbers(format=format, **{name: value * (1 + beyond)}), theta) != ""
    assert difference(numbers(), numbers(along=3.0 + 8e-9), theta) == ""  # of ‖Hd‖, beside which d·Hd may vanish
    assert "the Hessian along a fixed direction is 3.1 and was 3" in difference(numbers(), numbers(along=3.1), theta)
    assert difference(numbers(loss=np.nan), numbers(loss=1.0), theta) == ""
    assert "L(θ) is nan and was 2" in difference(numbers(), numbers(loss=np.nan), theta)
    # Near a minimum a loss is a sum of squares of rounding: what another device gives for it is no other loss.
    low = numbers(loss=1e-13, norm=1e-7, format="float32")
    assert difference(low, numbers(loss=1.02e-13, norm=1.01e-7, format="float32"), theta) == ""


def test_the_direction_is_the_same_for_ever():
    d = direction(1000, "float64")
    np.testing.assert_allclose(np.abs(d), 1000**-0.5)
    assert "".join("-+"[int(sign > 0)] for sign in d[:24]) == DIRECTION
    assert abs(d.sum()) < 3


DIRECTION = "-+--+-+++-----+------+--"
