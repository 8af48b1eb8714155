"""The edge of every optimizer, by bisection of η on one mode; its update against optax's; what steps in a norm of their own satisfy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import engine
from engine import spec as specs
from engine import theory
from engine.base.errors import UserError
from engine.dynamics.optimizer import parts_of, shapes_of, vector_of
from engine.dynamics.optimizers import optimizer_of
from engine.dynamics.steepest import generalized_sharpness, polar_factor
from engine.phases import edge_readings
from engine.spec import sections

pytestmark = pytest.mark.usefixtures("x64")

TREE = {"b": {"bias": jnp.zeros(3), "kernel": jnp.zeros((4, 3))}, "a": jnp.zeros((2, 3, 2, 5))}
SIZE = 3 + 12 + 60


def unravel(theta):
    """θ (75,) as a vector, a matrix and the kernel of a convolution, in jax's order of their names."""
    return parts_of(theta, jax.tree.map(lambda leaf: leaf[None][:0], TREE))


def vectors(count, size=SIZE, seed=0):
    return [jnp.asarray(row) for row in np.random.default_rng(seed).standard_normal((count, size))]


def followed(section, gradients, theta, unravel=lambda theta: theta):
    """θ after steps along given gradients, and the state there."""
    optimizer = optimizer_of(section)
    state = optimizer.init(theta, unravel, section.learning_rate)
    for gradient in gradients:
        theta, state = optimizer.step(theta, state, gradient, lambda at: at)
    return theta, state


ETA = 0.037
BY_OPTAX = [
    (sections.Momentum(learning_rate=ETA), optax.sgd(ETA, momentum=0.9)),
    (sections.Momentum(learning_rate=ETA, beta=0.7, nesterov=True), optax.sgd(ETA, momentum=0.7, nesterov=True)),
    (sections.Momentum(learning_rate=ETA, ema=True), optax.chain(optax.ema(0.9, debias=False), optax.scale(-ETA))),
    (sections.RmsProp(learning_rate=ETA), optax.rmsprop(ETA, decay=0.99, eps_in_sqrt=False, bias_correction=True)),
    (sections.RmsProp(learning_rate=ETA), optax.adam(ETA, b1=0, b2=0.99)),
    (sections.Adam(learning_rate=ETA), optax.adam(ETA)),
    (sections.Adam(learning_rate=ETA, beta1=0.5, beta2=0.9, epsilon=1e-3), optax.adam(ETA, 0.5, 0.9, 1e-3)),
    (sections.Adam(learning_rate=ETA, nesterov=True), optax.nadam(ETA)),
    (sections.Sign(learning_rate=ETA), optax.sign_sgd(ETA)),
]


