"""What a training reads of its optimizer's edge: against the dense Hessian, and the same however it is cut, stopped and gone on with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine.base.errors import UserError
from engine.curvature import eigensolver
from engine.curvature.eigensolver import random_start, solve_at
from engine.phases.experiment import Experiment
from engine.problems.problem import preconditioned
from engine.record import messages
from engine.record.columns import columns_for

from small import chebyshev_problem, chebyshev_spec, dense_hessian, loss_at, rows

pytestmark = pytest.mark.usefixtures("x64")

KINDS = {
    "momentum": ["optimizer.kind=momentum", "optimizer.learning_rate=0.2"],
    "nesterov": ["optimizer.kind=momentum", "optimizer.nesterov=true", "optimizer.learning_rate=0.1"],
    "rmsprop": ["optimizer.kind=rmsprop", "optimizer.learning_rate=0.003"],
    "adam": ["optimizer.kind=adam", "optimizer.learning_rate=0.01"],
    "nadam": ["optimizer.kind=adam", "optimizer.nesterov=true", "optimizer.learning_rate=0.01"],
    "sam": ["optimizer.kind=sam", "optimizer.learning_rate=0.2"],
    "sign": ["optimizer.kind=sign", "optimizer.learning_rate=0.003"],
    "muon": ["optimizer.kind=muon", "optimizer.learning_rate=0.01"],
    "own": ["optimizer.kind=own", 'optimizer.function="own_optimizers:rmsprop"', "optimizer.learning_rate=0.003"],
    "own without an edge": ["optimizer.kind=own", 'optimizer.function="own_optimizers:lion"', "optimizer.learning_rate=0.003"],
}


def spec_of(kind, *more, every=1, eigenvalues=1, small=True):
    """A network of 4 numbers under an optimizer, whose Hessian is formed, or one of 97, read every so many steps."""
    base = chebyshev_spec() if not small else specs.from_tree({
        "name": "small", "problem": {"kind": "own", "function": "own_problems:line", "self_test": False},
        "optimizer": {"learning_rate": 0.1},
        "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
    }, "test")  # fmt: skip
    tracking = ["tracking.mode=sharpness", f"tracking.sharpness_every={every}", f"tracking.eigenvalues={eigenvalues}"]
    return specs.with_overrides(base, [*tracking, *KINDS[kind], *more])


def at_steps(experiment, count):
    """The record of the first steps, taken one by one, and θ and the optimizer's state before each and after the last."""
    record, path = [], [(experiment.state.theta, experiment.state.optimizer)]
    for _ in range(count):
        record += experiment.advance(1).rows
        path.append((experiment.state.theta, experiment.state.optimizer))
    table = np.array(record)
    return {name: table[:, k] for name, k in experiment.setup.column_index.items()}, path


def test_the_product_of_the_preconditioned_operator_is_that_of_the_dense_one():
    problem, theta = chebyshev_problem()
    p = jnp.asarray(np.random.default_rng(0).uniform(0.01, 3, theta.size))
    v = random_start(0, 1, 1, theta.size, "float64")[0]

    @jax.jit
    def images(problem, p, theta, v):
        seen = preconditioned(problem, p, theta.dtype)
        return seen.hvp(theta, v), seen.product_at(theta)(v), seen.tangent(theta, v)[2], seen.hessian(theta) @ v, seen.gradient(theta)

    scale = np.diag(np.asarray(p) ** -0.5)
    dense = scale @ np.asarray(dense_hessian(problem, theta)) @ scale
    *products, gradient = images(problem, p, theta, v)
    for image in products:
        np.testing.assert_allclose(image, dense @ v, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient, jax.jit(problem.gradient)(theta), rtol=1e-12, atol=1e-15)
    pairs, _ = solve_at(preconditioned(problem, p, theta.dtype), theta, random_start(0, 0, 3, theta.size, "float64"), 1e-8, "float64")
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(dense)[::-1][:3], rtol=1e-5)
    assert theta.size > eigensolver.DENSE_UP_TO  # by products


