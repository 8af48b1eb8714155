"""The tracked step with two directions at the edge, against the floor that its own products make.

    python -m engine bench several [--rounds N] [--json]

A network on digits is trained in float64 until θ† is held along two directions and gradient descent follows seven eigenvalues: for each
round that many coupled steps are timed as `tracked` takes, each beside its floor, medians told. The floor is what the step counts: its
Hessian–vector products, contractions of ∇³L and gradients, each one call of a function that is compiled by itself. A step shares work
between them (all contractions with one vector come from one linearisation), so that it may be cheaper than they are one by one.

Products are told by who takes them. Those of θ† with its multiplier are columns of the record; a form of the prediction takes one, and
one more for each direction where it reads the loss along them; what gradient flow takes is what the same step takes less without it; the
rest are gradient descent's eigenpairs.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import published

from engine import spec as specs
from engine.curvature.expansion import grad_sharpness
from engine.dynamics.predicted import FORMS
from engine.phases import edge
from engine.phases.context import Setup
from engine.phases.edge_state import EdgeState
from engine.phases.experiment import Experiment
from engine.phases.several import count_of
from engine.problems.problem import Problem
from engine.record.messages import DirectionJoined
from engine.spec import RunSpec
from engine.xla.device import device_words
from engine.xla.jit import jit_by_format

DIRECTIONS, EIGENVALUES, AFTER, STEPS, SINGLY = 2, 7, 20, 5, 10
"""Directions at the edge, eigenvalues of gradient descent, steps from where the last direction joins to the first that is timed, timed
steps a round, and how many of a kind are timed by themselves."""
GOALS = {"constrained_hvps": 20, "constrained_contractions": 5, "over_floor": 1.5}
"""What θ† with its multiplier may take in products and contractions in the median, and a step in all over its floor."""
TREE: dict[str, Any] = {
    "name": "several", "optimizer": {"learning_rate": 0.4},
    "problem": {
        "kind": "network", "criterion": "half_mse", "data": {"name": "digits", "examples": 300},
        "model": {"kind": "mlp", "widths": [32, 32], "activation": "tanh", "head_scale": 0.1},
    },
    "tracking": {
        "predictions": ["generalized", "transported"], "eigenvalues": EIGENVALUES, "max_eigenvalues": EIGENVALUES,
        "seed_oscillation": True, "gauges_every": 0, "landscape_every": 0,
    },
    "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
}


class Measured(NamedTuple):
    """The figures: medians, times in seconds."""

    parameters: int
    step: int  # the first that is timed
    directions: int
    eigenvalues: int
    steps: int  # timed
    ours_s: float
    floor_s: float
    over_floor: float  # of each step over its own floor
    hvps: float  # in all, as the three below
    contractions: float
    gradients: float
    constrained_hvps: float  # θ† with its multiplier
    constrained_contractions: float
    descent_hvps: float  # gradient descent's eigenpairs
    flow_hvps: float
    forms_hvps: float  # the predictions
    join_s: float  # the step at which the last direction joins,
    join_compilations: int  # what it compiles, itself and beside the run before it,
    join_compile_s: float  # and how long that takes
    hvp_s: float
    contraction_s: float
    gradient_s: float


class Compilations:
    """How many there were, and seconds that they took; of all threads."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    @classmethod
    @contextmanager
    def counted(cls) -> Iterator["Compilations"]:
        """While this lasts."""
        found, on = cls(), True

        def listen(name: str, seconds: float, **_: Any) -> None:
            if on and "backend_compile" in name:
                found.count, found.seconds = found.count + 1, found.seconds + seconds

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield found
        finally:
            on = False  # a public way to take a listener back is not in all versions


class AtEdge(NamedTuple):
    """A state with the directions at the edge, and what it took to come to the last of them."""

    setup: Setup
    state: EdgeState
    join_s: float
    compiled: Compilations


def main(rounds: int = 5, as_json: bool = False) -> int:
    """Measure, and print a table or JSON."""
    from engine.xla.device import configure

    configure()
    found = measure(specs.from_tree(TREE, "bench"), rounds)
    if as_json:
        print(json.dumps([found._asdict() | {"goals": GOALS, "device": device_words()}], indent=1))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    words = f"{found.directions} directions and {found.eigenvalues} eigenvalues, p = {found.parameters:,}, from step {found.step}"
    for title, columns in TABLES.items():
        table = Table(*columns, title=f"{title} ({words}; {device_words()})")
        table.add_row(*(form.format(**found._asdict()) for form in columns.values()))
        console.print(table)
    return 0


TABLES = {
    "A tracked step": {
        "eos s": "{ours_s:.4f}", "floor s": "{floor_s:.4f}", f"over floor (goal {GOALS['over_floor']})": "{over_floor:.2f}×",
        "HVPs": "{hvps:.0f}", "∇³L": "{contractions:.0f}", "gradients": "{gradients:.0f}",
        "one of each by itself, s": "{hvp_s:.2e}, {contraction_s:.2e}, {gradient_s:.2e}",
    },
    "Products by part": {
        f"θ†, HVPs (goal {GOALS['constrained_hvps']})": "{constrained_hvps:.0f}",
        f"θ†, ∇³L (goal {GOALS['constrained_contractions']})": "{constrained_contractions:.0f}",
        "gradient descent's pairs": "{descent_hvps:.0f}", "flow": "{flow_hvps:.0f}", "forms": "{forms_hvps:.0f}",
    },
    "The last direction joins": {
        "compilations": "{join_compilations}", "they take, s": "{join_compile_s:.1f}", "that step, s": "{join_s:.2f}",
    },
}