@pytest.mark.parametrize(("section", "rule"), BY_OPTAX)
def test_an_update_is_that_of_optax(section, rule):
    gradients, start = vectors(12), vectors(1, seed=1)[0]
    theta, state = start, rule.init(start)
    for gradient in gradients:
        updates, state = rule.update(gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
    np.testing.assert_allclose(followed(section, gradients, start)[0], theta, rtol=1e-12, atol=1e-14)


def test_sam_steps_along_the_gradient_at_the_top_of_its_ball():
    problem, theta = engine.from_loss(lambda w: jnp.sum(jnp.tanh(w) ** 4), np.array([0.3, -0.8, 1.1]))
    optimizer = optimizer_of(sections.Sam(learning_rate=ETA, radius=0.2))
    gradient = problem.gradient(theta)
    moved, state = optimizer.step(theta, optimizer.init(theta, problem.unravel, ETA), gradient, problem.gradient)
    expected = theta - ETA * problem.gradient(theta + 0.2 * gradient / jnp.linalg.norm(gradient))
    np.testing.assert_allclose(moved, expected, rtol=1e-14)
    assert float(state.gradient_norm) == pytest.approx(float(jnp.linalg.norm(gradient)))


@pytest.mark.parametrize("format", ["float32", "float64"])
@pytest.mark.parametrize("section", [
    sections.Momentum(learning_rate=ETA), sections.RmsProp(learning_rate=ETA), sections.Adam(learning_rate=ETA),
    sections.Sam(learning_rate=ETA), sections.Sign(learning_rate=ETA), sections.Muon(learning_rate=ETA),
    sections.Muon(learning_rate=ETA, dual_scaled=True),
], ids=lambda section: section.__struct_config__.tag)  # fmt: skip
def test_a_step_keeps_the_format_of_theta_and_is_linear_in_the_rate(section, format):
    theta, gradient = (vector.astype(format) for vector in vectors(2))
    optimizer = optimizer_of(section)
    state = optimizer.init(theta, unravel, ETA)
    whole, following = optimizer.step(theta, state, gradient, lambda at: at)
    half, _ = optimizer.step(theta, state._replace(learning_rate=state.learning_rate / 2), gradient, lambda at: at)
    assert whole.dtype == half.dtype == format
    assert jax.tree.map(lambda leaf: leaf.dtype, following) == jax.tree.map(lambda leaf: leaf.dtype, state)
    np.testing.assert_allclose(half, (theta + whole) / 2, atol=2e-6 if format == "float32" else 1e-14)
    assert optimizer_of(specs.from_tree({
        "name": "t", "problem": {"kind": "toy"}, "optimizer": {"kind": section.__struct_config__.tag, "learning_rate": 0.2, **(
            {"dual_scaled": True} if getattr(section, "dual_scaled", False) else {})}, "tracking": {"mode": "sharpness"},
    }, "t").optimizer) is optimizer  # nothing is compiled anew for another η


# -- edges


SMALL = 1e-9
"""Where a mode begins: far from where its own gradient would tell in a second moment that is held."""


def edge_by_bisection(section, frozen=lambda state: state, steps=400):
    """The eigenvalue from which one mode grows, its second moment held by `frozen`: it is then beyond where it was so many steps ago."""
    optimizer, start = optimizer_of(section), jnp.full(1, SMALL)

    @jax.jit
    def sizes(eigenvalue):
        def step(_, carried):
            theta, state = carried
            theta, following = optimizer.step(theta, state, eigenvalue * theta, lambda at: eigenvalue * at)
            return theta, frozen(following)

        halfway = jax.lax.fori_loop(0, steps, step, (start, frozen(optimizer.init(start, lambda theta: theta, section.learning_rate))))
        return abs(halfway[0][0]), abs(jax.lax.fori_loop(0, steps, step, halfway)[0][0])

    below, above = 0.01, 100.0
    while above - below > 1e-5 * above:
        middle = (below + above) / 2
        halfway, end = map(float, sizes(middle))
        falls = end < halfway and end < 1
        below, above = (middle, above) if falls else (below, middle)
    return above


FROZEN_NU, LATE = 4.0, 10**6
"""ν of a frozen second moment, and steps taken: too many for any bias of the first to be left."""
HEAVY, NESTEROV, AVERAGED, NADAM = 3.8, 3.8 / 2.8, 38.0, 38.0 / 2.8
"""The edges times η, β = 0.9."""


@pytest.mark.parametrize(("section", "expected"), [
    (sections.GradientDescent(learning_rate=1.0), 2.0), (sections.Momentum(learning_rate=1.0), HEAVY),
    (sections.Momentum(learning_rate=1.0, nesterov=True), NESTEROV), (sections.Momentum(learning_rate=1.0, ema=True), AVERAGED),
    (sections.Momentum(learning_rate=1.0, ema=True, nesterov=True), NADAM),
])  # fmt: skip
def test_momentum_is_unstable_from_its_edge_on(section, expected):
    assert edge_by_bisection(section) == pytest.approx(expected, rel=1e-3)
    optimizer = optimizer_of(section)
    assert float(optimizer.threshold(optimizer.init(jnp.ones(1), lambda theta: theta, 1.0))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("section", "expected"), [
    (sections.RmsProp(learning_rate=1.0, beta2=1 - 1e-12), 2.0), (sections.Adam(learning_rate=1.0, beta2=1 - 1e-12), AVERAGED),
    (sections.Adam(learning_rate=1.0, beta2=1 - 1e-12, nesterov=True), NADAM),
])  # fmt: skip
def test_a_preconditioned_step_is_unstable_from_its_edge_on_with_p_frozen(section, expected):
    rule = optimizer_of(section)
    p = 2.0 + 1e-8

    def frozen(state):
        count = jnp.asarray(LATE, jnp.int32)
        return state._replace(rule=state.rule._replace(nu=FROZEN_NU * (1 - section.beta2**count) * jnp.ones(1), count=count))

    state = frozen(rule.init(jnp.ones(1), lambda theta: theta, 1.0))
    assert float(rule.preconditioner(state)[0]) == pytest.approx(p, rel=1e-6)
    assert float(rule.threshold(state)) == pytest.approx(expected, rel=1e-12)
    assert edge_by_bisection(section, frozen) / p == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("eta", "eigenvalue", "radius"), [(0.1, 10.0, 0.05), (0.5, 3.0, 0.7), (0.02, 60.0, 0.01)])
