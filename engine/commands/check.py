"""The command that looks at a preset before it is run: whether its problem will do, what it meets at its start, what it takes."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cyclopts import App

import engine
from engine.base.errors import UserError, is_out_of_memory
from engine.base.text import bytes_words, print_json, print_pairs
from engine.commands.options import DataDir, Overrides, PresetName, Switch, Trust
from engine.data.catalog import ready
from engine.record import trust
from engine.spec import CoupledTracking, Network, Own, OwnOptimizer, RunSpec, load_spec

NO_TIME = "not timed; --tracked compiles it, and does"
NO_TRACK = "not timed: θ† cannot be followed from the start on"


def add_to(app: App) -> None:
    """Give the command to an app."""
    app.command(check)


def check(
    preset: PresetName, *, overrides: Overrides = (), tracked: Switch = False, json: Switch = False, data_dir: DataDir = None,
    trusted: Trust = False,
) -> int:
    """Look at a preset without running it: test its problem's format, determinism and three derivatives, then measure what a run meets at
    its start: the sharpness, 2/S, a learning rate that would meet the edge, kinks, the time of a step and the memory. An optimizer of your
    own is tested too: two steps, its state, its P and its edge.

    Args:
        preset: A preset's name (`presets` lists them), or the path of a preset file.
        overrides: `section.field=value`, as in `--set optimizer.learning_rate=0.05`; may be repeated.
        tracked: Also time a step at the edge, with θ† and its predictions: it is compiled for that, which takes longer than all the rest.
        json: Print one JSON object. What is being computed is said on stderr either way.
    """
    spec = ready(load_spec(preset, overrides), data_dir or "")
    trust.asking(lambda: trust.need_preset(preset, spec), trusted)
    engine.configure(spec.rematerializes)
    with _saying("building the problem"):
        problem, theta, facts = import_module("engine.problems.build").build(spec)
    memory, outlook = import_module("engine.phases.memory"), import_module("engine.phases.outlook")
    float64_rate, shares = import_module("engine.xla.float64_rate"), import_module("engine.xla.shares")
    formats = memory.Formats.of(spec)
    try:
        with _saying("testing its number formats and three derivatives"):
            wrong, loss = engine.complaints(problem, theta), float(problem.loss(theta))
        _refuse(spec.name, wrong)
        if isinstance(spec.optimizer, OwnOptimizer):
            with _saying("testing two steps of its optimizer"):
                import_module("engine.dynamics.own_optimizer").require_sound(spec.optimizer, problem, theta)
            facts |= {"optimizer": f"{spec.optimizer.function}: two steps in each number format, its P and its edge tested"}
        with _saying("compiling the derivatives, for their memory"):
            needed = memory.estimate(problem, theta, formats)
        with _saying("finding the sharpness at the start"):
            at = outlook.at_start(spec, problem, theta)
            edge = outlook.edge(at)
        with _saying("looking for kinks along its eigenvector"):
            kinks = import_module("engine.curvature.kinks").kinks(problem, theta, at.pairs.vectors[0], spec.seed)
        with _saying("timing products in float32 and float64"):
            rate = float64_rate.measured()
        products = None
        if spec.precision.products != "float64" or float64_rate.is_slow(spec, rate):
            with _saying("comparing a gradient by float32 products with one in float64"):
                products = outlook.compare_products(at)
        with _saying("timing a step"):
            plain = outlook.seconds_a_step(at)
        with_reading = math.nan
        if edge.sharpness > 0 and (tracked or not isinstance(spec.tracking, CoupledTracking)):
            with _saying("timing a tracked step: compiling it takes longest" if tracked else "timing a reading of the sharpness"):
                with_reading = outlook.seconds_a_tracked_step(at, plain)
    except UserError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _no_memory(spec, memory, memory.estimate(problem, theta, formats)) from None
    about = {"preset": spec.name, **facts, "loss": loss}
    tracking = spec.tracking
    several = []
    if isinstance(tracking, CoupledTracking) and tracking.on_second_eigenvalue == "follow":
        several = memory.direction_costs(min(tracking.max_eigenvalues, theta.size - 1), problem, theta.size, formats)
    kept = import_module("engine.phases.snapshots").planned(spec, problem, theta.size)
    if json:
        print_json(about | {
            "snapshots": kept._asdict(),
            "memory": {**needed._asdict(), "total": needed.total}, "directions": [each._asdict() for each in several],
            "start": _known(edge._asdict()), "kinks": _known(kinks._asdict() | {"warned": kinks.are_there}),
            "seconds": _known({"step": plain, "tracked_step": with_reading}),
            "float64_rate": rate, "float32x6": products and products._asdict(),
        })
        return 0
    if kept.files:
        about["snapshots"] = kept.words
    for each in several:
        more = bytes_words(each.bytes)
        about[f"{each.directions} directions at the edge"] = f"{each.third_derivatives} contractions of ∇³L a step, {more} more"
    print_pairs([
        *((name, _words(value)) for name, value in about.items()),
        ("memory", f"about {bytes_words(needed.total)} at most{' on each' * shares.several_devices(problem.data, theta)}"),
        *_edge_words(spec, edge),
        ("a step", seconds(plain)), ("a tracked step", seconds(with_reading, NO_TRACK if tracked else NO_TIME)),
        ("kinks", _kink_words(kinks)), ("float64", float64_rate.measured_words(spec, rate)),
        *([("float32x6", products.words)] if products else []),
        ("tested", "number formats kept, the same twice, three derivatives against differences of the one below"),
    ])
    return 0


KINKED = "WARNING: kinks, as relu has, which the theory's ∇S does not see: θ† and its predictions may be off; tanh and gelu have none"
"""Where ∇³L misses what a smooth loss would show."""


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Say what is computed while it is, and how long that took."""
    began, shown = time.monotonic(), sys.stderr.isatty()
    print(f"{what} …", end="" if shown else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f" {time.monotonic() - began:.1f} s", file=sys.stderr)


