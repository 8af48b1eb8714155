"""A run's specification: what to train, at which learning rate, what to track, for how long.

`RunSpec` is a tree of frozen, typed parts that reads and writes TOML. Every field has a default or must be given, every
unknown key is refused by name, and every value is checked here, before anything is computed or written.
"""

import difflib
import re
import reprlib
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import tomli_w
from msgspec import Meta

from engine.errors import UserError, one_of
from engine.printed import is_harmless

Positive = Annotated[float, Meta(gt=0, le=1e12)]
NonNegative = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
CountOrNever = Annotated[int, Meta(ge=0, le=10**9)]
Widths = Annotated[tuple[Count, ...], Meta(min_length=0, max_length=32)]
Precision = Literal["float32", "float64"]
Activation = Literal["tanh", "swish", "relu", "gelu", "elu"]
Criterion = Literal["mse", "half_mse", "cross_entropy", "logistic"]
Prediction = Literal["generalized", "transported", "code", "full_cubic"]

PREDICTIONS: tuple[str, ...] = get_args(Prediction)
TEXTS = ("sentences", "sst2")
"""Data sets of sentences, which become rows of tokens."""
FOLLOWED_FROM = 1.5
"""λη from which every eigenvalue of gradient descent is followed."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the specification."""


class Data(Part, frozen=True, kw_only=True):
    """Which examples, and how they become inputs and targets."""

    name: Literal["fashion", "digits", "sentences", "chebyshev", "fashion_mnist", "cifar10", "sst2"]
    """The first four ship with eos; `eos data prepare` brings the others through tensorflow-datasets."""
    examples: Count = 1000
    """Training examples, the first in the order below."""
    order: Literal["by_class", "file"] = "by_class"
    """`by_class`: equal shares, the first of each class, class by class. `file`: whatever comes first in the files."""
    test_examples: CountOrNever = 0
    """Examples held out to test on, chosen by the same rule. 0 means none."""
    classes: tuple[int, ...] = ()
    """Labels to keep. Two labels make a binary problem with targets −1 and +1. Empty keeps every class."""
    standardize: Literal["mean_image", "global", "channel", "none"] = "mean_image"
    """Inputs less their mean image, or their mean, then divided by the standard deviation of all of them; or, channel by
    channel, less its mean and divided by its standard deviation. Always those of the training examples."""
    pad_to: CountOrNever = 0
    """Side in pixels that images are padded to with zeros. 0 leaves them as they are."""
    channels: CountOrNever = 0
    """Channels of the images: one of grey is repeated so often. 0 leaves them as they are."""
    vocab_file: str = ""
    """WordPiece vocabulary, one piece a line, [PAD] first. Empty takes the words of the training examples."""
    data_dir: str = ""
    """Folder of prepared data sets. Empty means $TFDS_DATA_DIR, else the platform's; a run keeps the folder it began with."""
    degree: Count = 4
    """Degree of the Chebyshev polynomial (`chebyshev` only)."""


class Mlp(Part, frozen=True, kw_only=True, tag_field="kind", tag="mlp"):
    """A fully connected network on the flattened input."""

    widths: Widths = (200, 200)
    activation: Activation = "swish"
    head_scale: Positive = 1.0
    """Factor on the initial weights of the last layer."""
    normalized: bool = False
    """Scale-invariant: LayerNorm without parameters after every hidden layer, and a head of unit norm, so that f(cθ) = f(θ)."""


class Cnn(Part, frozen=True, kw_only=True, tag_field="kind", tag="cnn"):
    """(3×3 convolution, activation, 2×2 average pool) for each width, then a dense layer."""

    widths: Widths = (32, 32)
    activation: Activation = "swish"
    head_scale: Positive = 1.0


class ResNet(Part, frozen=True, kw_only=True, tag_field="kind", tag="resnet"):
    """A residual network: a 3×3 stem, a stage of blocks for each width, mean pool, zero-initialised head. Two blocks in each of
    four stages make ResNet18."""

    widths: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=8)] = (16, 32, 64, 128)
    """Channels of each stage; every stage after the first halves the side of the maps."""
    blocks: Annotated[int, Meta(ge=1, le=64)] = 2
    """Blocks a stage, of two 3×3 convolutions each."""
    groups: Count = 16
    """Groups of GroupNorm; as many as there are channels where those are fewer."""
    activation: Activation = "swish"


