"""The tracked step against the published procedure and against its floor, and the rates of plain gradient descent.

    python -m engine bench [PROBLEM …] [--rounds N] [--json]

Each problem is trained until its sharpness has risen, η is chosen so that 2/η is that sharpness, and gradient descent is set off
by δ along u: the coupled step is then timed in a bursting edge of stability, looks around among its steps, in interleaved rounds of the
same steps, medians told. The published procedure is timed three times: as published, with statistics of its own at every step and one
eigenpair at each place; without these statistics; and for the quantities that a step of eos has, without them and with the second
eigenpairs at θ and θ†. It is the last ratio that compares like with like. Steps are taken as a run takes them on this device; `many in a
call` is what one program for several steps gains on parts that are compiled each for itself. The floor is the work that no method avoids:
two float64 gradients (gradient descent, θ†), one ∇S, one Hessian–vector product for the prediction and one to verify each eigenpair (two at
θ†, two at θ, one on the flow).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import counting
import published

from engine import spec as specs
from engine.curvature import companions, guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, random_start, sharpness_at
from engine.curvature.expansion import grad_sharpness, loss_along
from engine.curvature.halves import whole
from engine.dynamics.descent import DESCENT_CHUNK, descend
from engine.dynamics.optimizers import optimizer_of
from engine.phases import approach, context, edge, sharpness_every_step, training
from engine.phases.context import Clock, Setup
from engine.phases.edge_state import EdgeState, anchor
from engine.problems.build import build
from engine.problems.problem import Problem
from engine.xla.device import device_words

MLP = {"kind": "mlp", "widths": [200, 200], "activation": "tanh"}
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits": {"data": {"name": "digits", "examples": 1797, "order": "file"}, "model": MLP, "criterion": "mse"},
    "fashion-1000": {"data": {"name": "fashion", "examples": 1000}, "model": MLP, "criterion": "mse"},
    "fashion-5000": {"data": {"name": "fashion", "examples": 5000}, "model": MLP, "criterion": "mse"},
    "fashion-cnn": {
        "data": {"name": "fashion", "examples": 500}, "criterion": "mse",
        "model": {"kind": "cnn", "widths": [16, 16], "activation": "tanh"},
    },
    "transformer": {
        "data": {"name": "sentences", "classes": [0, 1], "examples": 200, "standardize": "none"}, "criterion": "mse",
        "model": {"kind": "transformer", "hidden": 32},
    },
}
WARM_UP = 8
"""Coupled steps before the first that is timed."""
AT_EDGE = 0.97
"""S/edge in the middle of a chunk from which it counts as one at the edge."""


class Measured(NamedTuple):
    """One problem's figures; times in seconds, rates in steps a second."""

    problem: str
    parameters: int
    baseline_s: float
    baseline_single_s: float
    baseline_alike_s: float
    ours_s: float
    floor_s: float
    speedup: float
    speedup_single: float
    speedup_alike: float
    over_floor: float
    many_in_a_call: float
    hvps_per_step: float
    baseline_hvps_per_step: float
    grad_sharpness_per_step: float
    executions: float
    host_waits: float
    eigen_residual: float
    baseline_eigen_residual: float
    constraint_residual: float
    baseline_constraint_residual: float
    gradient_residual: float
    baseline_gradient_residual: float
    descent_rate: float
    sharpness_rate: float
    scan_rate: float
    of_scan: float
    over_plain: float
    flops_over_plain: float
    momentum_ratio: float
    adam_ratio: float
    adam_ratio_at_edge: float
    over_momentum: float
    over_adam: float
    over_adam_at_edge: float


