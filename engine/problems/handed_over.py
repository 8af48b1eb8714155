"""What a script or a notebook hands over as it is: problems and functions that no file holds, known by a name in this process alone.

A specification names them as it names any function, `engine.problems.handed_over:NAME`; elsewhere, and later, that name says so.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from engine.base.errors import UserError

_objects: dict[str, Any] = {}


class Named(NamedTuple):
    """A function as a specification names it."""

    function: str
    """`module:name`."""
    folder: str
    """Where the module lies; empty where no file holds the function."""


def hand_over(function: Callable[..., Any], name: str) -> Named:
    """A name for a function in this process, with some of `name` in it."""
    readable = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:40] or "function"
    known = f"{readable if readable[:1].isalpha() else f'function_{readable}'}_{token_hex(4)}"
    _objects[known] = function
    return Named(f"{__name__}:{known}", "")


def named(function: Callable[..., Any]) -> Named:
    """A function by the module and name that any process finds it by, or else handed over."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    loaded = sys.modules.get(module or "")
    file = getattr(loaded, "__file__", None)
    if module and module != "__main__" and file and name.isidentifier() and getattr(loaded, name, None) is function:
        inner = module.count(".") + (Path(file).name == "__init__.py")
        return Named(f"{module}:{name}", str(Path(file).absolute().parents[inner]))
    return hand_over(function, getattr(function, "__name__", type(function).__name__))


def is_handed_over(function: str) -> bool:
    """Whether a specification's `module:name` is of this process alone."""
    return function.startswith(f"{__name__}:")


def __getattr__(name: str) -> Any:
    if name in _objects:
        return _objects[name]
    if name.startswith("__"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    raise UserError(
        f"{name}: was handed over in Python, to a process that is gone or another one; run it there again, or put it into a file and name "
        f"that: problem = \"my_module:make_problem\", metrics = [\"my_module:name\"]"
    )
