"""Small problems with dense answers, for tests of the engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from engine import spec as specs
from engine.phases.context import Setup
from engine.phases.experiment import Experiment
from engine.phases.training import TrainingPhase
from engine.problems.build import build
from engine.problems.problem import Problem


def chebyshev_spec(learning_rate: float = 0.1, **tracking) -> specs.RunSpec:
    """A tanh network 1-8-8-1 on 12 points of T3, all in float64: p = 97, so iterative solvers and dense ones both serve."""
    return specs.from_tree(
        {
            "name": "small",
            "problem": {
                "kind": "network", "criterion": "half_mse",
                "data": {"name": "chebyshev", "examples": 12, "degree": 3, "standardize": "none"},
                "model": {"kind": "mlp", "widths": [8, 8], "activation": "tanh"},
            },
            "optimizer": {"learning_rate": learning_rate},
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
            "tracking": tracking,
        },
        "test",
    )


def toy_spec(learning_rate: float = 0.01, x0: float = 0.1, **tracking) -> specs.RunSpec:
    """Appendix B in float64, θ† to rounding."""
    return specs.from_tree(
        {
            "name": "toy", "problem": {"kind": "toy", "x0": x0}, "optimizer": {"learning_rate": learning_rate},
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
            "tracking": tracking if tracking.get("mode") == "sharpness" else {
                "sharpness_tolerance": 1e-12, "gradient_tolerance": 1e-12,
            } | tracking,
        },
        "test",
    )


def digits_spec(*overrides: str) -> specs.RunSpec:
    """A tanh network 64-3-1 tells threes from eights, in float64, with a reading at every fourth step: p = 199."""
    spec = specs.from_tree(
        {
            "name": "digits",
            "problem": {
                "kind": "network", "criterion": "mse", "data": {"name": "digits", "classes": [3, 8], "examples": 24, "test_examples": 10},
                "model": {"kind": "mlp", "widths": [3], "activation": "tanh"},
            },
            "optimizer": {"learning_rate": 0.05},
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
            "tracking": {"mode": "sharpness", "sharpness_every": 4},
        },
        "test",
    )
    return specs.with_overrides(spec, overrides)


def under(experiment: Experiment, setup: Setup) -> Experiment:
    """The experiment where it stands, with another setup: nothing is compiled anew but for another problem."""
    other = copy(experiment)
    other.setup, other.phases = setup, {name: copy(phase) for name, phase in experiment.phases.items()}
    for phase in other.phases.values():
        phase.setup = setup
        if isinstance(phase, TrainingPhase):
            phase.training = phase.training._replace(setup=setup)
    other.put_back(experiment.standing)
    return other


@cache
def chebyshev_problem() -> tuple[Problem, jax.Array]:
    """The problem of `chebyshev_spec`, and a θ away from its start (so that no entry is zero)."""
    problem, theta, _ = build(chebyshev_spec())
    return problem, theta + 0.1 * jax.random.normal(jax.random.key(1), theta.shape, jnp.float64)


def rows(experiment: Experiment, until: int, samples: dict[int, dict[str, np.ndarray]] | None = None) -> dict[str, np.ndarray]:
    """The record of an experiment up to a step, by column; what it samples on the way goes into `samples`, by step."""
    record = []
    while experiment.clock.step < until:
        progress = experiment.advance(until - experiment.clock.step)
        record += progress.rows
        if samples is not None:
            samples.update(progress.curves)
        if progress.outcome:
            break
    table = np.array(record)
    return {name: table[:, k] for name, k in experiment.setup.column_index.items()}


loss_at, gradient_at, hvp_at = (jax.jit(function) for function in (Problem.loss, Problem.gradient, Problem.hvp))
"""L(θ), ∇L(θ) and ∇²L(θ)v of (problem, θ, …), each as one program: operation by operation every derivative is a hundred of them."""


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of functions that are compiled while this lasts, in any thread."""
    names, on = [], True

    def listen(event: str, *_, **about) -> None:
        if on and "backend_compile" in event:
            names.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        on = False  # a public way to take a listener back is not in all versions


@jax.jit
def third_at(problem: Problem, theta: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """∇³L(u,v), (p,)."""
    return problem.derivative(theta, 3, u, v)


@jax.jit
def dense_hessian(problem: Problem, theta: jax.Array) -> jax.Array:
    """∇²L(θ), (p, p)."""
    return jax.hessian(problem.loss)(theta)


@jax.jit
def dense_third(problem: Problem, theta: jax.Array) -> jax.Array:
    """∇³L(θ), (p, p, p)."""
    return jax.jacfwd(jax.hessian(problem.loss))(theta)
