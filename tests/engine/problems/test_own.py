"""Problems of one's own: a plain loss and flax modules give the losses they say, and what is wrong is told before a run."""

import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import engine
from engine.base.errors import BAD_INPUT, UserError
from engine.commands.main import main
from engine.problems import own
from engine.problems.build import build
from engine.record import store
from engine.spec import from_tree, load_spec_text, to_toml

from places import ROOT, TESTS

pytestmark = pytest.mark.usefixtures("x64")


def own_spec(function: str, **fields):
    problem = {"kind": "own", "function": f"own_problems:{function}", "folder": str(TESTS), **fields}
    return from_tree({"name": "mine", "problem": problem, "optimizer": {"learning_rate": 0.1}}, "test")


def test_a_plain_loss_is_its_problem_on_any_tree():
    tree = {"a": jnp.array([1.0, 2.0]), "b": [jnp.array(3.0)]}
    data = np.array([2.0, 5.0])
    problem, theta = engine.from_loss(lambda p, d: jnp.sum(p["a"] ** 3 * d.astype(p["a"].dtype)) + p["b"][0] ** 2, tree, data)
    np.testing.assert_array_equal(theta, [1, 2, 3])
    assert problem.loss(theta) == 1 * 2 + 8 * 5 + 9
    np.testing.assert_allclose(problem.gradient(theta), [6, 60, 6])
    np.testing.assert_allclose(problem.derivative(theta, 3, jnp.ones(3), jnp.ones(3)), [12, 30, 0])
    assert engine.complaints(problem, theta) == []


@pytest.mark.parametrize("given", [np.float64, np.float32])
def test_floats_of_data_come_in_the_format_of_the_parameters_and_other_data_as_they_are(given):
    data = {"x": np.linspace(0, 1, 6).reshape(2, 3).astype(given), "row": np.array([1, 0])}
    formats = []

    def loss(w, data):
        formats.append((str(w.dtype), str(data["x"].dtype), str(data["row"].dtype)))
        return jnp.mean((data["x"][data["row"]] @ w) ** 2)

    assert engine.complaints(*engine.from_loss(loss, jnp.ones(3), data)) == []
    assert engine.complaints(*engine.from_loss(lambda w, data: loss(w, data) * w[:2], jnp.ones(3), data, per_example=True)) == []
    assert set(formats) == {("float64", "float64", "int64"), ("float32", "float32", "int64")}
    with pytest.raises(UserError, match=r"data\['x'\]: a ndarray; expected an array of numbers"):
        engine.from_loss(loss, jnp.ones(3), {"x": np.array(["a", "b"])})


@pytest.mark.parametrize("length", [2, 5])
def test_a_start_of_another_length_than_the_parameters_is_refused(length, own_home):
    problem, _ = engine.from_loss(lambda tree: jnp.sum(tree["a"] ** 2), {"a": jnp.ones(3)})
    said = rf"θ has shape \({length},\); expected 3 numbers, as many as its parameters have"
    with pytest.raises(UserError, match=said):
        engine.run(problem, np.ones(length), learning_rate=0.1)
    with pytest.raises(UserError, match=said):
        problem.gradient(jnp.ones(length))


def test_linen_and_nnx_modules_are_means_over_their_examples():
    inputs, targets = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 2))
    module = linen.Dense(2)
    problem, theta = engine.from_flax(module, inputs, targets, "half_mse", seed=4)
    params = module.init(jax.random.key(4), inputs[:1])["params"]
    expected = np.mean(np.sum((inputs @ np.asarray(params["kernel"], float) - targets) ** 2, axis=1)) / 2
    np.testing.assert_allclose(problem.loss(theta), expected, rtol=1e-12)
    dense = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
    problem, theta = engine.from_flax(dense, inputs, targets, lambda f, y: jnp.sum(jnp.abs(f - y) ** 3, axis=1))
    outputs = inputs @ np.asarray(dense.kernel[...], float)
    np.testing.assert_allclose(problem.loss(theta), np.mean(np.sum(np.abs(outputs - targets) ** 3, axis=1)), rtol=1e-12)
    assert (theta.shape, theta.dtype) == ((8,), jnp.float64)
    assert engine.complaints(problem, theta) == []


