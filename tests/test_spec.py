"""Specifications: what is accepted, and what is said of what is not."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import spec as specs
from engine.errors import UserError


@pytest.mark.parametrize("name", specs.preset_names())
def test_presets_say_what_they_show_and_survive_a_round_trip(name):
    spec = specs.load_spec(name)
    assert spec.name == name
    assert spec.title
    assert spec.shows
    assert spec.takes
    assert specs.load_spec_text(specs.to_toml(spec), "again") == spec


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.learning_rate=0", "[optimizer] learning_rate = 0"),
        ("optimizer.learning_rate=-0.1", "[optimizer] learning_rate = -0.1"),
        ("optimizer.learning_rate=nan", "[optimizer] learning_rate = nan"),
        ("optimizer.learning_rate=inf", "[optimizer] learning_rate = inf"),
        ("optimizer.learning_rate=fast", 'learning_rate = "fast"; expected `float`, got `str`'),
        ("optimizer.lerning_rate=1.0", 'lerning_rate: unknown key; did you mean "learning_rate"?'),
        ("problem.kind=network2", 'expected one of "network", "toy", "phase"'),
        ("budget.steps=0", "[budget] steps = 0"),
        ("budget=3", "budget = 3"),
        ("nonsense", "expected section.field=value"),
        ("title.x=1", "title is a value, not a section"),
    ],
)
def test_a_bad_override_is_told_by_section_key_and_value(override, told):
    with pytest.raises(UserError) as error:
        specs.load_spec("toy", [override])
    assert told in str(error.value)


def test_unknown_presets_and_files_are_told(tmp_path):
    with pytest.raises(UserError, match='did you mean "fashion"'):
        specs.load_spec("fashoin")
    with pytest.raises(UserError, match="no such preset file"):
        specs.load_spec(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[problem\n")
    with pytest.raises(UserError, match="not valid TOML"):
        specs.load_spec(str(broken))
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8 text"):
        specs.load_spec(str(broken))
    broken.write_bytes(b"#" * (specs.MAX_SPEC_BYTES + 1))
    with pytest.raises(UserError, match="not a preset"):
        specs.load_spec(str(broken))


def test_a_preset_of_the_users_works_by_its_path(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('[problem]\nkind = "toy"\n[optimizer]\nlearning_rate = 0.5\n')
    assert specs.load_spec(str(mine)).name == "mine"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["problem.data.name=sentences"], "needs [problem.model] kind = \"transformer\""),
        (["problem.criterion=cross_entropy"], "needs three classes or more"),
        (["problem.criterion=logistic", "problem.data.classes=[]"], "needs two labels"),
        (["problem.criterion=mae"], 'criterion = "mae"; expected one of "mse", "half_mse", "cross_entropy", "logistic"'),
    ],
)
def test_parts_that_do_not_fit_together_are_told(overrides, told):
    with pytest.raises(UserError) as error:
        specs.load_spec("fashion", overrides)
    assert told in str(error.value)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["name", "problem", "kind", "optimizer", "learning_rate", "data", "model", "budget", "x"]), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "problem", "optimizer", "seed", "tracking", "odd"]), TREES, max_size=5))
def test_any_tree_is_a_specification_or_a_user_error(tree):
    with contextlib.suppress(UserError):
        specs.from_tree(tree, "fuzz")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_an_override_or_a_user_error(text):
    with contextlib.suppress(UserError):
        specs.load_spec("toy", [text])
