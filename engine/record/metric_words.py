"""What a quantity of the user's own says of itself: the first line of its function's docstring, read without executing anything."""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.base.files import read_plain
from engine.base.text import harmless
from engine.record.columns import METRIC, Column
from engine.spec import Metrics

MOST_BYTES = 4 << 20
"""Of a module that is looked into."""
MOST_LETTERS = 120


def described(columns: Sequence[Column], section: Metrics) -> tuple[Column, ...]:
    """The columns, those of the user's own quantities in the words of their functions, where these have any."""
    words = {f"{METRIC}{name}": words_of(function, section.folder) for name, function in section.functions.items()}
    return tuple(column._replace(words=words.get(column.name) or column.words) for column in columns)


def words_of(function: str, folder: str) -> str:
    """The first line of the docstring of `module:name`; empty where there is none to be read."""
    module, _, name = function.partition(":")
    if module in sys.modules:  # as `__main__` is, of which no file may tell
        text = getattr(getattr(sys.modules[module], name, None), "__doc__", None)
    else:
        text = next((doc for file in _files(module, folder) if (doc := _docstring(file, name)) is not None), None)
    line = text.strip().partition("\n")[0].strip() if isinstance(text, str) else ""
    return harmless(line)[:MOST_LETTERS].rstrip(".")


def _files(module: str, folder: str) -> Iterator[Path]:
    """Where the module may lie: in Python's path, then in the folder."""
    for where in [*sys.path, *([folder] if folder else [])]:
        base = Path(where, *module.split("."))
        yield from (base.with_suffix(".py"), base / "__init__.py")


def _docstring(file: Path, name: str) -> str | None:
    """The docstring of a function at the top of a file; None where there is no such file, or no such function in it."""
    try:
        tree = ast.parse(read_plain(file, MOST_BYTES, follow=True))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return next((ast.get_docstring(each) or "" for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name), None)
