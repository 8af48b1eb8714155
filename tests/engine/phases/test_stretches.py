"""Many coupled steps as one compiled call, as on accelerators, are those that are taken one at a time."""

import re
import sys
from typing import Any

import jax
import numpy as np
import pytest

from engine import spec as specs
from engine.curvature import eigensolver, guards
from engine.phases import coupled_loop, coupled_step, edge, step_in_parts
from engine.phases.experiment import Experiment
from engine.record import messages

from places import TESTS
from small import chebyshev_spec

sys.path.insert(0, str(TESTS / "bench"))

import counting

pytestmark = pytest.mark.usefixtures("x64")

COUNTED = (
    "cost.hvps", "gd.eigen_residual", "constrained.eigen_residual", "constrained.gradient_along_u", "constrained.gradient_share",
    "constrained.sharpness_gap", "constrained.excess",
)
"""Columns of what rounding alone decides: how far within a tolerance a point came, and how many products that took."""


def tolerance_of(column: str, numbers: np.ndarray, sharpness: np.ndarray, tolerance: float) -> float:
    """In units of the column's largest number; of S for eigenvalues below those of the directions, whose residuals come within `LOOSE` of
    it: rounding decides whether a product more is taken."""
    loose = eigensolver.LOOSE * np.nanmax(sharpness) if re.search(r"\.lambda[2-9]$", column) else 0.0
    return max(tolerance * np.nanmax(np.abs(numbers)), loose)


class Stretch:
    """Coupled steps from the edge on."""

    def __init__(self, spec: specs.RunSpec, steps_per_call: str):
        self.experiment = Experiment(specs.with_overrides(spec, [f'tracking.steps_per_call="{steps_per_call}"']))
        while self.experiment.phase != "edge":
            self.experiment.advance(500)
            assert self.experiment.clock.step < 3000, "there is no edge"
        self.rows, self.events = [], []

    def take(self, steps: int, limit: int) -> None:
        """So many steps, at most `limit` to a call."""
        end = len(self.rows) + steps
        while len(self.rows) < end:
            progress = self.experiment.advance(min(limit, end - len(self.rows)))
            assert progress.outcome is None
            self.rows += progress.rows
            self.events += [(event.step, event.text) for event in progress.events]

    @property
    def table(self) -> dict[str, np.ndarray]:
        """The rows by column."""
        return dict(zip(self.experiment.setup.column_index, np.array(self.rows).T, strict=True))


def alike(spec: specs.RunSpec, steps: int, tolerance: float) -> Stretch:
    """The same rows but for rounding, in units of each column's largest number, and the same events. Gives those of many steps a call."""
    one, many = Stretch(spec, "one"), Stretch(spec, "many")
    one.take(steps, 1)
    many.take(steps, 16)
    assert_alike(one, many, tolerance)
    return many


def assert_alike(one: Stretch, many: Stretch, tolerance: float, rounding: float = 0.0, but: tuple[str, ...] = ()) -> None:
    """The same rows but for rounding, in units of each column's largest number or of 1, and the same events; `but` columns that end so."""
    assert one.events == many.events
    after = many.table
    for name, before in one.table.items():
        np.testing.assert_array_equal(np.isnan(before), np.isnan(after[name]), err_msg=name)
        if name not in COUNTED and not name.endswith(but) and not np.isnan(before).all():
            atol = max(tolerance_of(name, before, one.table["gd.sharpness"], tolerance), rounding)
            np.testing.assert_allclose(after[name], before, rtol=0, atol=atol, err_msg=name)


def test_many_steps_in_a_call_are_those_taken_one_at_a_time_but_for_rounding():
    """Through five looks around and two audits, which are steps by themselves. Between the steps of a call lies no execution and no
    conversion: it asks the host as much for one step as for six."""
    spec = chebyshev_spec(0.4, predictions=("generalized",), max_eigenvalues=2, audit_every=10, gauges_every=0, landscape_every=0)
    many = alike(spec, 20, 1e-6)
    assert (many.table["constrained.eigen_residual"] <= 1e-4).all()
    while many.experiment.clock.step % 10 != 1:
        many.take(1, 1)
    assert counting.asked(lambda: many.take(1, 1)) == counting.asked(lambda: many.take(6, 6))


def test_a_step_out_of_parts_asks_for_nine_programs_and_waits_twice():
    """Between looks around, with one direction at the edge and more eigenvalues to come."""
    spec = chebyshev_spec(0.4, on_second_eigenvalue="keep", audit_every=0, gauges_every=0, landscape_every=0)
    stretch = Stretch(spec, "one")
    while stretch.experiment.clock.step % 4 != 2 or len(stretch.rows) < 8:
        stretch.take(1, 1)
    assert counting.asked(lambda: stretch.take(1, 1)) == (9, 2)


