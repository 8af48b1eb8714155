"""A run's specification, read from TOML, changed by `section.field=value` and written down again.

Every unknown key is refused by name, and every value is checked here, before anything is computed or written.
"""

import errno
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import tomli_w
from msgspec.structs import replace

from engine.base import folders, toml
from engine.base.errors import UserError, meant, one_of
from engine.base.files import read_plain
from engine.base.text import is_harmless
from engine.spec.sections import (
    LEAST_RATE,
    LEFT_OUT,
    TEXTS,
    Cnn,
    CoupledTracking,
    Functions,
    GradientDescent,
    Metrics,
    Mlp,
    Network,
    Optimizer,
    Own,
    Phase,
    PresetName,
    ResNet,
    RmsProp,
    RunSpec,
    Section,
    SharpnessTracking,
    ToyK,
    Transformer,
)  # fmt: skip

DEFAULT_PRESET = "fashion"
"""What `demo` runs."""
MAX_SPEC_BYTES = 256 * 1024
RECORDED = "spec.toml"
"""The file that a run has its specification in."""
PLAIN = re.compile(r"(?:LATIN|GREEK) (?:SMALL|CAPITAL) (?:LETTER|LIGATURE) (?:DOTLESS |FINAL )?(SHARP S|[A-Z]{1,7})(?: WITH .*)?\Z")
"""Names of letters that have a way to be written in ASCII: ø as o, œ as oe, η as eta."""
DECOUPLED = (
    "decoupled decay is no part of the loss, so no Hessian shows it and no edge is known for it; expected weight_decay, which adds "
    '(λ/2)‖θ‖² to the loss, with kind = "adam"'
)
METRICS_EXPECTED = 'expected "module:name" of a Python function, under a name of letters, digits and "_"'
MAX_SHOWN = 120
"""Characters of a refused value that an error repeats."""
_NAME_LINE = re.compile(r'name = "([A-Za-z0-9][A-Za-z0-9._-]{0,47})"\n')
_FIRST_SECTION = re.compile(r"^\[", re.MULTILINE)
_brief = reprlib.Repr()  # looks no more than six levels deep into what it shows
_brief.maxlist = _brief.maxdict = 8
_brief.maxother = _brief.maxlong = MAX_SHOWN


def preset_names() -> list[str]:
    """The names of the presets that ship with eos."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("presets").iterdir() if entry.name.endswith(".toml"))


class Words(msgspec.Struct, frozen=True):
    """The words of a preset on itself: its title, what it shows, how long it takes."""

    title: str
    shows: str
    takes: str


class _Named(msgspec.Struct, frozen=True):
    """What is read of a specification for its name alone."""

    name: PresetName


def preset_words(name: str) -> Words:
    """The words of a preset that ships with eos. They stand above its first section: to read and check the whole of every preset
    takes three times as long.
    """
    where, text = _preset_text(name)
    return msgspec.convert(_head(text, where), Words)


def recorded_name(text: str, where: str) -> str:
    """The preset's name in the specification of a run, of which nothing else is read. Raises UserError where there is none."""
    if written := _NAME_LINE.match(text):  # as `to_toml` begins: to read TOML takes three times as long as all else in a list of runs
        return written[1]
    try:
        return msgspec.convert(_head(text, where), _Named).name
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}") from None


def _head(text: str, where: str) -> dict[str, Any]:
    """What stands above the first section."""
    return _parse_toml(_FIRST_SECTION.split(text, maxsplit=1)[0], where)


def preset_text(preset: str) -> str:
    """The preset of this name, or the preset file at this path, as it is written. Raises UserError where there is none."""
    return _preset_text(preset)[1]


def load_spec(preset: str, overrides: list[str] | tuple[str, ...] = ()) -> RunSpec:
    """The preset of this name, or the preset file at this path, with `section.field=value` overrides applied.

    Raises UserError naming what was given, where, and what would do.
    """
    where, text = _preset_text(preset)
    tree = _parse_toml(text, where)
    if Path(preset).name == RECORDED:
        _forget_other_mode(tree)
    tree.setdefault("name", _name_of(preset))
    spec = from_tree(_overridden(tree, overrides), where if not overrides else f"{where} with --set")
    return _beside(spec, preset) if _is_path(preset) else spec


