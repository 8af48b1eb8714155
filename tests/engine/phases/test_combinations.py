"""Every mode × every kind of problem × every optional part runs three steps: pairs of them in the usual suite, all in the slow one.

One problem of a kind is built for all of its runs, so that most of what they compute is compiled once, and many parts are in one run.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import engine
from engine.phases import experiment, training
from engine.phases.context import setup
from engine.record.messages import TrackingEnded
from engine.spec import RunSpec, from_tree, with_overrides

from places import TESTS

pytestmark = pytest.mark.usefixtures("x64")
STEPS = 3

CHEBYSHEV = {"name": "chebyshev", "examples": 6, "degree": 3, "standardize": "none"}
DIGITS = {"name": "digits", "examples": 6, "classes": [3, 8], "test_examples": 4}
CLASSES = {"name": "digits", "examples": 6, "classes": [0, 3, 8], "test_examples": 3}
SENTENCES = {"name": "sentences", "examples": 4, "classes": [0, 1], "standardize": "none"}


def network(data: dict, model: dict, criterion: str = "mse") -> dict:
    return {"kind": "network", "criterion": criterion, "data": data, "model": model}


def own(function: str) -> dict:
    return {"kind": "own", "function": f"own_problems:{function}", "folder": str(TESTS), "self_test": False}


KINDS: dict[str, tuple[dict, float]] = {
    "mlp": (network(CHEBYSHEV, {"kind": "mlp", "widths": [2], "activation": "tanh"}), 1.0),
    "cnn": (network(DIGITS, {"kind": "cnn", "widths": [1]}, "logistic"), 2.27),
    "resnet": (network(CLASSES, {"kind": "resnet", "widths": [1], "blocks": 1}, "cross_entropy"), 5.35),
    "transformer": (network(SENTENCES, {"kind": "transformer", "layers": 1, "hidden": 2, "heads": 1}, "logistic"), 6.4),
    "toy": ({"kind": "toy"}, 0.01),
    "toy of several directions": ({"kind": "toy_k", "x0": [0.1, 0.05]}, 0.01),
    "phase": ({"kind": "phase"}, 0.01),
    "own": (own("valley"), 0.05),
    "own with data": (own("with_data"), 2.66),
    "linen": (own("line"), 0.92),
    "nnx": (own("line_of_nnx"), 0.56),
}
"""Problems by their kind, each with a learning rate at which it begins at the edge."""
NETWORKS = [kind for kind, (part, _) in KINDS.items() if part["kind"] == "network"]
MODULES = ("linen", "nnx")
QUICK = ("toy", "mlp", "own", "own with data")
"""Kinds that stand for others in the usual suite: no examples, examples in passes, no data at all, and data of one's own."""
COMPILED = ("precision", "decay", "predictions", "flow", "eigenvalues", "sources", "passes", "layers")
"""Parts that have everything compiled anew: in the usual suite they meet all the others, but not each other."""

LEAN = {"predictions": "none", "flow": "off"}
"""Parts as they are quickest to compile."""

Factors = dict[str, dict[str, list[str]]]
BOTH: Factors = {
    "precision": {
        "mixed": [], "float32": ["precision.edge=float32"],
        "float64": ["precision.approach=float64", "precision.curvature=float64"],
    },
    "raises": {"none": [], "one": ["optimizer.raises=[[1, 1e-3]]"]},
    "decay": {"none": [], "some": ["optimizer.weight_decay=0.01"]},
    "goal": {"none": [], "met": ["budget.loss_goal=1e9"]},
}  # fmt: skip
COUPLED: Factors = {
    "predictions": {
        "three": [], "none": ["tracking.predictions=[]"], "one": ['tracking.predictions=["code"]'],
        "all": ['tracking.predictions=["full_cubic", "transported", "generalized", "code"]'],
    },
    "flow": {"on": [], "both": ["tracking.flow=both", "tracking.flow_sharpness_every=2"], "off": ["tracking.flow=false"]},
    "eigenvalues": {"two": [], "many": ["tracking.eigenvalues=5"], "no more": ["tracking.max_eigenvalues=2"]},
    "gauges": {"never": ["tracking.gauges_every=0"], "always": ["tracking.gauges_every=1"]},
    "landscape": {"never": ["tracking.landscape_every=0"], "always": ["tracking.landscape_every=1"]},
    "sources": {"none": [], "some": ["tracking.beta_every=1", "tracking.beta_window=2"]},
    "audits": {"never": ["tracking.audit_every=0"], "always": ["tracking.audit_every=1"]},
    "anchors": {"when asked": [], "by themselves": ["tracking.anchor_every=1", "tracking.anchor_lost=true"]},
    "second": {
        "ends it": [], "kept": ["tracking.on_second_eigenvalue=keep"],
        "ends θ†": ["tracking.on_second_eigenvalue=gradient_descent", "tracking.second_eigenvalue_limit=1e-9"],
    },
    "edge": {"to the end": [], "one step": ["budget.edge_steps=1"]},
}  # fmt: skip
SHARPNESS: Factors = {
    "eigenvalues": {"two": [], "one": ["tracking.eigenvalues=1"], "many": ["tracking.eigenvalues=5"]},
    "readings": {"rare": [], "every step": ["tracking.sharpness_every=1"], "every second": ["tracking.sharpness_every=2"]},
    "schedule": {"constant": [], "inverse": ["optimizer.schedule=inverse_sharpness", "optimizer.raises=[]"]},
}
OF_NETWORKS: Factors = {
    "passes": {"one": [], "several": ["problem.micro_batch=2"]},
    "layers": {"kept": [], "again": ["problem.rematerialize=true"]},
}
"""Optional parts by what they are parts of, each with its levels as overrides; the first is how things are when nothing is said."""


