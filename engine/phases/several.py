"""How many directions at the edge θ† is held along, from step to step; and the oscillations that are begun there where that is asked for.

A direction joins where its eigenvalue at θ† is above 1.9/η (`tracking.second_eigenvalue_limit`), and leaves where that has fallen to
1.85/η. Arrays have room for 2, 4, 8 or 16, so that a direction that joins within that compiles nothing; the next room is compiled ahead,
beside the run, from where the next eigenvalue is above 1.7/η. With one direction the formulas of one are used, and there is no room.
"""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

from engine.curvature import directions, guards
from engine.curvature.directions import Directions, none
from engine.curvature.eigensolver import LOOSE_TOLERANCE, random_start, sharpness_at
from engine.phases.context import Setup
from engine.phases.coupled_state import CoupledState, copied
from engine.phases.edge_state import STAYS, EdgeState, Projected, project_afresh, replaced_center
from engine.phases.projection import UNUSABLE
from engine.record import edges, messages
from engine.record.messages import AnyEvent
from engine.theory import RANK
from engine.xla.ahead import compiling_ahead

MOST = 16
"""Directions that can be followed."""
COMING = 1.7
"""λη from which a direction is expected to join."""
SWINGS = 0.1
"""Share of its predicted size from which an oscillation counts as begun."""


def most_directions(setup: Setup, size: int) -> int:
    """The most directions that a run is followed along: one eigenvalue more than that is always watched."""
    return max(1, min(MOST, setup.tracking.eigenvalue_columns, size - 1))


def room(count: int, size: int) -> int:
    """For how many directions arrays have room where there are `count`; none where there is one."""
    return 0 if count == 1 else min(1 << (count - 1).bit_length(), size - 1)


def count_of(state: EdgeState) -> int:
    """How many directions are at the edge."""
    return max(1, int(state.coupled.constrained.directions.number))


def reading(setup: Setup, state: EdgeState) -> np.ndarray:
    """λη of the eigenvalues that are known at θ†; with η of gradient descent that has this edge."""
    return np.asarray(state.center.eigen.values, float) * setup.plain_rate(state.optimizer)


def adapted(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent], str]:
    """The state with as many directions as are at the edge, and what happened; and why θ† cannot be followed on, where it cannot."""
    tracking, events, size = setup.tracking, list[AnyEvent](), state.theta.size
    if tracking.on_second_eigenvalue != "follow":  # a fork may have several all the same
        together = count_of(state)
        if together > 1 and tracking.on_second_eigenvalue == "keep":
            return resized(setup, state, 1)[0], events, ""
        return state, events, f"{together} directions are at the edge at step {state.clock.step}" if together > 1 else ""
    limit, most, step = tracking.second_eigenvalue_limit, most_directions(setup, size), state.clock.step
    while True:
        count, values = count_of(state), reading(setup, state)
        joins = count < most and values[count] >= limit
        leaves = count > 1 and values[count - 1] < limit - STAYS and not events  # what has just joined may leave at the next step
        if not joins and not leaves:
            return state, events, ""
        following, usable = resized(setup, state, count + 1 if joins else count - 1)
        if not usable:
            cause = f"λ{count + 1} = {_words(setup, values[count])}" if joins else f"λ{count} fell to {_words(setup, values[count - 1])}"
            return state, events, f"{cause} at step {step}, and the projection onto the stable set of that many directions did not converge"
        if joins:
            text = f"λ{count + 1} of θ† is at {_words(setup, values[count])} at step {step}: {count + 1} directions are at the edge"
            events.append(messages.DirectionJoined(step=step, text=text, count=count + 1))
        else:
            left = f"{count - 1} directions are" if count > 2 else "one direction is"
            text = f"λ{count} of θ† fell to {_words(setup, values[count - 1])} at step {step}: {left} at the edge"
            events.append(messages.DirectionLeft(step=step, text=text, count=count - 1))
        state = following


def _words(setup: Setup, value: float) -> str:
    return edges.in_units(setup.spec.optimizer, f"{value:.4g}", value)