def _is_path(preset: str) -> bool:
    return preset.endswith(".toml") or "/" in preset


def _beside(spec: RunSpec, preset: str) -> RunSpec:
    """The specification, where it names code and no folder: the folder of its own file, if the module lies there."""
    for name in ("problem", "optimizer", "metrics"):
        section = getattr(spec, name)
        if getattr(section, "folder", None) == "":
            functions = section.functions.values() if isinstance(section, Metrics) else [section.function]
            where = folders.absolute(str(Path(preset).parent), preset)
            tops = [where / function.partition(":")[0].partition(".")[0] for function in functions]
            if tops and all(top.with_suffix(".py").is_file() or (top / "__init__.py").is_file() for top in tops):
                spec = replace(spec, **{name: replace(section, folder=str(where))})
    return spec


def load_spec_text(text: str, where: str) -> RunSpec:
    """The specification in TOML `text`; `where` names its origin in errors."""
    return from_tree(_parse_toml(text, where), where)


def load_recorded(text: str, where: str) -> RunSpec:
    """The specification of a run in TOML `text`, by an earlier version too."""
    tree = _parse_toml(text, where)
    _forget_other_mode(tree)
    return from_tree(tree, where)


def _forget_other_mode(tree: dict[str, Any]) -> None:
    """Drop what a specification has in [tracking] that only another mode reads: earlier versions wrote the fields of every mode out."""
    _name_kinds(tree)
    if (chosen := _struct_at(["tracking"], tree)) is not None and isinstance(tracking := tree.get("tracking"), dict):
        for kind in _sections_of(_type_at(["tracking"], tree)):
            _drop(tracking, kind, chosen)


def from_tree(tree: dict[str, Any], where: str) -> RunSpec:
    """The specification in a tree of plain values, checked."""
    _refuse_unwritable(tree, where)
    if isinstance(tree.get("problem"), str):
        tree = tree | {"problem": {"kind": "own", "function": tree["problem"]}}
    tree = dict(tree)
    _name_kinds(tree)
    if "metrics" in tree and not isinstance(tree["metrics"], dict):
        tree["metrics"] = {"functions": named_functions(tree["metrics"], where)}
    _refuse_metrics(tree, where)
    _leave_out_unknown(tree)
    try:
        spec = msgspec.convert(tree, RunSpec)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_explain(str(error), tree)}") from None
    for value in _texts(msgspec.to_builtins(spec)):
        if not is_harmless(value):
            raise UserError(f"{where}: {_shortened(value)!a}: control characters, which a terminal would obey")
    _check(spec, where)
    return spec