@pytest.mark.parametrize(("kind", "every", "eigenvalues", "small"), [
    ("adam", 1, 1, True), ("rmsprop", 3, 2, False), ("momentum", 1, 1, True), ("sam", 3, 2, True), ("own", 1, 1, True),
    *(pytest.param(*other, marks=pytest.mark.slow) for other in (("adam", 1, 1, False), ("sam", 1, 1, True))),
])  # fmt: skip
def test_the_sharpness_that_is_read_is_that_of_p_as_the_last_step_had_it(kind, every, eigenvalues, small):
    spec = spec_of(kind, every=every, eigenvalues=eigenvalues, small=small)
    experiment = Experiment(spec)
    record, path = at_steps(experiment, 13)
    problem, optimizer = experiment.setup.problem, experiment.setup.optimizer
    assert list(record) == [column.name for column in columns_for(spec)]
    for step in range(every, 13, every):
        (theta, state), (_, after) = path[step], path[step + 1]
        hessian = np.asarray(dense_hessian(problem, theta))
        scale = np.broadcast_to(np.asarray(optimizer.preconditioner(state)) ** -0.5, theta.shape)
        values = np.linalg.eigvalsh(scale[:, None] * hessian * scale)[::-1]
        edge = float(optimizer.threshold(after))
        np.testing.assert_allclose(record["preconditioned.sharpness"][step], values[0], rtol=2e-4)
        np.testing.assert_allclose(record["threshold"][step], edge, rtol=1e-12)
        np.testing.assert_allclose(record["threshold_ratio"][step], record["preconditioned.sharpness"][step] / edge, rtol=1e-12)
        if eigenvalues > 1:
            np.testing.assert_allclose(record["preconditioned.lambda2"][step], values[1], rtol=1e-2)
    np.testing.assert_allclose(record["gd.sharpness"][0], np.linalg.eigvalsh(dense_hessian(problem, path[0][0]))[-1], rtol=1e-4)
    np.testing.assert_allclose(record["gd.loss"], [float(loss_at(problem, theta)) for theta, _ in path[:13]], rtol=1e-9)


