"""A run whose float64 products are made of float32 ones takes the steps of one in float64, and its record says how it was computed."""

from types import SimpleNamespace

import numpy as np
import pytest

from engine.phases.experiment import Experiment
from engine.process.runner import Runner
from engine.record import messages, store
from engine.record.writer import Writer
from engine.spec import load_spec, with_overrides

from small import digits_spec, rows

pytestmark = pytest.mark.usefixtures("x64")
BY_SIX = "precision.products=float32x6"


def test_a_training_by_float32_products_is_the_one_in_float64():
    spec = digits_spec("problem.model.widths=[30]")
    ours, in_float64 = (rows(Experiment(each), 9) for each in (with_overrides(spec, [BY_SIX]), spec))
    for column in ("gd.loss", "gd.gradient_norm", "gd.sharpness", "test.loss"):
        seen = np.isfinite(in_float64[column])
        assert seen.any(), column
        np.testing.assert_allclose(ours[column][seen], in_float64[column][seen], rtol=1e-9, err_msg=column)
    assert (ours["gd.loss"] != in_float64["gd.loss"]).any()


def test_a_run_on_a_card_with_slow_float64_says_so_before_its_first_step_and_its_record_how_it_was_computed(monkeypatch):
    card = SimpleNamespace(platform="gpu", device_kind="NVIDIA GeForce RTX 4090", compute_capability="8.9")
    monkeypatch.setattr("engine.process.checkpoints.jax", SimpleNamespace(devices=lambda: [card]))
    said = {}
    for products in ("float64", "float32x6"):
        run = store.create(digits_spec("budget.steps=1", f"precision.products={products}"), products)
        with Writer(run) as writer:
            for _ in Runner(run, writer).blocks():
                pass
        said[products] = [event.text for event in run.events() if isinstance(event, messages.ProductsSlow)]
        assert run.provenance()["precision"].endswith(", products f32x6") == (products == "float32x6")
        assert ("products" in run.provenance()["problem"]) == (products == "float32x6")
    assert said["float32x6"] == []
    [text] = said["float64"]
    assert text.startswith("NVIDIA GeForce RTX 4090 multiplies float64 numbers at 1/64 of its rate for float32: ")


@pytest.mark.slow  # two coupled runs through a burst: only they show what the difference of a gradient grows to
@pytest.mark.parametrize("call", ["one", "many"])
def test_a_coupled_run_by_float32_products_is_the_one_in_float64(call):
    """The oscillation is unstable: it multiplies a difference of 1e-11 by some 1e5 in its first burst."""
    spec = load_spec("digits", [f"tracking.steps_per_call={call}", "tracking.gauges_every=0", "tracking.audit_every=0"])
    ours, in_float64 = (rows(Experiment(each), 250) for each in (with_overrides(spec, [BY_SIX]), spec))
    edge = np.isfinite(in_float64["constrained.loss"])
    assert edge.sum() == 60
    for column, allowed in {"gd.loss": 1e-6, "constrained.loss": 1e-6, "gd.sharpness": 1e-5, "constrained.sharpness": 2e-6}.items():
        np.testing.assert_allclose(ours[column][edge], in_float64[column][edge], rtol=allowed, err_msg=column)
    x, delta = in_float64["gd.x"][edge], in_float64["constrained.delta"][edge]
    assert np.max(np.abs(ours["gd.x"][edge] - x) / np.fmax(np.abs(x), delta)) < 1e-6
    assert np.array_equal(ours["constrained.projections"], in_float64["constrained.projections"], equal_nan=True)