def test_sam_ends_in_the_two_cycle_whose_edge_is_the_sharpness(eta, eigenvalue, radius):
    """On a quadratic |x| = ηλρ/(2−ηλ), where the edge at ‖∇L‖ = λ|x| is λ."""
    section = sections.Sam(learning_rate=eta, radius=radius)
    optimizer = optimizer_of(section)
    cycle = eta * eigenvalue * radius / (2 - eta * eigenvalue)
    theta, state = jnp.full(1, cycle), optimizer.init(jnp.ones(1), lambda theta: theta, eta)
    seen = []
    for _ in range(4):
        theta, state = optimizer.step(theta, state, eigenvalue * theta, lambda at: eigenvalue * at)
        seen.append((float(theta[0]), float(optimizer.threshold(state))))
    np.testing.assert_allclose([x for x, _ in seen], cycle * np.array([-1, 1, -1, 1]), rtol=1e-9)
    np.testing.assert_allclose([edge for _, edge in seen], eigenvalue, rtol=1e-6)
    assert theory.sam_edge(eta, radius, 1e12) == pytest.approx(2 / eta)
    norm = np.array([0.3, 1.0])
    np.testing.assert_allclose(
        theory.sam_edge(eta, radius, norm), norm / (2 * radius) * (np.sqrt(1 + 8 * radius / (eta * norm)) - 1), rtol=1e-12
    )


# -- a live preconditioner