@pytest.mark.parametrize(("targets", "criterion", "said"), [
    (np.ones(6), "mse", r"targets: an array of shape \(6,\) and format float\d+; mse expects \(6, 2\), as the outputs, or integer"),
    (np.ones((2, 6)), "half_mse", r"shape \(2, 6\)"), (np.ones((6, 1)), "mse", r"shape \(6, 1\)"),
    (np.ones((1, 2)), "mse", r"shape \(1, 2\)"), (np.ones((6, 2)), "cross_entropy", r"cross_entropy expects integer class labels \(6,\)"),
    (np.ones(6, int), "logistic", r"logistic expects \(6, 2\), −1 or 1"),
    (np.ones((6, 2)), lambda f, y: jnp.sum((f - y) ** 2), r"the criterion: gives an array of shape \(\); expected one loss for each"),
    (np.ones((6, 2)), lambda f, y: (f - y) ** 2, r"gives an array of shape \(6, 2\)"),
])  # fmt: skip
def test_targets_and_losses_of_other_shapes_are_refused(targets, criterion, said):
    with pytest.raises(UserError, match=said):
        engine.from_flax(linen.Dense(2), np.ones((6, 3)), targets, criterion)


def test_modules_with_state_and_unknown_criteria_are_refused():
    class Counting(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            return inputs * self.variable("counts", "calls", jnp.ones, ()).value

    data = np.ones((4, 2)), np.ones((4, 2))
    with pytest.raises(UserError, match='has "counts" beside its parameters'):
        engine.from_flax(Counting(), *data)
    with pytest.raises(UserError, match=r'has state beside its parameters \("Cache"\)'):
        engine.from_flax(nnx.Dict(cache=nnx.Cache(jnp.ones(2))), *data)
    with pytest.raises(UserError, match="criterion 'mae': not known; expected a function or one of"):
        engine.from_flax(linen.Dense(2), *data, "mae")
    with pytest.raises(UserError, match="dict: expected a flax module"):
        engine.from_flax({}, *data)
    with pytest.raises(UserError, match=r"parameters of formats \['int64'\]"):
        engine.from_loss(jnp.sum, jnp.arange(3))


WRONG = {
    "fixed_format": "the loss is float32 where θ is float64",
    "raised_format": r"the loss is float64 where θ is float32; \w+ \(.*own_problems.py, line \d+\) computes in float64 .*; a float64 con",
    "vector": r"the loss has shape \(3,\); expected a single number",
    "chance": ".* at the same θ; expected a function of its parameters alone",
    "root": "the gradient is not finite where it starts",
    "endless": "the loss is inf where it starts",
    "stopped": "the gradient is off from differences of the one below",
    "failing": "the loss fails: TypeError",
    "two_dimensional": r"θ has shape \(2, 2\)",
    "looping": "the gradient cannot be taken: ValueError: Reverse-mode differentiation does not work for lax.while_loop",
    "once_only": "the Hessian–vector product cannot be taken: ValueError: Pure callbacks do not support JVP",
    "pair": "the loss is a tuple; expected a single number",
    "missing": r"the loss is nan where it starts; its data have data\['x'\]\[1\] = nan",
    "infinite": r"θ is not finite where it starts: θ\[1\] = inf",
    "words": r"returned a str to start from; expected θ \(p,\)",
    "nothing": "returned a NoneType; expected that of engine.from_loss or engine.from_flax",
    "absent": "module own_problems has no absent",
}


@pytest.mark.parametrize("function", WRONG)
def test_what_is_wrong_with_a_loss_is_said(function):
    with pytest.raises(UserError, match=f"own_problems:{function}: {WRONG[function]}"):
        build(own_spec(function))


@pytest.mark.parametrize(("body", "said"), [
    ("def make_problem():\n    raise ValueError('no such file')\n", r"fails: ValueError: no such file \(.*broken_{0}\.py, line 2\)"),
    ("def make_problem():\n    return (0).shape\n", r"fails: AttributeError: 'int' object has no attribute 'shape' \(.*, line 2\)"),
    ("import os\nos.nothing\n", r"fails: AttributeError: module 'os' has no attribute 'nothing' \(.*, line 2\)"),
    ("def make_problem(:\n", r"fails: SyntaxError: invalid syntax \(broken_{0}.py, line 1\) \(.*broken_{0}\.py, line 1\)"),
    ("", "module broken_{0} has no make_problem"),
])  # fmt: skip
def test_code_that_fails_is_reported_with_its_place(body, said, tmp_path):
    name = f"broken_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    problem = {"kind": "own", "function": f"{name}:make_problem", "folder": str(tmp_path)}
    with pytest.raises(UserError, match=f"{name}:make_problem: " + said.format(name.removeprefix("broken_"))):
        build(from_tree({"name": "mine", "problem": problem, "optimizer": {"learning_rate": 0.1}}, "test"))


@pytest.mark.parametrize("name", ["math", "types", "small"])
def test_a_module_named_like_another_says_which_file_was_imported(name, tmp_path):
    """One of Python's own, and one that was imported before from elsewhere."""
    import importlib

    importlib.import_module(name)
    (tmp_path / f"{name}.py").write_text("from own_problems import good")
    problem = {"kind": "own", "function": f"{name}:good", "folder": str(tmp_path)}
    with pytest.raises(UserError, match=rf"{name}:good: Python imported .*{name}.*, not {tmp_path}/{name}.py: .* give the file another"):
        build(from_tree({"name": "mine", "problem": problem, "optimizer": {"learning_rate": 0.1}}, "test"))


def test_what_came_of_another_module_says_which(tmp_path):
    for function, said in (
        ("os:getcwd", r"returned a str; .* \(.*os.py\)"), ("types.mine:f", "no module types.mine in .*; types is that of .*types.py"),
        ("sys:nothing", "module sys has no nothing .sys, which is built into Python"), ("json:dumps", "does not take .*json/__init__.py"),
    ):
        problem = {"kind": "own", "function": function, "folder": str(tmp_path)}
        with pytest.raises(UserError, match=said):
            build(from_tree({"name": "mine", "problem": problem, "optimizer": {"learning_rate": 0.1}}, "test"))


@pytest.mark.parametrize("test", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_refused_problem_ends_check_and_run_alike_and_leaves_nothing(test, tmp_path, capfd, own_home):
    preset = tmp_path / "mine.toml"
    problem = f'kind = "own"\nfunction = "own_problems:looping"\nfolder = "{TESTS}"\nself_test = {test}\n'
    preset.write_text(f"[problem]\n{problem}[optimizer]\nlearning_rate = 0.1\n")
    for command in ("check", "run"):
        assert main([command, str(preset)]) == BAD_INPUT
        out, err = capfd.readouterr()
        assert (out, err.splitlines()[-1].partition("Reverse")[0]) == (
            "", "eos: own_problems:looping: the gradient cannot be taken: ValueError: "
        )
    with pytest.raises(UserError, match="own_problems:looping: the gradient cannot be taken"):
        engine.run(preset)
    assert not own_home.exists() or not list(own_home.iterdir())


def test_what_a_refused_run_had_done_before_is_kept(own_home):
    from engine.jobs import launch
    from engine.record.reader import Outcome, State
    from engine.record.writer import Writer

    run = store.create(own_spec("good"), "mine")
    with Writer(run) as writer:
        writer.state(State(status="finished", refused=True, outcome=Outcome(kind="failed", step=0, text="no such data")))
    with pytest.raises(UserError, match="no such data"):
        launch.refuse_unbuilt(run, made=False)
    assert store.all_runs()
    with pytest.raises(UserError, match="no such data"):
        launch.refuse_unbuilt(run)
    assert not store.all_runs()


def test_arguments_and_the_seed_reach_the_function_and_others_are_refused():
    problem, theta, facts = build(own_spec("good", arguments={"scale": 2.0}))
    base = own.from_loss(lambda w: jnp.sum(jnp.tanh(w) ** 2 * (1 + jnp.arange(3))), theta).problem
    np.testing.assert_allclose(problem.loss(theta), 2 * base.loss(theta))
    assert (facts["parameters"], facts["data"]) == (3, "own_problems:good")
    assert build(own_spec("tuple_of_two", self_test=False))[1].shape == (3,)
    with pytest.raises(UserError, match=r"does not take \[problem.arguments\] size"):
        build(own_spec("good", arguments={"size": 2}))
    with pytest.raises(UserError, match=r"no module nowhere_to_be_found in /.* or Python's path; \[problem\] folder says where it lies"):
        build(from_tree({"name": "x", "problem": {"kind": "own", "function": "nowhere_to_be_found:f", "folder": "/"},
                         "optimizer": {"learning_rate": 1}}, "test"))


def test_a_preset_names_a_function_in_one_line_and_survives_being_written():
    spec = load_spec_text('name = "mine"\nproblem = "own_problems:good"\n[optimizer]\nlearning_rate = 0.1', "f")
    assert (spec.problem.function, spec.problem.self_test) == ("own_problems:good", True)
    assert load_spec_text(to_toml(spec), "again") == spec
    for wrong in ("own_problems", "a:b:c", "os;x:f", "../x:f"):
        with pytest.raises(UserError, match=r'\[problem\] function = ".*"; expected "module:name" of a Python function'):
            load_spec_text(f'name = "mine"\nproblem = "{wrong}"\n[optimizer]\nlearning_rate = 0.1', "f")


def test_the_module_is_imported_by_the_engine_alone(tmp_path, own_home, capfd, monkeypatch):
    """Listing, showing and starting a run never import what its specification names."""
    mark = tmp_path / "imported"
    (tmp_path / "marked.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom own_problems import good\n")
    preset = tmp_path / "mine.toml"
    preset.write_text('problem = "marked:good"\n[optimizer]\nlearning_rate = 0.1\n[budget]\nsteps = 30\n[tracking]\nmode = "sharpness"\n')
    monkeypatch.chdir(tmp_path)
    from engine.data.catalog import ready
    from engine.jobs import launch
    from engine.spec import load_spec

    run = store.create(ready(load_spec(str(preset))), "mine")
    for argv in (["ls"], ["show", "mine"], ["compare", "mine"], ["export", "mine"], ["tail", "mine"]):
        assert main(argv) == 0
    assert not mark.exists()
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{TESTS}")
    assert subprocess.run(launch.command(run), cwd="/", env=launch.environment(), check=False).returncode == 0
    assert mark.exists()
    assert run.state().outcome.kind == "completed"
    assert run.provenance()["problem"]["data"] == "marked:good"
    capfd.readouterr()


def test_check_tells_of_a_preset_without_running_it(tmp_path, capfd, own_home):
    preset = tmp_path / "mine.toml"
    problem = f'kind = "own"\nfunction = "own_problems:good"\nfolder = "{TESTS}"\n'
    preset.write_text(f'[problem]\n{problem}[optimizer]\nlearning_rate = 0.1\n[tracking]\nmode = "sharpness"\n')
    assert main(["check", str(preset)]) == 0
    out = capfd.readouterr().out
    assert re.search(r"parameters +3\n", out)
    assert re.search(r"largest stable step +2/S = .*\n.*\nsuggested η +[\d.]+, with the edge at 2·S", out)
    assert main(["check", str(preset), "--set", "problem.function=own_problems:stopped"]) == BAD_INPUT
    assert "own_problems:stopped: the gradient is off" in capfd.readouterr().err
    assert not own_home.exists()
