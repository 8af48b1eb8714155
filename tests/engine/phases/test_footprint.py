"""The memory of a tracked step: what its state is made of, and what `check` says beforehand against what is resident in a process."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine.phases import memory
from engine.phases.experiment import Experiment
from engine.phases.several import resized
from engine.xla.leaves import shapes

from places import TESTS
from small import chebyshev_spec

pytestmark = pytest.mark.usefixtures("x64")

DEFAULT_BYTES = 98
"""Of the state, a parameter: with one direction, two eigenvalues and the default forms."""


def formats_in(state) -> dict[str, tuple]:
    """Shape and number format of each leaf of many numbers, by its path."""
    named, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): (np.shape(leaf), jnp.asarray(leaf).dtype) for path, leaf in named if np.size(leaf) > 64}


@pytest.fixture(scope="module")
def at_edge() -> Experiment:
    """A run that has come to the edge, with float32 products."""
    spec = chebyshev_spec(0.4, flow="both", max_eigenvalues=4, gauges_every=0, landscape_every=0)
    experiment = Experiment(specs.with_overrides(spec, ["precision.curvature=float32"]))
    while experiment.phase != "edge":
        experiment.advance(500)
    return experiment


@pytest.mark.parametrize("followed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_state_that_is_counted_is_the_one_at_the_edge(at_edge, followed):
    state, setup = at_edge.state, at_edge.setup
    if followed > 1:
        state, _ = resized(setup, state, followed)
    counted = memory.state_at_edge(setup.problem, state.theta.size, memory.Formats.of(setup.spec), followed)
    assert shapes(counted) == shapes(state.coupled)
    as_is = {path: (leaf.shape, leaf.dtype) for path, leaf in jax.tree_util.tree_flatten_with_path(counted)[0]}
    named = {jax.tree_util.keystr(path): each for path, each in as_is.items() if np.prod(each[0]) > 64}
    assert named == formats_in(state.coupled)


def test_a_checkpoint_with_all_of_it_in_the_format_of_the_edge_is_read(at_edge):
    """As they were written before; u and ∇S⊥ among them, which are made now, and what is kept in half its bits as it was."""
    leaves, prefix = at_edge.leaves(), "state.coupled.constrained."
    wide = {f"{prefix}center.{name}" for name in ("grad_sharpness", "tilt")}
    track, length, other = at_edge.state.coupled.constrained, f"{prefix}center.length", Experiment(at_edge.spec)
    made = {f"{prefix}center.{name}": np.asarray(getattr(track.center, name)) for name in ("top_eigenvector", "grad_sharpness_perp")}
    made |= {f"{prefix}{name}": np.asarray(getattr(track, name)) for name in ("correction", "remainder")}
    gone = {length, *(path for path in leaves if path.startswith((f"{prefix}kept_correction", f"{prefix}kept_remainder")))}
    other.restore({path: leaf.astype(float) if path in wide else leaf for path, leaf in leaves.items() if path not in gone} | made)
    after = other.leaves()
    assert after.keys() == leaves.keys()
    np.testing.assert_allclose(after.pop(length), leaves.pop(length), rtol=1e-14)
    for path in leaves:
        assert after[path].dtype == leaves[path].dtype, path
        if path in gone:  # made anew from what had been made of it
            np.testing.assert_allclose(after[path], leaves[path], rtol=1e-3, atol=1e-3, err_msg=path)
        else:
            np.testing.assert_array_equal(after[path], leaves[path], err_msg=path)
    assert all(leaves[path].dtype == np.float32 for path in wide)


def of_state(tracking: specs.CoupledTracking, optimizer: specs.Optimizer = memory.PLAIN, followed: int = 1) -> float:
    """Bytes a parameter of the state."""
    problem, size = Experiment(chebyshev_spec()).setup.problem, 1 << 20
    formats = memory.Formats("float64", "float32", tracking, optimizer)
    return sum(memory._size(leaf) for leaf in jax.tree.leaves(memory.state_at_edge(problem, size, formats, followed))) / size


def test_each_form_trajectory_eigenvalue_and_direction_adds_its_own():
    default = specs.CoupledTracking()
    assert of_state(default) == pytest.approx(DEFAULT_BYTES, abs=0.1)
    assert of_state(default) - of_state(specs.CoupledTracking(predictions=("code",))) == pytest.approx(8, abs=0.01)
    assert of_state(default) - of_state(specs.CoupledTracking(flow=False)) == pytest.approx(16, abs=0.01)
    assert of_state(specs.CoupledTracking(eigenvalues=3)) - of_state(default) == pytest.approx(4, abs=0.01)
    # a basis, three D_ij and two tilts in float64; one pair more in float32, and in half of that what it is polished and one more turned by
    assert of_state(default, followed=2) - of_state(default) == pytest.approx((2 + 3 + 2) * 8 + 4 + 2 * 2, abs=0.01)
    momentum = specs.Momentum(learning_rate=0.1)
    assert of_state(default, momentum) - of_state(default) == pytest.approx(8 + 8 + 3 * 4, abs=0.01)  # m, m† and n⋆ of each form


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="what a process had resident at the most is read off Linux's /proc")
@pytest.mark.parametrize(("size", "way"), [(1_000_000, "one"), (1_000_000, "many"), (10_000_000, "one")])
def test_what_check_says_is_what_is_measured_to_fifteen_percent(size, way, monkeypatch):
    monkeypatch.syspath_prepend(TESTS / "bench")
    import footprint

    entry = footprint.in_a_process(size, way, rounds=1)
    assert entry.state / entry.parameters == pytest.approx(DEFAULT_BYTES, abs=1)
    assert entry.predicted == pytest.approx(entry.peak, rel=0.15)