def main(names: tuple[str, ...] = (), rounds: int = 5, as_json: bool = False) -> int:
    """Measure the named problems, or all, and print a table or JSON."""
    measured = []
    for name in names or tuple(PROBLEMS):
        print(f"{name} …", file=sys.stderr, flush=True)
        measured.append(measure(name, rounds))
        sentence = (
            "published {baseline_s:.3f} s, without its statistics {baseline_single_s:.3f} s, for eos' quantities {baseline_alike_s:.3f} s, "
            "eos {ours_s:.3f} s, floor {floor_s:.3f} s a step: {speedup:.1f}× faster, {speedup_single:.1f}× without the statistics, "
            "{speedup_alike:.1f}× for the same quantities"
        )
        print(f"{name}: {sentence.format(**measured[-1]._asdict())}", file=sys.stderr, flush=True)  # what comes after may be cut off
    if as_json:
        print(json.dumps([entry._asdict() | {"device": device_words()} for entry in measured], indent=1))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    for title, columns in TABLES.items():
        table = Table(title=f"{title} ({device_words()})")
        table.add_column("problem")
        for heading in columns:
            table.add_column(heading, justify="right")
        for entry in measured:
            table.add_row(entry.problem, *(form.format(**entry._asdict()) for form in columns.values()))
        console.print(table)
    return 0


TABLES = {
    "A tracked step": {
        "p": "{parameters:,}", "published s": "{baseline_s:.3f}", "without statistics s": "{baseline_single_s:.3f}",
        "for the same quantities s": "{baseline_alike_s:.3f}", "eos s": "{ours_s:.3f}", "floor s": "{floor_s:.3f}",
        "faster": "{speedup:.1f}×", "without statistics": "{speedup_single:.1f}×",
        "for the same quantities": "{speedup_alike:.1f}×", "over floor": "{over_floor:.2f}×", "many in a call": "{many_in_a_call:.2f}×",
        "HVPs": "{hvps_per_step:.0f} / {baseline_hvps_per_step:.0f}",
        "∇S": "{grad_sharpness_per_step:.1f}", "executions": "{executions:.0f}", "host waits": "{host_waits:.0f}",
        "eigen residual": "{eigen_residual:.1e} / {baseline_eigen_residual:.1e}",
        "|S−2/η|η/2": "{constraint_residual:.1e} / {baseline_constraint_residual:.1e}",
        "|∇L·u|/‖∇L‖": "{gradient_residual:.1e} / {baseline_gradient_residual:.1e}",
    },
    "Steps a second": {
        "gradient descent": "{descent_rate:.1f}", "of a bare scan": "{of_scan:.2f}×", "with sharpness every step": "{sharpness_rate:.1f}",
        "times a plain step": "{over_plain:.2f}×", "its flops": "{flops_over_plain:.2f}×",
    },
    "S/edge at every step, times a plain step of that optimizer: the ratio by itself, and with the step": {
        "momentum": "{momentum_ratio:.2f}×", "with the step": "{over_momentum:.2f}×",
        "Adam": "{adam_ratio:.2f}×", "with its step": "{over_adam:.2f}×",
        "Adam at its edge": "{adam_ratio_at_edge:.2f}×", "with its step there": "{over_adam_at_edge:.2f}×",
    },
}


class Timed(NamedTuple):
    """Steps taken in turn: seconds of each, and what they give."""

    ours: list[float]  # means of steps with looks around among them
    published: list[float]
    single: list[float]  # published, without its statistics: one eigenpair at each place
    alike: list[float]  # published, for the quantities that eos has
    floor: list[float]
    rows: list[dict[str, float]]
    rivals: list[published.Published]
    state: EdgeState  # where the steps of eos lead

    def medians(self) -> tuple[float, float, float, float, float]:
        """Seconds of a step as published, without the statistics, for the same quantities, of eos, and of the floor."""
        published, single, alike, ours, floor = map(statistics.median, (self.published, self.single, self.alike, self.ours, self.floor))
        return published, single, alike, ours, floor


def in_turn(setup: Setup, state: EdgeState, rounds: int) -> Timed:
    """Steps of eos, of the published procedure, and of the floor, interleaved; the same ones in each round."""
    problem, eta = setup.problem, float(state.optimizer.learning_rate)
    ours, theirs, single, alike, least = (list[float]() for _ in range(5))
    rows, rivals = list[dict[str, float]](), list[published.Published]()
    ways = ((True, False, theirs), (False, False, single), (False, True, alike))
    rival = published.begin(state)
    for statistics_too, second_pairs, _ in ways:
        rival = published.step(problem, rival, eta, statistics_too, second_pairs)
    floor = floor_of(problem, state)
    floor()
    for _ in range(rounds):
        warm, _, _ = steps_around(setup, state)  # through memory that the others have used meanwhile, as no step of a run goes
        moved, seconds, said = steps_around(setup, warm)
        ours.append(seconds)
        rows += said
        for statistics_too, second_pairs, times in ways:
            began = time.perf_counter()
            after = published.step(problem, rival, eta, statistics_too, second_pairs)
            times.append(time.perf_counter() - began)
            rivals += [after] * statistics_too
        floor()
        began = time.perf_counter()
        floor()
        least.append(time.perf_counter() - began)
    return Timed(ours, theirs, single, alike, least, rows, rivals, moved)