def settled(hessian, start, eta, steps=20_000, beta2=0.99):
    """√ν̂/η and the effective sharpness of live RMSProp on a quadratic, ε = 0 but for rounding, averaged over the last quarter."""
    optimizer = optimizer_of(sections.RmsProp(learning_rate=eta, beta2=beta2, epsilon=1e-30))
    theta = jnp.asarray(start)

    @jax.jit
    def advance(theta):
        def step(carried, _):
            theta, state = carried
            theta, state = optimizer.step(theta, state, hessian @ theta, lambda at: at)
            p = optimizer.preconditioner(state)
            scale = 1 / jnp.sqrt(p)
            return (theta, state), (p, jnp.linalg.eigvalsh(scale[:, None] * hessian * scale)[-1], theta)

        return jax.lax.scan(step, (theta, optimizer.init(theta, lambda theta: theta, eta)), length=steps)[1]

    return (np.asarray(column)[-steps // 4:] for column in advance(theta))


@pytest.mark.parametrize("sharpness", [0.7, 9.0])
def test_rmsprop_on_a_parabola_comes_to_half_a_rate_and_its_edge(sharpness):
    eta = 0.01
    _, effective, x = settled(jnp.full((1, 1), sharpness), [eta / 2], eta)
    np.testing.assert_allclose(abs(x[:, 0]).mean(), eta / 2, rtol=1e-3)
    np.testing.assert_allclose(effective.mean() * eta, 2, rtol=1e-3)


def test_rmsprop_on_a_bowl_has_the_least_p_that_is_stable():
    """H = (5 2; 2 3) gives √ν/η = (3.5, 2.5), where tr P is least over diagonal 2P ⪰ H."""
    eta = 0.01
    p, effective, _ = settled(jnp.array([[5.0, 2.0], [2.0, 3.0]]), [eta / 2, 0.4 * eta], eta)
    np.testing.assert_allclose(p.mean(0) / eta, [3.5, 2.5], rtol=0.02)
    np.testing.assert_allclose(np.median(effective) * eta, 2, rtol=0.02)


# -- steps in a norm of their own


def losses_of(section, hessian, theta, unravel=lambda theta: theta, steps=30):
    """The loss of a quadratic at each step, and what a record makes of its directional smoothness."""
    optimizer = optimizer_of(section)
    state = optimizer.init(theta, unravel, section.learning_rate)
    losses, duals = [], []
    for _ in range(steps):
        gradient = hessian @ theta
        losses.append(float(theta @ gradient / 2))
        theta, state = optimizer.step(theta, state, gradient, lambda at: at)
        duals.append(float(state.dual_norm))
    smooth = edge_readings.directional_smoothness(
        np.array(losses), np.array(duals), np.nan, np.nan, section.learning_rate, section.dual_scaled
    )
    return np.array(losses), smooth


@pytest.mark.parametrize("beyond", [0.9, 0.999, 1.001, 1.1])
def test_scaled_sign_descent_on_a_diagonal_falls_at_every_step_exactly_under_two_over_the_trace(beyond):
    """In the worst direction, where all |g| are equal, a step takes d·Hd = tr H."""
    diagonal = jnp.array([4.0, 1.0, 2.5])
    section = sections.Sign(learning_rate=beyond * 2 / 7.5, dual_scaled=True)
    losses, _ = losses_of(section, jnp.diag(diagonal), 1 / diagonal, steps=2)
    assert (losses[1] < losses[0]) == (beyond < 1)
    if beyond < 1:
        for start in vectors(5, 3):
            losses, _ = losses_of(section, jnp.diag(diagonal), start)
            assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize("beyond", [0.9, 0.999, 1.001, 1.1])
def test_scaled_spectral_descent_on_a_bowl_of_matrices_falls_exactly_under_two_over_its_rank(beyond):
    """L = (c/2)‖W‖², W (4, 3): d·Hd = c·min(m,n) for any d = UVᵀ."""
    c = 1.7
    section = sections.Muon(learning_rate=beyond * 2 / (3 * c), dual_scaled=True)
    unravelled = lambda theta: theta.reshape(4, 3)  # noqa: E731
    start = vector_of(jnp.linalg.qr(jnp.asarray(np.random.default_rng(0).standard_normal((4, 3))))[0])
    losses, _ = losses_of(section, c * jnp.eye(12), start, unravelled, steps=2)
    assert (losses[1] < losses[0]) == (beyond < 1)


@pytest.mark.parametrize("section", [
    sections.Sign(learning_rate=0.05), sections.Sign(learning_rate=0.01, dual_scaled=True), sections.Muon(learning_rate=0.2),
    sections.Muon(learning_rate=0.07, dual_scaled=True),
])  # fmt: skip
def test_the_loss_falls_exactly_while_the_directional_smoothness_is_below_two_over_eta(section):
    root = np.random.default_rng(3).standard_normal((SIZE, SIZE))
    hessian = jnp.asarray(root @ root.T / SIZE)
    losses, smooth = losses_of(section, hessian, 0.3 * vectors(1)[0], unravel, steps=60)
    falls = np.diff(losses) < 0
    assert 0 < falls.sum() < len(falls)  # both are met
    np.testing.assert_array_equal(smooth[1:] < 2 / section.learning_rate, falls)
    assert np.isnan(smooth[0])


def test_a_polar_factor_is_the_direction_of_the_nuclear_norm():
    for shape in ((5, 3), (3, 5), (4, 1), (1, 1)):
        matrix = np.random.default_rng(1).standard_normal(shape)
        factor, nuclear = polar_factor(jnp.asarray(matrix))
        assert float(nuclear) == pytest.approx(np.linalg.norm(matrix, "nuc"))
        assert float(jnp.sum(factor * matrix)) == pytest.approx(float(nuclear))
        assert np.linalg.norm(factor, 2) == pytest.approx(1)
    low = np.outer([1.0, 2.0, 0.0], [3.0, 0.0, 4.0, 0.0])
    factor, nuclear = polar_factor(jnp.asarray(low))
    np.testing.assert_allclose(factor, low / np.linalg.norm(low), atol=1e-14)
    assert not np.isnan(polar_factor(jnp.zeros((3, 2)))[0]).any()


def test_spectral_descent_takes_every_parameter_as_a_matrix():
    theta, gradient = vectors(2)
    state = optimizer_of(sections.Muon(learning_rate=1.0)).init(theta, unravel, 1.0)
    moved, following = followed(sections.Muon(learning_rate=1.0), [gradient], theta, unravel)
    step, parts = unravel(theta - moved), unravel(gradient)
    np.testing.assert_allclose(step["b"]["bias"], parts["b"]["bias"] / np.linalg.norm(parts["b"]["bias"]), atol=1e-12)
    np.testing.assert_allclose(step["b"]["kernel"].T @ step["b"]["kernel"], np.eye(3), atol=1e-12)
    kernel = step["a"].reshape(12, 5)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(5), atol=1e-12)
    nuclear = np.linalg.norm(parts["b"]["kernel"], "nuc") + np.linalg.norm(parts["a"].reshape(12, 5), "nuc")
    assert float(following.dual_norm) == pytest.approx(nuclear + np.linalg.norm(parts["b"]["bias"]))
    assert jax.tree.leaves(state.shapes)[0].shape == (0, 2, 3, 2, 5)
    np.testing.assert_array_equal(vector_of(parts_of(theta, shapes_of(theta, unravel))), theta)


def test_the_generalized_sharpness_is_a_lower_bound_and_attained_where_the_maximum_is_known():
    """Over the cube: of a diagonal Hessian it is the trace; of a small one the maximum over all corners is a bound that it meets."""
    norm = optimizer_of(sections.Sign(learning_rate=1.0)).norm
    diagonal = jnp.diag(jnp.array([4.0, 1.0, 2.5]))
    value, at = generalized_sharpness(norm, None, lambda v: diagonal @ v, jnp.stack(vectors(3, 3)))
    assert float(value) == pytest.approx(7.5)
    assert np.abs(at).max() == pytest.approx(1)
    root = np.random.default_rng(5).standard_normal((9, 9))
    hessian = root @ root.T
    corners = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1)
    most = np.einsum("ik,ij,jk->k", corners, hessian, corners).max()
    value, _ = generalized_sharpness(norm, None, lambda v: jnp.asarray(hessian) @ v, jnp.stack(vectors(6, 9)))
    assert 0.8 * most < float(value) <= most * (1 + 1e-12)