def factors(mode: str, kind: str) -> Factors:
    """The optional parts that a kind of problem has in a mode."""
    if kind == "phase":
        return COUPLED
    there = BOTH | (COUPLED if mode == "coupled" else SHARPNESS) | (OF_NETWORKS if kind in NETWORKS else {})
    if mode == "sharpness" and kind in NETWORKS:
        there |= {"examples": {"all": [], "some": ["tracking.sharpness_examples=3"]}}
    if mode == "sharpness" and kind in (*NETWORKS, *MODULES):
        there |= {"batches": {"all": [], "of three": ["batch.size=3", "batch.samples=20"]}}
    if kind in ("cnn", "resnet"):
        there |= {"tests": {"some": [], "none": ["problem.data.test_examples=0"]}}
    return there


def modes(kind: str) -> tuple[str, ...]:
    return ("coupled",) if kind == "phase" else ("coupled", "sharpness")


SETTINGS = [(mode, kind) for kind in KINDS for mode in modes(kind)]
Row = dict[str, str]
Pair = frozenset[tuple[str, str]]


def pairs_of(row: Row) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def usual() -> list[Pair]:
    """The pairs of the usual suite: the coupled mode with every kind, both with the quick ones; every part of the toy with both modes and
    with every other part, but those that have everything compiled anew with one another; and what other quick kinds have that the toy has
    not."""
    return [*dict.fromkeys(pair for mode, kind in SETTINGS for pair in _usual(mode, kind))]


def _usual(mode: str, kind: str) -> Iterator[Pair]:
    if mode == "coupled" or kind in QUICK:
        yield frozenset({("mode", mode), ("kind", kind)})
    levels = levels_of(mode, kind)
    if kind == "toy":
        for level in levels:
            yield frozenset({("mode", mode), level})
        yield from (frozenset(two) for two in combinations(levels, 2) if two[0][0] != two[1][0] and {n for n, _ in two} - {*COMPILED})
    elif kind in QUICK:
        for name, level in levels:
            if name in (OF_NETWORKS if kind == "mlp" else BOTH):
                yield from (frozenset({(name, level), held}) for held in (("mode", mode), ("kind", kind)))


def every() -> list[Pair]:
    """The pairs of the slow suite: all of them, on the quick kinds."""
    pairs: dict[Pair, None] = {}
    for mode, kind in SETTINGS:
        if kind in QUICK:
            held = [("mode", mode), ("kind", kind), *levels_of(mode, kind)]
            pairs |= dict.fromkeys(frozenset(two) for two in combinations(held, 2) if two[0][0] != two[1][0])
    return [*pairs]


def levels_of(mode: str, kind: str) -> list[tuple[str, str]]:
    return [(name, level) for name, each in factors(mode, kind).items() for level in each]


def covering(wanted: list[Pair]) -> list[Row]:
    """Rows that hold every wanted pair between them: each begins with the first that is left, and takes what covers most of the others."""
    left, taken = dict.fromkeys(wanted), []
    while left:
        begun = dict(next(iter(left)))
        kinds = [begun["kind"]] if "kind" in begun else QUICK
        tried = ([filled(begun, mode, kind, left) for mode in modes(kind) if mode == begun.get("mode", mode)] for kind in kinds)
        rows = next(kept for each in tried if (kept := [row for row in each if row]))  # the quickest kind that has the parts
        best = max(rows, key=lambda row: len(pairs_of(row) & left.keys()))
        for pair in pairs_of(best):
            left.pop(pair, None)
        taken.append(best)
    return sorted(taken, key=lambda row: (row["kind"], row["mode"]))


