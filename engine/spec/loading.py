"""A run's specification, read from TOML, changed by `section.field=value` and written down again.

Every unknown key is refused by name, and every value is checked here, before anything is computed or written.
"""

import difflib
import errno
import re
import reprlib
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import tomli_w

from engine.base import toml
from engine.base.errors import UserError, one_of
from engine.base.files import read_plain
from engine.base.text import is_harmless
from engine.spec.sections import TEXTS, Cnn, Mlp, Network, Part, Phase, ResNet, RunSpec, Transformer

DEFAULT_PRESET = "fashion"
"""What `demo` runs."""
MAX_SPEC_BYTES = 256 * 1024
PLAIN = re.compile(r"(?:LATIN|GREEK) (?:SMALL|CAPITAL) (?:LETTER|LIGATURE) (?:DOTLESS |FINAL )?(SHARP S|[A-Z]{1,7})(?: WITH .*)?\Z")
"""Names of letters that have a way to be written in ASCII: ø as o, œ as oe, η as eta."""
MAX_SHOWN = 120
"""Characters of a refused value that an error repeats."""
_brief = reprlib.Repr()  # looks no more than six levels deep into what it shows
_brief.maxlist = _brief.maxdict = 8
_brief.maxother = _brief.maxlong = MAX_SHOWN


def preset_names() -> list[str]:
    """The names of the presets that ship with eos."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("presets").iterdir() if entry.name.endswith(".toml"))


class Words(msgspec.Struct, frozen=True):
    """What a preset says of itself."""

    title: str
    shows: str
    takes: str


def preset_words(name: str) -> Words:
    """The words of a preset that ships with eos. They stand above its first section: to read and check the whole of every preset
    takes three times as long.
    """
    where, text = _preset_text(name)
    return msgspec.convert(_parse_toml(re.split(r"^\[", text, maxsplit=1, flags=re.MULTILINE)[0], where), Words)


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
    tree = msgspec.to_builtins(spec)
    for override in overrides:
        _apply(tree, override)
    return from_tree(tree, f"{spec.name} with --set")


def _preset_text(preset: str) -> tuple[str, str]:
    """Where the preset lies, in words, and its text."""
    path = Path(preset)
    if preset.endswith(".toml") or "/" in preset:
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
        near = difflib.get_close_matches(preset, names, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "."
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
    found = PLAIN.match(unicodedata.name(base, ""))
    name = "" if found is None else "ss" if found[1] == "SHARP S" else found[1].lower()
    return (name.capitalize() if letter.isupper() else name) or letter


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return toml.loads(text)
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
        parsed = toml.loads(f"value = {raw}")
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
    if spec.tracking.eigenvalues < 2 and not sharpness_mode:
        raise UserError(f'{where}: [tracking] eigenvalues = 1; expected 2 or more, or mode = "sharpness"')
    if isinstance(spec.problem, Phase):
        for given, name in (
            (sharpness_mode, '[tracking] mode = "sharpness"'), (optimizer.raises, "[optimizer] raises"),
            (optimizer.weight_decay, "[optimizer] weight_decay"),
        ):
            if given:
                raise UserError(f"{where}: {name} needs a training problem; a phase portrait has none")
