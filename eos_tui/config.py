"""The user's settings: a TOML file in the platform's folder for them, checked by type, unknown keys refused by name.

What the command line says goes before the file, and the file before the defaults below.
"""

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec

from engine.base import folders, toml
from engine.base.errors import UserError, meant, one_of
from engine.base.files import read_plain
from eos_tui import keys
from eos_tui.terminal.pace import DEFAULT_FPS, FASTEST, SLOWEST

MAX_BYTES = 64 * 1024
NOWHERE = Path("~/.config/eos/config.toml")
"""The file of settings of a user without a home folder: there is none, and nothing to say of it."""
ThemeChoice = Literal["auto", "dark", "light", "terminal"]
THEMES: tuple[str, ...] = ("auto", "dark", "light", "terminal")
LOW_BANDWIDTH_FPS = 1.0
Layout = Literal["all", "two", "one"]
Dots = Literal["braille", "octants"]
Graphics = Literal["off", "auto", "kitty", "sixel"]


class View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the view looks and behaves."""

    fps: Annotated[float, msgspec.Meta(ge=SLOWEST, le=FASTEST)] = DEFAULT_FPS
    """Frames a second, 0.5 to 10."""
    theme: ThemeChoice = "auto"
    """Colours: dark, light, or the terminal's own sixteen; auto looks at what the terminal can."""
    mouse: bool = True
    """Take clicks; false leaves them to the terminal, for selecting text."""
    ascii: bool = False
    """Draw with ASCII alone."""
    low_bandwidth: bool = False
    """For slow links: one frame a second at most, sixteen colours, no mouse reports."""
    dots: Dots = "braille"
    """What curves are drawn of: braille, which every terminal has; or solid octants, where the terminal draws Unicode 16."""
    graphics: Graphics = "off"
    """Plots as pixels over their cells, by the protocol of kitty or of sixel; auto asks the terminal which it has."""
    layout: Layout = "all"
    """Plots of a dashboard at first: all that fit, two large ones, or one."""
    plots: tuple[str, ...] = ()
    """Names of the plots that stand first, in this order; the others follow."""
    pictures: str = ""
    """Folder that screenshots are saved to; empty for eos in the platform's folder of pictures."""

    def settled(self) -> "View":
        """The same with what `low_bandwidth` stands for put in its place."""
        if not self.low_bandwidth:
            return self
        theme = "terminal" if self.theme == "auto" else self.theme
        return msgspec.structs.replace(self, fps=min(self.fps, LOW_BANDWIDTH_FPS), theme=theme, mouse=False)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the file may hold."""

    view: View = View()
    keys: dict[str, dict[str, str]] = {}
    """Other keys for actions, by place and name: `[keys.dashboard] zoom_in = "z"`; several are separated by commas."""


class Loaded(NamedTuple):
    """Settings, and where they come from."""

    config: Config
    path: Path
    exists: bool


def path() -> Path:
    """The file of settings: `$EOS_CONFIG`, else in the platform's folder for settings."""
    return folders.settings()


def load(where: Path | None = None) -> Loaded:
    """The settings in force; the defaults where there is no file. Raises UserError with what is wrong in it."""
    try:
        file = where or path()
    except UserError:
        if os.environ.get("EOS_CONFIG"):
            raise
        return Loaded(Config(), NOWHERE, False)
    try:
        raw = read_plain(file, MAX_BYTES, follow=True)
    except FileNotFoundError:
        return Loaded(Config(), file, False)
    except OSError as error:
        why = f"{error.strerror}, so not a file of settings" if error.errno == errno.EFBIG else f"cannot be read ({error.strerror})"
        raise UserError(f"{file}: {why}") from None
    return Loaded(parse(raw, str(file)), file, True)


