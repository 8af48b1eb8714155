"""The view opened: the settings in force, a terminal to draw on, and on leaving a word on how to come back.

Plain `eos`, `eos attach` and `eos play` are read here. To build the whole command line takes a third of the time in which they are to
have drawn their first frame.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import msgspec

from engine.base.aside import wait_for
from engine.base.errors import UserError
from engine.base.exit import status_of
from engine.base.stuck import PARTING_SECONDS
from engine.base.text import harmless
from engine.jobs.launch import LIVE
from engine.record.reader import Run
from engine.record.store import resolve
from eos_tui import config, keys
from eos_tui.config import View
from eos_tui.terminal.leaving import WayOut
from eos_tui.terminal.pace import FASTEST, SLOWEST

if TYPE_CHECKING:
    from eos_tui.model.recording import Recording
    from eos_tui.terminal.graphics import Pictures

IN_BROWSER = "TEXTUAL_DRIVER"
"""Set where Textual draws into a browser: `eos serve` starts `eos` that way, with pipes for a terminal."""

WITHOUT = "`eos run PRESET --headless` and `eos plot RUN` do without one"
"""The commands that need no terminal."""


class ViewCommand(NamedTuple):
    """A command line that opens the view and does nothing else."""

    settings: Mapping[str, Any]
    """The settings given by its options."""
    command: str = ""
    """`attach` opens runs, `play` plays one; the launcher is opened without."""
    names: tuple[str, ...] = ()
    """The names of those runs; none for the latest run, or for the recording that comes with eos."""

    @classmethod
    def of(cls, words: Sequence[str]) -> "ViewCommand | None":
        """The view that these words ask for; None where they ask for anything else, or in any other way."""
        command = words[0] if words and words[0] in ("attach", "play") else ""
        names = tuple(takewhile(lambda word: not word.startswith("-"), words[1:])) if command else ()
        settings = _settings(words[bool(command) + len(names) :])
        return None if settings is None or (command == "play" and len(names) > 1) else cls(settings, command, names)

    def open(self) -> int:
        """Open it until the user leaves, and return the exit status."""
        return status_of(self._shown)

    def _shown(self) -> int:
        if self.command == "play":
            return played(*self.names, given=self.settings)
        return opened(self.names, self.settings) if self.command else view(None, self.settings)


def _settings(words: Sequence[str]) -> dict[str, Any] | None:
    """The settings given by options such as `--fps 2 --no-mouse`; None where a word is no option, or no value of one."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(View)}
    settings, rest = dict[str, Any](), iter(words)
    for word in rest:
        name = word.removeprefix("--").removeprefix("no-").replace("-", "_")
        option, kind = "--" + name.replace("_", "-"), kinds.get(name)
        if kind is bool and word in (option, "--no-" + option[2:]):
            settings[name] = word == option
        elif kind is not None and word == option:
            try:
                settings[name] = msgspec.convert(next(rest, None), kind, strict=False)
            except msgspec.ValidationError:
                return None
        else:
            return None
    return settings


def opened(names: Sequence[str], given: Mapping[str, Any]) -> int:
    """Show the runs of these names, the others laid over the first, or the latest run where there is no name."""
    need_terminal(given)  # whether there is such a run is nothing to tell where nothing can be shown
    from eos_tui.draw.plot_spec import OTHERS

    first, *others = runs = wait_for(lambda: together(names))
    if len(others) > len(OTHERS):
        print(f"{len(runs)} runs: the first {1 + len(OTHERS)} are drawn, and the key m chooses others", file=sys.stderr)
    return view(first, given, beside=others[: len(OTHERS)])


def played(name: str | None = None, *, given: Mapping[str, Any]) -> int:
    """Play the run of this name, or the recording that comes with eos."""
    need_terminal(given)
    from eos_tui.model.recording import recorded

    return view(None, given, recording=wait_for(lambda: recorded(name)))


def together(names: Sequence[str]) -> list[Run]:
    """The runs of these names or paths, for that of a sweep all that it has begun; the latest run where there is no name."""
    return [run for name in names for run in _named(name)] or [resolve(None)]


def _named(name: str) -> list[Run]:
    try:
        return [resolve(name)]
    except UserError:
        from engine.jobs.sweep import runs_of

        runs = runs_of(name)
        if not runs:
            raise
        return runs


def view(run: Run | None, given: Mapping[str, Any], tour: bool = False, beside: Sequence[Run] = (),
         recording: "Recording | None" = None) -> int:
    """Show a run, others laid over it, or a recording, the tour or the launcher, until the user leaves; then say how to come back."""
    settings = need_terminal(given)
    gc.disable()  # until the app stands: what is made until then stays
    from eos_tui.app import HANGUP_STATUS, EosApp
    from eos_tui.draw.raster import draw_solid

    if "utf" not in (sys.stderr.encoding or "").lower():  # Textual writes there
        settings = msgspec.structs.replace(settings, ascii=True)
        sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    draw_solid(settings.dots == "octants" and IN_BROWSER not in os.environ)  # a browser's fonts have none
    shown = EosApp(
        run, settings.fps, settings.ascii, settings.theme, tour, beside, recording, settings.layout, settings.plots, settings.pictures,
        *_graphics(settings, recording is not None),
    )

    def part(status: int, stream: TextIO | None) -> None:
        if (seen := shown.seen) is None or status == HANGUP_STATUS or IN_BROWSER in os.environ:  # there is nobody to tell
            return
        try:
            print(wait_for(lambda: farewell(seen), PARTING_SECONDS), file=stream, flush=True)
        except TimeoutError:
            print(f"run {harmless(seen.name)}: its folder does not answer", file=stream, flush=True)

    with WayOut(shown, part):
        status = shown.run(mouse=settings.mouse)
    if status is None:
        status = shown.return_code or 0
    part(status, sys.stdout)
    return status


def _graphics(settings: View, played: bool) -> tuple["Pictures | None", str]:
    """Where plots go as pixels, or None and why they are not, where they were asked for."""
    if settings.graphics == "off":
        return None, ""
    if IN_BROWSER in os.environ:
        return None, "--graphics: a page of eos serve takes no pictures; plots are drawn in cells"
    if settings.ascii:
        return None, "--graphics: not with ASCII alone; plots are drawn in cells"
    from eos_tui.terminal import graphics

    chosen, why = graphics.chosen(settings.graphics, graphics.ask(sys.stdin.fileno(), sys.stderr.fileno()), os.environ)
    if chosen and played:
        why = "what is played is drawn in cells; the plots of a run are pixels"
    return chosen and graphics.Pictures(chosen), why and f"--graphics {settings.graphics}: {why}"


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


def need_terminal(given: Mapping[str, Any]) -> View:
    """The settings in force. Raises UserError where they are wrong, or no view can be drawn."""
    settings = need_view(given)
    if IN_BROWSER not in os.environ:
        _need_screen()
    return settings


def need_view(given: Mapping[str, Any]) -> View:
    """The settings in force: those of the command line, then those of the file. Raises UserError where they are wrong."""
    fps = given.get("fps")
    if fps is not None and not SLOWEST <= fps <= FASTEST:
        raise UserError(f"--fps {fps:g}: expected a number from {SLOWEST:g} to {FASTEST:g}")
    config.check_plots(given.get("plots", ()), "--plots")
    settings = wait_for(config.load).config
    keys.remap(config.key_changes(settings))
    return msgspec.structs.replace(settings.view, **given).settled()


def _need_screen() -> None:
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UserError(f"this is not a terminal, so nothing can be shown here; {WITHOUT}")
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        raise UserError(f'TERM = "{kind}" names no terminal that can draw; {WITHOUT}')
