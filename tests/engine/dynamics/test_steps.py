"""The paper's steps for scripts: on the toy of Appendix B they are known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine.base.errors import UserError
from engine.dynamics.predicted import FORMS
from engine.problems.build import build
from engine.theory import map_step

from small import toy_spec

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.05


@pytest.fixture(scope="module")
def toy(x64):
    problem, theta, _ = build(toy_spec(ETA))  # α = β = 1, from (0.1, 0, 0)
    return problem, theta


def test_a_center_holds_the_expansion_in_closed_form(toy):
    problem, theta = toy
    center = engine.center_at(problem, theta)
    hessian = np.array([[2 / ETA, 0.1, 0], [0.1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(center.sharpness, np.linalg.eigvalsh(hessian)[-1], rtol=1e-12)
    stable = engine.stable_point(problem, theta, ETA)
    np.testing.assert_allclose(stable.theta, 0, atol=1e-7)
    np.testing.assert_allclose([stable.alpha, stable.beta, stable.delta_squared], [1, 1, 2], rtol=1e-6)


def test_the_constrained_trajectory_slides_along_the_threshold(toy):
    problem, theta = toy
    center = engine.stable_point(problem, theta, ETA)
    start = np.asarray(center.theta)
    for k in (1, 2, 3):
        center = engine.constrained_step(problem, center, ETA)
        np.testing.assert_allclose(center.theta, start + np.array([0, 0, k * ETA]), atol=1e-7)


@pytest.mark.parametrize("form", [*FORMS])
def test_every_prediction_is_the_map_on_the_toy(toy, form):
    problem, theta = toy
    center = engine.stable_point(problem, theta, ETA)
    following = engine.constrained_step(problem, center, ETA)
    v = theta - center.theta + np.array([0, 0.3, 0])
    before = engine.displacement(v, center)
    after = engine.displacement(engine.predicted_step(problem, center, following, v, ETA, form), following)
    np.testing.assert_allclose(after, map_step(*map(float, before), 1, 1, ETA), rtol=1e-5, atol=1e-7)


def test_what_cannot_be_done_is_said(toy):
    problem, theta = toy
    center = engine.center_at(problem, theta)
    with pytest.raises(UserError, match='form "cubic": not known; expected one of generalized, transported, code, full_cubic'):
        engine.predicted_step(problem, center, center, theta, ETA, "cubic")
    with pytest.raises(UserError, match=r"θ: an array of shape \(2, 2\) and format float64; expected a flat one"):
        engine.center_at(problem, np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"no point of the stable set within 1.0e-06 after 0 projections"):
        engine.stable_point(problem, theta, ETA, most=0)
    with pytest.raises(UserError, match=r"learning rate 0.0: expected a positive number"):
        engine.stable_point(problem, theta, 0.0)
    with pytest.raises(UserError, match=r"v: an array of shape \(1,\); expected that of θ†"):
        engine.predicted_step(problem, center, center, [1.0], ETA)
    with pytest.raises(UserError, match=r"start: an array of shape \(3,\); expected \(k, "):
        engine.top_eigenpairs(problem, theta, np.ones(3))
    flat, start = engine.from_loss(lambda w: jnp.sum(w**2 * jnp.array([1.5, 0.5], w.dtype)), jnp.ones(2))
    np.testing.assert_allclose(engine.stable_point(flat, start, 0.05).theta, [0, 1], atol=1e-9)  # S = 3 < 2/η: ∇L·u = 0 alone is asked
    with pytest.raises(UserError, match=r"no point of the stable set can be found from S = 3, ‖∇S⊥‖ = 0.0e\+00: a projection onto S = 2/η"):
        engine.stable_point(flat, start, 1.0)
