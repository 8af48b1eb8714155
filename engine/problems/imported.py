"""Code that a specification names: a Python function of the user's own, imported by the engine that runs the specification, and called."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from engine import spec as specs
from engine.base import folders
from engine.base.errors import UserError, first_line
from engine.problems.handed_over import is_handed_over

Named = specs.Own | specs.OwnOptimizer


def function_of(named: str, place: str, section: str) -> Callable[..., Any]:
    """The function `module:name`, its module looked for in Python's path, then in the folder `place` that a section names. Imports the
    module. Raises UserError where that fails."""
    name, _, attribute = named.partition(":")
    folder = str(folders.absolute(place, f"[{section}] folder")) if place else ""
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(name)
        _refuse_namesake(named, module, folder, section)
        return getattr(module, attribute)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        where, top = f"{folder} or " if folder else "", name.partition(".")[0]
        lies = f"{top} is that of {origin(sys.modules[top])}" if top in sys.modules else f"[{section}] folder says where it lies"
        raise UserError(f"{named}: no module {error.name} in {where}Python's path; {lies}") from None
    except AttributeError as error:
        if getattr(error, "obj", None) is not sys.modules.get(name):
            raise UserError(failed(named, error)) from error
        if name == "__main__":
            raise UserError(f"{named}: of the script or notebook that made the run, and this process is another; run it there") from None
        raise UserError(f"{named}: module {name} has no {attribute} ({origin(sys.modules[name])})") from None
    except Exception as error:  # whatever the code of others raises
        raise UserError(failed(named, error)) from error


def call(part: Named, section: str, **more: Any) -> Any:
    """What the function that a section names returns, called with its arguments, and with those of `more` that it takes. Imports and runs
    the code. Raises UserError where that fails."""
    function = function_of(part.function, part.folder, section)
    arguments = dict(part.arguments)
    try:
        accepted = inspect.signature(function).parameters
        arguments |= {name: value for name, value in more.items() if name in accepted and name not in arguments}
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        given = f"[{section}.arguments] {', '.join(arguments) or '(none)'}"
        raise UserError(f"{part.function}: does not take {given}: {error} ({origin_of(part)})") from None
    try:
        return function(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(failed(part.function, error)) from error


def source(part: Named) -> dict[str, str]:
    """The file that the function was imported from, and the sum of its source: a module's name alone says little. What it computes is
    compared by numbers (`loss_identity`)."""
    file = getattr(sys.modules.get(part.function.partition(":")[0]), "__file__", None)
    if file is None or is_handed_over(part.function):
        return {}
    try:
        return {"file": str(file), "source_sha256": sha256(Path(file).read_bytes()).hexdigest()}
    except OSError:  # in an archive, say
        return {"file": str(file)}


def _refuse_namesake(named: str, module: ModuleType, folder: str, section: str) -> None:
    """Raise UserError where the folder holds a module of this name and Python gave another: its own, or one that was imported before."""
    top, *inner = module.__name__.split(".")
    base = Path(folder, top, *inner)
    meant = [file for file in (base.with_suffix(".py"), base / "__init__.py") if folder and file.is_file()]
    given = getattr(module, "__file__", None)
    if meant and not (given and any(file.samefile(given) for file in meant if Path(given).exists())):
        raise UserError(
            f"{named}: Python imported {origin(module)}, not {meant[0]}: its own path goes before [{section}] folder, and what is "
            f"imported already before both; give the file another name"
        )


def origin(module: ModuleType) -> str:
    """Where a module comes from, in words."""
    return getattr(module, "__file__", None) or f"{module.__name__}, which is built into Python"


def origin_of(part: Named) -> str:
    """Where the module of a function that was called comes from, in words."""
    return origin(sys.modules[part.function.partition(":")[0]])


def failed(named: str, error: Exception) -> str:
    """That the code of others failed, how, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    return f"{named}: fails: {first_line(error)} ({where[0]}, line {where[1]})"