def parse(raw: bytes, where: str) -> Config:
    """Settings from the bytes of a file. Raises UserError: where, what was given, what would do."""
    try:
        tree = toml.loads(raw.decode())
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text; settings are a TOML file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid TOML: {error}") from None
    try:
        config = msgspec.convert(tree, Config)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UserError(f"{where}: {_explain(str(error), tree)}") from None
    check_plots(config.view.plots, f"{where}: [view] plots")
    before = keys.remapped()
    changes = key_changes(config, where)
    try:
        keys.remap(changes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    finally:
        keys.remap(before)
    return config


def to_toml(config: Config) -> str:
    """The settings as a complete file: every setting and every key, each with its words."""
    lines = ["[view]"]
    for field in msgspec.structs.fields(View):
        value = getattr(config.view, field.name)
        lines.append(f"{field.name} = {json.dumps(value)}")
    changes = key_changes(config)
    for place in keys.PLACES:
        lines += ["", f"[keys.{place}]"]
        for key in keys.TABLE:
            if key.place == place:
                given = changes.get(key.id, key.keys)
                lines.append(f"{key.name} = {json.dumps(given, ensure_ascii=False)}".ljust(36) + f"  # {key.help}")
    return "\n".join(lines) + "\n"


def key_changes(config: Config, where: str = "settings") -> dict[str, str]:
    """The keys that differ from the table's, by the action's id. Raises UserError for what is no place, action or key."""
    changes = {}
    for place, names in config.keys.items():
        known = {key.name: key for key in keys.TABLE if key.place == place}
        if place not in keys.PLACES:
            raise UserError(f"{where}: [keys.{place}]: no such place; expected one of {one_of(keys.PLACES)}")
        for name, text in names.items():
            if name not in known:
                raise UserError(f"{where}: [keys.{place}] {name}: no such action{_nearest(name, list(known))}")
            wrong = [key for key in _listed(text) if not is_key(key)]
            if wrong:
                raise UserError(f'{where}: [keys.{place}] {name} = "{text[:40]}": expected keys as in "z", "f5", "ctrl+k" or '
                                f'"shift+left", separated by commas')
            if (listed := ",".join(_listed(text))) != known[name].keys:
                changes[known[name].id] = listed
    return changes


def check_plots(names: Sequence[str], where: str) -> None:
    """Raises UserError for what is the name of no plot, or given twice."""
    if not names:
        return
    from engine.record.columns import METRIC
    from eos_tui.draw.panels import names as plots  # what draws is imported by those who name a plot

    for k, name in enumerate(names):
        if name not in plots() and not name.startswith(METRIC):
            raise UserError(f"{where}: no plot is called {json.dumps(name)}{_nearest(name, list(plots()))}")
        if name in names[:k]:
            raise UserError(f"{where}: {json.dumps(name)} is there twice")


def _listed(text: str) -> list[str]:
    """The keys in a text; the comma itself is called `comma`."""
    return [part.strip() for part in text.split(",")]


def is_key(name: str) -> bool:
    """Whether Textual knows a key of this name."""
    *modifiers, last = name.split("+") if name != "+" else [name]
    if any(modifier not in ("ctrl", "shift", "alt") for modifier in modifiers):
        return False
    if len(last) == 1:
        return last.isprintable()
    from textual.keys import Keys, key_to_character

    return last in {key.value for key in Keys} or key_to_character(last) is not None


def _explain(message: str, tree: dict[str, Any]) -> str:
    """A sentence from msgspec's: the section and key, what was given, what would do."""
    problem, _, at = message.partition(" - at `$")
    steps = [step for step in re.sub(r"\[.*?\]", "", at.rstrip("`")).split(".") if step]
    if problem.startswith("Object contains unknown field"):
        unknown = problem.split("`")[1]
        known = msgspec.structs.fields(View if steps == ["view"] else Config)
        return f"{_section(steps)}{unknown}: unknown key{_nearest(unknown, [field.name for field in known])}"
    given: Any = tree
    for step in steps:
        given = given.get(step, "…") if isinstance(given, dict) else "…"
    if "enum value" in problem:
        known_choices = {"layout": get_args(Layout), "dots": get_args(Dots), "graphics": get_args(Graphics)}
        choices = known_choices.get(steps[-1] if steps else "", THEMES)
        problem = f"expected one of {one_of(choices)}"
    shown = json.dumps(given, ensure_ascii=False, default=str)[:60]
    return f"{_section(steps[:-1])}{steps[-1] if steps else ''} = {shown}: {problem[:1].lower()}{problem[1:]}"


def _section(steps: list[str]) -> str:
    return f"[{'.'.join(steps)}] " if steps else ""


def _nearest(name: str, known: list[str]) -> str:
    return meant(name, known) or f"; expected one of {one_of(known)}"