def named_functions(given: Any, where: str) -> dict[str, str]:
    """Functions by their own names, from a list of `module:name`. Raises UserError where two have one name, or one is no function's."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        raise UserError(f"{where}: [top level] metrics = {_brief.repr(given)}; {METRICS_EXPECTED}")
    functions: dict[str, str] = {}
    for each in given:
        name = each.rpartition(":")[2]
        if name in functions:
            raise UserError(
                f'{where}: [top level] metrics: "{_shortened(functions[name])}" and "{_shortened(each)}" would both be the column '
                f'metric.{name}; give each a name of its own, [metrics] functions = {{one = "module:{name}", …}}'
            )
        functions[name] = each
    return functions


def _refuse_metrics(tree: dict[str, Any], where: str) -> None:
    """Refuse the first entry of [metrics] functions that is none, by its name: msgspec tells of entries without theirs."""
    section = tree.get("metrics")
    for name, given in (functions if isinstance(section, dict) and isinstance(functions := section.get("functions"), dict) else {}).items():
        try:
            msgspec.convert({name: given}, Functions)
        except msgspec.ValidationError:
            raise UserError(f"{where}: [metrics.functions] {_shortened(str(name))} = {_brief.repr(given)}; {METRICS_EXPECTED}") from None


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


def fields_of(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    """Every field by its path, `section.field`, with its value."""
    return _leaves(msgspec.to_builtins(spec))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def with_overrides(spec: RunSpec, overrides: list[str] | tuple[str, ...]) -> RunSpec:
    """A copy with `section.field=value` overrides applied."""
    return from_tree(_overridden(msgspec.to_builtins(spec), overrides), f"{spec.name} with --set")


def choice_of(field: str) -> str | None:
    """The path of the field of this name that chooses the kind of a section, where there is one such section."""
    kinds = {each.name: _sections_of(each.type) for each in msgspec.structs.fields(RunSpec)}
    paths = [f"{name}.{field}" for name, each in kinds.items() if any(kind.__struct_config__.tag_field == field for kind in each)]
    return paths[0] if len(paths) == 1 else None


def _preset_text(preset: str) -> tuple[str, str]:
    """Where the preset lies, in words, and its text."""
    path = Path(preset)
    if _is_path(preset):
        try:
            return preset, read_plain(path, MAX_SPEC_BYTES, follow=True).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{preset}: not UTF-8 text; a preset is a TOML file") from None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
            raise UserError(f"{_shortened(preset)}: no such preset file; `eos presets` lists the presets by name") from None
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise UserError(f"{preset}: larger than {MAX_SPEC_BYTES // 1024} kB, so not a preset") from None
            raise UserError(f"{_shortened(preset)}: cannot be read ({error.strerror})") from None
    names = preset_names()
    if preset not in names:
        hint = meant(preset, names) or "."
        raise UserError(f'preset "{_shortened(preset)}": not known{hint} Presets: {", ".join(names)}; or the path of a .toml file')
    return f"presets/{preset}.toml", (files("presets") / f"{preset}.toml").read_text(encoding="utf-8")


def _name_of(preset: str) -> str:
    """A name that a run may have, from that of a preset file."""
    stem = Path(preset).stem
    plain = "".join(map(_in_ascii, unicodedata.normalize("NFKC", stem)))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")[:48]
    return name if len(name) > 1 or name == stem else "preset"  # one letter, and not even the file's own, says less


def _in_ascii(letter: str) -> str:
    """A letter without its accents; the name of a Greek one; others as they are."""
    base = unicodedata.normalize("NFD", letter)[0]
    if base.isascii():
        return base
    plain = PLAIN.match(unicodedata.name(base, ""))
    name = "" if plain is None else "ss" if plain[1] == "SHARP S" else plain[1].lower()
    return (name.capitalize() if letter.isupper() else name) or letter


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return toml.loads(text)
    except ValueError as error:  # beside tomllib's own, Python's refusal to read an integer of thousands of digits
        raise UserError(f"{where}: not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid TOML: nested too deeply") from None


def _name_kinds(tree: dict[str, Any]) -> None:
    """Name the kind of each section that may leave it out."""
    for name, section in LEFT_OUT.items():
        if isinstance(tree.get(name), dict):
            config = section.__struct_config__
            tree[name] = {config.tag_field: config.tag} | tree[name]


def _leave_out_unknown(tree: dict[str, Any]) -> None:
    """Have nothing followed at the edge that is not known of the optimizer, where the specification does not ask for it."""
    optimizer, given = _struct_at(["optimizer"], tree), tree.get("tracking", {})
    if optimizer is not None and issubclass(optimizer, Optimizer) and optimizer.unknown and isinstance(given, dict) and (
        given.get("mode", "coupled") == "coupled"
    ):
        tree["tracking"] = {"mode": "coupled"} | dict(optimizer.unknown) | given


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tree with overrides applied, in any order. Where they choose another kind of a section, what the tree has for the kind before
    goes."""
    _name_kinds(tree)
    changes = [(override, *_parsed(override)) for override in overrides]
    for _, keys, value in sorted(changes, key=lambda change: len(change[1])):  # what a section may hold depends on the one around it
        _choose(tree, keys, value)
    for override, keys, value in changes:
        if keys[0] == "metrics" and not isinstance(listed := tree.get("metrics", {}), dict):  # whose section an override may add to
            tree["metrics"] = {"functions": named_functions(listed, f"--set {override}")}
        if keys == ["metrics"] and not isinstance(value, dict):  # the short form, which leaves the rest of the section
            functions = named_functions([value] if isinstance(value, str) else value, f"--set {override}")
            _apply(tree, override, ["metrics", "functions"], functions)
        else:
            _apply(tree, override, keys, value)
    return tree