def measure(spec: RunSpec, rounds: int) -> Measured:
    """The figures of a problem that comes to have so many directions at the edge."""
    setup, state, join_s, compiled = at_the_edge(spec)
    first, floor = state, floor_of(setup.problem, state)
    step_from(setup, without_flow(state))  # compiles
    rows, flow, ours, least = [], [], [], []
    singles: tuple[list[float], ...] = ([], [], [])
    for _ in range(rounds):
        for _ in range(STEPS):
            began = time.perf_counter()
            following, row = step_from(setup, state)
            ours.append(time.perf_counter() - began)
            counts = [int(row[f"cost.{name}"]) for name in ("hvps", "grad_sharpness", "gradients")]
            began = time.perf_counter()
            floor(*counts)
            least.append(time.perf_counter() - began)
            flow.append(counts[0] - step_from(setup, without_flow(state))[1]["cost.hvps"])
            rows.append(row)
            state = following
        for part, taken in enumerate(singles):
            began = time.perf_counter()
            floor(*(SINGLY if other == part else 0 for other in range(3)))
            taken.append((time.perf_counter() - began) / SINGLY)
    table = {column: np.array([row[column] for row in rows]) for column in setup.column_index}
    middle, forms = statistics.median, forms_hvps(state)
    hvps, theirs = table["cost.hvps"], table["constrained.hvps"]
    return Measured(
        state.theta.size, first.clock.step, count_of(state), state.coupled.descent.eigenvector_history.shape[1], len(rows),
        middle(ours), middle(least), middle(ours[k] / least[k] for k in range(len(ours))),
        *(float(np.median(table[f"cost.{name}"])) for name in ("hvps", "grad_sharpness", "gradients")),
        float(np.median(theirs)), float(np.median(table["constrained.contractions"])),
        float(np.median(hvps - theirs - np.array(flow) - forms)), float(np.median(flow)), float(forms),
        join_s, compiled.count, compiled.seconds, *map(middle, singles),
    )


def at_the_edge(spec: RunSpec) -> AtEdge:
    """The state some steps after the last direction has joined, all compiled."""
    experiment, joined, took = Experiment(spec), None, 0.0
    with Compilations.counted() as compiled:
        while joined is None or experiment.clock.step < joined + AFTER:
            known = experiment.phase == "edge" and count_of(experiment.state) == DIRECTIONS - 1
            if not known:
                compiled.count, compiled.seconds = (compiled.count, compiled.seconds) if joined else (0, 0.0)
            began = time.perf_counter()
            progress = experiment.advance(1 if experiment.phase == "edge" else 100)
            if progress.outcome is not None:
                raise SystemExit(f"{DIRECTIONS} directions never were at the edge: {progress.outcome.text}")
            if any(isinstance(event, DirectionJoined) and event.count == DIRECTIONS for event in progress.events):
                joined, took = experiment.clock.step, time.perf_counter() - began
    return AtEdge(experiment.setup, experiment.state, took, compiled)


def step_from(setup: Setup, state: EdgeState) -> tuple[EdgeState, dict[str, float]]:
    """One coupled step, waited for, and its row."""
    following, progress, _ = edge.advance(setup, state, 1)
    jax.block_until_ready(jax.tree.leaves(following))
    if not isinstance(following, EdgeState) or count_of(following) != DIRECTIONS:
        raise SystemExit(f"{DIRECTIONS} directions are no longer at the edge at step {state.clock.step}: {progress.events}")
    return following, dict(zip(setup.column_index, progress.rows[0], strict=True))


def without_flow(state: EdgeState) -> EdgeState:
    """The same but for what is followed beside."""
    return state._replace(coupled=state.coupled._replace(beside={}))


def forms_hvps(state: EdgeState) -> int:
    """Products that the predictions take in a step: one each, and one for each direction where a form reads the loss along them."""
    along = sum(FORMS[form].reads_along_u for form in state.coupled.predicted.displacements)
    return len(state.coupled.predicted.displacements) + along * len(state.coupled.constrained.directions.basis)


@jit_by_format
def product(problem: Problem, theta: Array, v: Array) -> Array:
    """∇²L v (p,)."""
    return problem.hvp(theta, v)


def floor_of(problem: Problem, state: EdgeState) -> Callable[[int, int, int], None]:
    """A call that takes so many products, contractions and gradients and nothing else, each one call."""
    theta, u = state.center.theta, state.center.top_eigenvector

    def work(hvps: int, contractions: int, gradients: int) -> None:
        jax.block_until_ready([
            *(product(problem, theta, u) for _ in range(hvps)),
            *(grad_sharpness(problem, theta, u, str(u.dtype)) for _ in range(contractions)),
            *(published.gradient(problem, theta) for _ in range(gradients)),
        ])

    work(1, 1, 1)
    return work