def filled(begun: Row, mode: str, kind: str, left: dict[Pair, None]) -> Row:
    """A row of this mode and kind that holds what it has begun with; empty where there is none."""
    there = factors(mode, kind)
    row = {"mode": mode, "kind": kind} | begun
    if any(name not in there or level not in there[name] for name, level in begun.items() if name not in ("mode", "kind")):
        return {}
    for name in sorted(there.keys() - row.keys()):
        row[name] = max(there[name], key=lambda level: sum(frozenset({(name, level), held}) in left for held in row.items()))
    return row


USUAL = covering(usual())
ENDS = ("completed", "loss_goal", "second_eigenvalue", "edge_never_reached")


def spec_of(row: Row, below: bool = False) -> RunSpec:
    """The specification of a row; `below` begins far below the edge."""
    part, rate = KINDS[row["kind"]]
    rate = rate / 100 if below else rate
    there = factors(row["mode"], row["kind"])
    tree = {"name": "three", "problem": part, "budget": {"steps": STEPS}}
    tree |= {"optimizer": {"learning_rate": rate}, "tracking": {"mode": row["mode"]}}
    overrides = [override for name, level in row.items() if name in there for override in there[name][level]]
    return with_overrides(from_tree(tree, "test"), overrides)


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """The problems of runs that train the same are the same objects, so that they are compiled once."""
    kept: dict[tuple, Any] = {}

    def once(build, spec, *more):
        key = (build.__name__, repr(spec.problem), spec.optimizer.learning_rate, spec.optimizer.weight_decay, *more)
        if key not in kept:
            kept[key] = build(spec)
        return kept[key]

    def trainings(spec, columns):
        state, theta, facts = once(lambda _: build_training(spec, columns), spec, spec.tracking.sharpness_examples)
        return state._replace(setup=setup(spec, state.setup.problem, theta.size, columns)), theta, facts

    build_training, build_problem = training.build, experiment.build
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "build", trainings)
        patched.setattr(experiment, "build", lambda spec: once(build_problem, spec))
        yield


def runs_three_steps(row: Row, below: bool = False) -> None:
    record = engine.run(spec_of(row, below), trust=True)
    assert record.outcome.kind in ENDS, (row, record.outcome.text)
    steps = 1 if row.get("goal") == "met" else STEPS
    assert len(record["step"]) == steps or record.outcome.kind == "second_eigenvalue" or row.get("edge") == "one step", row
    if row["kind"] == "phase":
        return
    assert np.isfinite(record["batch.loss" if record.spec.batch.size else "gd.loss"]).all(), row
    ended = any(isinstance(event, TrackingEnded) for event in record.events)
    if row["mode"] == "coupled" and record.outcome.kind == "completed" and not ended:
        assert np.isfinite(record["constrained.sharpness"]).any(), row


def name_of(row: Row) -> str:
    return ", ".join(f"{name} {level}" for name, level in row.items())


FIRST = ("own", "own with data")
"""The kinds whose pairs run in the usual suite: they compile in a third of the time of a network's."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in FIRST)) for kind in KINDS])
def test_every_pair_of_parts_runs_three_steps(kind):
    """Kinds that take long to compile stay below the edge, and one that is always at it does without: only the slow suite follows them."""
    for row in USUAL:
        if row["kind"] == kind:
            runs_three_steps(row | (LEAN if kind == "toy of several directions" else {}), below=kind not in QUICK)


def test_the_rows_hold_every_pair():
    assert set(usual()) <= set().union(*map(pairs_of, USUAL))


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK)
def test_every_two_parts_together_run_three_steps(kind):
    """What the usual suite leaves out: parts that each have everything compiled anew, together."""
    for row in covering(every()):
        if row["kind"] == kind:
            runs_three_steps(row)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kind"), SETTINGS)
def test_every_part_of_every_kind_in_every_mode_runs_three_steps(mode, kind):
    """Each part with each model, in both modes, at the edge: some 600 runs."""
    for name, level in levels_of(mode, kind):
        runs_three_steps({"mode": mode, "kind": kind, name: level})