def begun(setup: Setup, theta: Array, basis: Array, step: int, optimizer: Any) -> Projected:
    """The first θ†, the projection of gradient descent's θ: along the top eigenvector, from vectors (2, p), or, where that leads nowhere
    since several eigenvalues are at the edge already, along the directions of all of them."""
    projected = project_afresh(setup, theta, basis, jnp.zeros_like(theta), optimizer)
    tracking, most = setup.tracking, most_directions(setup, theta.size)
    if projected.projection.usable or tracking.on_second_eigenvalue != "follow" or most < 2:
        return projected
    dtype = setup.spec.precision.curvature
    start = random_start(setup.spec.seed, step, room(most, theta.size) + 1, theta.size, dtype, setup.problem.shares)
    pairs = sharpness_at(setup.problem, theta.astype(dtype), start.at[: len(basis)].set(basis.astype(dtype)), LOOSE_TOLERANCE, dtype)
    above = np.asarray(pairs.values, float) * setup.plain_rate(optimizer) >= tracking.second_eigenvalue_limit
    count = min(int(above.sum()), most)
    if count < 2:
        return projected
    capacity = room(count, theta.size)
    known = directions.around(pairs.vectors[:count].astype(theta.dtype), capacity)
    return project_afresh(setup, theta, pairs.vectors[: capacity + 1], jnp.zeros_like(theta), optimizer, known)


def resized(setup: Setup, state: EdgeState, count: int) -> tuple[EdgeState, bool]:
    """The state with θ† projected onto the stable set of `count` directions; and whether that could be done."""
    track, size, step = state.coupled.constrained, state.theta.size, state.clock.step
    eigen, capacity = track.center.eigen, room(count, size)
    more = random_start(setup.spec.seed, step, max(2, capacity + 1), size, str(eigen.vectors.dtype), setup.problem.shares)
    start = _first_rows(eigen.vectors, track.guards.vectors, more)
    known = none(track.center.theta)
    if capacity:
        basis = _reference(track.center.top_eigenvector, track.directions, eigen.vectors, count)
        known = directions.around(basis, capacity)
    dtype = setup.spec.precision.curvature
    # What was beyond the eigenvalues followed may be among them now.
    fresh = guards.begin(setup.spec.seed, step, size, dtype, setup.problem.shares)
    state = state._replace(coupled=state.coupled._replace(constrained=track._replace(beyond=guards.kept(fresh))))
    return replaced_center(setup, state, start, known)


@jax.jit
def _first_rows(vectors: Array, guards: Array, more: Array) -> Array:
    """As many rows as `more` has, the first of them all."""
    return jnp.concatenate([vectors, guards.astype(vectors.dtype), more])[: len(more)]


def _reference(u: Array, before: Directions, vectors: Array, count: int) -> Array:
    """What the basis of `count` directions is to be nearest to, (count, p): the basis before, with one eigenvector more, or without the row
    that is most along the one that leaves."""
    held = np.asarray(before.basis)[: int(before.number)] if len(before.basis) else np.asarray(u)[None]  # numpy compiles nothing
    others = np.asarray(vectors, held.dtype)
    if count > len(held):
        return jnp.asarray(np.concatenate([held, others[len(held) : count]]))
    along = np.abs(held @ others[count])
    return jnp.asarray(held[np.arange(len(held)) != along.argmax()])


def exhausted(setup: Setup, state: EdgeState) -> str:
    """Why θ† cannot be followed on where more directions are at the edge than it is followed along; empty where none are."""
    tracking, count, values = setup.tracking, count_of(state), reading(setup, state)
    limit = tracking.second_eigenvalue_limit
    if tracking.on_second_eigenvalue == "keep" or values[count] < limit:
        return ""
    section = setup.spec.optimizer
    read, least = edges.in_units(section, f"{values[count]:.3g}", values[count]), edges.in_units(section, f"{limit:g}", limit)
    which = f"λ{count + 1} = {read} at step {state.clock.step}, not below {least}"
    if tracking.on_second_eigenvalue == "follow":
        return f"{which}: more directions are at the edge than the {count} that θ† is followed along (tracking.max_eigenvalues)"
    return f"{which}: a second direction is at the edge"


# -- oscillations


