"""The reference of the scripting interface, as Markdown, from the signatures and docstrings of what `import engine` offers."""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import engine

FIELD = re.compile(r"^    ([a-z]\w*): [^#\n]+(?:# (.+))?$", re.MULTILINE)
NAME = re.compile(r"`(?:engine\.)?([A-Za-z_]+)`")


def markdown() -> str:
    """Every name of the interface with a list of contents; a name in backticks leads to its own section."""
    entries = {name: getattr(engine, name) for name in (*engine.SCRIPTING, "theory")}
    parts = [
        "# `import engine`", inspect.getdoc(engine) or "", "\n".join(f"- [`{name}`](#{anchor(name)})" for name in entries),
        *(section(name, value, set(entries)) for name, value in entries.items()),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def anchor(name: str) -> str:
    """The anchor that a heading `engine.name` has."""
    return f"engine{name.lower()}"


def section(name: str, value: Any, known: set[str]) -> str:
    """A heading, a signature, the docstring, and the public members of a class or module."""
    where = value.__name__ if isinstance(value, ModuleType) else value.__module__
    parts = [f"## `engine.{name}`", f"From `{where}`."]
    if not isinstance(value, ModuleType):
        parts.append(f"```python\n{name}{signature(value)}\n```")
    parts.append(linked(inspect.getdoc(value) or "", known - {name}))
    members = [f"- `{field}`{words and f': {words}'}" for field, words in fields(value)]
    members += [f"- `{name}{signature(member)}`: {linked(first_line(member), known)}" for name, member in public(value)]
    return "\n\n".join([*parts, *(["\n".join(members)] if members else [])])


def fields(value: Any) -> list[tuple[str, str]]:
    """The fields of a NamedTuple with what is said beside each: shapes, symbols."""
    return FIELD.findall(inspect.getsource(value)) if inspect.isclass(value) and hasattr(value, "_fields") else []


def public(value: Any) -> Iterator[tuple[str, Any]]:
    """The documented members of a class, or functions of a module, that are its own."""
    if inspect.isclass(value):
        named = set(getattr(value, "_fields", ()))
        yield from ((name, member) for name, member in vars(value).items() if name not in named and name[0] != "_" and first_line(member))
    elif isinstance(value, ModuleType):
        own = (pair for pair in vars(value).items() if f"{getattr(pair[1], '__module__', '')}.".startswith(f"{value.__name__}."))
        yield from ((name, member) for name, member in own if not name.startswith("_") and callable(member) and first_line(member))


def signature(value: Any) -> str:
    """`(a, b=1) -> c`, modules of types left out; nothing for what cannot be called."""
    try:
        text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", str(inspect.signature(value)))
        return re.sub(r"(?<=-> )'([^']*)'", r"\1", text)
    except (TypeError, ValueError):
        return ""


def first_line(value: Any) -> str:
    """The first line of a docstring that is a value's own."""
    return (getattr(value, "__doc__", None) or "").strip().partition("\n")[0] if not isinstance(value, str | int | float | dict) else ""


def linked(text: str, known: set[str]) -> str:
    """The text with the names of the interface as links to their sections; code blocks stay as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith("    ")
        else NAME.sub(lambda match: f"[`{match[1]}`](#{anchor(match[1])})" if match[1] in known else match[0], paragraph)
        for paragraph in paragraphs
    )
