"""Where θ starts: files of parameters, a run's own, trees, and PyTorch's state dicts, each by name and refused where it does not fit."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from safetensors.numpy import save_file

import engine
from engine import spec as specs
from engine.base.errors import UserError
from engine.data.catalog import ready
from engine.problems.build import build
from engine.problems.parameters import named, parameters

from places import TESTS
from small import digits_spec, loss_at

pytestmark = pytest.mark.usefixtures("x64")

INPUTS, TARGETS = np.linspace(-1, 1, 12).reshape(6, 2), np.linspace(0, 1, 6)[:, None]


def at(path, *overrides):
    """The problem that starts at a file."""
    return build(ready(specs.with_overrides(digits_spec(), [f"problem.start={str(path)!r}", *overrides])))


@pytest.fixture(scope="module")
def other():
    """Parameters that no seed draws, by name, and as θ."""
    problem, theta, _ = build(digits_spec())
    theta = np.asarray(theta) + 0.5
    return named(parameters(problem, theta.size), theta), theta


def test_a_problem_starts_at_a_file_of_its_parameters_by_name(other, tmp_path):
    arrays, theta = other
    save_file(arrays, tmp_path / "a.safetensors")
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    save_file({f"params.{name}": each for name, each in arrays.items()}, tmp_path / "wrapped.safetensors")
    for name in ("a.safetensors", "a.npz", "wrapped.safetensors"):
        _, start, facts = at(tmp_path / name)
        np.testing.assert_array_equal(start, theta)
        assert facts["start_file"] == str(tmp_path / name)
        assert len(facts["start_sha256"]) == 64
    save_file({name: each.astype("float32") for name, each in arrays.items()}, tmp_path / "short.safetensors")
    np.testing.assert_array_equal(at(tmp_path / "short.safetensors")[1], theta.astype("float32"))


def test_an_orbax_folder_is_a_start_where_orbax_is_installed_and_else_says_what_is_missing(other, tmp_path, monkeypatch):
    orbax = pytest.importorskip("orbax.checkpoint")
    problem, _, _ = build(digits_spec())
    with orbax.StandardCheckpointer() as writer:
        writer.save(tmp_path / "checkpoint", {"params": problem.unravel(jnp.asarray(other[1]))})
    np.testing.assert_array_equal(at(tmp_path / "checkpoint")[1], other[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: not an orbax checkpoint of a tree of arrays"):
        at(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(UserError, match="a folder, which orbax reads; pip install orbax-checkpoint"):
        at(tmp_path / "checkpoint")


def test_a_run_starts_at_a_snapshot_or_a_checkpoint_of_another(own_home):
    spec = specs.with_overrides(digits_spec(), ["budget.steps=4", "recording.snapshots_every=2", "precision.approach=float64"])
    whole = engine.run(spec)
    on = engine.run(spec, start=whole.snapshots()[1].path, steps=2)
    np.testing.assert_array_equal(on["gd.loss"], whole["gd.loss"][2:])
    assert on.provenance["problem"]["start_file"] == str(whole.snapshots()[1].path)
    last = engine.run(spec, start=whole.run.checkpoints()[-1], steps=1)
    assert last["gd.loss"][0] < whole["gd.loss"][3]
    made = engine.from_flax(linen.Dense(1), INPUTS, TARGETS)
    first = engine.run(made, learning_rate=0.01, steps=2, snapshots_every=1, mode="sharpness")
    again = engine.run(made, learning_rate=0.01, steps=1, start=first.snapshots()[1].path, mode="sharpness")
    assert again["gd.loss"][0] == first["gd.loss"][1]
    with pytest.raises(UserError, match=r"start = .*: its θ has 199 numbers; expected 3, as Dense has"):
        engine.run(made, learning_rate=0.01, start=whole.run.checkpoints()[-1])


def test_a_start_that_does_not_fit_is_refused_with_what_was_given_and_expected_and_near_names(other, tmp_path):
    arrays, _ = other

    def said(name, tensors=None):
        if tensors is not None:
            save_file(tensors, tmp_path / name)
        with pytest.raises(UserError) as refused:
            at(tmp_path / name)
        return str(refused.value)

    def without(name):
        return {key: each for key, each in arrays.items() if key != name}

    renamed = said("renamed.safetensors", {**without("Dense_0.kernel"), "Dense_O.kernel": arrays["Dense_0.kernel"]})
    assert 'no Dense_0.kernel (64, 3); did you mean "Dense_O.kernel"?' in renamed
    assert "Dense_O.kernel (64, 3) is none of them" in renamed
    assert "Expected Dense_0.bias (3,), Dense_0.kernel (64, 3), Dense_1.bias (1,), Dense_1.kernel (3, 1)" in renamed
    turned = said("turned.safetensors", {**arrays, "Dense_0.kernel": np.ascontiguousarray(arrays["Dense_0.kernel"].T)})
    assert "Dense_0.kernel is of shape (3, 64); expected (64, 3); PyTorch has it the other way round" in turned
    assert "is none of them" in said("more.safetensors", {**arrays, "head.kernel": np.ones(2)})
    assert "expected floating-point numbers" in said("whole.safetensors", {**arrays, "Dense_1.bias": np.ones(1, int)})
    assert "1 of its 199 numbers are not finite" in said("nan.safetensors", {**arrays, "Dense_1.bias": np.array([np.nan])})
    assert "no such file or folder" in said("nowhere.safetensors")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    assert "expected a file .safetensors or .npz, or the folder" in said("model.pt")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    assert "not an npz file of numbers" in said("objects.npz")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    assert "torn.safetensors: cannot be read" in said("torn.safetensors")


def test_a_linen_module_starts_at_a_tree_of_parameters():
    module = linen.Dense(1)
    tree = {"kernel": np.array([[1.0], [2.0]]), "bias": np.array([0.25])}
    for params in (tree, {"params": tree}):
        problem, theta = engine.from_flax(module, INPUTS, TARGETS, "half_mse", params=params)
        expected = np.mean((INPUTS @ tree["kernel"] + 0.25 - TARGETS) ** 2) / 2
        assert float(loss_at(problem, theta)) == pytest.approx(expected, rel=1e-13)
    with pytest.raises(UserError, match=r"Dense: params: kernel is of shape \(1, 2\); expected \(2, 1\)"):
        engine.from_flax(module, INPUTS, TARGETS, params={**tree, "kernel": tree["kernel"].T})
    with pytest.raises(UserError, match="those of an nnx module are its own"):
        engine.from_flax(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), INPUTS, TARGETS, params=tree)


class Images(nnx.Module):
    """The twin of that in `make_torch_outputs`."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(2, 4, (3, 3), padding=1, rngs=rngs)
        self.layers = nnx.List([
            nnx.Conv(4, 6, (3, 3), strides=2, padding="VALID", feature_group_count=2, use_bias=False, rngs=rngs),
            nnx.GroupNorm(6, num_groups=3, epsilon=1e-5, rngs=rngs),
        ])  # fmt: skip
        gelu = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
        self.head = nnx.Sequential(nnx.Linear(36, 5, rngs=rngs), gelu, nnx.Linear(5, 3, rngs=rngs))

    def __call__(self, images):
        maps = jnp.tanh(self.stem(images))
        for layer in self.layers:
            maps = layer(maps)
        return self.head(jnp.transpose(jnp.tanh(maps), (0, 3, 1, 2)).reshape(len(maps), -1))


