"""Every setting of a run, from the parts of its specification: its values, its default, and the words under the field in the source."""

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from engine.help.catalog import Section
from engine.spec import RunSpec
from engine.spec import Section as SpecSection
from engine.spec.sections import LEFT_OUT

LARGEST = 1e9
"""From here on a bound keeps numbers finite, and is no part of what a setting means."""


def sections() -> list[Section]:
    """A section for each part of the specification; several share a name where one of several kinds is chosen."""
    return list(_sections(RunSpec, "", {}))


def _sections(struct: type[SpecSection], path: str, chosen: dict[str, str]) -> Iterator[Section]:
    """The section of a part, then those of the parts within it. `chosen`: the kinds that lead here, by the field that chooses them."""
    texts, inner, entries = documented(struct), list[tuple[str, type[SpecSection]]](), list[tuple[str, str]]()
    kind, field_of_kind = struct.__struct_config__.tag, f"{path}.{struct.__struct_config__.tag_field}"
    if isinstance(kind, str):
        chosen = chosen | {field_of_kind: kind}
        default = ", which may be left out" if LEFT_OUT.get(path) is struct else ""
        entries.append((field_of_kind, f" = `{shown(kind)}`{default}: chooses this section."))
    for field in msgspec.structs.fields(struct):
        where = f"{path}.{field.name}".lstrip(".")
        if parts := [one for one in alternatives(field.type) if isinstance(one, type) and issubclass(one, SpecSection)]:
            inner += [(where, part) for part in parts]
            continue
        default = ", required" if field.required else f" = `{shown(default_of(field))}`"
        entries.append((where, f"{default} ({values(field.type)}): {texts[field.name]}"))
    kinds = " and ".join(f'`{at} = "{name}"`' for at, name in chosen.items())
    words = f"{inspect.getdoc(struct)} {kinds and f'With {kinds}.'}"
    heading = f"`[{path}]`" + (f", {kind}" if isinstance(kind, str) else "") if path else "Before the first section"
    yield Section(path or "run", heading, " ".join(words.split()), tuple(entries))
    for where, part in inner:
        yield from _sections(part, where, chosen)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; anything else alone."""
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


@cache
def classes_of(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module as its source has them, which is read once."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def documented(struct: type) -> dict[str, str]:
    """The words under each field of a class and of those that it inherits from, from their source."""
    classes = [base for base in reversed(struct.__mro__) if base is not SpecSection and issubclass(base, SpecSection)]
    bodies = [classes_of(base.__module__)[base.__name__].body for base in classes]
    return {
        field.target.id: " ".join(below.value.value.split())
        for body in bodies for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }  # fmt: skip


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """What a field is where it is not given."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def shown(value: Any) -> str:
    """A value as a specification says it."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


def values(annotation: Any, bounds: Sequence[Meta] = ()) -> str:
    """What a setting may be, in words, from the annotation of its field."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(inner[0], [meta for meta in inner[1:] if isinstance(meta, Meta)])
    if origin is Literal:
        return " or ".join(f"`{shown(choice)}`" for choice in inner)
    if origin in (Union, UnionType):
        return ", or ".join(map(values, inner))
    if origin is tuple:
        if inner[-1] is not Ellipsis:
            return f"list of {len(inner)}: {', '.join(map(values, inner))}"
        most = next((meta.max_length for meta in bounds if meta.max_length), None)
        least = next((meta.min_length for meta in bounds if meta.min_length), None)
        return f"list{f' of {least} to {most}' if least else f' of up to {most}' if most else ''}, each {values(inner[0])}"
    if origin is dict:
        return "table"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation] + "".join(map(_bounds, bounds))


def _bounds(meta: Meta) -> str:
    """The bounds that mean something."""
    below = f" above {meta.gt:g}" if meta.gt is not None else f" from {meta.ge:g}" if meta.ge is not None and meta.ge > -LARGEST else ""
    above = f", at most {meta.le:g}" if meta.le is not None and meta.le < LARGEST else ""
    return below + above + (f", at most {meta.max_length} letters" if meta.max_length else "")
