"""What is kept of θ itself at steps of their own: snapshots of the parameters, and projections of θ on fixed random directions.

Both are read before a step is taken, and change nothing of the run. A snapshot's eigenvectors are solved for at its own θ, from those that
the run follows: these may be of an earlier step, of a midpoint, or of a preconditioned Hessian.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.base.errors import UserError
from engine.base.text import bytes_words
from engine.curvature import guards
from engine.curvature.eigensolver import solve_at
from engine.problems.parameters import Parameter, named, parameters
from engine.problems.problem import Problem
from engine.record.columns import PROJECTION
from engine.record.safe_read import OF_ITSELF
from engine.record.snapshots import THETA, tensor_name
from engine.spec import RunSpec
from engine.xla.shares import Shares, bare, numbers

TOLERANCE = 1e-4
"""Largest relative residual ‖Hu−λu‖/|λ1| of the eigenvectors in a snapshot."""
NEVER = 2**31
"""Steps until what never comes: further than any run goes."""
HEADER_BYTES = 160
"""What a safetensors file says of a tensor, beside its name, at most; and of itself beside the names, a few times that."""


class Taken(NamedTuple):
    """A snapshot of a step, as it goes to the disk."""

    step: int
    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class Snapshots:
    """The snapshots of a run: when one is due, and those that were taken and not yet written."""

    def __init__(self, spec: RunSpec, problem: Problem, size: int):
        """Of a problem with θ of `size` numbers. Raises UserError where its parameters cannot be told by name."""
        self.every, self._holds = spec.recording.snapshots_every, spec.recording.snapshots
        self._seed, self._dtype, self._count = spec.seed, spec.precision.curvature, min(spec.tracking.eigenvalues, size)
        self._taken: list[Taken] = []
        self.parameters: tuple[Parameter, ...] = parameters(problem, size) if self.every else ()
        for each in self.parameters:
            if each.name == OF_ITSELF or each.name.startswith(tuple(f"{part}/" for part in self._holds)):
                raise UserError(f"{problem.label}: parameter {each.name}: snapshots call another thing that; give it another name")

    def read(
        self, problem: Problem, step: int, learning_rate: float, theta: Array, eigenvectors: Array, constrained: Array | None
    ) -> dict[str, float]:
        """Take the snapshot of this step where it is due; the products that it took. `eigenvectors` (k, p) are near those of ∇²L."""
        if not self.every or step % self.every:
            return {}
        vectors: dict[str, np.ndarray] = {}
        facts: dict[str, Any] = {"learning_rate": learning_rate, "names": [each.name for each in self.parameters]}
        costs: dict[str, float] = {}
        if THETA in self._holds:
            vectors[THETA] = bare(np.asarray(theta), problem.shares)
        if "constrained" in self._holds and constrained is not None:
            vectors["constrained"] = bare(np.asarray(constrained), problem.shares)
        if "eigenvectors" in self._holds:
            fresh = guards.fresh_rows(self._seed, step, theta.size, self._dtype, problem.shares)
            start = jnp.concatenate([eigenvectors[: self._count].astype(self._dtype), fresh])
            pairs, _ = solve_at(
                problem, theta, start, TOLERANCE, self._dtype, wanted=self._count, looked=len(start), tight=self._count
            )
            vectors["eigenvectors"] = bare(np.asarray(pairs.vectors), problem.shares)[: self._count]
            costs = {"cost.hvps": int(pairs.hvps)}
            for name, numbers in (("eigenvalues", pairs.values), ("residuals", pairs.residuals)):
                facts[name] = np.asarray(numbers, float)[: self._count].tolist()
        arrays = {
            tensor_name(part, name): array for part, each in vectors.items() for name, array in named(self.parameters, each).items()
        }
        self._taken.append(Taken(step, arrays, facts | {"parts": list(vectors)}))
        return costs

    def taken(self) -> list[Taken]:
        """What was taken since this was last asked."""
        taken, self._taken = self._taken, []
        return taken


@partial(jax.jit, static_argnames=("count", "shares"))
def project(theta: Array, count: int, shares: Shares | None = None) -> Array:
    """r·θ (count,) for so many directions r of ±1, by integer arithmetic alone (splitmix64): the same with every version of every library.
    One after the other, so that none of them is kept."""
    size = numbers(theta.size, shares)

    def along(k: Array) -> Array:
        bits = (jnp.arange(1, theta.size + 1, dtype=jnp.uint64) + k * np.uint64(size)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        signs = 1 - 2 * ((bits >> np.uint64(31)) & np.uint64(1)).astype(jnp.float64)
        return signs @ theta.astype(jnp.float64)

    return lax.map(along, jnp.arange(count, dtype=jnp.uint64))


class Projections:
    """The projections of a run's θ, and when they are due."""

    def __init__(self, spec: RunSpec):
        self._count = spec.recording.projections
        self.every = spec.recording.projections_every if self._count else 0

    def read(self, step: int, theta: Array, shares: Shares | None) -> dict[str, float]:
        """The values at θ by column, where they are due at this step."""
        if not self.every or step % self.every:
            return {}
        values = np.asarray(project(theta, self._count, shares))
        return {f"{PROJECTION}{k}": float(value) for k, value in enumerate(values, start=1)}


def steps_until(every: int, step: int) -> int:
    """Steps from this one until a multiple of so many, or until the next."""
    return every - step % every if every else NEVER


class Planned(NamedTuple):
    """The snapshots that a run comes to at most."""

    files: int
    bytes: int
    """In all."""

    @property
    def words(self) -> str:
        """`12 snapshots, up to 3.4 MB`."""
        return f"{self.files} snapshot{'s' * (self.files != 1)}, up to {bytes_words(self.bytes)}"


def planned(spec: RunSpec, problem: Problem, size: int, step: int = 0) -> Planned:
    """The snapshots from this step to the end of the budget, with parameters in the widest of the run's number formats."""
    part = spec.recording
    if not part.snapshots_every:
        return Planned(0, 0)
    files = max(0, -(-spec.budget.steps // part.snapshots_every) + -step // part.snapshots_every)
    names = [each.name for each in parameters(problem, size)]
    widest = 4 if spec.precision.approach == spec.precision.edge == "float32" else 8
    count, curvature = min(spec.tracking.eigenvalues, size), np.dtype(spec.precision.curvature).itemsize
    each_number = {THETA: widest, "constrained": widest, "eigenvectors": count * curvature}
    words = sum(len(name.encode()) + HEADER_BYTES for name in names)
    whole = sum(each_number[each] * size + words for each in part.snapshots) + 2 * words + 64 * count
    return Planned(files, files * whole)
