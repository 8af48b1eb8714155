"""What a sweep would gain from a batch: several learning rates in one `vmap`, against one after the other, in the same rounds.

    python -m engine bench batch [--rounds N] [--json]

For each preset the same work is timed both ways: gradient descent in float32 over a hundred steps, and Hessian–vector products of
the curvature, which the eigensolver is made of. That is the best case of a batch: its members here do exactly as much work, while
those of a sweep reach the edge at different steps and would each wait in every loop of the solver for the slowest.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from rich.console import Console
from rich.table import Table

from engine.problems.build import build
from engine.problems.problem import Problem
from engine.spec import load_spec
from engine.xla.device import device_words

PRESETS, STEPS, PRODUCTS = ("toy", "chebyshev", "fashion"), 100, 10
LEARNING_RATES = np.array([0.005, 0.01, 0.015, 0.02])


class Batch(NamedTuple):
    """One preset and work; medians in seconds, and how many times faster the batch is: below 1 it is slower."""

    preset: str
    parameters: int
    members: int
    work: str
    one_by_one_s: float
    batch_s: float
    faster: float


def descent(problem: Problem, theta: Array, learning_rate: Array) -> Array:
    """θ (p,) after the steps at one learning rate."""
    return lax.scan(lambda theta, _: (theta - learning_rate.astype(theta.dtype) * problem.gradient(theta), None), theta, length=STEPS)[0]


def products(problem: Problem, theta: Array, learning_rate: Array) -> Array:
    """So many Hessian–vector products, each of the last, (p,)."""
    del learning_rate
    return lax.scan(lambda v, _: (problem.hvp(theta, v / jnp.linalg.norm(v)), None), theta + 1, length=PRODUCTS)[0]


def measure(preset: str, work: Callable[[Problem, Array, Array], Array], rounds: int) -> Batch:
    """One preset's figures for one kind of work."""
    problem, theta, _ = build(load_spec(preset))
    theta, rates = theta.astype("float32"), jnp.asarray(LEARNING_RATES)
    single, batch = jax.jit(work), jax.jit(jax.vmap(work, (None, 0, 0)))
    starts = jnp.stack([theta] * len(rates))

    def alone() -> None:
        for rate in rates:
            single(problem, theta, rate).block_until_ready()

    def together() -> None:
        batch(problem, starts, rates).block_until_ready()

    times: dict[Callable[[], None], list[float]] = {alone: [], together: []}
    for warm in (True, *[False] * rounds):
        for way, taken in times.items():
            began = time.perf_counter()
            way()
            taken.extend([] if warm else [time.perf_counter() - began])
    one, both = (statistics.median(taken) for taken in times.values())
    return Batch(preset, theta.size, len(rates), work.__name__, one, both, one / both)


def main(rounds: int = 5, as_json: bool = False) -> int:
    """Measure every preset and print a table or JSON."""
    from engine.xla.device import configure

    configure()
    measured = []
    for preset in PRESETS:
        print(f"{preset} …", file=sys.stderr, flush=True)
        measured += [measure(preset, work, rounds) for work in (descent, products)]
    if as_json:
        print(json.dumps([entry._asdict() | {"device": device_words()} for entry in measured], indent=1))
        return 0
    table = Table("preset", "p", "members", "work", "one by one, s", "batch, s", "faster", title=f"A batch ({device_words()})")
    for entry in measured:
        numbers = (f"{entry.one_by_one_s:.3g}", f"{entry.batch_s:.3g}", f"{entry.faster:.2f}×")
        table.add_row(entry.preset, f"{entry.parameters:,}", str(entry.members), entry.work, *numbers)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0
