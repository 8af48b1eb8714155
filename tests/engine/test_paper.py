"""The paper's claims as numbers, on problems small enough for closed forms, in float64.

Each test names its claim and where it stands. What is an identity of the code (Lemma 2, Lemma 3, Lemma 13, Definition 7 against
(5), gradient descent on the toy against (3)) is tested beside that code.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import theory
from engine.curvature import landscape
from engine.curvature.eigensolver import random_start
from engine.curvature.expansion import measure, normals, taylor_center
from engine.phases.experiment import Experiment
from engine.problems.problem import Problem

from small import chebyshev_spec, rows

pytestmark = pytest.mark.usefixtures("x64")
ALPHA, BETA = 1.0, 1.0


def bent_toy(g, learning_rate: float, alpha: float = ALPHA, beta: float = BETA) -> Problem:
    """Appendix B's toy with any even g in place of ½x², g''(0) = 1: L = (2/η + √β·y)g(x) − (α/√β)y − z."""

    def loss_of(theta, _):
        x, y, z = theta
        return (2 / learning_rate + math.sqrt(beta) * y) * g(x) - alpha / math.sqrt(beta) * y - z

    return Problem(loss_of, None)


def descent(problem: Problem, start, learning_rate: float, steps: int) -> np.ndarray:
    """θ_0 … θ_steps of gradient descent, (steps + 1, p)."""

    @jax.jit
    def run(theta):
        return jax.lax.scan(lambda th, _: (th - learning_rate * problem.gradient(th), th), theta, length=steps + 1)[1]

    return np.asarray(run(jnp.asarray(start, jnp.float64)))


def quadratic(x):
    return x**2 / 2


def log_cosh(x):
    return jnp.log(jnp.cosh(x))


def cosh(x):
    return jnp.cosh(x) - 1


def test_the_loss_left_over_by_theorem_1_is_of_order_epsilon_delta_squared():
    """Theorem 1: L(θ) = L(θ†) + x²/η + O(εδ²/η). At fixed η the order is α^1.5: that is the slope."""
    eta, alphas, worst = 0.002, np.array([4.0, 1.0, 0.25]), []
    for alpha in alphas:
        problem, delta = bent_toy(quadratic, eta, alpha), math.sqrt(2 * alpha / BETA)
        period = math.ceil(2 * math.pi / (math.sqrt(2) * eta * math.sqrt(alpha)))
        path = descent(problem, [0.5 * delta, 0, 0], eta, period)
        losses = np.array(jax.vmap(problem.loss)(jnp.asarray(path)))
        on_constrained = -eta * np.arange(len(path))  # L(θ†_t) with θ†_t = (0, 0, ηt)
        residual = np.abs(losses - on_constrained - path[:, 0] ** 2 / eta)
        epsilon = eta * math.sqrt(alpha)
        worst.append(residual.max())
        assert residual.max() < 2 * epsilon * delta**2 / eta
    slope = np.polyfit(np.log(alphas), np.log(worst), 1)[0]
    assert slope == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize(("start", "leading", "within"), [
    (0.9, lambda epsilon, _: 2 * math.pi / (math.sqrt(2) * epsilon), 0.01),  # small orbits
    (1e-14, lambda epsilon, h0: 2 * math.sqrt(h0) / epsilon, 0.07),  # large ones; the next order is log(h0)/h0, 6 % at h0 = 63
])  # fmt: skip
def test_the_period_of_an_orbit_is_that_of_lemma_3(start, leading, within):
    """Section 4: 2π/(√2ε) steps for small orbits, about 2√h0/ε for large ones, with ε = 0.002 and the map's own growth small."""
    eta = 0.002
    delta = math.sqrt(2 * ALPHA / BETA)
    h0 = start**2 - 2 * math.log(start) - 1
    expected = theory.period(h0, ALPHA, BETA, eta)
    path = descent(bent_toy(quadratic, eta), [start * delta, 0, 0], eta, math.ceil(1.1 * expected))
    y = math.sqrt(BETA) * path[:, 1]
    upward = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    assert upward[0] == pytest.approx(expected, rel=0.015)  # (4) has no η in it: the map differs by ηY, up to 1.6 %
    assert expected == pytest.approx(leading(eta * math.sqrt(ALPHA), h0), rel=within)