def _refuse(name: str, wrong: list[str]) -> None:
    if wrong:
        raise UserError(f"{name}: {'; '.join(wrong)}")


def _no_memory(spec: RunSpec, memory: Any, needed: Any) -> UserError:
    """That the problem needs more memory than there is, and what to do."""
    less = "make the problem smaller"
    if isinstance(spec.problem, Network):
        less = "--set problem.micro_batch=N brings it down"
    elif isinstance(spec.problem, Own):
        less = "micro_batch=N of engine.from_flax or from_loss brings it down"
    if needed.parameters > needed.total / 2:
        less = f"{bytes_words(needed.parameters)} of it go with the parameters: make the model smaller"
    return UserError(f"{spec.name}: needs about {bytes_words(needed.total)}, more than there is here; {less}")


def _known(numbers: dict[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them: None for what is not known."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in numbers.items()}


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(each)}" for name, each in value.items())
    return {True: "recorded", False: "not recorded"}[value] if isinstance(value, bool) else str(value)


def _edge_words(spec: RunSpec, edge: Any) -> list[tuple[str, str]]:
    from engine.record import edges

    formula = edges.formula(spec.optimizer)
    if not edge.sharpness > 0:
        return [("sharpness", f"S = {edge.sharpness:.4g} at the start: no direction is curved upward, so that no step is too large yet")]
    pairs = [
        ("sharpness", f"S = {edge.sharpness:.5g} at the start"),
        ("largest stable step", f"2/S = {edge.largest_stable_step:.4g} of gradient descent: with a larger η it diverges along u"),
    ]
    if not math.isfinite(edge.suggested_learning_rate):
        return [*pairs, ("suggested η", f"none: the edge of this optimizer, {formula}, is not read off S")]
    ratio = edge.edge_over_sharpness
    meets = "met at once: the start is beyond it" if ratio < 1 else f"met where the sharpness grows by {ratio:.3g}"
    return [
        *pairs, ("this run's edge", f"{formula} = {edge.sharpness * ratio:.5g} at η = {edge.learning_rate:g}, {meets}"),
        ("suggested η", f"{edge.suggested_learning_rate:g}, with the edge at 2·S: met if progressive sharpening doubles the sharpness"),
    ]


def seconds(value: float, otherwise: str = "") -> str:
    """A time as a person reads it, or what is said where there is none."""
    if not math.isfinite(value):
        return otherwise
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"


def _kink_words(kinks: Any) -> str:
    words = [f"∇S misses {kinks.missed:.2%} of the change of curvature along u"]
    if not math.isnan(kinks.straight):
        words.append(f"third derivative 0 along {kinks.straight:.0%} of the parameters, but for the criterion's")
    return "; ".join([*words, *([KINKED] if kinks.are_there else [])])