class Tokens(nnx.Module):
    """The twin of that in `make_torch_outputs`."""

    def __init__(self, rngs):
        self.embedding = nnx.Embed(7, 4, rngs=rngs)
        self.embedding.dtype = None
        self.positions = nnx.Param(jnp.zeros((5, 4)))
        self.mix = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens):
        return self.norm(self.mix(self.embedding(tokens) + self.positions)).mean(1)


TWINS = {"images": (Images, lambda x: np.transpose(x, (0, 2, 3, 1))), "tokens": (Tokens, lambda x: x)}


def stored(path: Path = TESTS / "torch_outputs.npz"):
    """By model: its state dict, inputs and outputs, as PyTorch has them."""
    with np.load(path) as arrays:
        return {
            model: ({key.removeprefix(f"{model}/state/"): arrays[key] for key in arrays.files if key.startswith(f"{model}/state/")},
                    arrays[f"{model}/inputs"], arrays[f"{model}/outputs"])
            for model in TWINS
        }  # fmt: skip


def same_outputs(model, state, inputs, outputs):
    twin, turned = TWINS[model]
    module = engine.from_torch_state(twin(nnx.Rngs(0)), state)
    np.testing.assert_allclose(module(jnp.asarray(turned(inputs))), outputs, rtol=1e-12, atol=1e-12)
    problem, theta = engine.from_flax(module, turned(inputs), np.zeros_like(outputs), "half_mse")
    assert float(loss_at(problem, theta)) == pytest.approx(np.mean(np.sum(outputs**2, axis=1)) / 2, rel=1e-12)


