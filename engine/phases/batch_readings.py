"""What a training on batches reads, where the sharpness of the full loss alone says little of its stability.

g is the gradient of a batch and H_B the Hessian of the same batch; ⟨·⟩ is the mean over batches, estimated from some that are drawn for it,
with its standard error.

- Batch sharpness ⟨g·H_Bg/‖g‖²⟩ [arXiv 2412.20553]: the curvature that a step meets on the examples that it is taken on. It is this that
  SGD brings to 2/η, and λ1 of the full loss stays below. The ratio of the means is another quantity.
- Gradient–noise interaction ⟨g·Hg⟩/‖∇L‖², H of the full loss: 2/η wherever the loss no longer falls on average, at an edge or not, as that
  is what ⟨L(θ − ηg)⟩ = L(θ) says to second order. No edge.
- Noise along u, the variance of u·g over batches, and the gap ηβ/(4α) times it [arXiv 2604.21016], by which λ1 of the full loss is to stay
  below 2/η: an estimate of first order, with α and β at the iterate, as there is no θ† here.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine import theory
from engine.curvature.expansion import grad_sharpness, loss_and_gradient
from engine.phases.context import Setup
from engine.problems import batches
from engine.problems.problem import Problem
from engine.record import edges
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots

TOGETHER = 50
"""Batches in one compiled call; the error is looked at after each."""
GNI_SAMPLES, GNI_TOLERANCE = 500, 0.05
"""Most batches drawn for the gradient–noise interaction, and the relative standard error at which fewer are enough: the literature's."""


class Estimate(NamedTuple):
    """A mean over batches."""

    mean: float
    error: float
    """Its standard error."""
    samples: int


def cadences(setup: Setup) -> tuple[int, ...]:
    """Steps between readings of each; 0 means never."""
    part = setup.spec.batch
    return (part.sharpness_every, part.gni_every) if part.size else ()


def read(setup: Setup, theta: Array, u: Array, learning_rate: float, step: int) -> dict[str, float]:
    """The columns of the loss of all examples at θ (p,), and of what is due of the rest, with u (p,) the top eigenvector there; the work
    among them."""
    part, share = setup.spec.batch, setup.spec.batch.size / setup.problem.count
    loss, grad = loss_and_gradient(setup.problem, theta)
    norm, at = float(jnp.linalg.norm(grad)), theta.astype(u.dtype)
    values, gradients, hvps = {"gd.loss": float(loss), "gd.gradient_norm": norm}, 1.0, 0.0
    if part.sharpness_every and step % part.sharpness_every == 0:
        sharpness, noise = batch_sharpness(setup, at, u, step)
        values |= {
            "batch.sharpness": sharpness.mean, "batch.sharpness_error": sharpness.error, "batch.samples": sharpness.samples,
            "batch.noise": noise,
        }
        gradients, hvps = gradients + share * sharpness.samples, hvps + share * sharpness.samples
        if edges.is_plain(setup.spec.optimizer):
            values |= {"batch.gap": gap(setup, at, grad, u, learning_rate, noise), "cost.grad_sharpness": 1}
    if part.gni_every and step % part.gni_every == 0:
        interaction = noise_interaction(setup, at, norm, step)
        values |= {"batch.gni": interaction.mean, "batch.gni_error": interaction.error}
        gradients, hvps = gradients + share * interaction.samples, hvps + interaction.samples
    return values | {"cost.gradients": gradients, "cost.hvps": hvps}


def drawn(setup: Setup, step: int) -> batches.Drawn:
    """The batches of a reading at this step."""
    part = setup.spec.batch
    return batches.Drawn(setup.spec.batch_seed, step, setup.problem.count, part.size, part.replacement)


def batch_sharpness(setup: Setup, theta: Array, u: Array, step: int) -> tuple[Estimate, float]:
    """⟨g·H_Bg/‖g‖²⟩ at θ (p,), and the variance of u·g over the batches that were drawn for it."""
    part, draw, along = setup.spec.batch, drawn(setup, step), list[np.ndarray]()

    def quotients() -> np.ndarray:
        curved, onto = _quotients(setup.problem, theta, draw.next(TOGETHER), u)
        along.append(np.asarray(onto, float))
        return np.asarray(curved, float)

    estimate = estimated(quotients, part.samples, part.tolerance)
    return estimate, float(np.concatenate(along)[: estimate.samples].var(ddof=1))


def noise_interaction(setup: Setup, theta: Array, gradient_norm: float, step: int) -> Estimate:
    """⟨g·Hg⟩/‖∇L‖² at θ (p,), of the full loss's gradient norm there."""
    draw, square = drawn(setup, step), gradient_norm**2 or math.nan
    return estimated(
        lambda: np.asarray(_interactions(setup.problem, theta, draw.next(TOGETHER)), float) / square, GNI_SAMPLES, GNI_TOLERANCE
    )


def estimated(more: Callable[[], np.ndarray], most: int, tolerance: float) -> Estimate:
    """The mean of samples, some more of which come at each call: of so many `most`, or as many as make its relative error small enough."""
    samples = np.empty(0)
    while True:
        samples = np.concatenate([samples, more()])[:most]
        mean, error = float(samples.mean()), float(samples.std(ddof=1)) / math.sqrt(len(samples))
        if len(samples) == most or not error > tolerance * abs(mean):  # what is not finite gets no better
            return Estimate(mean, error, len(samples))


def gap(setup: Setup, theta: Array, grad: Array, u: Array, learning_rate: float, noise: float) -> float:
    """The estimate of how far below 2/η the sharpness is to stay at θ (p,), of noise along u; NaN where α is not positive.

    α is taken without the part of the gradient along u, which θ† would not have, and which at an iterate is most of it.
    """
    dS, slope = grad_sharpness(setup.problem, theta, u, str(u.dtype)), grad.astype(theta.dtype)
    square, along, skew, falling, steep = (float(each) for each in _expansion(dS, slope, u.astype(theta.dtype)))
    return theory.sharpness_gap(learning_rate, along * skew / square - falling, steep - skew**2 / square, noise)


@jit_by_format
def _expansion(dS: Array, grad: Array, u: Array) -> tuple[Array, ...]:
    """u·u, u·∇L, u·∇S, ∇L·∇S and ∇S·∇S."""
    return dots((u, u), (u, grad), (u, dS), (grad, dS), (dS, dS))


@partial(jit_by_format, place=1)
def _quotients(problem: Problem, theta: Array, chosen: Array | np.ndarray, u: Array) -> tuple[Array, Array]:
    """g·H_Bg/‖g‖² and u·g of each batch, (m,) each, of their examples (m, b)."""

    def of(indices: Array) -> tuple[Array, Array]:
        grad, product = jax.linearize(problem.on(indices).gradient, theta)
        square, curved, along = dots((grad, grad), (grad, product(grad)), (grad, u.astype(grad.dtype)))
        return curved / square, along

    return lax.map(of, chosen)


@partial(jit_by_format, place=1)
def _interactions(problem: Problem, theta: Array, chosen: Array | np.ndarray) -> Array:
    """g·Hg of each batch, (m,), of their examples (m, b); H is of all examples."""
    product = problem.product_at(theta)

    def of(indices: Array) -> Array:
        grad = problem.on(indices).gradient(theta)
        return dots((grad, product(grad)))[0]

    return lax.map(of, chosen)