def test_decoupled_decay_is_refused_by_name():
    for optimizer in ({"kind": "adamw"}, {"kind": "adam", "decoupled_weight_decay": 0.1}):
        with pytest.raises(UserError, match=r"\[optimizer\] .*: decoupled decay is no part of the loss"):
            specs.from_tree({"name": "t", "problem": {"kind": "toy"}, "optimizer": {"learning_rate": 0.1} | optimizer}, "t")


OTHERS = ("rmsprop", "adam", "sam", "sign", "muon")


@pytest.mark.parametrize(("kind", "change", "refusal"), [
    *((kind, {"tracking": {}}, 'needs [tracking] mode = "sharpness": θ†') for kind in OTHERS),
    *((kind, {"optimizer": {"schedule": "inverse_sharpness"}}, 'schedule = "inverse_sharpness" is of gradient descent alone')
      for kind in ("momentum", *OTHERS)),
    *((kind, {"problem": {"kind": "phase"}}, "needs a training problem; a phase portrait has none") for kind in ("momentum", *OTHERS)),
])  # fmt: skip
def test_what_is_gradient_descents_alone_is_refused_by_the_name_of_the_kind(kind, change, refusal):
    tree = {"name": "t", "problem": {"kind": "toy"}, "optimizer": {"learning_rate": 0.1, "kind": kind}, "tracking": {"mode": "sharpness"}}
    tree = {name: tree[name] if name not in change else (tree[name] if name == "optimizer" else {}) | change[name] for name in tree}
    with pytest.raises(UserError) as caught:
        specs.from_tree(tree, "t")
    assert f'[optimizer] kind = "{kind}"' in str(caught.value)
    assert refusal in str(caught.value)
