"""The runs behind a figure: each is named by what it computes, so that finished ones are kept and cut ones go on.

A run is named after its preset, its η and a digest of its specification without the words: `fig4-mlp-small-eta0.02-1f3a…`. Two
figures that show the same experiment share its run, and a changed preset makes a new one.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from engine.base.errors import UserError
from engine.base.text import print_line
from engine.data.catalog import ready
from engine.figures.catalog import Figure, presets
from engine.jobs import follow, launch
from engine.record import store, trust
from engine.record.messages import EdgeReached, EigenvalueUnstable
from engine.record.reader import Run
from engine.record.safe_read import read_arrays
from engine.record.threshold import threshold
from engine.spec import Phase, RunSpec, load_spec, to_toml, with_overrides

KEPT = ("completed", "edge_never_reached", "second_eigenvalue", "loss_goal", "diverged")
"""Outcomes that are a result."""


class Wanted(NamedTuple):
    """A run that a figure needs."""

    preset: str
    spec: RunSpec
    label: str
    """What tells it from the other runs of its preset, for a legend."""

    @property
    def name(self) -> str:
        """The name of its run directory."""
        words = replace(self.spec, title="", shows="", takes="")
        digest = hashlib.sha256(to_toml(words).encode()).hexdigest()[:10]
        eta = "inverse" if self.spec.optimizer.schedule == "inverse_sharpness" else f"eta{self.spec.optimizer.learning_rate:g}"
        return f"{self.spec.name}-{eta}-{digest}"


class Result(NamedTuple):
    """A run at its end, read."""

    wanted: Wanted
    run: Run
    table: dict[str, np.ndarray]
    edge_step: int | None
    unstable: dict[int, int]
    """Number of an eigenvalue -> the step at which it first exceeded 2/η."""

    @property
    def learning_rate(self) -> float:
        return self.wanted.spec.optimizer.learning_rate

    @property
    def threshold(self) -> float:
        """The stability threshold, which stays where η does."""
        return float(threshold(self.table)[-1])

    def column(self, name: str) -> np.ndarray:
        """A recorded column, all NaN where the run has none."""
        return self.table.get(name, np.full(len(self.table["step"]), np.nan))


def wanted(figure: Figure, small: bool, overrides: Sequence[str] = (), data_dir: str | None = None) -> list[Wanted]:
    """Every run that the figure needs. Raises UserError where data are missing, before anything is run."""
    return [each for preset in presets(figure, small) for each in _of_preset(preset, figure.variants, overrides, data_dir or "")]


def _of_preset(preset: str, variants: Sequence[Sequence[str]], overrides: Sequence[str], data_dir: str) -> list[Wanted]:
    base = ready(load_spec(preset, list(overrides)), data_dir)
    rates = base.optimizer.learning_rates or (base.optimizer.learning_rate,)
    base = replace(base, optimizer=replace(base.optimizer, learning_rates=()))
    varied = [(with_overrides(base, list(variant)), _words(variant)) for variant in variants]
    if isinstance(base.problem, Phase):
        return [Wanted(preset, spec, label) for spec, label in varied] or [Wanted(preset, base, "")]
    shown = [replace(base, optimizer=replace(base.optimizer, learning_rate=eta)) for eta in rates]
    return [Wanted(preset, spec, f"η = {spec.optimizer.learning_rate:g}") for spec in shown] + [
        Wanted(preset, spec, label) for spec, label in varied
    ]


def _words(variant: Sequence[str]) -> str:
    """Overrides as a legend says them."""
    if tuple(variant) == ("optimizer.schedule=inverse_sharpness",):
        return "η = 1/λ_max"
    symbols = {"alpha": "α", "beta": "β"}
    parts = (override.rpartition(".")[2].partition("=") for override in variant)
    return ", ".join(f"{symbols.get(key, key)} = {value}" for key, _, value in parts)


def read(want: Wanted) -> Result | None:
    """The result of a run that has ended well, else None."""
    path = store.home() / want.name
    if not path.is_dir() or store.half_made(path):
        return None
    run = Run(path)
    outcome = run.state().outcome
    if outcome is None or run.liveness() != "finished" or outcome.kind not in KEPT:
        return None
    events, unstable = run.events(), dict[int, int]()
    for event in events:
        if isinstance(event, EigenvalueUnstable):
            unstable.setdefault(event.number, event.step)
    edge = next((event.step for event in events if isinstance(event, EdgeReached)), None)
    return Result(want, run, run.table(), edge, unstable)


def curves(result: Result) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The sampled F_t of a run: step, and arrays of its file, `x` and `F` among them."""
    samples = ((step, read_arrays(path)) for step, path in result.run.samples().items())
    return [(step, arrays) for step, arrays in samples if arrays is not None and {"x", "F"} <= arrays.keys()]


def carry_out(wants: Sequence[Wanted], display: Callable[[ExitStack, int], follow.Display]) -> bool:
    """Bring every run to its end, one after the other; those that have ended are kept. False when the user interrupted."""
    for k, want in enumerate(wants):
        if read(want) is not None:
            continue
        run, pid = start(want)
        interrupted = follow.follow(run, pid, lambda stack, k=k: display(stack, k))  # type: ignore[misc]
        if interrupted:
            return False
        if read(want) is None:
            outcome = run.state().outcome
            why = outcome.text if outcome else follow.gone_words(run, pid)
            raise UserError(f"run {run.name}: {why}")
    return True


def start(want: Wanted) -> tuple[Run, int]:
    """An engine on the run: from its last checkpoint where it was begun before."""
    path: Path = store.home() / want.name
    if store.half_made(path):
        store.discard(want.name)
        print_line(f"{want.name}: was there half made, and is made anew", error=True)
    if path.is_dir():
        run = Run(path)
        if trust.code_of(run.spec) == trust.code_of(want.spec):
            trust.grant(run.path, run.spec)  # asked for on the command line
        return run, trust.asking(lambda: launch.restart(run))
    run = store.create(want.spec, want.name)
    return run, launch.start(run)
