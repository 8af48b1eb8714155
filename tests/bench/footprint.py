"""The memory of a tracked step, in bytes a parameter, beside what `check` says of it before a run.

    python -m engine bench memory [--rounds N] [--json]

Each size and way of taking steps is a process of its own: a perceptron of few examples, so that vectors of p numbers are what takes memory,
brought to an edge by an η that puts it there, with one direction, two eigenvalues and the default forms. Once all is compiled, steps are
taken, looks around among them, and the most that is resident meanwhile is read off (`VmHWM` of Linux), less what is at rest besides arrays:
Python, its libraries and compiled code.
"""

import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SIZES = (1_000_000, 10_000_000)
"""Parameters, about."""
WAYS = ("one", "many")
"""Steps in a call."""
EXAMPLES, INPUTS, OUTPUTS = 10, 64, 10
"""Of the perceptron's data."""
STEPS = 4
"""Of a round: one of them looks around at θ†, and one beside it."""


class Measured(NamedTuple):
    """One size's figures."""

    parameters: int
    steps_per_call: str
    state: int  # bytes of all arrays between steps
    peak: int  # bytes at the most
    predicted: int  # bytes that `check` says
    step_s: float  # seconds a step


def main(rounds: int = 5, as_json: bool = False, sizes: tuple[int, ...] = SIZES, ways: tuple[str, ...] = WAYS) -> int:
    """Measure, and print a table or JSON."""
    entries = []
    for size in sizes:
        for way in ways:
            print(f"about {size:,} parameters, {way} step{'s' * (way == 'many')} in a call …", file=sys.stderr, flush=True)
            entries.append(in_a_process(size, way, rounds))
    if as_json:
        print(json.dumps([entry._asdict() | {"over_predicted": entry.peak / entry.predicted} for entry in entries], indent=1))
        return 0
    table = Table(
        "p", "steps in a call", "state", "at the most", "check says", "measured over said", "s a step",
        title="Bytes a parameter of a tracked step",
    )
    for entry in entries:
        each = (f"{count / entry.parameters:.0f}" for count in (entry.state, entry.peak, entry.predicted))
        over = f"{entry.peak / entry.predicted:.2f}"
        table.add_row(f"{entry.parameters:,}", entry.steps_per_call, *each, over, f"{entry.step_s:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def in_a_process(size: int, way: str, rounds: int) -> Measured:
    """The figures of about so many parameters."""
    command = [sys.executable, "-P", str(Path(__file__)), str(size), way, str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(size: int, way: str, rounds: int) -> Measured:
    """The figures of about so many parameters, of this process."""
    import jax
    import tracked

    from engine import spec as specs
    from engine.phases import edge, memory
    from engine.phases.context import Setup
    from engine.phases.edge_state import EdgeState
    from engine.problems.build import build
    from engine.xla import device

    device.configure()
    device.give_memory_back()  # as a run of so many parameters does

    def advanced(setup: Setup, state: EdgeState) -> EdgeState:
        following = edge.advance(setup, state, 1)[0]
        jax.block_until_ready(jax.tree.leaves(following))
        if not isinstance(following, EdgeState):
            raise SystemExit(f"{size} parameters: θ† was lost at step {state.clock.step}")
        return following

    half = (INPUTS + OUTPUTS + 2) / 2
    width = round((size + half**2) ** 0.5 - half)
    spec = tracked.spec_of("memory", {
        "data": {"name": "digits", "examples": EXAMPLES}, "criterion": "mse",
        "model": {"kind": "mlp", "widths": [width, width], "activation": "tanh"},
    })
    defaults = ", ".join(f'"{form}"' for form in specs.CoupledTracking().predictions)
    spec = specs.with_overrides(spec, [f"tracking.predictions=[{defaults}]", f'tracking.steps_per_call="{way}"', "tracking.audit_every=0"])
    problem, theta, _ = build(spec)
    setup, state = tracked.brought_to_edge(spec, problem, theta, 2)
    del theta
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    arrays = sum(array.nbytes for array in jax.live_arrays())
    at_rest = _status("VmRSS") - arrays
    Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    began = time.perf_counter()
    for _ in range(steps := rounds * STEPS):
        state = advanced(setup, state)
    seconds, peak = (time.perf_counter() - began) / steps, _status("VmHWM") - at_rest
    predicted = memory.estimate(problem, state.theta, memory.Formats.of(setup.spec)).total
    return Measured(state.theta.size, way, arrays, peak, predicted, seconds)


def _status(name: str) -> int:
    """Bytes of this process, by the name that Linux has for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))._asdict()))