def steps_around(setup: Setup, state: EdgeState) -> tuple[EdgeState, float, list[dict[str, float]]]:
    """Where as many steps lead as lie between looks around, so that each kind of step is among them; seconds a step, and the rows."""
    rows, began, first = list[dict[str, float]](), time.perf_counter(), state.clock.step
    while state.clock.step < first + guards.EVERY:
        following, progress, _ = edge.advance(setup, state, guards.EVERY)  # one where a call takes one
        if not isinstance(following, EdgeState):
            raise SystemExit(f"{setup.spec.name}: θ† was lost at step {state.clock.step}: {progress.events}")
        state = following
        rows += [dict(zip(setup.column_index, row, strict=True)) for row in progress.rows]
    jax.block_until_ready(jax.tree.leaves(state))
    return state, (time.perf_counter() - began) / (state.clock.step - first), rows


def measure(name: str, rounds: int) -> Measured:
    """One problem's figures."""
    setup, state = at_the_edge(name)
    eta = float(state.optimizer.learning_rate)
    timed = in_turn(setup, state, rounds)
    rows, rivals, state = timed.rows, timed.rivals, timed.state
    asked = counting.asked(partial(some_steps, setup, state, guards.EVERY))
    table = {column: np.array([row[column] for row in rows]) for column in setup.column_index}
    rates = plain_rates(setup, state, rounds)
    with_momentum, _ = over_plain(setup.problem, state.center.theta, specs.Momentum(learning_rate=eta / 2), rounds)
    overs = with_momentum, *over_plain(setup.problem, state.center.theta, specs.Adam(learning_rate=1e-4), rounds)
    middle, (theirs, single, alike, ours, least) = statistics.median, timed.medians()
    return Measured(
        name, state.theta.size, theirs, single, alike, ours, least, theirs / ours, single / ours, alike / ours, ours / least,
        gain_of_many(setup, state, rounds),
        float(np.median(table["cost.hvps"])), middle(entry.hvps for entry in rivals),
        float(np.median(table["cost.grad_sharpness"])), asked.executions / guards.EVERY, asked.host_waits / guards.EVERY,
        float(np.max(table["constrained.eigen_residual"])), max(rival.residual for rival in rivals),
        float(np.max(table["constrained.sharpness_gap"])) * eta / 2, max(rival.constraint for rival in rivals),
        float(np.max(table["constrained.gradient_along_u"] / table["constrained.gradient_norm"])), max(rival.along for rival in rivals),
        *(*rates, *(over - 1 for over in overs), *overs),
    )


def at_the_edge(name: str) -> tuple[Setup, EdgeState]:
    """The coupled state of a problem at an edge where the sharpness has risen to, after some steps there."""
    spec = spec_of(name, PROBLEMS[name])
    problem, theta, _ = build(spec)
    return brought_to_edge(spec, problem, theta)


def spec_of(name: str, problem: dict[str, Any]) -> specs.RunSpec:
    """The specification that a network is timed by."""
    tree = {
        "name": name, "problem": {"kind": "network", **problem}, "optimizer": {"learning_rate": 0.01},
        "tracking": {"predictions": ["generalized"], "gauges_every": 0, "landscape_every": 0, "max_eigenvalues": 2,
                     "on_second_eigenvalue": "keep"},
    }
    return specs.from_tree(tree, "bench")


