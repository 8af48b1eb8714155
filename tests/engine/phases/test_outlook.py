"""What a run meets at its start: sharpness, 2/S and a learning rate in closed form on a quadratic, times of steps, `check` that tells."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine.commands.main import main
from engine.phases import outlook
from engine.spec import from_tree

from places import TESTS
from small import digits_spec, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
CURVATURES = np.array([8.0, 3.0, 1.0])


def of_quadratic(curvatures=CURVATURES, **optimizer):
    problem, theta = engine.from_loss(lambda w, a: jnp.sum(a.astype(w.dtype) * w**2) / 2, np.ones(3), curvatures)
    tree = {"name": "mine", "problem": "a:b", "tracking": {"mode": "sharpness"}, "optimizer": {"learning_rate": 0.1} | optimizer}
    spec = from_tree(tree, "test")
    return outlook.edge(outlook.at_start(spec, problem, theta))


def test_the_edge_and_the_suggestion_are_those_of_a_quadratic():
    """S = 8: 2/S = 0.25, an edge of 2/0.1 = 20 is at 2.5 S, and η = 1/8, in two digits, has it at 2 S."""
    edge = of_quadratic()
    np.testing.assert_allclose([edge.sharpness, edge.largest_stable_step, edge.edge_over_sharpness], [8, 0.25, 2.5], rtol=1e-6)
    assert edge.suggested_learning_rate == 0.12
    heavy = of_quadratic(kind="momentum", beta=0.9)  # edge (2 + 2·0.9)/η
    np.testing.assert_allclose(heavy.edge_over_sharpness, 38 / 8, rtol=1e-6)
    assert heavy.suggested_learning_rate == pytest.approx(3.8 / 16, abs=0.005)
    assert math.isnan(of_quadratic(kind="adam").suggested_learning_rate)
    assert math.isnan(of_quadratic(-CURVATURES).largest_stable_step)


def test_a_plain_and_a_tracked_step_are_timed_on_the_toy():
    from engine.problems.build import build

    spec = toy_spec(0.05)
    problem, theta, _ = build(spec)
    at = outlook.at_start(spec, problem, theta)
    plain = outlook.seconds_a_step(at)
    assert plain > 0
    assert outlook.seconds_a_tracked_step(at, plain) > 0  # NaN where there was no θ†


def test_check_tells_what_the_start_is_like_in_words_and_in_json(tmp_path, capfd, own_home):
    preset = tmp_path / "mine.toml"
    preset.write_text(f'[problem]\nkind = "own"\nfunction = "own_problems:tested"\nfolder = "{TESTS}"\n[optimizer]\nlearning_rate = 0.1\n'
                      '[tracking]\nmode = "sharpness"\n')  # fmt: skip
    assert main(["check", str(preset), "--json"]) == 0
    out, err = capfd.readouterr()
    printed = json.loads(out)
    hessian = np.cov(np.linspace(-1, 1, 6), bias=True) * 2  # of (kx + b − y)²: 2·mean of x², and 2
    np.testing.assert_allclose(printed["start"]["sharpness"], max(2, hessian), rtol=1e-5)
    assert printed["start"]["largest_stable_step"] == pytest.approx(1, rel=1e-5)
    assert printed["start"]["suggested_learning_rate"] == 0.5
    assert printed["readings"] == {"test.loss": False}
    assert printed["kinks"]["missed"] < 1e-3
    assert 0 < printed["seconds"]["step"] < printed["seconds"]["tracked_step"]
    assert printed["memory"]["total"] > 0
    assert printed["float64_rate"] > 0
    assert printed["float32x6"] is None
    assert err.splitlines()[0] == "building the problem …"


def test_check_compares_gradients_where_float64_is_slow(tmp_path, capfd, own_home, monkeypatch):
    monkeypatch.setattr("engine.xla.float64_rate.measured", lambda: 1 / 64)
    preset = tmp_path / "mine.toml"
    preset.write_text(f'[problem]\nkind = "own"\nfunction = "own_problems:tested"\nfolder = "{TESTS}"\n[optimizer]\nlearning_rate = 0.1\n'
                      '[tracking]\nmode = "sharpness"\n[precision]\napproach = "float64"\n')  # fmt: skip
    assert main(["check", str(preset)]) == 0
    out = capfd.readouterr().out
    assert "products of matrices at 0.016 of the rate of float32, measured here; [precision] products" in out
    assert "no product in a gradient is large enough to gain by it" in out


def test_a_gradient_by_float32_products_is_compared_with_one_in_float64_whichever_the_run_takes():
    from engine.problems.build import build

    for products in ("float64", "float32x6"):
        spec = digits_spec("problem.model.widths=[30]", f"precision.products={products}")
        problem, theta, _ = build(spec)
        compared = outlook.compare_products(outlook.at_start(spec, problem, theta))
        assert 0 < compared.error < 1e-10
        assert compared.seconds > 0
        assert "of that in float64, taking " in compared.words