class Transformer(Part, frozen=True, kw_only=True, tag_field="kind", tag="transformer"):
    """Post-LayerNorm encoder with learned positions and a mean-pooled, zero-initialised head."""

    layers: Count = 2
    hidden: Count = 64
    heads: Count = 2
    activation: Activation = "gelu"


Model = Mlp | Cnn | ResNet | Transformer


class Network(Part, frozen=True, kw_only=True, tag_field="kind", tag="network"):
    """A flax model, a data set and a criterion: the full-batch training loss."""

    data: Data
    model: Model
    criterion: Criterion = "mse"
    """`mse` is ‖f−y‖² without ½ (the paper); `half_mse` has the ½ (Cohen et al.), so half the sharpness."""
    micro_batch: CountOrNever = 0
    """Examples a device pass; the full-batch result is accumulated. 0 takes them all at once."""
    rematerialize: bool = False
    """Keep only what enters a layer or block, and compute what is inside again where a derivative needs it: less memory, more time."""
    devices: CountOrNever = 1
    """Devices that share out the examples of a pass: of this machine, or of each process where several run. 0 takes all there are."""


class Toy(Part, frozen=True, kw_only=True, tag_field="kind", tag="toy"):
    """Appendix B: L(x,y,z) = ½(2/η + √β·y)x² − (α/√β)y − z, on which gradient descent is the map (3) exactly."""

    alpha: Positive = 1.0
    beta: Positive = 1.0
    x0: Annotated[float, Meta(ge=-1e12, le=1e12)] = 0.1


class Phase(Part, frozen=True, kw_only=True, tag_field="kind", tag="phase"):
    """No training: the map (3) and the flow (4) of the simplified system, from several starts X(0), Y(0) = 0."""

    alpha: Positive = 1.0
    beta: Positive = 1.0
    starts: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=8)] = (0.1, 0.4, 0.8)
    """X(0) of each orbit, in units of δ."""


