"""A specification is either a RunSpec or one sentence: what was given, where, and what would do."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import spec as specs
from engine.base.errors import UserError
from engine.spec import RunSpec, from_tree, load_spec, load_spec_text, preset_names, to_toml, with_overrides

from fuzzing import fuzz

NAMES = ", ".join(preset_names())
TOP = (
    '"name", "title", "shows", "takes", "seed", "problem", "optimizer", "batch", "budget", "approach", "tracking", "precision", "metrics", '
    '"recording"'
)


def refusal(build, *arguments) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(UserError) as caught:
        build(*arguments)
    return str(caught.value)


def toy(**parts):
    return {"name": "t", "problem": {"kind": "toy"}, "optimizer": {"learning_rate": 0.1}} | parts


def network(data="fashion", model="mlp", criterion="mse", classes=(0, 6), **extra):
    return toy(problem={
        "kind": "network", "criterion": criterion, "data": {"name": data, "classes": list(classes)}, "model": {"kind": model} | extra,
    })


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_being_written_and_read(name):
    spec = load_spec(name)
    assert spec.name == name
    assert load_spec_text(to_toml(spec), "again") == spec


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_shows_and_how_long_it_takes(name):
    spec = load_spec(name)
    assert spec.title
    assert spec.shows
    assert spec.takes


def test_a_preset_of_the_users_works_by_path_and_is_named_after_its_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[problem]\nkind = "toy"\n[optimizer]\nlearning_rate = 0.5\n', encoding="utf-8")
    spec = load_spec(str(path), ["problem.alpha=2"])
    assert (spec.name, spec.optimizer.learning_rate, spec.problem.alpha) == ("mine", 0.5, 2.0)


@pytest.mark.parametrize(("given_name", "hint"), [
    ("fashon", '; did you mean "fashion"?'), ("Toy", '; did you mean "toy"?'), ("resnet", "."), ("", "."), ("..", "."),
])
def test_an_unknown_preset_is_refused_with_the_nearest_name_and_all_of_them(given_name, hint):
    assert refusal(load_spec, given_name) == f'preset "{given_name}": not known{hint} Presets: {NAMES}; or the path of a .toml file'


@pytest.mark.parametrize(("file", "name"), [("my sweep (2).toml", "my-sweep-2-"), (".hidden.toml", "hidden"), ("ü.toml", "preset")])
def test_a_preset_file_lends_its_name_as_far_as_a_run_may_have_it(tmp_path, file, name):
    path = tmp_path / file
    path.write_text('[problem]\nkind = "toy"\n[optimizer]\nlearning_rate = 0.1\n')
    assert load_spec(str(path)).name == name


@pytest.mark.parametrize("path", ["no/such", "absent.toml", "/", "nul\0.toml"])
def test_a_path_that_is_no_file_is_refused(path):
    assert refusal(load_spec, path) == f"{path}: no such preset file; `eos presets` lists the presets by name"


@pytest.mark.parametrize(("body", "sentence"), [
    (b"\xff\xfe", "not UTF-8 text; a preset is a TOML file"),
    (b" " * (specs.MAX_SPEC_BYTES + 1), "larger than 256 kB, so not a preset"),
    (b"a = ", "not valid TOML: Invalid value (at end of document)"),
    (b"a = " + b"[" * 5000, "not valid TOML: nested too deeply"),
    (b"[optimizer]\nlearning_rate = 0.1", "[top level] problem: missing, and it has no default"),
    (b'[problem]\nkind = "toy"', "[top level] optimizer: missing, and it has no default"),
    (b'[problem]\nkind = "toy"\n[optimizer]', "[optimizer] learning_rate: missing, and it has no default"),
    (b"[problem]\n[optimizer]\nlearning_rate = 1", "[problem] kind: missing, and it has no default"),
])
def test_a_file_that_is_no_preset_is_refused(tmp_path, body, sentence):
    path = tmp_path / "p.toml"
    path.write_bytes(body)
    assert refusal(load_spec, str(path)) == f"{path}: {sentence}"


def test_a_file_name_longer_than_may_be_is_refused():
    assert refusal(load_spec, "x" * 5000 + ".toml") == "x" * 120 + "…: cannot be read (File name too long)"


def test_an_integer_of_thousands_of_digits_is_refused():
    assert refusal(load_spec_text, f"seed = {'9' * 5000}", "f").startswith("f: not valid TOML: Exceeds the limit")
    assert refusal(load_spec_text, f"seed = 0x{'f' * 5000}", "f") == "f: an integer of 20000 bits is too large for any field"


@pytest.mark.parametrize(("override", "sentence"), [
    # out of range
    ("optimizer.learning_rate=0", "[optimizer] learning_rate = 0; expected `float` > 0.0"),
    ("optimizer.learning_rate=-0.1", "[optimizer] learning_rate = -0.1; expected `float` > 0.0"),
    ("optimizer.learning_rate=nan", "[optimizer] learning_rate = nan; expected `float` > 0.0"),
    ("optimizer.learning_rate=inf", "[optimizer] learning_rate = inf; expected `float` <= 1000000000000.0"),
    ("optimizer.learning_rate=-inf", "[optimizer] learning_rate = -inf; expected `float` > 0.0"),
    ("problem.x0=nan", "[problem] x0 = nan; expected `float` >= -1000000000000.0"),
    ("budget.steps=0", "[budget] steps = 0; expected `int` >= 1"),
    ("budget.steps=99999999999999999999999", "[budget] steps = 99999999999999999999999; expected `int` <= 1000000000"),
    ("tracking.eigenvalues=1", '[tracking] eigenvalues = 1; expected 2 or more, or mode = "sharpness"'),
    ("tracking.eigen_tolerance=0.2", "[tracking] eigen_tolerance = 0.2; expected `float` <= 0.1"),
    ("seed=-1", "[top level] seed = -1; expected `int` >= 0"),
    ("approach.check_times=[1, 0.1]", "[approach] check_times = [1, 0.1]; expected `array` of length 3, got 2"),
    ("approach.check_times=[1, 0.1, 0]", "[approach] check_times[2] = 0; expected `float` > 0.0"),
    # of the wrong type
    ("optimizer.learning_rate=fast", '[optimizer] learning_rate = "fast"; expected `float`, got `str`'),
    ("optimizer.learning_rate={}", "[optimizer] learning_rate = {}; expected `float`, got `object`"),
    ("optimizer=3", "[top level] optimizer = 3; expected `object`, got `int`"),
    ("budget.steps=1.5", "[budget] steps = 1.5; expected `int`, got `float`"),
    ("tracking.anchor_lost=yes", '[tracking] anchor_lost = "yes"; expected `bool`, got `str`'),
    ("seed=true", "[top level] seed = True; expected `int`, got `bool`"),
    ("title=2022-09-30", "[top level] title = datetime.date(2022, 9, 30); expected `str`, got `date`"),
    ("name=../elsewhere", '[top level] name = "../elsewhere"; expected up to 48 letters, digits, ".", "_" and "-", '
                          "beginning with a letter or digit"),
    # outside a closed set
    ("precision.edge=float16", '[precision] edge = "float16"; expected one of "float32", "float64"'),
    ("problem.kind=resnet", '[problem] kind = "resnet"; expected one of "network", "toy", "toy_k", "phase", "own"'),
    ("tracking.flow=yes", '[tracking] flow = "yes"; expected one of "gradient", "central", "both", "none", or true or false'),
    ("tracking.predictions=['code', 'cubic']",
     '[tracking] predictions[1] = "cubic"; expected one of "generalized", "transported", "code", "full_cubic"'),
    ("tracking.predictions=['code', 'code']",
     "[tracking] predictions = ['code', 'code']; each form once, as each has its own columns"),
    # unknown
    ("optimizer.learning_rte=1", '[optimizer] learning_rte: unknown key; did you mean "learning_rate"?'),
    ("problem.q=1", '[problem] q: unknown key; expected one of "alpha", "beta", "x0", "threshold"'),
    ("q=1", f"[top level] q: unknown key; expected one of {TOP}"),
])
def test_a_bad_value_is_refused_by_its_name_and_what_would_do(override, sentence):
    assert refusal(load_spec, "toy", [override]) == f"presets/toy.toml with --set: {sentence}"


@pytest.mark.parametrize(("override", "sentence"), [
    ("problem.criterion=mae", '[problem] criterion = "mae"; expected one of "mse", "half_mse", "cross_entropy", "logistic"'),
    ("problem.model.kind=rnn", '[problem.model] kind = "rnn"; expected one of "mlp", "cnn", "resnet", "transformer"'),
    ("problem.model.widths=[8, 'wide']", '[problem.model] widths[1] = "wide"; expected `int`, got `str`'),
    ("problem.model.widths=[8, 0]", "[problem.model] widths[1] = 0; expected `int` >= 1"),
    ("problem.data.name=mnist", '[problem.data] name = "mnist"; expected one of "fashion", "digits", "sentences", "chebyshev", '
        '"fashion_mnist", "cifar10", "sst2"'),
    ("problem.alpha=2", '[problem] alpha: no key of kind = "network"; leave it out, or use kind = "toy" or "phase"'),
    ("problem.model.blocks=2", '[problem.model] blocks: no key of kind = "mlp"; leave it out, or use kind = "resnet"'),
    ("problem.model.block=2", '[problem.model] block: unknown key; expected one of "widths", "activation", "head_scale", "normalized"'),
    ("tracking.sharpness_every=2", '[tracking] sharpness_every: no key of mode = "coupled"; leave it out, or use mode = "sharpness"'),
    ("tracking.mode=loose", '[tracking] mode = "loose"; expected one of "coupled", "sharpness"'),
])
def test_a_bad_value_deep_in_a_network_is_refused_the_same_way(override, sentence):
    assert refusal(load_spec, "fashion", [override]) == f"presets/fashion.toml with --set: {sentence}"


MODES = "coupled", "sharpness"
COUPLED = '[tracking]\nflow = false\neigenvalues = 4\n'
SHARPNESS = '[tracking]\nmode = "sharpness"\nsharpness_every = 5\neigenvalues = 4\n'


def preset(tmp_path, tracking: str, name: str = "mine.toml") -> str:
    """A file with the toy and this section."""
    path = tmp_path / name
    path.write_text(f'{tracking}[problem]\nkind = "toy"\n[optimizer]\nlearning_rate = 0.5\n', encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("tracking", "key", "modes"), [
    (COUPLED + "sharpness_every = 5\n", "sharpness_every", MODES), (SHARPNESS + "flow = true\n", "flow", MODES[::-1]),
    ('[tracking]\nmode = "coupled"\nsharpness_examples = 0\n', "sharpness_examples", MODES),
])  # fmt: skip
def test_a_field_of_the_other_mode_is_refused_by_name_in_a_preset(tmp_path, tracking, key, modes):
    path, (mine, other) = preset(tmp_path, tracking), modes
    assert refusal(load_spec, path) == f'{path}: [tracking] {key}: no key of mode = "{mine}"; leave it out, or use mode = "{other}"'


@pytest.mark.parametrize(("tracking", "overrides", "expected"), [
    (COUPLED, ["tracking.mode=sharpness", "tracking.sharpness_every=7"], specs.SharpnessTracking(eigenvalues=4, sharpness_every=7)),
    (SHARPNESS, ["tracking.mode=coupled", "tracking.flow=false"], specs.CoupledTracking(eigenvalues=4, flow=False)),
    ("", ["tracking.mode=sharpness", "tracking.eigenvalues=1"], specs.SharpnessTracking(eigenvalues=1)),
    (SHARPNESS, ["tracking.mode=sharpness", "tracking.mode=coupled"], specs.CoupledTracking(eigenvalues=4)),
])  # fmt: skip
def test_another_mode_takes_what_both_have_and_leaves_the_rest_of_the_preset(tmp_path, tracking, overrides, expected):
    path = preset(tmp_path, tracking)
    assert load_spec(path, overrides).tracking == expected
    assert with_overrides(load_spec(path), overrides).tracking == expected
    if len({override.partition("=")[0] for override in overrides}) == 2:
        assert load_spec(path, overrides[::-1]).tracking == expected
        assert with_overrides(load_spec(path), overrides[::-1]).tracking == expected


def test_what_is_set_for_the_mode_before_is_refused_in_any_order(tmp_path):
    path, overrides = preset(tmp_path, COUPLED), ["tracking.flow=true", "tracking.mode=sharpness"]
    for order in (overrides, overrides[::-1]):
        assert '[tracking] flow: no key of mode = "sharpness"; leave it out' in refusal(load_spec, path, order)


def test_another_kind_of_model_or_problem_leaves_what_only_the_one_before_has():
    spec = with_overrides(load_spec("fashion"), ["problem.model.widths=[4]", "problem.model.kind=resnet"])
    assert spec.problem.model == specs.ResNet(widths=(4,), activation="tanh")
    assert load_spec("fashion", ["problem.x0=0.2", "problem.kind=toy"]).problem == specs.Toy(x0=0.2)
    with pytest.raises(UserError, match=r"\[problem\] data: missing, and it has no default"):
        load_spec("toy", ["problem.kind=network"])


def test_a_run_of_an_earlier_version_has_the_fields_of_both_modes_written_out(tmp_path):
    for tracking, mode in ((COUPLED, "coupled"), (SHARPNESS, "sharpness")):
        text = Path(preset(tmp_path, tracking + ("sharpness_every = 5\n" if mode == "coupled" else "flow = true\n"))).read_text()
        path = preset(tmp_path, text.partition("[problem]")[0], "spec.toml")
        spec = specs.load_recorded(text.replace("[tracking]", 'name = "mine"\n[tracking]'), "a run")
        assert spec.tracking == load_spec(preset(tmp_path, tracking)).tracking == load_spec(path).tracking
        assert specs.load_recorded(to_toml(spec), "again") == spec
    flawed = 'name = "x"\n' + COUPLED.replace("flow", "flaw")
    assert 'flaw: unknown key; did you mean "flow"?' in refusal(specs.load_recorded, flawed, "a run")


def test_whoever_reads_any_run_may_ask_what_it_follows():
    """Also one of the mode that follows nothing."""
    tracking = load_spec("fig6").tracking
    assert (tracking.predictions, tracking.anchor_every, tracking.landscape_every, tracking.gauges_every) == ((), 0, 0, 0)
    assert not [name for name, _ in specs.fields_of(load_spec("fig6")) if name == "tracking.predictions"]


@pytest.mark.parametrize("override", ["", "a", "=3", "a.=3", ".a=3", "a..b=3", "seed"])
def test_an_override_of_another_form_is_refused(override):
    expected = f'--set {override}: expected section.field=value, as in "optimizer.learning_rate=0.05"'
    assert refusal(load_spec, "toy", [override]) == expected


def test_an_override_below_a_value_is_refused():
    expected = "--set optimizer.learning_rate.x=3: optimizer.learning_rate is a value, not a section"
    assert refusal(load_spec, "toy", ["optimizer.learning_rate.x=3"]) == expected


def test_a_second_line_does_not_ride_along_with_an_override():
    assert 'learning_rate = "1\nseed=3"; expected `float`' in refusal(load_spec, "toy", ["optimizer.learning_rate=1\nseed=3"])


def test_a_long_value_is_not_repeated_in_full():
    assert len(refusal(load_spec, "toy", [f"seed={'[' * 5000}"])) < 300
    assert len(refusal(load_spec, "toy", [f"seed=[{'1, ' * 5000}]"])) < 300


def test_overrides_take_every_kind_of_value():
    spec = load_spec("fashion", [
        "optimizer.learning_rate=0.05", "budget.steps = 7", "tracking.flow=false", "tracking.predictions=['code']",
        "problem.data.classes=[]", "problem.model.activation=relu", 'title="η, quoted"', "shows=bare words", "takes=",
        "approach.check_times=[2, 1.0, 0.5]", "precision={ edge = 'float32' }",
    ])
    assert spec.optimizer.learning_rate == 0.05
    assert spec.budget.steps == 7
    assert spec.tracking.flow is False
    assert spec.tracking.predictions == ("code",)
    assert spec.problem.data.classes == ()
    assert spec.problem.model.activation == "relu"
    assert (spec.title, spec.shows, spec.takes) == ("η, quoted", "bare words", "")
    assert spec.approach.check_times == (2.0, 1.0, 0.5)
    assert spec.precision.edge == "float32"
    assert spec.problem.model.widths == load_spec("fashion").problem.model.widths


def test_overrides_on_a_specification_change_a_copy():
    spec = load_spec("toy")
    assert with_overrides(spec, ["seed=5"]).seed == 5
    assert spec.seed == 0
    assert refusal(with_overrides, spec, ["seed=x"]) == 'toy with --set: [top level] seed = "x"; expected `int`, got `str`'


@pytest.mark.parametrize(("tree", "sentence"), [
    (network(criterion="logistic", classes=[0, 1, 2]), '[problem] criterion = "logistic" needs two labels in [problem.data] classes'),
    (network(criterion="cross_entropy"),
     '[problem] criterion = "cross_entropy" needs three classes or more; with two use "logistic"'),
    (network("chebyshev", criterion="cross_entropy", classes=[]),
     '[problem] criterion = "cross_entropy" needs three classes or more; with two use "logistic"'),
    (network(model="transformer"), '[problem.model] kind = "transformer" reads token sequences; use data name "sentences", "sst2"'),
    (network("sentences", classes=[0, 1]), '[problem.data] name = "sentences" needs [problem.model] kind = "transformer"'),
    (network("sentences", "transformer", classes=[0, 1], hidden=7), "[problem.model] hidden = 7 is no multiple of heads"),
    (network("chebyshev", "cnn", classes=[]), '[problem.model] kind = "cnn" reads images; "chebyshev" has none'),
])
def test_a_model_that_cannot_read_the_data_is_refused(tree, sentence):
    assert refusal(from_tree, tree, "f") == f"f: {sentence}"


def test_a_name_is_one_word_of_a_path():
    for name in ("a\n", "a/b", "", ".a", "a" * 49, "é", "a\x1b[0m"):
        assert "name = " in refusal(from_tree, toy(name=name), "f")


def test_a_tree_nested_a_thousandfold_is_refused():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert refusal(from_tree, toy(seed=deep), "f").startswith("f: [top level] seed = {'a': {'a': ")
    assert "unknown key" in refusal(from_tree, toy(deep=deep), "f")


@fuzz(35)
@given(st.text(max_size=80))
def test_any_title_survives_being_written_and_read_or_is_refused(title):
    try:
        spec = from_tree(toy(title=title), "f")
    except UserError as error:
        assert "not UTF-8 text" in str(error) or "control characters" in str(error)
        return
    assert load_spec_text(to_toml(spec), "again") == spec


def test_text_that_is_no_utf8_is_refused_before_it_reaches_a_file():
    assert refusal(load_spec, "toy", ["title=\udcff"]) == r"presets/toy.toml with --set: '\udcff': not UTF-8 text"


WORDS = sorted(set(re.findall(r"[a-z_0-9]+", to_toml(load_spec("fashion-cnn")))) | {"toy", "toy_k", "phase", "transformer", "logistic"})
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS) | st.dates() | st.times()
    | st.datetimes()
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
parts = st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("name", "problem", "optimizer", "batch", "budget", "approach", "tracking", "precision", "metrics", "recording", "seed", "title"),
    trees,
))


def spec_or_sentence(build, *arguments):
    try:
        assert isinstance(build(*arguments), RunSpec)
    except UserError as error:
        assert str(error)


@fuzz(35)
@given(parts)
def test_any_tree_is_a_specification_or_a_sentence(tree):
    spec_or_sentence(from_tree, tree, "f")


BATCHED = ["tracking.mode=sharpness", "batch.size=16"]


@fuzz(35)
@given(st.sampled_from(["toy", "fashion", "sentences"]), st.data())
def test_a_preset_spoilt_in_one_place_is_a_specification_or_a_sentence(name, data):
    tree = msgspec.to_builtins(load_spec(name, data.draw(st.sampled_from([[], BATCHED])) if name == "fashion" else []))
    branch = tree
    while True:
        key = data.draw(st.sampled_from(sorted(branch)))
        if not isinstance(branch[key], dict) or not branch[key] or data.draw(st.booleans()):
            break
        branch = branch[key]
    branch[key] = data.draw(trees)
    spec_or_sentence(from_tree, tree, "f")


@fuzz(35)
@given(st.text())
def test_any_text_is_a_specification_or_a_sentence(text):
    spec_or_sentence(load_spec_text, text, "f")


@fuzz(35)
@given(st.text(alphabet="[]{}=.'\"\n #abk01-:TZ_e+x", max_size=60))
def test_any_text_of_tomls_own_letters_is_a_specification_or_a_sentence(text):
    spec_or_sentence(load_spec_text, text, "f")


@fuzz(35)
@given(st.lists(st.text(alphabet="[]{}=.'\"\n seedoptimzrlangt_01-", max_size=30) | st.text(), max_size=3))
def test_any_override_is_a_specification_or_a_sentence(overrides):
    spec_or_sentence(load_spec, "toy", overrides)


@pytest.mark.parametrize(("file", "name"), [
    ("été.toml", "ete"), ("Größe.toml", "Grosse"), ("łódź Ærø.toml", "lodz-Aero"), ("η=0.1.toml", "eta-0.1"), ("данные.toml", "preset"),
    ("a (1).toml", "a-1-"), ("..toml", "preset"),
])  # fmt: skip
def test_a_preset_files_name_is_a_readable_run_name(tmp_path, file, name):
    (tmp_path / file).write_text('[problem]\nkind = "toy"\n[optimizer]\nlearning_rate = 0.1\n')
    assert load_spec(str(tmp_path / file)).name == name