def test_adams_ratio_is_read_to_its_bound_on_the_way_to_the_edge_and_along_it():
    """Every reading lies within its residual of an eigenvalue of the dense P^-½HP^-½, and all but a few within the square of it over the
    gap of the largest: where the two largest change places, by some percent in one step here, it may be late by a step."""
    experiment, steps = Experiment(spec_of("adam", "optimizer.learning_rate=0.03", small=False)), 120
    record, path = at_steps(experiment, steps)
    problem, optimizer = experiment.setup.problem, experiment.setup.optimizer
    off, ratios = [], record["threshold_ratio"]
    for step in range(2, steps):
        theta, state = path[step]
        scale = np.asarray(optimizer.preconditioner(state)) ** -0.5
        values = np.linalg.eigvalsh(scale[:, None] * np.asarray(dense_hessian(problem, theta)) * scale)[::-1]
        read, residual = record["preconditioned.sharpness"][step], record["preconditioned.eigen_residual"][step]
        assert np.min(np.abs(values - read)) <= residual * read
        off.append(1 - read / values[0])
    assert ratios[10] < 0.9
    assert max(ratios[steps // 2 :]) > 1
    assert min(off) > -1e-9  # a Rayleigh quotient
    late = np.array(off) > 3e-3
    assert np.quantile(off, 0.95) < 1e-3
    assert late.sum() <= 3
    assert not np.any(late[1:] & late[:-1])


@pytest.mark.parametrize("kind", ["sign", "muon"])
def test_a_step_in_a_norm_of_its_own_records_its_smoothness_and_no_ratio(kind):
    spec = spec_of(kind, every=2)
    record = rows(Experiment(spec), 40)
    assert not {"threshold_ratio", "preconditioned.sharpness"} & set(record)
    falls = np.diff(record["gd.loss"]) < 0
    np.testing.assert_array_equal(record["smoothness.directional"][1:] < record["threshold"][1:], falls)
    assert np.isnan(record["smoothness.directional"][0])
    read = np.isfinite(record["smoothness.generalized"])
    np.testing.assert_array_equal(np.flatnonzero(read), np.arange(0, 40, 2))
    assert (record["smoothness.generalized"][read] > 0).all()


@pytest.mark.parametrize(
    ("kind", "every"),
    [pytest.param(kind, every, marks=[pytest.mark.slow] * (every != (1, 3)[k % 2])) for k, kind in enumerate(KINDS) for every in (1, 3)],
)
def test_a_run_goes_on_from_its_checkpoint_to_the_bit_and_is_the_same_however_it_is_cut(kind, every):
    spec = spec_of(kind, every=every)
    experiment, again = Experiment(spec), Experiment(spec)
    whole = experiment.advance(1).rows
    while experiment.clock.step < 9:
        whole += experiment.advance(9 - experiment.clock.step).rows
    kept = {name: np.array(leaf) for name, leaf in experiment.leaves().items()}
    assert all(leaf.dtype != object for leaf in kept.values())
    again.restore(kept)
    first, second = [], []
    while experiment.clock.step < 16:
        first += experiment.advance(16 - experiment.clock.step).rows
    while again.clock.step < 16:
        second += again.advance(2).rows
    np.testing.assert_array_equal(np.array(first), np.array(second)[: len(first)])
    uncut = Experiment(spec)
    np.testing.assert_array_equal(rows(uncut, 9)["gd.loss"], np.array(whole)[:, uncut.setup.column_index["gd.loss"]])


def test_another_rate_moves_the_edge_and_keeps_the_moments():
    experiment = Experiment(spec_of("adam"))
    rows(experiment, 6)
    moments = np.array(experiment.state.optimizer.rule.mu)
    (event,) = experiment.set_learning_rate(messages.SetLearningRate(learning_rate=0.02))
    assert event.text == "η is 0.02 from step 6: the threshold (2+2β₁)/((1−β₁)η) moved to 1900"
    np.testing.assert_array_equal(experiment.state.optimizer.rule.mu, moments)
    after = rows(experiment, 8)
    np.testing.assert_allclose(after["threshold"], 1900)


def test_the_loss_before_another_rate_is_no_part_of_the_smoothness_after_it():
    experiment = Experiment(spec_of("sign"))
    rows(experiment, 4)
    experiment.set_learning_rate(messages.SetLearningRate(learning_rate=0.001))
    after = rows(experiment, 7)["smoothness.directional"]
    assert np.isnan(after[0])
    assert np.isfinite(after[1:]).all()


def test_the_edge_is_announced_by_its_formula_once():
    experiment, reached = Experiment(spec_of("nesterov", "optimizer.learning_rate=0.6")), []
    while experiment.clock.step < 60 and not reached:
        reached += [event for event in experiment.advance(60).events if isinstance(event, messages.EdgeReached)]
    assert "is above (2+2β)/((1+2β)η) = 2.262 at step" in reached[0].text


@pytest.mark.parametrize(("function", "refusal"), [
    ("nothing", "returned a int; expected an optax transformation, or engine.from_optax of one"),
    ("failing", "its transformation fails: .*no step today"), ("missing", "has no missing"),
])  # fmt: skip
def test_an_optimizer_that_cannot_be_run_says_why(function, refusal):
    spec = spec_of("own", f'optimizer.function="own_optimizers:{function}"')
    with pytest.raises(UserError, match=refusal):
        Experiment(spec)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_a_fork_with_another_rate_goes_on_with_the_moments_that_the_run_had(kind):
    """To the bit what the run itself does once its η is changed, and not what begins anew from that θ."""
    spec, rate = spec_of(kind), 0.004
    run = Experiment(spec)
    rows(run, 10)
    kept = {name: np.array(leaf) for name, leaf in run.leaves().items()}
    change = messages.SetLearningRate(learning_rate=rate)
    run.set_learning_rate(change)
    live, fork = rows(run, 24), Experiment(specs.with_overrides(spec, [f"optimizer.learning_rate={rate}"]))
    fork.restore(kept)
    fork.set_learning_rate(change)  # as the first engine of a fork does
    forked = rows(fork, 24)
    for name, column in live.items():
        if name != "cost.seconds":
            np.testing.assert_array_equal(forked[name], column, err_msg=name)
    for leaf, other in zip(*(jax.tree.leaves(each.state.optimizer) for each in (run, fork)), strict=True):
        np.testing.assert_array_equal(leaf, other)
    anew = Experiment(fork.spec)
    anew.restore(kept)
    theta, state = anew.state.theta, anew.state
    begun = fork.setup.optimizer.init(theta, fork.setup.problem.unravel, rate)
    anew.state = state._replace(optimizer=begun)
    assert not np.allclose(rows(anew, 24)["gd.loss"][2:], live["gd.loss"][2:], rtol=1e-6)


def test_an_optimizer_of_ones_own_is_code_that_is_trusted_and_shown():
    from engine.record import trust

    code = trust.code_of(spec_of("own"))
    assert code == {"problem.function": "own_problems:line", "optimizer.function": "own_optimizers:rmsprop"}


def test_an_own_rmsprop_is_the_one_that_there_is():
    mine, theirs = (rows(Experiment(spec_of(kind)), 8) for kind in ("own", "rmsprop"))
    for name in ("gd.loss", "preconditioned.sharpness", "threshold_ratio"):
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-6)
    without = rows(Experiment(spec_of("own without an edge")), 4)
    assert np.isnan(without["threshold"]).all()
    assert np.isnan(without["threshold_ratio"]).all()