class Own(Part, frozen=True, kw_only=True, tag_field="kind", tag="own"):
    """A loss of your own: what a Python function returns (`engine.from_loss`, `engine.from_flax`). `problem = "module:name"` is short
    for it. The engine that runs it imports the module, and nothing else does."""

    function: Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", max_length=200)]
    """`module:name` of the function to call."""
    folder: str = ""
    """Folder of the module, looked at after Python's own path. Empty means where the command is given; a run keeps it."""
    arguments: dict[Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*\Z")], bool | int | float | str | tuple[bool | int | float | str, ...]] = {}
    """What to call it with; the run's `seed` is added where it takes one."""
    self_test: bool = True
    """Test the loss before the run: its format, determinism, and three derivatives against differences. A kink fails it."""


class Optimizer(Part, frozen=True, kw_only=True):
    """Full-batch gradient descent."""

    learning_rate: Positive
    learning_rates: Annotated[tuple[Positive, ...], Meta(max_length=16)] = ()
    """Every η that the experiment is shown at; `eos reproduce` runs each of them. Empty means the one above."""
    schedule: Literal["constant", "inverse_sharpness"] = "constant"
    """`inverse_sharpness` sets η to 1/λ_max at every measurement; it needs `mode = "sharpness"` under [tracking]."""
    raises: Annotated[tuple[tuple[Count, Positive], ...], Meta(max_length=256)] = ()
    """[step, η] pairs: the learning rate becomes η at that step, in any phase."""
    weight_decay: NonNegative = 0.0
    """λ: adds (λ/2)‖θ‖² to the training loss."""


class Budget(Part, frozen=True, kw_only=True):
    """When to end. The first limit reached ends the run."""

    steps: Count = 5000
    """Gradient-descent steps in all. Ending before the edge gives the outcome "edge never reached"."""
    edge_steps: CountOrNever = 0
    """Steps after the edge. 0 sets no limit of its own."""
    loss_goal: NonNegative = 0.0
    """Training loss under which the run ends. 0 means never."""


class Approach(Part, frozen=True, kw_only=True):
    """How gradient descent is followed until the sharpness of a midpoint (θ_t+θ_{t+1})/2 reaches 2/η."""

    check_times: tuple[Positive, Positive, Positive] = (1.0, 0.1, 0.01)
    """ODE time ηt between sharpness checks: at first, once S ≥ 1/η, and once S ≥ 1.5/η."""


class Tracking(Part, frozen=True, kw_only=True):
    """What is followed beside gradient descent: once at the edge, or from the start."""

    mode: Literal["coupled", "sharpness"] = "coupled"
    """`coupled` seeks the edge and follows θ†, the predictions and gradient flow from there; `sharpness` trains and reads the
    sharpness now and then (Figure 6), and of this section uses the next two and `eigenvalues` alone."""
    sharpness_every: Count = 40
    """Steps between readings of sharpness, accuracy and test loss (`sharpness` only)."""
    sharpness_examples: CountOrNever = 0
    """Training examples that the sharpness is read on: the first of them (`sharpness` only). 0 takes all."""
    predictions: tuple[Prediction, ...] = ("generalized", "transported", "code")
    """Forms of the predicted dynamics to advance. `full_cubic` costs a third derivative a step."""
    flow: bool = True
    """Follow gradient flow from the first θ†."""
    flow_sharpness_every: Count = 1
    """Steps between sharpness measurements of gradient flow."""
    anchor_every: CountOrNever = 0
    """Steps between re-anchorings of every prediction to the true displacement. 0 means only when asked."""
    anchor_lost: bool = False
    """Re-anchor a prediction when it has left validity (not finite, or far outside the orbit)."""
    horizon_tolerance: Positive = 0.25
    """A prediction's horizon ends when its |x⋆| is off by more than this fraction of δ, or of |x| where larger."""
    hypothesis: Positive = 0.1
    """The c of Theorem 1: it claims nothing where |x⋆| < cδ."""
    landscape_every: CountOrNever = 50
    """Steps between samples of the loss along u, F_t. 0 means never."""
    beta_every: CountOrNever = 0
    """Steps between the starts s of β_{s→t}, from which (5) is summed. 0 leaves (5) out."""
    beta_window: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Starts followed at once; each costs a Hessian–vector product a step."""
    eigenvalues: Annotated[int, Meta(ge=2, le=16)] = 2
    """Top eigenvalues of gradient descent to record, to begin with."""
    max_eigenvalues: Annotated[int, Meta(ge=2, le=16)] = 8
    """Most eigenvalues to record: more are followed while the smallest is above 1.5/η. Up to `eigenvalues`, the number stays."""
    eigen_tolerance: Annotated[float, Meta(gt=0, le=0.1)] = 1e-4
    """Largest relative residual ‖Hu−Su‖/S of a top eigenpair at θ†."""
    audit_every: CountOrNever = 50
    """Steps between audits of the top eigenpair from a fresh random start. 0 means never."""
    max_projections: Count = 8
    """Linearised projections a step before giving up on the constraint tolerances."""
    sharpness_tolerance: Positive = 1e-5
    """Largest |S(θ†) − 2/η|·η/2 after projection."""
    gradient_tolerance: Positive = 1e-6
    """Largest |∇L·u| / ‖∇L‖ at θ† after projection."""
    second_eigenvalue_limit: Positive = 1.9
    """λ2(θ†)·η from which Assumption 2 counts as failed."""
    on_second_eigenvalue: Literal["stop", "gradient_descent", "keep"] = "stop"
    """When it fails: end the run, go on with gradient descent and its eigenvalues alone, or keep tracking θ†."""
    gauges_every: CountOrNever = 50
    """Steps between measurements of the gauges of Appendix E that take third and fourth derivatives. 0 means never."""
    rho_iterations: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Most power iterations for each of ρ3 and ρ4."""

    @property
    def eigenvalue_columns(self) -> int:
        """Eigenvalues that a run has columns for."""
        return max(self.eigenvalues, self.max_eigenvalues)


class Precisions(Part, frozen=True, kw_only=True):
    """Number formats by part."""

    approach: Precision = "float32"
    edge: Precision = "float64"
    """Parameters and gradients from the edge on."""
    curvature: Precision = "float32"
    """Hessian–vector products and ∇S."""


class Recording(Part, frozen=True, kw_only=True):
    """What is written, beyond one row a step."""

    checkpoint_seconds: Positive = 20.0
    """Wall-clock seconds between checkpoints."""
    keep_checkpoints: Annotated[int, Meta(ge=1, le=100)] = 3


class RunSpec(Part, frozen=True, kw_only=True):
    """Everything that determines a run."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}\Z")]
    title: Annotated[str, Meta(max_length=80)] = ""
    shows: Annotated[str, Meta(max_length=600)] = ""
    """What to see in it, in a sentence or two."""
    takes: Annotated[str, Meta(max_length=120)] = ""
    """How long it takes, and on what."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    problem: Network | Toy | Phase | Own
    optimizer: Optimizer
    budget: Budget = Budget()
    approach: Approach = Approach()
    tracking: Tracking = Tracking()
    precision: Precisions = Precisions()
    recording: Recording = Recording()

    @property
    def rematerializes(self) -> bool:
        """Whether memory goes before time."""
        return isinstance(self.problem, Network) and self.problem.rematerialize


DEFAULT_PRESET = "fashion"
"""What `demo` runs."""
MAX_SPEC_BYTES = 256 * 1024
MAX_SHOWN = 120
"""Characters of a refused value that an error repeats."""
_brief = reprlib.Repr()  # looks no more than six levels deep into what it shows
_brief.maxlist = _brief.maxdict = 8
_brief.maxother = _brief.maxlong = MAX_SHOWN


def preset_names() -> list[str]:
    """The names of the presets that ship with eos."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("presets").iterdir() if entry.name.endswith(".toml"))


def load_spec(preset: str, overrides: list[str] | tuple[str, ...] = ()) -> RunSpec:
    """The preset of this name, or the preset file at this path, with `section.field=value` overrides applied.

    Raises UserError naming what was given, where, and what would do.
    """
    where, text = _preset_text(preset)
    tree = _parse_toml(text, where)
    tree.setdefault("name", _name_of(preset))
    for override in overrides:
        _apply(tree, override)
    return from_tree(tree, where if not overrides else f"{where} with --set")


def load_spec_text(text: str, where: str) -> RunSpec:
    """The specification in TOML `text`; `where` names its origin in errors."""
    return from_tree(_parse_toml(text, where), where)


def from_tree(tree: dict[str, Any], where: str) -> RunSpec:
    """The specification in a tree of plain values, checked."""
    _refuse_unwritable(tree, where)
    if isinstance(tree.get("problem"), str):
        tree = tree | {"problem": {"kind": "own", "function": tree["problem"]}}
    try:
        spec = msgspec.convert(tree, RunSpec)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_explain(str(error), tree)}") from None
    for value in _texts(msgspec.to_builtins(spec)):
        if not is_harmless(value):
            raise UserError(f"{where}: {_shortened(value)!a}: control characters, which a terminal would obey")
    _check(spec, where)
    return spec


def _texts(tree: Any) -> Iterator[str]:
    """Every text in a tree of plain values, keys too."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from chain.from_iterable(map(_texts, (*tree, *tree.values())))
    elif isinstance(tree, list | tuple):
        yield from chain.from_iterable(map(_texts, tree))


def to_toml(spec: RunSpec) -> str:
    """The specification as TOML, every field written out."""
    return tomli_w.dumps(msgspec.to_builtins(spec))


def with_overrides(spec: RunSpec, overrides: list[str] | tuple[str, ...]) -> RunSpec:
    """A copy with `section.field=value` overrides applied."""
    tree = msgspec.to_builtins(spec)
    for override in overrides:
        _apply(tree, override)
    return from_tree(tree, f"{spec.name} with --set")


def _preset_text(preset: str) -> tuple[str, str]:
    """Where the preset lies, in words, and its text."""
    path = Path(preset)
    if preset.endswith(".toml") or "/" in preset:
        try:
            if not path.is_file():
                raise UserError(f"{preset}: no such preset file; `eos presets` lists the presets by name")
            if path.stat().st_size > MAX_SPEC_BYTES:
                raise UserError(f"{preset}: larger than {MAX_SPEC_BYTES // 1024} kB, so not a preset")
            return preset, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{preset}: not UTF-8 text; a preset is a TOML file") from None
        except OSError as error:
            raise UserError(f"{_shortened(preset)}: cannot be read ({error.strerror})") from None
    names = preset_names()
    if preset not in names:
        near = difflib.get_close_matches(preset, names, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "."
        raise UserError(f'preset "{_shortened(preset)}": not known{hint} Presets: {", ".join(names)}; or the path of a .toml file')
    return f"presets/{preset}.toml", (files("presets") / f"{preset}.toml").read_text(encoding="utf-8")


def _name_of(preset: str) -> str:
    """A name that a run may have, from that of a preset file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(preset).stem).lstrip("._-")[:48] or "preset"


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # beside tomllib's own, Python's refusal to read an integer of thousands of digits
        raise UserError(f"{where}: not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid TOML: nested too deeply") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one `section.field=value` in the tree; the value is TOML, or a bare word."""
    path, separator, raw = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise UserError(f'--set {override}: expected section.field=value, as in "optimizer.learning_rate=0.05"')
    try:
        parsed = tomllib.loads(f"value = {raw}")
        value = parsed["value"] if len(parsed) == 1 else raw.strip()  # a second line would set a second key
    except (ValueError, RecursionError):
        value = raw.strip()
    branch = tree
    for depth, key in enumerate(keys[:-1]):
        branch = branch.setdefault(key, {})
        if not isinstance(branch, dict):
            raise UserError(f"--set {override}: {'.'.join(keys[: depth + 1])} is a value, not a section")
    branch[keys[-1]] = value


def _refuse_unwritable(tree: dict[str, Any], where: str) -> None:
    """Refuse what could not be written down again: text that is no UTF-8, integers of thousands of digits."""
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            pending += value
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UserError(f"{where}: {_shortened(value)!a}: not UTF-8 text")
        elif isinstance(value, int) and value.bit_length() > 1024:
            raise UserError(f"{where}: an integer of {value.bit_length()} bits is too large for any field")


def _explain(message: str, tree: dict[str, Any]) -> str:
    """A sentence from msgspec's message: the section and key, what was given, what would do."""
    problem, _, at = message.partition(" - at `$")
    steps = [key for key in at.rstrip("`").replace("[", ".[").split(".") if key]  # `.problem.model.widths[2]`
    keys = [step for step in steps if not step.startswith("[")]
    given: Any = tree
    for step in steps:
        given = given.get(step) if isinstance(given, dict) else given[int(step.strip("[]"))]
    section, field = ".".join(keys[:-1]), "".join(steps[max(len(keys) - 1, 0):])
    if problem.startswith("Object contains unknown field"):
        unknown = problem.split("`")[1]
        known = _fields_at(keys, tree)
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; expected one of {one_of(known)}"
        return f'[{".".join(keys) or "top level"}] {unknown}: unknown key{hint}'
    if problem.startswith("Object missing required field"):
        return f'[{".".join(keys) or "top level"}] {problem.split("`")[1]}: missing, and it has no default'
    shown = _brief.repr(given) if not isinstance(given, str) else f'"{_shortened(given)}"'
    return f"[{section or 'top level'}] {field} = {shown}; {_expectation(problem, keys, tree)}"


def _shortened(text: str) -> str:
    """The text, cut and marked with … where it is too long for an error to repeat."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _expectation(problem: str, keys: list[str], tree: dict[str, Any]) -> str:
    """What would do: the choices of a closed set, else msgspec's own words."""
    if problem.startswith("Invalid enum value") or problem.startswith("Invalid value"):
        choices = _choices_at(keys, tree)
        if choices:
            return f"expected one of {one_of(choices)}"
    if keys[-1:] == ["function"] and "matching regex" in problem:
        return 'expected "module:name" of a Python function'
    if "matching regex" in problem:
        return 'expected up to 48 letters, digits, ".", "_" and "-", beginning with a letter or digit'
    return problem[0].lower() + problem[1:]


def _type_at(keys: list[str], tree: dict[str, Any]) -> Any:
    """The annotated type at a path of keys; unions of parts are narrowed by the tree's own `kind`."""
    kind: Any = RunSpec
    branch: Any = tree
    for key in keys:
        struct = _struct_of(kind, branch)
        if struct is None:
            return None
        hints = {field.name: field.type for field in msgspec.structs.fields(struct)}
        kind, branch = hints.get(key), branch.get(key, {}) if isinstance(branch, dict) else {}
    return kind


def _struct_of(kind: Any, branch: Any) -> type | None:
    options = [kind, *get_args(kind)]
    parts = [option for option in options if isinstance(option, type) and issubclass(option, Part)]
    tagged = {part.__struct_config__.tag: part for part in parts}
    if len(parts) == 1:
        return parts[0]
    return tagged.get(branch.get("kind")) if isinstance(branch, dict) else None


def _fields_at(keys: list[str], tree: dict[str, Any]) -> list[str]:
    branch: Any = tree
    for key in keys:
        branch = branch.get(key, {}) if isinstance(branch, dict) else {}
    struct = _struct_of(_type_at(keys, tree), branch)
    return [field.name for field in msgspec.structs.fields(struct)] if struct else []


def _choices_at(keys: list[str], tree: dict[str, Any]) -> list[str]:
    """The strings a field accepts: a Literal's values, or the tags of a union of parts."""
    if keys and keys[-1] == "kind":
        parts = [part for part in get_args(_type_at(keys[:-1], tree)) if isinstance(part, type)]
        return [str(part.__struct_config__.tag) for part in parts if issubclass(part, Part)]
    found: list[str] = []
    pending = [_type_at(keys, tree)]
    while pending:
        args = get_args(pending.pop())
        found += [arg for arg in args if isinstance(arg, str)]
        pending += [arg for arg in args if not isinstance(arg, str) and arg is not Ellipsis]
    return found


def _check(spec: RunSpec, where: str) -> None:
    """What types alone cannot say."""
    forms = spec.tracking.predictions
    if len(set(forms)) < len(forms):
        raise UserError(f"{where}: [tracking] predictions = {list(forms)}; each form once, as each has its own columns")
    _check_optimizer(spec, where)
    problem = spec.problem
    if not isinstance(problem, Network):
        return
    if spec.tracking.sharpness_examples > problem.data.examples:
        raise UserError(
            f"{where}: [tracking] sharpness_examples = {spec.tracking.sharpness_examples}; [problem.data] has "
            f"{problem.data.examples} examples, and 0 takes them all"
        )
    if problem.criterion == "logistic" and len(problem.data.classes) != 2:
        raise UserError(f'{where}: [problem] criterion = "logistic" needs two labels in [problem.data] classes')
    if problem.criterion == "cross_entropy" and (len(problem.data.classes) == 2 or problem.data.name == "chebyshev"):
        raise UserError(
            f'{where}: [problem] criterion = "cross_entropy" needs three classes or more; with two use "logistic"'
        )
    if isinstance(problem.model, Transformer):
        if problem.data.name not in TEXTS:
            raise UserError(f'{where}: [problem.model] kind = "transformer" reads token sequences; use data name {one_of(TEXTS)}')
        if problem.model.hidden % problem.model.heads:
            raise UserError(f"{where}: [problem.model] hidden = {problem.model.hidden} is no multiple of heads")
    elif problem.data.name in TEXTS:
        raise UserError(f'{where}: [problem.data] name = "{problem.data.name}" needs [problem.model] kind = "transformer"')
    if isinstance(problem.model, Cnn | ResNet) and problem.data.name == "chebyshev":
        kind = problem.model.__struct_config__.tag
        raise UserError(f'{where}: [problem.model] kind = "{kind}" reads images; "chebyshev" has none')
    if isinstance(problem.model, ResNet):
        for k, width in enumerate(problem.model.widths):
            if width % min(problem.model.groups, width):
                raise UserError(
                    f"{where}: [problem.model] groups = {problem.model.groups} do not divide the {width} channels of widths[{k}]"
                )
    if isinstance(problem.model, Mlp) and problem.model.normalized and min(problem.model.widths, default=2) < 2:
        raise UserError(f"{where}: [problem.model] normalized = true needs widths of 2 or more: one number has no spread")


def _check_optimizer(spec: RunSpec, where: str) -> None:
    optimizer, sharpness_mode = spec.optimizer, spec.tracking.mode == "sharpness"
    if len(set(optimizer.learning_rates)) < len(optimizer.learning_rates):
        raise UserError(f"{where}: [optimizer] learning_rates = {_brief.repr(list(optimizer.learning_rates))}; expected each once")
    steps = [step for step, _ in optimizer.raises]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise UserError(f"{where}: [optimizer] raises at steps {_brief.repr(steps)}; expected each later than the one before")
    if optimizer.schedule == "inverse_sharpness":
        if not sharpness_mode:
            raise UserError(f'{where}: [optimizer] schedule = "inverse_sharpness" needs [tracking] mode = "sharpness"')
        if optimizer.raises:
            raise UserError(f'{where}: [optimizer] raises = …; with schedule = "inverse_sharpness" the learning rate is 1/λ_max, so use []')
    if isinstance(spec.problem, Phase):
        for given, name in (
            (sharpness_mode, '[tracking] mode = "sharpness"'), (optimizer.raises, "[optimizer] raises"),
            (optimizer.weight_decay, "[optimizer] weight_decay"),
        ):
            if given:
                raise UserError(f"{where}: {name} needs a training problem; a phase portrait has none")
