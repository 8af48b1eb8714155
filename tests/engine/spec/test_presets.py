"""The presets: every one is complete, says what it shows, and asks for data and models that exist."""

import jax
import pytest

from engine import data
from engine.base.errors import UserError
from engine.problems.build import build
from engine.record.columns import columns_for
from engine.spec import Mlp, Network, Phase, Words, from_tree, load_spec, load_spec_text, preset_names, preset_words, to_toml

NAMES = [
    "adam", "adam-small-step", "appendix-cnn-logistic", "appendix-cnn-logistic-small", "appendix-resnet", "appendix-resnet-small",
    "appendix-transformer-logistic", "appendix-transformer-logistic-small", "catapult", "chebyshev", "chebyshev-never",
    "chebyshev-several", "digits", "fashion", "fashion-10", "fashion-cnn", "fig1", "fig1-small", "fig2", "fig3", "fig4-cnn",
    "fig4-cnn-small", "fig4-mlp", "fig4-mlp-small", "fig4-transformer", "fig4-transformer-small", "fig5", "fig5-small", "fig6",
    "fig6-small", "momentum", "nesterov", "phase", "rmsprop", "sam", "sentences", "several", "several-3", "sgd", "sign", "spikes", "toy",
    "toy-k", "warmup", "warmup-too-large", "weight-decay",
]  # fmt: skip
PREPARED = ("cifar10", "sst2")
"""Data that do not ship with eos: presets on them can be read here, but not loaded or built."""
SHIPPED = [name for name in NAMES if getattr(getattr(load_spec(name).problem, "data", None), "name", None) not in PREPARED]


def test_these_presets_ship():
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_and_survives_being_written(name):
    spec = load_spec(name)
    assert spec.name == name
    assert spec.title
    assert spec.shows.endswith(".")
    assert spec.takes
    assert "  " not in spec.shows
    assert load_spec_text(to_toml(spec), "written") == spec
    assert columns_for(spec)[0].name == "step"
    assert preset_words(name) == Words(spec.title, spec.shows, spec.takes)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_data_of_a_preset_are_there(name):
    problem = load_spec(name).problem
    if isinstance(problem, Network):
        dataset = data.load(problem.data)
        assert len(dataset.inputs) == len(dataset.targets) == problem.data.examples


@pytest.mark.parametrize("name", {repr(load_spec(name).problem): name for name in SHIPPED}.values())
def test_the_problem_of_a_preset_can_be_built(name, x64):
    """Of those that have the same, one preset."""
    spec = load_spec(name)
    if not isinstance(spec.problem, Phase):
        problem, theta, facts = build(spec)
        assert jax.eval_shape(problem.loss, theta).shape == ()
        assert theta.shape == (facts["parameters"],)


def test_the_default_is_the_problem_measured_in_the_documentation():
    spec = load_spec("fashion")
    problem = spec.problem
    assert problem.data.classes == (0, 6)
    assert problem.data.examples == 1000
    assert problem.data.standardize == "mean_image"
    assert problem.model == Mlp(widths=(100, 100), activation="tanh", head_scale=0.3)
    assert problem.criterion == "half_mse"
    assert (spec.optimizer.learning_rate, spec.seed) == (0.02, 0)


def test_the_chebyshev_presets_differ_in_the_learning_rate_alone():
    problems = {name: load_spec(name) for name in NAMES if name.startswith("chebyshev")}
    assert {spec.optimizer.learning_rate for spec in problems.values()} == {0.02, 0.1, 0.2}
    assert len({(spec.problem, spec.seed, spec.precision) for spec in problems.values()}) == 1


def test_an_override_changes_one_field():
    spec = load_spec("fashion", ["optimizer.learning_rate=0.05", "problem.model.activation=swish", "tracking.predictions=[]"])
    assert spec.optimizer.learning_rate == 0.05
    assert spec.problem.model.activation == "swish"
    assert spec.tracking.predictions == ()
    assert spec.problem.data == load_spec("fashion").problem.data


def test_a_file_of_ones_own_is_a_preset(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(to_toml(load_spec("toy")).replace('name = "toy"\n', ""), encoding="utf-8")
    spec = load_spec(str(mine))
    assert spec.name == "mine"
    assert spec.problem == load_spec("toy").problem
    with pytest.raises(UserError, match="no such preset file"):
        load_spec(str(tmp_path / "other.toml"))


def test_every_field_has_a_value_when_only_the_needed_ones_are_given():
    tree = {"name": "least", "problem": {"kind": "toy"}, "optimizer": {"learning_rate": 0.1}}
    assert from_tree(tree, "here").budget.steps > 0