def brought_to_edge(spec: specs.RunSpec, problem: Problem, theta: jax.Array, chunks: int = 12) -> tuple[Setup, EdgeState]:
    """The coupled state of a problem at an edge where the sharpness has risen to from θ (p,), within so many chunks of steps."""
    name, theta = spec.name, theta.astype("float32")
    setup = context.setup(spec, problem, theta.size)
    rate, tree_of = setup.optimizer.init, problem.unravel
    begun = approach.begin(setup, theta, Clock(0, 0.0), rate(theta, tree_of, 0.01))
    basis, eta, first = begun.eigenvectors, 0.01, None
    for chunk in range(chunks + 1):  # gradient descent at a third of the threshold, until the sharpness has doubled
        pairs = sharpness_at(problem, theta, basis, 1e-3, "float32")
        basis, sharpness = pairs.vectors, float(pairs.values[0])
        first = first or sharpness
        if sharpness > 2 * first or chunk == chunks:
            break
        eta = 0.67 / sharpness
        theta = descend(problem, setup.optimizer, theta, rate(theta, tree_of, eta), DESCENT_CHUNK).theta
    eta = 2 / sharpness
    spec = specs.with_overrides(spec, [f"optimizer.learning_rate={eta!r}"])
    setup = context.setup(spec, problem, theta.size)
    here = begun._replace(theta=theta, eigenvectors=basis, optimizer=rate(theta, tree_of, eta))
    state, events, _ = edge.enter(setup, here, 0)
    if not isinstance(state, EdgeState):
        raise SystemExit(f"{name}: {events[-1].text}")
    delta = float(jnp.sqrt(jnp.maximum(state.center.delta_squared, 0)))
    displaced = state.coupled.descent._replace(theta=state.center.theta + 0.5 * delta * state.center.top_eigenvector)
    state = anchor(setup, state._replace(coupled=state.coupled._replace(descent=displaced)), spec.tracking.predictions)
    for _ in range(WARM_UP):
        following, _, _ = edge.advance(setup, state, 1)
        if not isinstance(following, EdgeState):
            raise SystemExit(f"{name}: θ† was lost at step {state.clock.step}")
        state = following
    return setup, state


def some_steps(setup: Setup, state: EdgeState, steps: int) -> EdgeState:
    """Where so many coupled steps lead, one at a time."""
    for _ in range(steps):
        state = edge.advance(setup, state, 1)[0]
    return state


def gain_of_many(setup: Setup, state: EdgeState, rounds: int) -> float:
    """Seconds of some coupled steps taken one at a time, over those of the same as one compiled call, in turn: the median."""
    steps, gains = 2 * guards.EVERY, []
    one, many = (
        setup._replace(spec=specs.with_overrides(setup.spec, [f'tracking.steps_per_call="{per_call}"'])) for per_call in ("one", "many")
    )
    for k in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(some_steps(one, state, steps)))
        apart, began = time.perf_counter() - began, time.perf_counter()
        following = edge.advance(many, state, steps)[0]
        jax.block_until_ready(jax.tree.leaves(following))
        together, taken = time.perf_counter() - began, following.clock.step - state.clock.step
        gains += [apart / steps / (together / taken)] if k else []  # the first compiles
    return statistics.median(gains)


def floor_of(problem: Problem, state: EdgeState) -> Callable[[], None]:
    """A call that does the unavoidable work of a step, each part compiled by itself."""
    u = state.center.top_eigenvector

    def work() -> None:
        jax.block_until_ready([
            published.gradient(problem, state.theta), published.gradient(problem, state.center.theta),
            grad_sharpness(problem, state.center.theta, u, "float32"), loss_along(problem, state.center.theta, u),
            *(published.product(problem, state.center.theta, u) for _ in range(3)),
            *(published.product(problem, state.theta, u) for _ in range(2)),
            published.product(problem, state.coupled.beside["flow"].theta, u),
        ])

    return work