def test_a_step_that_overwrites_the_state_is_the_same_but_for_rounding(monkeypatch):
    """Through looks around, an audit, and an anchor, after which several predictions are one array."""
    spec = chebyshev_spec(0.4, predictions=("transported", "code"), audit_every=10, gauges_every=0, landscape_every=0)
    kept, overwritten = Stretch(spec, "one"), Stretch(spec, "one")
    for stretch in (kept, overwritten):
        stretch.take(6, 1)
        stretch.experiment.anchor(messages.Anchor())
        before = stretch.experiment.state
        stretch.take(8, 1)
        assert before.theta.is_deleted() == (stretch is overwritten)
        monkeypatch.setattr(step_in_parts, "LARGE", 1)
    assert_alike(kept, overwritten, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learning_rate", "overrides"),
    [
        (0.4, ('tracking.flow="both"', 'tracking.predictions=["transported", "full_cubic", "code"]')),
        (0.4, ("tracking.max_eigenvalues=4", "tracking.second_eigenvalue_limit=1.2")),
        (0.1, ("optimizer.kind=momentum",)),
    ],
    ids=["flows", "several", "momentum"],
)
def test_a_step_of_many_parameters_is_that_of_few(learning_rate, overrides, monkeypatch):
    """With the solver's small basis, too: pairs come within the same tolerances, by other products. What symmetry makes 0 is rounding."""
    tracking = {"eigen_tolerance": 1e-8, "seed_oscillation": True, "audit_every": 10, "gauges_every": 0, "landscape_every": 0}
    spec = specs.with_overrides(chebyshev_spec(learning_rate, **tracking), list(overrides))
    few, many = Stretch(spec, "one"), Stretch(spec, "one")
    try:
        for stretch in (few, many):
            before = stretch.experiment.state
            stretch.take(14, 1)
            assert before.theta.is_deleted() == (stretch is many)
            for module in (eigensolver, edge, guards, step_in_parts):
                monkeypatch.setattr(module, "LARGE", 1)
            jax.clear_caches()
        assert_alike(few, many, 1e-4, rounding=1e-8, but=("constrained.hvps", ".correlation"))
    finally:
        jax.clear_caches()


def test_so_is_a_call_of_many_that_does_but_for_rounding(monkeypatch):
    spec = chebyshev_spec(0.4, predictions=("transported", "code"), max_eigenvalues=2, audit_every=0, gauges_every=0, landscape_every=0)
    kept, overwritten = Stretch(spec, "many"), Stretch(spec, "many")
    for stretch in (kept, overwritten):
        stretch.experiment.anchor(messages.Anchor())
        before = stretch.experiment.state
        stretch.take(16, 8)
        assert before.center.theta.is_deleted() == (stretch is overwritten)
        monkeypatch.setattr(edge, "LARGE", 1)
    assert_alike(kept, overwritten, 1e-6)


@pytest.mark.parametrize("way", ["one", "many"])
@pytest.mark.parametrize(("lost", "outcome"), [("loss", "diverged"), ("eigenpair", "eigensolver_failed")])
def test_a_step_that_is_taken_back_overwrites_nothing(lost, outcome, way, monkeypatch):
    monkeypatch.setattr(step_in_parts, "LARGE", 1)
    monkeypatch.setattr(edge, "LARGE", 1)
    stretch = Stretch(chebyshev_spec(0.4, audit_every=0, gauges_every=0, landscape_every=0, flow="none"), way)
    stretch.take(3, 1)
    experiment = stretch.experiment
    if lost == "loss":
        coupled = experiment.state.coupled
        away = coupled.descent._replace(theta=coupled.descent.theta.at[0].set(np.nan))
        experiment.state = experiment.state._replace(coupled=coupled._replace(descent=away))
    else:
        monkeypatch.setattr(coupled_step, "UNUSABLE", -1.0)
        jax.clear_caches()
    before = experiment.leaves()
    assert experiment.advance(1).outcome.kind == outcome
    after = experiment.leaves()
    jax.clear_caches()
    for path, leaf in before.items():
        if path.startswith("state.coupled") and not path.endswith("step"):
            np.testing.assert_array_equal(after[path], leaf, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tracking",
    [
        {"flow": "both", "flow_sharpness_every": 3, "predictions": ("transported", "full_cubic")},
        {"flow": "central", "max_eigenvalues": 5, "second_eigenvalue_limit": 1.2},
        {"flow": "none", "max_eigenvalues": 4, "second_eigenvalue_limit": 1.2},
    ],
    ids=["flows", "several-central", "several"],
)
def test_so_are_they_with_all_that_is_followed_beside(tracking: dict[str, Any]):
    """Eigenvalues, and room for them, come during a stretch: it ends there. Eigenvectors that no tolerance is asked of are those of one
    solver or of another: what the central flow makes of them differs by as much."""
    alike(chebyshev_spec(0.4, gauges_every=0, landscape_every=0, **tracking), 16, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [{"kind": "mlp", "widths": [40, 40], "activation": "tanh"}, {"kind": "cnn", "widths": [4, 4]}], ids=["mlp", "cnn"]
)
def test_so_are_they_on_images_in_both_formats(model: dict[str, Any]):
    """Gradients in float64, products in float32: rounding is that of the products, 1e-2 of an x of 1e-7 and 2e-2 of its square."""
    spec = specs.from_tree({
        "name": "images", "optimizer": {"learning_rate": 0.2},
        "problem": {
            "kind": "network", "criterion": "mse", "data": {"name": "digits", "classes": [3, 8], "examples": 170}, "model": model,
        },
        "tracking": {"max_eigenvalues": 2, "on_second_eigenvalue": "keep", "gauges_every": 0, "landscape_every": 0},
    }, "test")  # fmt: skip
    alike(spec, 12, 2e-2)


@pytest.mark.slow
def test_a_call_for_cuda_asks_no_library():
    """Each call of one would have the device wait: eigenproblems of a few rows are XLA's own there."""
    spec = chebyshev_spec(0.4, gauges_every=0, landscape_every=0, flow="both", max_eigenvalues=2, second_eigenvalue_limit=1.2)
    stretch = Stretch(spec, "one")
    stretch.take(1, 1)
    setup, state = stretch.experiment.setup, stretch.experiment.state
    assert len(state.coupled.constrained.directions.basis) == 2
    config, params = edge.rules(setup, state)
    traced = coupled_loop.call_of_many.trace(setup.problem, config, params, state.coupled, np.array(8), 2, False)
    assert not re.findall(r"custom_call @(\w+)", traced.lower(lowering_platforms=("cuda",)).as_text())
