"""Where eos keeps things: one rule for every folder and file that the environment or a user names.

A leading `~` is the home folder, what is relative counts from the current folder, and the answer is absolute: an engine works elsewhere
than the command that starts it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from engine.base.errors import UserError

VARIABLES = ("EOS_HOME", "EOS_CACHE", "EOS_CONFIG")
"""What the environment may name."""


def absolute(text: str, of: str) -> Path:
    """The place that a text names; `of` says in an error what it is the place of. Raises UserError where `~` or the current folder is
    none: then a folder called `~` would be made.
    """
    known = os.path.expanduser(text)  # noqa: PTH111  Path.expanduser raises where there is no home folder
    if known.startswith("~"):
        nobody = "this user has no home folder: HOME is not set, and the system does not know the user" if text[1:2] in ("", "/") else (
            f"no user is called {text[1:].partition('/')[0]}; a folder of that name is ./{text}")
        raise UserError(f"{of}: {text}: {nobody}; give an absolute path in {of.split(maxsplit=1)[0]}")
    try:
        return Path(known).absolute()
    except OSError as error:
        raise UserError(f"{of}: {text}: counts from the current folder, which is gone ({error.strerror}); give an absolute path") from None


def of(variable: str, platform: Callable[[str], str], name: str) -> Path:
    """The place that a variable of the environment names, else the platform's of this name. An empty variable names none."""
    if given := os.environ.get(variable):
        return absolute(given, variable)
    try:
        known = platform(name)
    except RuntimeError:  # where the user has no home folder, platformdirs says so itself, or leaves its ~
        known = "~"
    return absolute(known, f"{variable} is not set, and the platform's folder")


def data() -> Path:
    """The folder of all runs: `$EOS_HOME`, else the platform's user data folder."""
    return of("EOS_HOME", platformdirs.user_data_dir, "eos")


def cache() -> Path:
    """The folder of compiled code: `$EOS_CACHE`, else the platform's."""
    return of("EOS_CACHE", platformdirs.user_cache_dir, "eos")


def pictures(given: str = "") -> Path:
    """The folder of pictures given, else eos in the platform's."""
    if given:
        return absolute(given, "[view] pictures")
    try:
        known = platformdirs.user_pictures_dir()
    except RuntimeError:  # this user has no home folder
        known = "~"
    return absolute(known, "the platform's folder of pictures") / "eos"


def settings() -> Path:
    """The file of settings: `$EOS_CONFIG`, else in the platform's folder for settings."""
    folder = of("EOS_CONFIG", platformdirs.user_config_dir, "eos")
    return folder if os.environ.get("EOS_CONFIG") else folder / "config.toml"


def environment() -> dict[str, str]:
    """What the environment names of these, absolute: for a process that works in another folder."""
    return {variable: str(absolute(given, variable)) for variable in VARIABLES if (given := os.environ.get(variable))}


def home() -> Path:
    """A folder to work in that does not vanish with the caller's: the user's own, else the root."""
    known = Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home raises where there is none
    return known if known.is_absolute() and known.is_dir() and os.access(known, os.X_OK) else Path("/")
