"""What no residual shows: an eigenvalue that rises past those which are followed, in a direction that none of their vectors has.

A small residual proves an eigenpair, not the top one. A start from the eigenvectors of the last step spans what they span: where the
loss is made of nearly independent parts, a valley that grows steeper elsewhere never enters it. So every few steps each trajectory *looks
around*: its solver starts from further rows too, which are looked at and not waited for. They are the next eigenvectors so far as they
are known, the guards, each one step of power iteration on; a random vector, in which all directions are, with a few products more to
tell them apart; and what another trajectory has seen that this one has not. What turns out larger takes its place among the followed, at
that very step. From a look on the guards hold the largest of the rest, so that a crossing that one of them has seen coming is in the
first look after it.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature.eigensolver import LARGE, LOOSE_TOLERANCE, Eigenpairs, forms_hessian, random_start, sharpness_at, solve_at, with_room
from engine.curvature.expansion import Point, loss_and_gradient
from engine.curvature.halves import halved, whole
from engine.problems.problem import Problem
from engine.xla.leaves import Earlier, Leaves
from engine.xla.shares import Shares, numbers

COUNT = 2
"""Guards kept."""
FRESH = 1
"""Random rows of a look."""
EXPLORED = 3
"""Products that grow the basis from the random row: a Krylov space of as many powers in what is not followed."""
EVERY = 4
"""Steps between looks."""
NEAR = 0.95
"""Fraction of the smallest followed eigenvalue from which another trajectory's vector is looked at."""


class Guards(NamedTuple):
    """The next eigenvectors after those followed, so far as they are known."""

    vectors: Array  # (COUNT, p)
    values: Array  # (COUNT,) their Rayleigh quotients at the last look

    def whole(self, dtype: str | np.dtype) -> "Guards":
        """In a number format."""
        return self._replace(vectors=self.vectors.astype(dtype))


class KeptGuards(NamedTuple):
    """Guards as they are kept between steps: they are only looked at."""

    halves: Annotated[Array, Earlier(lambda leaves: halved(_unit(jnp.asarray(leaves["vectors"]))))]  # (COUNT, p) `halved`
    values: Array  # (COUNT,)

    def whole(self, dtype: str | np.dtype) -> Guards:
        """In the number format of the curvature."""
        return Guards(whole(self.halves, dtype), self.values)


Known = tuple[Guards | KeptGuards, ...]
"""Eigenvectors that are known at a point, of unit length."""


@jax.jit
def kept(guards: Guards) -> KeptGuards:
    """The guards to be kept until the next step."""
    return KeptGuards(halved(_unit(guards.vectors)), guards.values)


