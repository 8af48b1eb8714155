"""The example scripts that come with eos: shown by `help examples`, and copied from there."""

import ast
from importlib.resources import files
from pathlib import Path

from engine.base.atomic import output
from engine.base.errors import UserError, meant, one_of
from engine.help.catalog import Section


def names() -> list[str]:
    """The names of the examples."""
    return sorted(entry.name.removesuffix(".py") for entry in _folder().iterdir() if entry.name.endswith(".py"))


def source(name: str) -> str:
    """The text of an example."""
    return (_folder() / f"{name}.py").read_text(encoding="utf-8")


def words(name: str) -> str:
    """What an example is of."""
    return (ast.get_docstring(ast.parse(source(name))) or "").partition("\n")[0]


def sections() -> list[Section]:
    """An example each, to be shown alone."""
    return [Section(name, f"{name}.py", f"```python\n{source(name).rstrip()}\n```", ()) for name in names()]


def listing() -> str:
    """A line for each example."""
    return "\n".join(f"- `{name}`: {words(name)}" for name in names())


def copy(folder: Path, chosen: str | None = None) -> list[Path]:
    """Write the example of this name into a folder, or all of them. Raises UserError for a name that is none, and for a file that is there
    already."""
    if chosen is not None and chosen not in names():
        raise UserError(f"{chosen[:80]}: no such example{meant(chosen, names())}; expected one of {one_of(names())}")
    written = []
    for name in names() if chosen is None else [chosen]:
        folder.mkdir(parents=True, exist_ok=True)
        with output(folder / f"{name}.py") as handle:
            handle.write(source(name).encode())
        written.append(folder / f"{name}.py")
    return written


def _folder():
    return files(__package__) / "examples"
