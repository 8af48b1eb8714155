"""The view opened: the settings in force, a terminal to draw on, and on leaving a word on how to come back.

Plain `eos` and `eos attach` are read here. To build the whole command line takes a third of the time in which they are to
have drawn their first frame.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from engine.ending import ended
from engine.errors import UserError
from engine.printed import harmless
from engine.store import Run, resolve
from eos_tui import config, keys
from eos_tui.config import View
from eos_tui.pace import FASTEST, SLOWEST
from eos_tui.source import LIVE

IN_BROWSER = "TEXTUAL_DRIVER"
"""Set where Textual draws into a browser: `eos serve` starts `eos` that way, with pipes for a terminal."""


class Asked(NamedTuple):
    """A command line that opens the view and does nothing else."""

    told: Mapping[str, Any]
    """The settings it gives."""
    attach: bool = False
    """To a run, rather than open the launcher."""
    name: str | None = None
    """That run's; None for the latest."""

    @classmethod
    def of(cls, words: Sequence[str]) -> "Asked | None":
        """What these words ask for; None where it is anything else, or is told in any other way."""
        attach = words[:1] == ["attach"]
        named = attach and len(words) > 1 and not words[1].startswith("-")
        told = _told(words[attach + named :])
        return None if told is None else cls(told, attach, words[1] if named else None)

    def open(self) -> int:
        """Open it until the user leaves, and return the exit status."""
        return ended(self._shown)

    def _shown(self) -> int:
        need_terminal(self.told)  # whether there is such a run is nothing to tell where nothing can be shown
        return view(resolve(self.name) if self.attach else None, self.told)


def _told(words: Sequence[str]) -> dict[str, Any] | None:
    """The settings given by options such as `--fps 2 --no-mouse`; None where a word is no option, or no value of one."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(View)}
    found, rest = dict[str, Any](), iter(words)
    for word in rest:
        name = word.removeprefix("--").removeprefix("no-").replace("-", "_")
        option, kind = "--" + name.replace("_", "-"), kinds.get(name)
        if kind is bool and word in (option, "--no-" + option[2:]):
            found[name] = word == option
        elif kind is not None and word == option:
            try:
                found[name] = msgspec.convert(next(rest, None), kind, strict=False)
            except msgspec.ValidationError:
                return None
        else:
            return None
    return found


def view(run: Run | None, told: Mapping[str, Any], tour: bool = False) -> int:
    """Show a run, the tour or the launcher, until the user leaves; then say how to come back."""
    settings = need_terminal(told)
    gc.disable()  # until the app stands: what is made until then stays
    from eos_tui.app import HANGUP_STATUS, EosApp

    if "utf" not in (sys.stderr.encoding or "").lower():  # Textual writes there
        settings = msgspec.structs.replace(settings, ascii=True)
        sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    shown = EosApp(run, settings.fps, settings.ascii, settings.theme, tour)
    status = shown.run(mouse=settings.mouse)
    if status is None:
        status = shown.return_code or 0
    if shown.seen is not None and status != HANGUP_STATUS and IN_BROWSER not in os.environ:  # else there is nobody to tell
        print(farewell(shown.seen))
    return status


def farewell(run: Run) -> str:
    """One line on where a run stands, and how to see it again."""
    name = harmless(run.name)
    if not run.path.is_dir():
        return f"run {name} was removed"
    state, condition = run.state(), run.liveness()
    if condition == "paused":
        return f"run {name} is paused at step {state.step}; eos attach {name} reopens it"
    if condition in LIVE:
        return f"run {name} goes on; eos attach {name} reopens it"
    if state.outcome is not None:
        return f"run {name}: {harmless(state.outcome.text)}"
    return f"run {name} is {condition} since step {state.step}; eos resume {name} goes on from its last checkpoint"


def need_terminal(told: Mapping[str, Any]) -> View:
    """The settings in force. Raises UserError where they are wrong, or no view can be drawn."""
    settings = need_view(told)
    if IN_BROWSER not in os.environ:
        _need_screen()
    return settings


def need_view(told: Mapping[str, Any]) -> View:
    """The settings in force: what the command line tells, then the file. Raises UserError where they are wrong."""
    fps = told.get("fps")
    if fps is not None and not SLOWEST <= fps <= FASTEST:
        raise UserError(f"--fps {fps:g}: expected a number from {SLOWEST:g} to {FASTEST:g}")
    settings = config.load().config
    keys.remap(config.key_changes(settings))
    return msgspec.structs.replace(settings.view, **told).settled()


def _need_screen() -> None:
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UserError("this is not a terminal, so nothing can be shown here; `eos demo --headless` runs without one")
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        raise UserError(f'TERM = "{kind}" names no terminal that can draw; `eos demo --headless` runs without one')
