"""How many of gradient descent's eigenvalues are followed: as many as lie above 1.5/η, so that whatever becomes unstable was
seen coming.

The number only grows. While the smallest one followed lies above 1.5/η the solver is asked for more at the same θ, from random
vectors beside the pairs it has, so that every row covers what it should, up to the columns allotted. Each new number of pairs
compiles the solver once; an event says so. Another event says when each eigenvalue is first above 2/η.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, Eigenpairs, random_start
from engine.curvature.expansion import Point, measure_all
from engine.curvature.guards import Known
from engine.curvature.halves import halved
from engine.phases.context import Setup
from engine.record import edges, messages
from engine.record.messages import AnyEvent
from engine.spec import FOLLOWED_FROM

GROWTH = 2
"""Eigenvalues added at once: each addition compiles the solver anew."""


class Spectrum(NamedTuple):
    """What is measured at gradient descent's θ, as many vectors at its last steps as there are pairs, and what is to be told."""

    point: Point
    images: Array  # (k, p) of the eigenvectors under the Hessian
    history: Array  # (steps, k, p)
    events: list[AnyEvent]


def read(
    setup: Setup, theta: Array, start: Array, history: Array, step: int, plain_rate: float,
    others: Known | None = None, measured: tuple[Point, Array] | None = None, rows: int | None = None,
) -> Spectrum:
    """Loss, gradient and eigenpairs at θ from a start (k, p); the `history` (steps, k, p) of eigenvectors, `halved` or not, comes to as
    many as are followed.

    `others` are eigenvectors that another trajectory knows: they are looked at where one of them may be among the largest here and is
    not in what was measured. Where the pairs are `measured` already they are not measured anew.
    `plain_rate` is the learning rate of gradient descent with this edge. A start with room after so many `rows` is none any more.
    """
    dtype, eta = setup.spec.precision.curvature, plain_rate
    before, most = history.shape[1], most_followed(setup, theta.size)
    point, images = measured or measure_all(setup.problem, theta, start, LOOSE_TOLERANCE, dtype, count=rows)
    hvps = point.eigen.hvps
    if others is not None:
        vector, missed = guards.misses(point.eigen, others)
        if missed:
            together = guards.with_another(point.eigen.vectors, vector)
            del images, vector  # neither they nor the pairs are of use any more, and of many parameters it is they that take the memory
            point = point._replace(eigen=None)  # type: ignore[arg-type]
            pairs, images = guards.look_at_another(setup.problem, theta, together, before + 1, before, dtype)
            hvps += pairs.hvps
            point, images = point._replace(eigen=pairs.first(before)._replace(hvps=hvps)), images[:before]
    while (count := len(point.eigen.values)) < most and float(np.asarray(point.eigen.values)[-1]) * eta > FOLLOWED_FROM:
        fresh = random_start(setup.spec.seed, step, min(GROWTH, most - count), theta.size, dtype, setup.problem.shares)
        point, images = measure_all(setup.problem, theta, jnp.concatenate([point.eigen.vectors, fresh]), LOOSE_TOLERANCE, dtype)
        hvps += point.eigen.hvps
    events: list[AnyEvent] = []
    if count > before:
        point = point._replace(eigen=point.eigen._replace(hvps=hvps))
        added = point.eigen.vectors[before:]
        more = jnp.stack([halved(added) if history.dtype == "float16" else added] * len(history))
        history = jnp.concatenate([history, more], axis=1)
        limit = edges.in_units(setup.spec.optimizer, f"{FOLLOWED_FROM:g}", FOLLOWED_FROM)
        text = f"{count} eigenvalues are followed from step {step}: λ{before} is above {limit} = {FOLLOWED_FROM / eta:.4g}"
        events.append(messages.SpectrumGrown(step=step, text=text, count=count))
    return Spectrum(point, images, history, events)


def values_of(pairs: Eigenpairs) -> dict[str, float]:
    """The columns that eigenpairs of gradient descent give."""
    values = np.asarray(pairs.values, float)
    named = {f"gd.lambda{k}": value for k, value in enumerate(values, start=1) if k > 1}
    return named | {"gd.sharpness": values[0], "gd.eigen_residual": float(pairs.residuals[0]), "cost.hvps": int(pairs.hvps)}


def most_followed(setup: Setup, size: int) -> int:
    """The most eigenvalues that a run follows."""
    return min(setup.tracking.eigenvalue_columns, size)


def unstable(setup: Setup, table: Mapping[str, np.ndarray], known: int) -> tuple[int, list[AnyEvent]]:
    """The most eigenvalues above 2/η up to the last row of a table, `known` before the first; an event for each new one."""
    names = ["gd.sharpness", *(f"gd.lambda{k}" for k in range(2, len(table)) if f"gd.lambda{k}" in table)]
    above = np.sum(np.stack([table[name] for name in names]) > table["threshold"], axis=0)
    events: list[AnyEvent] = []
    while len(above) and known < above.max():
        known += 1
        row = int(np.argmax(above >= known))
        step = int(table["step"][row])
        text = f"λ{known} is above {edges.formula(setup.spec.optimizer)} = {table['threshold'][row]:.4g} for the first time at step {step}"
        events.append(messages.EigenvalueUnstable(step=step, text=text, number=known))
    return known, events
