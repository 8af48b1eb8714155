"""The optimizers: how each takes a step, and the edge above which its steps are unstable.

Update rules are optax's, with η in the state instead of the rule: `optax.sgd` gives θ − η∇L to the last bit. Where an optimizer differs
from optax's defaults, its section of the specification says so.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from engine import theory
from engine.dynamics.optimizer import Gradient, Momentum, Optimizer, State, Unravel, moved, rate, two_over_eta, unscaled
from engine.dynamics.own_optimizer import own
from engine.dynamics.steepest import muon, sign
from engine.spec import sections
from engine.xla.reductions import norms


class GradientDescentState(NamedTuple):
    """What gradient descent needs to know for a step."""

    learning_rate: Array  # () η


def _begin(theta: Array, unravel: Unravel, learning_rate: float) -> GradientDescentState:
    return GradientDescentState(rate(learning_rate))


def _step(theta: Array, state: GradientDescentState, gradient: Array, gradient_at: Gradient) -> tuple[Array, GradientDescentState]:
    rule = optax.sgd(state.learning_rate.astype(theta.dtype))
    updates, _ = rule.update(gradient, rule.init(theta))
    return jnp.asarray(optax.apply_updates(theta, updates)), state


GRADIENT_DESCENT = Optimizer(_begin, _step, unscaled, two_over_eta)
"""θ ← θ − η∇L(θ), stable on a quadratic while S ≤ 2/η."""


class RuleState(NamedTuple):
    """What a rule of optax needs to know for a step."""

    learning_rate: Array  # () η
    rule: Any  # optax's own state: moments (p,), steps taken ()


def of_rule(
    rule: optax.GradientTransformation, preconditioner: Callable[[Any], Array], threshold: Callable[[Array], Array]
) -> Optimizer:
    """θ ← θ − η·rule(∇L), P from the rule's state, the edge from η."""

    def init(theta: Array, unravel: Unravel, learning_rate: float) -> RuleState:
        return RuleState(rate(learning_rate), rule.init(theta))

    def step(theta: Array, state: RuleState, gradient: Array, gradient_at: Gradient) -> tuple[Array, RuleState]:
        direction, following = rule.update(gradient, state.rule, theta)
        return moved(theta, jnp.asarray(direction), state.learning_rate), RuleState(state.learning_rate, following)

    scaled = unscaled if preconditioner is unscaled else lambda state: preconditioner(state.rule)
    return Optimizer(init, step, scaled, lambda state: threshold(state.learning_rate))


@cache
def momentum(beta: float, nesterov: bool, ema: bool) -> Optimizer:
    """Heavy ball or Nesterov; an average of gradients is their sum times 1 − β."""
    rule = optax.trace(beta, nesterov)
    rule = optax.chain(rule, optax.scale(1 - beta)) if ema else rule
    made = of_rule(rule, unscaled, lambda eta: theory.momentum_edge(eta, beta, nesterov, ema))

    def trace(state: RuleState) -> Array:
        return (state.rule[0] if ema else state.rule).trace

    return made._replace(momentum=Momentum(theory.memory_of(beta, nesterov, ema), trace))


@cache
def rmsprop(beta2: float, epsilon: float) -> Optimizer:
    """P = √ν̂ + ε, ν̂ = ν/(1−β₂^t)."""
    rule = optax.scale_by_rms(beta2, epsilon, eps_in_sqrt=False, bias_correction=True)
    return of_rule(rule, lambda state: _root(state, beta2) + epsilon, theory.threshold)


class ScalarRmsState(NamedTuple):
    """The second moment of all of a gradient."""

    steps: Array  # () taken
    nu: Array  # () ν