@pytest.mark.slow
def test_gradient_flow_leaves_while_gradient_descent_stays():
    """Figure 4: the flow's distance to θ† grows like time and its sharpness past 2/η; gradient descent stays near."""
    eta = 0.2
    experiment = Experiment(chebyshev_spec(eta, predictions=[], gauges_every=0, landscape_every=0, on_second_eigenvalue="keep"))
    while experiment.edge_step is None:
        experiment.advance(10_000)
    record = rows(experiment, until=experiment.edge_step + 250)
    flow, descended = record["flow.distance"], record["gd.distance"]
    assert np.corrcoef(flow, np.arange(len(flow)))[0, 1] > 0.98
    assert flow[-1] > 1.5 * descended.max()  # a burst of gradient descent is about to end; the flow goes on
    assert record["flow.sharpness"][-1] > 1.1 * 2 / eta
    assert np.abs(record["constrained.sharpness"] * eta / 2 - 1).max() < 1e-4


@pytest.mark.parametrize(("g", "side"), [(log_cosh, -1), (quadratic, 0), (cosh, 1)])
def test_the_sharpness_hovers_off_the_threshold_on_the_side_that_the_loss_along_u_says(g, side):
    """Appendix F: on the period-2 orbit the sharpness is 2/η + F''(δ) − F'(δ)/δ, under 2/η where F is sub-quadratic (as for
    cross-entropy), over it where super-quadratic. Exact for this loss with δ the orbit's own |x|."""
    eta, alpha = 0.01, 0.05
    problem = bent_toy(g, eta, alpha)
    slope, bend = jax.grad(g), jax.grad(jax.grad(g))
    x = math.sqrt(2 * alpha / BETA)
    for _ in range(50):  # the orbit's |x|: β·g(x) = α, where y stands still
        x -= float((BETA * g(x) - alpha) / (BETA * slope(x)))
    stiffness = 2 * x / eta / float(slope(x))  # 2/η + y, at which x ← −x
    path = descent(problem, [x, (stiffness - 2 / eta) / math.sqrt(BETA), 0], eta, 40)
    np.testing.assert_allclose(path[:, 0], x * (-1.0) ** np.arange(41), rtol=1e-9)

    theta = jnp.zeros(3)
    point = measure(problem, theta, random_start(0, 0, 2, 3, "float64"), 1e-10, "float64")
    center = taylor_center(point, normals(problem, point, "float64"), jnp.zeros(3))
    assert float(center.sharpness) == pytest.approx(2 / eta)
    sample = landscape.sample(problem, center, x, eta)
    assert np.sign(round(sample.ratio - 1, 9)) == side
    assert np.sign(round(sample.limit * eta / 2 - 1, 9)) == side
    along_u = stiffness * float(bend(x))  # the curvature that gradient descent meets on the orbit
    assert along_u * eta / 2 == pytest.approx(sample.limit * eta / 2, abs=2 * x**4)
    assert np.sign(round(along_u * eta / 2 - 1, 9)) == side


def test_self_stabilization_bounds_the_blowup_that_a_quadratic_would_not():
    """Section 4: without ∇S (β → 0) the same instability grows without end; with it |x| stays under Lemma 3's bound, and the
    energy that the map gains, (1 + 2ε²) a step, is all that it exceeds it by."""
    eta, start = 0.01, 0.05
    delta = math.sqrt(2 * ALPHA / BETA)
    h0 = start**2 / delta**2 - 2 * math.log(start / delta) - 1
    bound = theory.bounds(h0, ALPHA, BETA).x_max
    path = descent(bent_toy(quadratic, eta), [start, 0, 0], eta, 900)
    assert np.abs(path[:, 0]).max() < 1.1 * bound
    frozen = (-(1 + eta * eta * ALPHA * np.arange(900))).cumprod() * start  # S goes on rising by ηα a step, nothing pushes back
    assert np.abs(frozen[-1]) > 1e6 * bound
