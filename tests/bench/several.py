"""The tracked step with two directions at the edge, against the floor that its own products make.

    python -m engine bench several [--rounds N] [--json]

The preset `several`, float64 throughout, is trained until both directions hold θ† back, with seven eigenvalues of gradient descent.
Each round times the same coupled steps from there, each in turn with its floor, medians told. The floor is what the step counts: its
Hessian–vector products, contractions of ∇³L and gradients, each one call of a function that is compiled by itself.

Products are told by who takes them. Those of θ† with its multiplier are columns of the record; a form of the prediction takes one, and
one more for each direction where it reads the loss along them; what gradient flow takes is what the same step takes less without it; the
rest are gradient descent's eigenpairs. Seconds are of the clock, and of the processor, which other load of the machine changes less.
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

from engine.curvature.expansion import grad_sharpness
from engine.dynamics.predicted import FORMS
from engine.phases import edge
from engine.phases.context import Setup
from engine.phases.edge_state import EdgeState
from engine.phases.experiment import Experiment
from engine.phases.several import count_of
from engine.problems.problem import Problem
from engine.record.messages import DirectionJoined
from engine.spec import RunSpec, load_spec, with_overrides
from engine.xla.device import device_words
from engine.xla.jit import jit_by_format

DIRECTIONS, EIGENVALUES, AFTER, STEPS, SINGLY = 2, 7, 16, 8, 10
"""Directions that hold θ† back, eigenvalues of gradient descent, steps from where they do to the first that is timed, timed steps of a
round, and how many of a kind are timed by themselves."""
GOALS = {"constrained_hvps": 20, "constrained_contractions": 5, "over_floor": 1.5}
"""What θ† with its multiplier may take in products and contractions in the median, and a step in all over its floor."""
PRESET = "several"
OVERRIDES = [
    f"tracking.eigenvalues={EIGENVALUES}", f"tracking.max_eigenvalues={EIGENVALUES}", "tracking.gauges_every=0",
    "tracking.landscape_every=0",
]


class Measured(NamedTuple):
    """The figures: medians, times in seconds."""

    parameters: int
    step: int  # the first that is timed
    directions: int
    eigenvalues: int
    steps: int  # timed
    ours_s: float
    floor_s: float
    over_floor: float  # of each step over its own floor,
    over_floor_cpu: float  # in seconds of the processor
    hvps: float  # in all, as the three below
    contractions: float
    gradients: float
    constrained_hvps: float  # θ† with its multiplier
    constrained_contractions: float
    descent_hvps: float  # gradient descent's eigenpairs
    flow_hvps: float
    forms_hvps: float  # the predictions
    join_s: float  # the step at which the last direction joins
    compilations: int  # from the edge on, beside the run too,
    compile_s: float  # and how long they take
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
        compilations, on = cls(), True

        def listen(event: str, duration_secs: float, **_: Any) -> None:
            if on and "backend_compile" in event:
                compilations.count, compilations.seconds = compilations.count + 1, compilations.seconds + duration_secs

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield compilations
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
    costs = measure(with_overrides(load_spec(PRESET), OVERRIDES), rounds)
    if as_json:
        print(json.dumps([costs._asdict() | {"goals": GOALS, "device": device_words()}], indent=1))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    words = f"{costs.directions} directions and {costs.eigenvalues} eigenvalues, p = {costs.parameters:,}, from step {costs.step}"
    for title, columns in TABLES.items():
        table = Table(*columns, title=f"{title} ({words}; {device_words()})")
        table.add_row(*(form.format(**costs._asdict()) for form in columns.values()))
        console.print(table)
    return 0


TABLES = {
    "A tracked step": {
        "eos s": "{ours_s:.4f}", "floor s": "{floor_s:.4f}", f"over floor (goal {GOALS['over_floor']})": "{over_floor:.2f}×",
        "in seconds of the processor": "{over_floor_cpu:.2f}×",
        "HVPs": "{hvps:.0f}", "∇³L": "{contractions:.0f}", "gradients": "{gradients:.0f}",
        "one of each by itself, s": "{hvp_s:.2e}, {contraction_s:.2e}, {gradient_s:.2e}",
    },
    "Products by part": {
        f"θ†, HVPs (goal {GOALS['constrained_hvps']})": "{constrained_hvps:.0f}",
        f"θ†, ∇³L (goal {GOALS['constrained_contractions']})": "{constrained_contractions:.0f}",
        "gradient descent's pairs": "{descent_hvps:.0f}", "flow": "{flow_hvps:.0f}", "forms": "{forms_hvps:.0f}",
    },
    "From the edge on": {
        "compilations": "{compilations}", "they take, s": "{compile_s:.1f}", "the step where the last direction joins, s": "{join_s:.2f}",
    },
}


def measure(spec: RunSpec, rounds: int) -> Measured:
    """The figures of a problem that comes to have so many directions at the edge."""
    setup, first, join_s, compiled = at_the_edge(spec)
    floor, state = floor_of(setup.problem, first), first
    flow: list[float] = []
    for _ in range(STEPS):  # compiles what these steps call
        flow.append(-step_from(setup, without_flow(state))[1]["cost.hvps"])
        state, row = step_from(setup, state)
        flow[-1] += row["cost.hvps"]
    rows, ours, least = [], [], []
    singles: tuple[list[float], ...] = ([], [], [])
    for _ in range(rounds):
        state = first
        for _ in range(STEPS):
            began = now()
            state, row = step_from(setup, state)
            ours.append(now() - began)
            began = now()
            floor(*(int(row[f"cost.{name}"]) for name in ("hvps", "grad_sharpness", "gradients")))
            least.append(now() - began)
            rows.append(row)
        for part, taken in enumerate(singles):
            began = now()
            floor(*(SINGLY if other == part else 0 for other in range(3)))
            taken.append((now() - began)[0] / SINGLY)
    table = {column: np.array([row[column] for row in rows]) for column in setup.column_index}
    middle, forms, ratios = statistics.median, forms_hvps(first), np.median(np.array(ours) / np.array(least), 0)
    hvps, contractions, gradients = (float(np.median(table[f"cost.{name}"])) for name in ("hvps", "grad_sharpness", "gradients"))
    hvp_s, contraction_s, gradient_s = map(middle, singles)
    return Measured(
        first.theta.size, first.clock.step, DIRECTIONS, first.coupled.descent.eigenvectors.shape[1], len(rows),
        np.median(ours, 0)[0], np.median(least, 0)[0], ratios[0], ratios[1], hvps, contractions, gradients,
        float(np.median(table["constrained.hvps"])), float(np.median(table["constrained.contractions"])),
        float(np.median(table["cost.hvps"] - table["constrained.hvps"] - flow * rounds - forms)), float(np.median(flow)), float(forms),
        join_s, compiled.count, compiled.seconds, hvp_s, contraction_s, gradient_s,
    )


def now() -> np.ndarray:
    """Seconds of the clock and of the processor, (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def at_the_edge(spec: RunSpec) -> AtEdge:
    """The state some steps after all directions hold θ† back."""
    experiment, took, held = Experiment(spec), 0.0, 0
    with Compilations.counted() as compiled:
        while held < AFTER:
            edge_before = experiment.phase == "edge"
            if not edge_before:
                compiled.count, compiled.seconds = 0, 0.0
            began = time.perf_counter()
            progress = experiment.advance(1 if edge_before else 100)
            if any(isinstance(event, DirectionJoined) and event.count == DIRECTIONS for event in progress.events):
                took = time.perf_counter() - began
            if progress.outcome is not None or experiment.phase not in ("approach", "edge"):
                raise SystemExit(f"{DIRECTIONS} directions never held θ† back together, up to step {experiment.clock.step}")
            held += edge_before and count_of(experiment.state) == DIRECTIONS == int(experiment.state.coupled.constrained.active)
    experiment.settle()
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