@cache
def scalar_rmsprop(beta2: float, epsilon: float) -> Optimizer:
    """P = √ν̂ + ε of one ν for all of θ, the average of ‖∇L‖²."""

    def init(theta: Array) -> ScalarRmsState:
        return ScalarRmsState(jnp.zeros((), jnp.int32), jnp.zeros((), theta.dtype))

    def update(gradient: Array, state: ScalarRmsState, theta: Array) -> tuple[Array, ScalarRmsState]:
        following = ScalarRmsState(state.steps + 1, beta2 * state.nu + (1 - beta2) * (gradient @ gradient))
        return gradient / preconditioner(following), following

    def preconditioner(state: ScalarRmsState) -> Array:
        return jnp.sqrt(_corrected(state.nu, state.steps, beta2)) + epsilon

    return of_rule(optax.GradientTransformation(init, update), preconditioner, theory.threshold)


@partial(jax.jit, static_argnames="beta2")  # outside of a compiled function jax compiles a power for each exponent, which is the step
def second_moment(state: RuleState, beta2: float) -> Array:
    """ν̂ of RMSProp, () or (p,); not a number before the first step."""
    rule = state.rule
    return _corrected(rule.nu, rule.steps if isinstance(rule, ScalarRmsState) else rule.count, beta2)


def _corrected(nu: Array, steps: Array, beta2: float) -> Array:
    """ν̂ = ν/(1−β₂^t)."""
    return nu / (1 - beta2**steps).astype(nu.dtype)


@cache
def adam(beta1: float, beta2: float, epsilon: float, nesterov: bool) -> Optimizer:
    """P = (1−β₁^t)(√ν̂ + ε): m̂ = m/(1−β₁^t), and without that the step is that of averaged gradients."""
    rule = optax.scale_by_adam(beta1, beta2, epsilon, nesterov=nesterov)

    def preconditioner(state: Any) -> Array:
        return (1 - beta1**state.count).astype(state.nu.dtype) * (_root(state, beta2) + epsilon)

    return of_rule(rule, preconditioner, lambda eta: theory.momentum_edge(eta, beta1, nesterov, ema=True))


def _root(state: Any, beta2: float) -> Array:
    """√ν̂ (p,); not a number before the first step."""
    return jnp.sqrt(_corrected(state.nu, state.count, beta2))


class SamState(NamedTuple):
    """What sharpness-aware minimisation needs to know, for its edge."""

    learning_rate: Array  # () η
    gradient_norm: Array  # () ‖∇L‖ where the last step began; ∞ before


@cache
def sam(radius: float) -> Optimizer:
    """θ ← θ − η∇L(θ + ρ∇L/‖∇L‖)."""

    def init(theta: Array, unravel: Unravel, learning_rate: float) -> SamState:
        return SamState(rate(learning_rate), jnp.asarray(jnp.inf, theta.dtype))

    def step(theta: Array, state: SamState, gradient: Array, gradient_at: Gradient) -> tuple[Array, SamState]:
        (norm,) = norms(gradient)
        ascent = theta + radius / jnp.maximum(norm, jnp.finfo(theta.dtype).tiny) * gradient
        return moved(theta, gradient_at(ascent), state.learning_rate), state._replace(gradient_norm=norm)

    return Optimizer(init, step, unscaled, lambda state: theory.sam_edge(state.learning_rate, radius, state.gradient_norm))


OPTIMIZERS: dict[type, Callable[[Any], Optimizer]] = {sections.GradientDescent: lambda section: GRADIENT_DESCENT,
    sections.Momentum: lambda section: momentum(section.beta, section.nesterov, section.ema),
    sections.RmsProp: lambda section: (scalar_rmsprop if section.scalar else rmsprop)(section.beta2, section.epsilon),
    sections.Adam: lambda section: adam(section.beta1, section.beta2, section.epsilon, section.nesterov),
    sections.Sam: lambda section: sam(section.radius),
    sections.Sign: lambda section: sign(section.dual_scaled),
    sections.Muon: lambda section: muon(section.dual_scaled),
    sections.OwnOptimizer: own,
}  # fmt: skip
"""By their section of the specification. Sections that differ in η alone give the same optimizer: what is compiled is compiled for it."""


def optimizer_of(section: sections.Optimizer) -> Optimizer:
    """The optimizer of a section."""
    return OPTIMIZERS[type(section)](section)


__all__ = ["GRADIENT_DESCENT", "GradientDescentState", "Optimizer", "State", "optimizer_of"]