def seeded(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    """The state with gradient descent's θ moved by σ along each axis of X† in which θ† has come to be held back and nothing swings yet."""
    track, step = state.coupled.constrained, state.clock.step
    active = int(track.active)
    if not setup.tracking.seed_oscillation or active <= state.seeded:
        return state, []
    sizes, axes = oscillation(setup, state)
    v = state.theta - track.center.theta
    along = np.asarray(axes @ v)
    still = [k for k in range(min(active, len(sizes))) if abs(along[k]) < SWINGS * sizes[k]]
    state = state._replace(seeded=active)
    if not still:
        return state, []
    move = jnp.asarray(sum((sizes[k] - abs(along[k])) * (-1 if along[k] < 0 else 1) * axes[k] for k in still), state.theta.dtype)
    coupled = state.coupled
    displacements = {form: each + move.astype(each.dtype) for form, each in coupled.predicted.displacements.items()}
    state = state._replace(coupled=coupled._replace(
        descent=coupled.descent._replace(theta=coupled.descent.theta + move),
        predicted=coupled.predicted._replace(displacements=displacements),
    ))
    sigmas = ", ".join(f"{sizes[k]:.3g}" for k in still)
    text = f"an oscillation of its predicted size, σ = {sigmas}, was begun at step {step} where none had (tracking.seed_oscillation)"
    return state, [messages.OscillationSeeded(step=step, text=text)]


def oscillation(setup: Setup, state: EdgeState) -> tuple[np.ndarray, Array]:
    """σ along each axis of X† of positive variance, (r,) descending, and the axes, (r, p)."""
    track = state.coupled.constrained
    if not len(track.directions.basis):
        variance = float(track.center.balance(float(state.optimizer.learning_rate), setup.threshold(state.optimizer)))
        return np.sqrt([variance] if variance > 0 else []), track.center.top_eigenvector[None][: int(variance > 0)]
    values, axes = np.linalg.eigh(np.asarray(track.covariance, float))
    chosen = np.flatnonzero(values > RANK * values.sum())[::-1]
    return np.sqrt(values[chosen]), jnp.asarray(axes.T[chosen]) @ track.directions.basis


# -- compiled ahead


class Ahead:
    """Has the functions of the next room compiled beside the run, once for each."""

    def __init__(self) -> None:
        self.begun: dict[int, threading.Thread] = {}
        """What compiles, or has compiled, by the room that it is for."""

    def look(self, setup: Setup, state: EdgeState, take_step: Callable[[Setup, EdgeState], CoupledState]) -> None:
        """Begin where the next eigenvalue is near the edge, and be done where its direction joins. `take_step` takes one coupled step."""
        if setup.tracking.on_second_eigenvalue != "follow" or jax.process_count() > 1:  # several processes take their steps together
            return
        count, values, size = count_of(state), reading(setup, state), state.theta.size
        more = max(2, room(count, size) + 1)
        capacity = room(more, size)
        if more <= most_directions(setup, size) and capacity not in self.begun and values[-1] > COMING:
            own = state._replace(coupled=copied(state.coupled))  # the run goes on meanwhile, and may overwrite its own
            thread = threading.Thread(target=_compile, args=(setup, own, more, take_step), daemon=True)
            self.begun[capacity] = thread
            thread.start()
        if more == count + 1 and capacity in self.begun and values[count] >= setup.tracking.second_eigenvalue_limit:
            self.begun[capacity].join()  # two threads that need one function compile it twice

    @property
    def is_at_work(self) -> bool:
        """Whether something is being compiled."""
        return any(thread.is_alive() for thread in self.begun.values())

    def wait(self) -> None:
        """Until nothing is compiled any more."""
        for thread in self.begun.values():
            thread.join()


def rough(setup: Setup, **tracking: Any) -> Setup:
    """The setup with tolerances that any point meets, and other fields of its tracking: to compile with, at the least work."""
    loose = replace(
        setup.tracking, eigen_tolerance=UNUSABLE, sharpness_tolerance=UNUSABLE, gradient_tolerance=UNUSABLE, **tracking
    )
    return setup._replace(spec=replace(setup.spec, tracking=loose))


def _compile(setup: Setup, state: EdgeState, count: int, take_step: Callable[[Setup, EdgeState], CoupledState]) -> None:
    """Project along `count` directions, take two steps there, one of which looks around and one at what that saw, and go back, with
    tolerances that any point meets."""
    roughly = rough(setup)
    with compiling_ahead():
        following, _ = resized(roughly, state, count)
        for step in (guards.EVERY, guards.EVERY + 1):
            following = following._replace(clock=following.clock._replace(step=step))
            following = following._replace(coupled=take_step(roughly, following))
        resized(roughly, following, count - 1)
