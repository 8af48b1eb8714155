"""Code that a specification names: a Python function of the user's own, imported by the engine that runs the specification, and called."""

import importlib
import inspect
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from engine import spec as specs
from engine.base import folders
from engine.base.errors import UserError, first_line

Named = specs.Own | specs.OwnOptimizer


def call(part: Named, section: str, **more: Any) -> Any:
    """What the function that a section names returns, called with its arguments, and with those of `more` that it takes. Imports and runs
    the code. Raises UserError where that fails."""
    name, _, attribute = part.function.partition(":")
    folder = str(folders.absolute(part.folder, f"[{section}] folder")) if part.folder else ""
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(name)
        _refuse_namesake(part, module, folder, section)
        function = getattr(module, attribute)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        where, top = f"{folder} or " if folder else "", name.partition(".")[0]
        lies = f"{top} is that of {origin(sys.modules[top])}" if top in sys.modules else f"[{section}] folder says where it lies"
        raise UserError(f"{part.function}: no module {error.name} in {where}Python's path; {lies}") from None
    except AttributeError as error:
        if getattr(error, "obj", None) is not sys.modules.get(name):
            raise UserError(failed(part, error)) from error
        raise UserError(f"{part.function}: module {name} has no {attribute} ({origin(sys.modules[name])})") from None
    except Exception as error:  # whatever the code of others raises
        raise UserError(failed(part, error)) from error
    arguments = dict(part.arguments)
    try:
        accepted = inspect.signature(function).parameters
        arguments |= {name: value for name, value in more.items() if name in accepted and name not in arguments}
        inspect.signature(function).bind(**arguments)
    except (TypeError, ValueError) as error:
        given = f"[{section}.arguments] {', '.join(arguments) or '(none)'}"
        raise UserError(f"{part.function}: does not take {given}: {error} ({origin(module)})") from None
    try:
        return function(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(failed(part, error)) from error


def source(part: Named) -> dict[str, str]:
    """The file that the function was imported from, and the sum of its source: a module's name alone says little. What it computes is
    compared by numbers (`loss_identity`)."""
    file = getattr(sys.modules.get(part.function.partition(":")[0]), "__file__", None)
    if file is None:
        return {}
    try:
        return {"file": str(file), "source_sha256": sha256(Path(file).read_bytes()).hexdigest()}
    except OSError:  # in an archive, say
        return {"file": str(file)}


def _refuse_namesake(part: Named, module: ModuleType, folder: str, section: str) -> None:
    """Raise UserError where the folder holds a module of this name and Python gave another: its own, or one that was imported before."""
    top, *inner = module.__name__.split(".")
    base = Path(folder, top, *inner)
    meant = [file for file in (base.with_suffix(".py"), base / "__init__.py") if folder and file.is_file()]
    given = getattr(module, "__file__", None)
    if meant and not (given and any(file.samefile(given) for file in meant if Path(given).exists())):
        raise UserError(
            f"{part.function}: Python imported {origin(module)}, not {meant[0]}: its own path goes before [{section}] folder, and what is "
            f"imported already before both; give the file another name"
        )


def origin(module: ModuleType) -> str:
    """Where a module comes from, in words."""
    return getattr(module, "__file__", None) or f"{module.__name__}, which is built into Python"


def origin_of(part: Named) -> str:
    """Where the module of a function that was called comes from, in words."""
    return origin(sys.modules[part.function.partition(":")[0]])


def failed(part: Named, error: Exception) -> str:
    """That the code of others failed, how, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    return f"{part.function}: fails: {first_line(error)} ({where[0]}, line {where[1]})"