def _unit(vectors: Array) -> Array:
    """Vectors (k, p) of unit length, which random ones are not."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1)


def begin(seed: int, step: int, size: int, dtype: str, shares: Shares | None = None) -> Guards:
    """Guards that know nothing yet: random vectors."""
    return Guards(random_start(seed, step, COUNT, size, dtype, shares), jnp.zeros(COUNT, dtype))


def unknown(vectors: str) -> Callable[[Leaves], Guards]:
    """How guards come to a checkpoint that has none: as they begin, in the format of the eigenvectors there."""
    return lambda leaves: begin(0, 0, leaves[vectors].shape[-1], str(leaves[vectors].dtype))


def due(step: Any) -> Any:
    """Whether a step of a trajectory that is read at each looks around."""
    return step % EVERY == 0


def overdue(step: int, looked: int) -> bool:
    """Whether a trajectory that is read now and then, and `looked` around at that step, looks around at this one."""
    return step - looked >= EVERY


def look(
    problem: Problem, theta: Array, start: Array, guards: "Guards | KeptGuards", seed: int, step: int, tolerance: float, dtype: str,
    settle: bool = False, tight: int | Array = 1,
) -> tuple[Eigenpairs, Array, Guards]:
    """The top eigenpairs at θ from `start` (k, p), with what the Hessian makes of them, and the guards after it, in their number format,
    or kept if those before were.

    To `settle` is to wait for the guards too: they are then the next eigenvectors. Random rows are those of the seed and the step.
    """
    count = len(start)
    wanted = count + COUNT if settle else count
    rows = _rows_around(start, guards, seed, step, dtype, problem.shares)
    return _looked(problem, theta, rows, count, tolerance, dtype, wanted, tight, keeps=isinstance(guards, KeptGuards))


def compile_look(problem: Problem, theta: Array, start: Array, guards: "Guards | KeptGuards", tolerance: float, dtype: str) -> None:
    """Have `look` from a start (k, p) at θ compiled, by one that takes no product."""
    rows = _rows_around(start, guards, 0, 0, dtype, problem.shares)
    pairs, images = solve_at(problem, theta, rows, tolerance, dtype, wanted=0, looked=0, overwrites=True)
    _parted(pairs, images, len(start), isinstance(guards, KeptGuards))


def look_in_turn(
    problem: Problem, theta: Array, rows: Array, count: int, tolerance: float, dtype: str, tight: int | Array = 1
) -> tuple[Eigenpairs, Array, Guards]:
    """`look` of many parameters, for `count` pairs from `rows` with room for the basis after them, which are none any more."""
    return _looked(problem, theta, rows, count, tolerance, dtype, count, tight, count + COUNT + FRESH)


def _looked(
    problem: Problem, theta: Array, rows: Array, count: int, tolerance: float, dtype: str, wanted: int, tight: int | Array,
    there: int | None = None, keeps: bool = False,
) -> tuple[Eigenpairs, Array, Any]:
    pairs, images = solve_at(
        problem, theta, rows, tolerance, dtype, wanted=wanted, looked=there or len(rows), explored=EXPLORED, tight=tight, overwrites=True,
        count=there,
    )
    return _parted(pairs, images, count, keeps)


def rows(start: Array, guards: "Guards | KeptGuards", fresh: Array, dtype: str) -> tuple[Array, Array, Array]:
    """What a look starts from, in a number format: rows (k, p), (COUNT, p) and (FRESH, p)."""
    return start.astype(dtype), guards.whole(dtype).vectors, fresh.astype(dtype)


@partial(jax.jit, static_argnames="dtype")
def _rows(start: Array, guards: "Guards | KeptGuards", fresh: Array, dtype: str) -> Array:
    """The same one after the other."""
    return jnp.concatenate(rows(start, guards, fresh, dtype))


@partial(jax.jit, static_argnames=("dtype", "shares"))
def _rows_around(start: Array, guards: "Guards | KeptGuards", seed: int, step: int, dtype: str, shares: Shares | None) -> Array:
    """The same with the random rows of a step."""
    return _rows(start, guards, fresh_rows(seed, step, start.shape[1], dtype, shares), dtype)


class Reading(NamedTuple):
    """The top eigenpairs of a trajectory that is read now and then, and what its next reading starts from."""

    pairs: Eigenpairs
    guards: Guards
    looked: int  # step of the last look around


def read(
    problem: Problem, theta: Array, start: Array, guards: Guards, looked: int, step: int, seed: int, tolerance: float, dtype: str
) -> Reading:
    """The top eigenpairs at θ from `start` (k, p), with a look around where the last one is `EVERY` steps ago or more."""
    if not overdue(step, looked) or forms_hessian(theta):
        return Reading(sharpness_at(problem, theta, start, tolerance, dtype), guards, looked)
    pairs, _, guards = look(problem, theta, start, guards, seed, step, tolerance, dtype)
    return Reading(pairs, guards, step)


def measure_around(
    problem: Problem, theta: Array, start: Array, guards: "Guards | KeptGuards", seed: int, step: int, tolerance: float, dtype: str,
    tight: int | Array = 1, at: Array | None = None,
) -> tuple[tuple[Point, Array], Any]:
    """`expansion.measure_all` with a look around, and the guards after it, kept if those before were."""
    loss, grad = loss_and_gradient(problem, theta)
    pairs, images, guards = look(problem, theta if at is None else at, start, guards, seed, step, tolerance, dtype, tight=tight)
    return (Point(theta, loss, grad, pairs), images), guards


def measure_in_one_call(
    problem: Problem, theta: Array, start: Array, guards: Guards, fresh: Array, looks: Array, tolerance: float, dtype: str,
    tight: int | Array = 1,
) -> tuple[tuple[Point, Array], Guards]:
    """`expansion.measure_all` inside a compiled call, with a look around where it `looks` (): one solver serves both."""
    loss, grad = loss_and_gradient(problem, theta)
    count, rows = len(start), _rows(start, guards, fresh, dtype)
    pairs, images = solve_at(
        problem, theta, rows, tolerance, dtype, wanted=count, looked=jnp.where(looks, len(rows), count),
        explored=jnp.where(looks, EXPLORED, 0), tight=tight,
    )
    pairs, images, after = _parted(pairs, images, count, keeps=False)
    after = jax.tree.map(lambda new, old: jnp.where(looks, new.astype(old.dtype), old), after, guards)
    return (Point(theta, loss, grad, pairs), images), after


class _Tried(NamedTuple):
    """Eigenpairs that were solved for, and whether something else is to be looked at."""

    rows: Array  # (k + 1, p) to start from
    looked: Array  # () of them
    pairs: Eigenpairs  # k
    images: Array  # (k, p)
    again: Array


def pairs_in_one_call(
    problem: Problem, theta: Array, start: Array, others: Known, around: Array, tolerance: float, dtype: str
) -> tuple[Eigenpairs, Array]:
    """The top eigenpairs at θ from `start` (k, p) inside a compiled call, with what the Hessian makes of them. Where `around` (), the one
    of the `others` that matters most is looked at, too, if it may be among them (`NEAR`): by the same solver, once more."""
    count, start = len(start), start.astype(dtype)
    zeros = jnp.zeros(count, start.dtype)

    def attempt(tried: _Tried) -> _Tried:
        pairs, images = solve_at(problem, theta, tried.rows, tolerance, dtype, wanted=count, looked=tried.looked)
        hvps = tried.pairs.hvps + pairs.hvps
        pairs = pairs.first(count)._replace(hvps=hvps)
        vector, missed = misses(pairs, others)
        again = around & (tried.looked == count) & missed
        rows = jnp.concatenate([pairs.vectors, vector[None].astype(start.dtype)])
        return _Tried(rows, tried.looked + 1, pairs, images[:count], again)

    nothing = Eigenpairs(zeros, start, zeros, jnp.array(0))
    rows = jnp.concatenate([start, jnp.zeros_like(start[:1])])
    tried = lax.while_loop(lambda tried: tried.again, attempt, _Tried(rows, jnp.array(count), nothing, start, jnp.array(True)))
    return tried.pairs, tried.images


@partial(jax.jit, static_argnames=("size", "dtype", "shares"))
def fresh_rows(seed: int, step: Any, size: int, dtype: str, shares: Shares | None = None) -> Array:
    """The random rows of a look at this step, (FRESH, p), drawn by the device: the same inside a compiled call and out of it."""
    rows = jax.random.normal(jax.random.fold_in(jax.random.key(seed), step), (FRESH, numbers(size, shares)), dtype)
    return rows if shares is None else shares.fill(rows)


@partial(jax.jit, static_argnames=("count", "keeps"))
def _parted(pairs: Eigenpairs, images: Array, count: int, keeps: bool) -> tuple[Eigenpairs, Array, Any]:
    """The first `count` pairs with their images, and the next as guards, one step of power iteration on."""
    last = count + COUNT
    lengths = jnp.linalg.norm(images[count:last], axis=1, keepdims=True)
    onward = images[count:last] / jnp.where(lengths > 0, lengths, 1)
    after = Guards(onward, pairs.values[count:last])
    return pairs.first(count), images[:count], kept(after) if keeps else after


@jax.jit
def with_another(start: Array, vector: Array) -> Array:
    """A start (k, p) and one vector more, in as many rows as a look has: compiled for it already. Of many parameters, where memory counts,
    in rows of their own, with room for the solver's basis after these."""
    another = vector[None].astype(start.dtype)
    if vector.size >= LARGE:
        return with_room(start, another)
    return jnp.concatenate([start, another, jnp.zeros((COUNT + FRESH - 1, start.shape[1]), start.dtype)])