def plain_rates(setup: Setup, state: EdgeState, rounds: int) -> tuple[float, ...]:
    """Steps a second of plain gradient descent, of it with the sharpness at every step, and of a bare scan of the gradient; the first
    over the third and over the second, medians of what was measured side by side."""
    problem, eta = setup.problem, float(state.optimizer.learning_rate) / 4
    start, chunk, optimizer = state.center.theta.astype("float32"), DESCENT_CHUNK, setup.optimizer
    rate, scan = optimizer.init(start, problem.unravel, eta), scan_of(eta)
    track = state.coupled
    history = jnp.concatenate([whole(track.descent.eigenvectors[:, :1], "float32")] * 2)
    fresh, known = track.constrained.guards.vectors[0], companions.unknown(start.size, "float32")

    def sharpness_too(theta, history, beside):
        return sharpness_every_step.descend(problem, optimizer, theta, rate, history, beside, fresh, 0, chunk, LOOSE_TOLERANCE, {})

    seen = sharpness_too(start, history, known)
    jax.block_until_ready([descend(problem, optimizer, start, rate, chunk).theta, scan(problem, start)])
    plain, bare, sharp = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(descend(problem, optimizer, start, rate, chunk).theta)
        plain.append((time.perf_counter() - began) / chunk)
        began = time.perf_counter()
        jax.block_until_ready(scan(problem, start))
        bare.append((time.perf_counter() - began) / chunk)
        began = time.perf_counter()
        seen = sharpness_too(seen.theta, seen.eigenvector_history, seen.companions)
        jax.block_until_ready(seen.theta)
        sharp.append((time.perf_counter() - began) / chunk)
    middle = statistics.median
    ratios = [middle(b / a for a, b in zip(plain, others, strict=True)) for others in (bare, sharp)]
    return 1 / middle(plain), 1 / middle(sharp), 1 / middle(bare), *ratios, flops_with_tangent(problem, start)


def scan_of(eta: float) -> Callable[[Problem, jax.Array], jax.Array]:
    """A bare scan of the gradient, as many steps of gradient descent as eos takes in one call."""

    @jax.jit
    def scan(problem: Problem, theta: jax.Array) -> jax.Array:
        return lax.scan(lambda th, _: (th - jnp.float32(eta) * problem.gradient(th), None), theta, length=DESCENT_CHUNK)[0]

    return scan


def over_plain(problem: Problem, theta: jax.Array, section: specs.Optimizer, rounds: int) -> tuple[float, float]:
    """A step of an optimizer with the ratio to its edge, over a plain one, from θ on: medians of chunks taken side by side, of all and of
    those at the edge, NaN where none is. Their readings go on from those of two chunks before, once P is one of many steps."""
    optimizer, start = optimizer_of(section), theta.astype("float32")
    begun = descend(problem, optimizer, start, optimizer.init(start, problem.unravel, section.learning_rate), DESCENT_CHUNK)
    rows, tolerance = random_start(0, 0, 5, start.size, "float32"), training.reading_tolerance(optimizer)

    def watched(theta, state, history, beside):
        return sharpness_every_step.descend(problem, optimizer, theta, state, history, beside, rows[4], 0, DESCENT_CHUNK, tolerance, {})

    seen = watched(begun.theta, begun.optimizer_state, rows[:4, None], companions.unknown(start.size, "float32"))
    overs, nearness = [], []
    for k in range(rounds + 2):
        began = time.perf_counter()
        jax.block_until_ready(descend(problem, optimizer, seen.theta, seen.optimizer_state, DESCENT_CHUNK).theta)
        plain, began = time.perf_counter() - began, time.perf_counter()
        seen = watched(seen.theta, seen.optimizer_state, seen.eigenvector_history, seen.companions)
        jax.block_until_ready(seen.theta)
        if k:  # the first compiles the plain step
            overs.append((time.perf_counter() - began) / plain)
            nearness.append(float(np.median(np.asarray(seen.sharpness)) / float(optimizer.threshold(seen.optimizer_state))))
    at_edge = [over for over, near in zip(overs, nearness, strict=True) if near > AT_EDGE]
    return statistics.median(overs), statistics.median(at_edge) if at_edge else float("nan")


def flops_with_tangent(problem: Problem, theta: jax.Array) -> float:
    """Floating-point operations of the gradient with its tangent along a vector, over those of the gradient, as XLA counts them."""

    def value_and_grad(problem, theta):
        return jax.value_and_grad(problem.loss)(theta)

    def with_tangent(problem, theta, u):
        return jax.jvp(partial(value_and_grad, problem), (theta,), (u,))

    lowered = jax.jit(value_and_grad).lower(problem, theta), jax.jit(with_tangent).lower(problem, theta, theta)
    plain, tangent = ((each.compile().cost_analysis() or {})["flops"] for each in lowered)
    return tangent / plain