def _choose(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Where the value at these keys is the kind of a section, drop what the section has for another one."""
    *path, last = keys
    before = _struct_at(path, tree)
    if before is None or before.__struct_config__.tag_field != last:
        return
    chosen = next((kind for kind in _sections_of(_type_at(path, tree)) if kind.__struct_config__.tag == value), None)
    if chosen is not None:
        section = _branch(path, tree)
        _drop(section, before, chosen)
        section[last] = value
        if issubclass(chosen, Optimizer) and isinstance(tracking := tree.get("tracking"), dict):
            for name in chosen.unknown:
                tracking.pop(name, None)


def _drop(section: dict[str, Any], before: type[Section], chosen: type[Section]) -> None:
    """Drop the fields of one kind of a section that another has not."""
    for name in set(before.__struct_fields__) - set(chosen.__struct_fields__):
        section.pop(name, None)


def _parsed(override: str) -> tuple[list[str], Any]:
    """The keys and the value of one `section.field=value`; the value is TOML, or a bare word."""
    path, separator, raw = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise UserError(f'--set {override}: expected section.field=value, as in "optimizer.learning_rate=0.05"')
    try:
        parsed = toml.loads(f"value = {raw}")
        value = parsed["value"] if len(parsed) == 1 else raw.strip()  # a second line would set a second key
    except (ValueError, RecursionError):
        value = raw.strip()
    return keys, value


def _apply(tree: dict[str, Any], override: str, keys: list[str], value: Any) -> None:
    """Set the value at these keys of the tree."""
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
        if keys == ["optimizer"] and "decoupled" in unknown:
            return f"[optimizer] {unknown}: {DECOUPLED}"
        if other := _kind_with(unknown, keys, tree):
            return f"[{'.'.join(keys)}] {unknown}: {other}"
        hint = meant(unknown, known) or f"; expected one of {one_of(known)}"
        return f'[{".".join(keys) or "top level"}] {unknown}: unknown key{hint}'
    if problem.startswith("Object missing required field"):
        return f'[{".".join(keys) or "top level"}] {problem.split("`")[1]}: missing, and it has no default'
    if keys == ["optimizer", "kind"] and given in ("adamw", "nadamw"):
        return f'[optimizer] kind = "{given}": {DECOUPLED}'
    shown = _brief.repr(given) if not isinstance(given, str) else f'"{_shortened(given)}"'
    return f"[{section or 'top level'}] {field} = {shown}; {_expectation(problem, keys, tree)}"


def _shortened(text: str) -> str:
    """The text, cut and marked with … where it is too long for an error to repeat."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _expectation(problem: str, keys: list[str], tree: dict[str, Any]) -> str:
    """The values that a field accepts: the choices of a closed set, else msgspec's own words."""
    if problem.startswith("Invalid enum value") or problem.startswith("Invalid value"):
        choices = _choices_at(keys, tree)
        if choices:
            either = ", or true or false" if bool in get_args(_type_at(keys, tree)) else ""
            return f"expected one of {one_of(choices)}{either}"
    if keys[-1:] == ["function"] and "matching regex" in problem:
        return 'expected "module:name" of a Python function'
    if "matching regex" in problem:
        return 'expected up to 48 letters, digits, ".", "_" and "-", beginning with a letter or digit'
    return problem[0].lower() + problem[1:]


def _type_at(keys: list[str], tree: dict[str, Any]) -> Any:
    """The annotated type at a path of keys; unions of sections are narrowed by the kinds that the tree names."""
    kind: Any = RunSpec
    branch: Any = tree
    for key in keys:
        struct = _struct_of(kind, branch)
        if struct is None:
            return None
        hints = {field.name: field.type for field in msgspec.structs.fields(struct)}
        kind, branch = hints.get(key), branch.get(key, {}) if isinstance(branch, dict) else {}
    return kind


def _struct_of(kind: Any, branch: Any) -> type[Section] | None:
    """Which of the sections that a field may hold a branch is."""
    sections = _sections_of(kind)
    if len(sections) == 1:
        return sections[0]
    configs = [section.__struct_config__ for section in sections]
    return next(
        (section for section, config in zip(sections, configs, strict=True)
         if isinstance(branch, dict) and branch.get(str(config.tag_field)) == config.tag), None,
    )  # fmt: skip


def _struct_at(keys: list[str], tree: dict[str, Any]) -> type[Section] | None:
    """Which section the tree has at these keys."""
    return _struct_of(_type_at(keys, tree), _branch(keys, tree))


def _branch(keys: list[str], tree: dict[str, Any]) -> Any:
    branch: Any = tree
    for key in keys:
        branch = branch.get(key, {}) if isinstance(branch, dict) else {}
    return branch


def _sections_of(kind: Any) -> list[type[Section]]:
    """The sections that a field may hold."""
    return [option for option in (kind, *get_args(kind)) if isinstance(option, type) and issubclass(option, Section)]


def _fields_at(keys: list[str], tree: dict[str, Any]) -> list[str]:
    struct = _struct_at(keys, tree)
    return list(struct.__struct_fields__) if struct else []


def _kind_with(field: str, keys: list[str], tree: dict[str, Any]) -> str:
    """What would do for a field that only other kinds of a section have; empty where none has it."""
    struct = _struct_at(keys, tree)
    others = [kind.__struct_config__ for kind in _sections_of(_type_at(keys, tree)) if field in kind.__struct_fields__]
    if struct is None or not others:
        return ""
    mine, choices = struct.__struct_config__, " or ".join(f'"{other.tag}"' for other in others)
    return f'no key of {mine.tag_field} = "{mine.tag}"; leave it out, or use {mine.tag_field} = {choices}'


def _choices_at(keys: list[str], tree: dict[str, Any]) -> list[str]:
    """The strings a field accepts: a Literal's values, or the tags of a union of sections."""
    configs = [section.__struct_config__ for section in _sections_of(_type_at(keys[:-1], tree))] if keys else []
    if any(config.tag_field == keys[-1] for config in configs):
        return [str(config.tag) for config in configs]
    choices: list[str] = []
    pending = [_type_at(keys, tree)]
    while pending:
        args = get_args(pending.pop())
        choices += [arg for arg in args if isinstance(arg, str)]
        pending += [arg for arg in args if not isinstance(arg, str) and arg is not Ellipsis]
    return choices


def _check(spec: RunSpec, where: str) -> None:
    """Raise UserError for values that each have the right type and do not go together."""
    forms = spec.tracking.predictions
    if len(set(forms)) < len(forms):
        raise UserError(f"{where}: [tracking] predictions = {list(forms)}; each form once, as each has its own columns")
    _check_optimizer(spec, where)
    _check_batch(spec, where)
    _check_recording(spec, where)
    if spec.precision.products != "float64" and not spec.computes_in_float64:
        raise UserError(f'{where}: [precision] products = "{spec.precision.products}"; nothing is computed in float64 here')
    problem = spec.problem
    if isinstance(problem, ToyK):
        _check_starts(problem, where)
    if isinstance(problem, Own) and problem.readings and not isinstance(spec.tracking, SharpnessTracking):
        raise UserError(
            f'{where}: [problem] readings = {list(problem.readings)} needs [tracking] mode = "sharpness"; in every mode a function under '
            "[metrics] is read"
        )
    if not isinstance(problem, Network):
        return
    wanted = spec.tracking.sharpness_examples if isinstance(spec.tracking, SharpnessTracking) else 0
    if wanted > problem.data.examples:
        raise UserError(
            f"{where}: [tracking] sharpness_examples = {wanted}; [problem.data] has {problem.data.examples} examples, and 0 takes them all"
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


def _check_starts(problem: ToyK, where: str) -> None:
    count = len(problem.covariance)
    for name, given in (("x0", problem.x0), ("y0", problem.y0)):
        if len(given) not in (1, count):
            raise UserError(f"{where}: [problem] {name} = {list(given)}; expected one number, or as many as covariance has, {count}")


def _check_recording(spec: RunSpec, where: str) -> None:
    part = spec.recording
    if len(set(part.snapshots)) < len(part.snapshots):
        raise UserError(f"{where}: [recording] snapshots = {_brief.repr(list(part.snapshots))}; expected each once")
    if isinstance(spec.problem, Phase) and (part.snapshots_every or part.projections):
        name = "snapshots_every" if part.snapshots_every else "projections"
        raise UserError(f"{where}: [recording] {name} needs a training problem; a phase portrait has no parameters")
    if part.snapshots_every and "constrained" in part.snapshots and not isinstance(spec.tracking, CoupledTracking):
        raise UserError(f'{where}: [recording] snapshots = "constrained" needs [tracking] mode = "coupled": θ† is followed there alone')


def _check_batch(spec: RunSpec, where: str) -> None:
    size, problem, optimizer = spec.batch.size, spec.problem, spec.optimizer
    if not size:
        return
    given = f"{where}: [batch] size = {size}"
    if not isinstance(problem, Network | Own):
        kind = problem.__struct_config__.tag
        raise UserError(f'{given}: [problem] kind = "{kind}" has no examples to take a batch of; use 0')
    if not optimizer.batched:
        kind = optimizer.__struct_config__.tag
        raise UserError(
            f'{given}: not with [optimizer] kind = "{kind}": what its batches have to be read against is known for gradient descent and '
            "momentum alone; use 0, or one of these"
        )
    if not isinstance(spec.tracking, SharpnessTracking):
        raise UserError(
            f'{given} needs [tracking] mode = "sharpness": θ†, its predictions and its flows are those of steps on all examples'
        )
    if isinstance(problem, Network) and size > problem.data.examples:
        raise UserError(f"{given}; [problem.data] has {problem.data.examples} examples, and 0 takes them all")


def _check_optimizer(spec: RunSpec, where: str) -> None:
    optimizer, sharpness_mode = spec.optimizer, isinstance(spec.tracking, SharpnessTracking)
    if len(set(optimizer.learning_rates)) < len(optimizer.learning_rates):
        raise UserError(f"{where}: [optimizer] learning_rates = {_brief.repr(list(optimizer.learning_rates))}; expected each once")
    if (least := min([optimizer.learning_rate, *optimizer.learning_rates, *(eta for _, eta in optimizer.raises)])) < LEAST_RATE:
        raise UserError(f"{where}: [optimizer] a learning rate of {least:g}; expected {LEAST_RATE:g} or more, for 2/η to be a number")
    steps = [step for step, _ in optimizer.raises]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise UserError(f"{where}: [optimizer] raises at steps {_brief.repr(steps)}; expected each later than the one before")
    if optimizer.schedule == "inverse_sharpness":
        if not sharpness_mode:
            raise UserError(f'{where}: [optimizer] schedule = "inverse_sharpness" needs [tracking] mode = "sharpness"')
        if optimizer.raises:
            raise UserError(f'{where}: [optimizer] raises = …; with schedule = "inverse_sharpness" the learning rate is 1/λ_max, so use []')
    plain, kind = isinstance(optimizer, GradientDescent), f'[optimizer] kind = "{optimizer.__struct_config__.tag}"'
    if not optimizer.coupled and not sharpness_mode:
        raise UserError(
            f'{where}: {kind} needs [tracking] mode = "sharpness": θ† and its predictions are those of gradient descent and momentum'
        )
    if not plain and optimizer.schedule == "inverse_sharpness":
        raise UserError(f'{where}: {kind}; schedule = "inverse_sharpness" is of gradient descent alone, where 1/λ_max is half its edge')
    if isinstance(spec.tracking, SharpnessTracking) and spec.tracking.central_from and not isinstance(optimizer, RmsProp):
        raise UserError(
            f'{where}: [tracking] central_from = {spec.tracking.central_from}; with {kind} expected 0: it is that of "rmsprop", and the '
            'central flow of gradient descent is tracking.flow = "central" with mode = "coupled"'
        )
    for name, only in optimizer.unknown.items() if isinstance(spec.tracking, CoupledTracking) else ():
        given = getattr(spec.tracking, name)
        if given not in (only, False):
            raise UserError(
                f"{where}: [tracking] {name} = {_brief.repr(given)}; with {kind} expected {_brief.repr(only)}: it is known of gradient "
                f"descent alone"
            )
    if spec.tracking.eigenvalues < 2 and not sharpness_mode:
        raise UserError(f'{where}: [tracking] eigenvalues = 1; expected 2 or more, or mode = "sharpness"')
    if isinstance(spec.problem, Phase):
        for given, name in (
            (not plain, kind),
            (sharpness_mode, '[tracking] mode = "sharpness"'), (optimizer.raises, "[optimizer] raises"),
            (optimizer.weight_decay, "[optimizer] weight_decay"), (spec.metrics.functions, "[metrics] functions"),
        ):
            if given:
                raise UserError(f"{where}: {name} needs a training problem; a phase portrait has none")