def look_at_another(problem: Problem, theta: Array, rows: Array, looked: int, wanted: int, dtype: str) -> tuple[Eigenpairs, Array]:
    """The top eigenpairs at θ from so many rows that are `looked` at, the last of them the vector more (`with_another`), with what the
    Hessian makes of them; so many are `wanted`. The rows are none any more."""
    count = looked if theta.size >= LARGE else None
    return solve_at(problem, theta, rows, LOOSE_TOLERANCE, dtype, wanted=wanted, looked=looked, overwrites=True, count=count)


@jax.jit
def unseen(rows: Array, known: Known) -> tuple[Array, Array]:
    """Of what is `known` elsewhere the vector (p,) that matters most and is not in the span of orthonormal `rows` (k, p), and what its
    eigenvalue weighs outside that span."""
    there = [each.whole(rows.dtype) for each in known]
    vectors, values = (jnp.concatenate(each) for each in zip(*there, strict=True))
    overlap = jnp.sum((vectors @ rows.T) ** 2, axis=1)
    weights = values * jnp.maximum(1 - overlap, 0)
    best = jnp.argmax(weights)
    return vectors[best], weights[best]


@jax.jit
def misses(pairs: Eigenpairs, known: Known) -> tuple[Array, Array]:
    """The vector (p,) that is `unseen` by eigenpairs, and whether it may be among them (`NEAR`)."""
    vector, weight = unseen(pairs.vectors, known)
    return vector, weight > NEAR * pairs.values[-1]
