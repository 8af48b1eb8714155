"""What a training reads of the edge of its optimizer, where that is not gradient descent.

The operator is P^-½HP^-½, with P as the last step had it: its top eigenvalues are followed in the coordinates P^½θ, as those of the Hessian
are in θ. Where P changes from step to step the sharpness itself, λ1(H), is read beside it every `PLAIN_EVERY` steps. Where steps are the
steepest in a norm of their own, the Hessian is read as it is, beside the smoothness that a step shows (`engine.dynamics.steepest`).
"""

from collections.abc import Mapping
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.dynamics.optimizer import Optimizer, State, unscaled
from engine.dynamics.steepest import generalized_sharpness
from engine.phases.context import Setup
from engine.problems.problem import Problem, preconditioned
from engine.record import edges
from engine.xla.jit import jit_by_format

PLAIN_EVERY = 40
"""Least steps between readings of λ1(H) where P^-½HP^-½ is read."""
RENAMED = "preconditioned."
"""What stands in place of `gd.` in the columns of what is read against the edge."""
PLAIN = "plain.sharpness"
"""λ1(H) among what is read, where the eigenvalues are those of P^-½HP^-½."""


def changes_coordinates(optimizer: Optimizer) -> bool:
    """Whether the Hessian is read in other coordinates than θ."""
    return optimizer.preconditioner is not unscaled


def operator(optimizer: Optimizer, state: State, probe: Problem, dtype: str) -> Problem | None:
    """The problem whose Hessian is to be read after the step that led to the state; None where P is not positive, as before the first."""
    if not changes_coordinates(optimizer):
        return probe
    p = optimizer.preconditioner(state)
    return preconditioned(probe, p, dtype) if bool(jnp.all(jnp.isfinite(p) & (p > 0))) else None


def named(setup: Setup, columns: Mapping[str, np.ndarray], threshold: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of eigenvalues by the names that the optimizer's have, with their ratio to its edge, (steps,)."""
    if setup.spec.batch.size and (held := edges.held_at_edge(setup.spec)) in columns:
        columns = {**columns, "threshold_ratio": columns[held] / threshold}
    if not edges.has_ratio(setup.spec.optimizer):
        return dict(columns)
    renamed = {
        RENAMED + name.removeprefix("gd."): column for name, column in columns.items()
        if name in ("gd.sharpness", "gd.eigen_residual") or name.startswith("gd.lambda")
    }
    kept = {name: column for name, column in columns.items() if RENAMED + name.removeprefix("gd.") not in renamed}
    if "gd.sharpness" in columns:
        kept["threshold_ratio"] = columns["gd.sharpness"] / threshold
        if not changes_coordinates(setup.optimizer):
            kept["gd.sharpness"] = columns["gd.sharpness"]
    if PLAIN in columns:
        kept["gd.sharpness"] = kept.pop(PLAIN)
    return kept | renamed


def directional_smoothness(
    losses: np.ndarray, dual_norms: np.ndarray, last_loss: float, last_dual: float, learning_rate: float, dual_scaled: bool
) -> np.ndarray:
    """D of the step that led to each of the rows, (steps,), from L and ‖g‖_* at each and at the one before the first; NaN where none did.

    D < 2/η exactly where L fell (`engine.dynamics.steepest`).
    """
    before, dual = np.append(last_loss, losses[:-1]), np.append(last_dual, dual_norms[:-1])
    length = learning_rate * (dual if dual_scaled else np.ones_like(dual))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        curvature = 2 * (losses - before + length * dual) / length**2
        return np.where(dual > 0, curvature if dual_scaled else curvature / dual, np.nan)


@partial(jit_by_format, place=2, static_argnames="optimizer")
def smoothness(problem: Problem, optimizer: Optimizer, theta: Array, state: State, last: Array, fresh: Array) -> tuple[Array, Array]:
    """A lower bound on the generalized sharpness at θ (p,), over ‖∇L‖_* where steps are not scaled by it, and the v that attains it.

    Climbed to from the last such v, from the direction of the step and from `fresh`, each (p,).
    """
    assert optimizer.norm is not None
    direction, dual = optimizer.norm.steepest(problem.gradient(theta), state)
    starts = jnp.stack([each.astype(theta.dtype) for each in (last, direction, fresh)])
    value, vector = generalized_sharpness(optimizer.norm, state, problem.product_at(theta), starts)
    return value if optimizer.norm.dual_scaled else value / dual, vector