@pytest.mark.parametrize("model", [pytest.param(name, marks=[pytest.mark.slow] * (name == "images")) for name in TWINS])
def test_a_twin_with_the_state_of_a_pytorch_model_gives_its_outputs(model):
    same_outputs(model, *stored()[model])


@pytest.mark.slow
def test_the_stored_outputs_are_those_of_pytorch(tmp_path):
    """Where PyTorch is installed: the script makes the same file anew, and its tensors serve as they are."""
    torch = pytest.importorskip("torch")
    import make_torch_outputs

    make_torch_outputs.main(str(tmp_path / "anew.npz"))
    for model, (state, inputs, outputs) in stored(tmp_path / "anew.npz").items():
        same_outputs(model, {name: torch.from_numpy(each) for name, each in state.items()}, inputs, outputs)
        for name, each in stored()[model][0].items():
            np.testing.assert_array_equal(state[name], each)


def test_a_state_that_does_not_go_with_its_twin_is_refused_and_changes_nothing():
    state, _, _ = stored()["tokens"]

    def said(state, twin=None):
        module = twin or Tokens(nnx.Rngs(0))
        before = [np.asarray(each) for each in jax.tree.leaves(nnx.state(module, nnx.Param))]
        with pytest.raises(UserError) as refused:
            engine.from_torch_state(module, state)
        for old, new in zip(before, jax.tree.leaves(nnx.state(module, nnx.Param)), strict=True):
            np.testing.assert_array_equal(old, new)
        return str(refused.value)

    renamed = {("blend" + name[3:] if name.startswith("mix") else name): each for name, each in state.items()}
    assert "no mix.weight" in said(renamed)
    assert "blend.weight (4, 4) is none of the module" in said(renamed)
    assert "norm.weight is of shape (5,); norm.scale (4,) expects (4,)" in said({**state, "norm.weight": np.ones(5)})
    assert "mix.weight is of shape (4, 5); mix.kernel (4, 4) expects (4, 4)" in said({**state, "mix.weight": np.ones((4, 5))})
    assert "embedding.weight is of the format int64; expected" in said({**state, "embedding.weight": np.ones((7, 4), int)})
    assert "norm.running_mean: of batch normalisation, whose running statistics" in said({**state, "norm.running_mean": np.ones(4)})
    normed = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    assert "layers.1: batch normalisation" in said({}, normed)
    wide = nnx.Conv(2, 4, (3, 5), rngs=nnx.Rngs(0))
    assert "weight is of shape (2, 4, 3, 5); kernel (3, 5, 2, 4) expects (4, 2, 3, 5)" in said(
        {"weight": np.ones((2, 4, 3, 5)), "bias": np.ones(4)}, wide
    )
    with pytest.raises(UserError, match="Dense: expected a flax nnx module"):
        engine.from_torch_state(linen.Dense(2), state)
