"""The paper's steps for a script: each a function of a `Problem` and arrays, with nothing of a run about it.

    problem, theta = engine.from_loss(loss, params)
    center = engine.stable_point(problem, theta, learning_rate)            # θ†_0
    following = engine.constrained_step(problem, center, learning_rate)    # θ†_1
    v = engine.predicted_step(problem, center, following, theta - center.theta, learning_rate)

Products are taken in θ's number format; float64 is what the tolerances are made for. The recorded runs go the same way with
warm starts, fewer ∇S and products in `precision.curvature` (`engine.phases.edge`).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import theory
from engine.base.errors import UserError
from engine.curvature.eigensolver import random_start
from engine.curvature.expansion import TaylorCenter, loss_along, measure, normals, taylor_center
from engine.dynamics.constrained import next_target, project_center
from engine.dynamics.predicted import FORMS, carry, coordinates, predict
from engine.problems.problem import Problem, require_x64
from engine.spec import Prediction
from engine.xla.device import require_correct_sums


def center_at(problem: Problem, theta: Array, start: Array | None = None, tolerance: float = 1e-6) -> TaylorCenter:
    """The expansion of the loss about any θ (p,): L, ∇L, the top two eigenpairs, ∇S, α (Definition 2), β.

    `start` (2, p) are vectors to start the eigensolver from, random ones when not given. Raises UserError when the top pair's
    relative residual ‖Hu−Su‖/S stays above `tolerance`.
    """
    require_x64()
    theta = jnp.asarray(theta)
    if theta.ndim != 1 or not jnp.issubdtype(theta.dtype, jnp.floating):
        raise UserError(f"θ: an array of shape {theta.shape} and format {theta.dtype}; expected a flat one (p,) of floats")
    dtype = str(theta.dtype)
    if start is None:
        start = random_start(0, 0, min(2, theta.size), theta.size, dtype, problem.shares)
    point = measure(problem, theta, start, tolerance, dtype)
    residual = float(point.eigen.residuals[0])
    if not residual <= tolerance:
        spent = int(point.eigen.hvps)
        raise UserError(f"the top eigenpair has a residual of {residual:.1e} after {spent} products; asked for {tolerance:.1e}")
    return taylor_center(point, normals(problem, point, dtype), point.eigen.vectors[0])


def stable_point(
    problem: Problem, theta: Array, learning_rate: float, tolerance: float = 1e-6, most: int = 20, previous: TaylorCenter | None = None
) -> TaylorCenter:
    """The point θ† of the stable set M (Section 3) nearest to θ (p,), with its expansion.

    On M, ∇L·u = 0 and S ≤ 2/η: a θ of it is its own projection, and one inside S < 2/η is moved to ∇L·u = 0 alone. |∇L·u|/‖∇L‖ and the
    excess of S·η/2 over 1 are within `tolerance`, and what is left of the way to the nearest point too where `most` steps of sequential
    quadratic programming lead there. `previous` gives the sign of u. Raises UserError where they do not lead to M, and where S > 2/η
    but ∇S⊥ = 0: the sharpness is the same all around then, and no projection changes it.
    """
    require_correct_sums()
    if not 0 < learning_rate < np.inf:
        raise UserError(f"learning rate {learning_rate!r}: expected a positive number")
    return _projected(problem, jnp.asarray(theta), jnp.asarray(theta), learning_rate, tolerance, most, previous)


def constrained_step(problem: Problem, center: TaylorCenter, learning_rate: float, tolerance: float = 1e-6, most: int = 20) -> TaylorCenter:
    """θ†_{t+1} from θ†_t: a step of gradient descent projected onto the stable set: equation (2).

    It begins at Lemma 13's first guess; `tolerance`, `most` and errors as in `stable_point`.
    """
    require_correct_sums()
    if not 0 < learning_rate < np.inf:
        raise UserError(f"learning rate {learning_rate!r}: expected a positive number")
    target = next_target(center, learning_rate)
    begin = project_center(center, target, theory.threshold(learning_rate)).theta
    return _projected(problem, target, begin, learning_rate, tolerance, most, center)


def _projected(
    problem: Problem, target: Array, begin: Array, learning_rate: float, tolerance: float, most: int, previous: TaylorCenter | None
) -> TaylorCenter:
    """The point of M nearest to a target (p,), by steps that begin elsewhere."""
    theta, stable, threshold = begin, None, theory.threshold(learning_rate)
    vectors = None if previous is None else previous.eigen.vectors
    for _ in range(most + 1):
        center = center_at(problem, theta, vectors, tolerance)
        theta, left, *_ = project_center(center, target, threshold)
        if float(left.sharpness) <= tolerance and float(left.gradient) <= tolerance:
            stable = center
            if float(left.sideways) <= tolerance:
                break
        if not np.isfinite(theta).all():
            break
        vectors = center.eigen.vectors
    if stable is not None:
        return stable if previous is None else taylor_center(stable.point, stable.normals, previous.top_eigenvector)
    if not np.isfinite(theta).all():
        raise UserError(
            f"no point of the stable set can be found from S = {float(center.sharpness):.4g}, ‖∇S⊥‖ = {float(center.beta) ** 0.5:.1e}: "
            f"a projection onto S = 2/η = {threshold:.4g} needs a sharpness above 0 that changes with θ"
        )
    raise UserError(
        f"no point of the stable set within {tolerance:.1e} after {most} projections: |S−2/η|·η/2 = {float(left.sharpness):.1e}, "
        f"|∇L·u|/‖∇L‖ = {float(left.gradient):.1e}; is S near 2/η = {threshold:.4g}?"
    )


def predicted_step(
    problem: Problem, center: TaylorCenter, following: TaylorCenter, v: Array, learning_rate: float, form: Prediction = "transported"
) -> Array:
    """v⋆_{t+1} (p,) from v⋆_t (p,), the predicted displacement from θ†: x⋆ = u·v⋆ and y⋆ = ∇S⊥·v⋆ (`displacement`).

    `transported` is Definition 7, (6), `generalized` Appendix F, `code` the authors' form, `full_cubic` has all of the cubic term.
    `center` is θ†_t and `following` θ†_{t+1}, whose u the prediction is carried to.
    """
    require_correct_sums()
    if form not in FORMS:
        raise UserError(f'form "{form}": not known; expected one of {", ".join(FORMS)}')
    v = jnp.asarray(v)
    if v.shape != center.theta.shape:
        raise UserError(f"v: an array of shape {v.shape}; expected that of θ†, {center.theta.shape}")
    dtype, alone = str(np.dtype(center.theta.dtype)), {str(form): v}
    _, _, points = coordinates(center, None, v, alone)
    slopes = {each: loss_along(problem, point, center.top_eigenvector)[1] for each, point in points.items()}
    advanced = predict(problem, center, alone, slopes, learning_rate, theory.threshold(learning_rate), dtype)
    return carry(advanced, following.top_eigenvector)[form]
