"""The command `eos`: the headless commands of the engine, and the view on top of them.

Everything heavy is imported inside the command that needs it: the engine process is started before Textual is loaded, so
that both get ready at the same time, and jax never comes into this process unless the run itself is to happen here.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated

from cyclopts import App, Parameter

import engine
from engine import launch
from engine.errors import UserError
from engine.spec import DEFAULT_PRESET, preset_names
from engine.store import Run, resolve
from eos_tui.harmless import harmless
from eos_tui.pace import DEFAULT_FPS, FASTEST, SLOWEST
from eos_tui.source import LIVE


def _switch(help: str) -> Parameter:
    return Parameter(help=help, negative=(), show_default=False)


Preset = Annotated[str, Parameter(help="A preset's name (`eos presets` lists them), or the path of a preset file.")]
Name = Annotated[str, Parameter(help="A run's name (`eos ls` lists them), or the path of a run directory.")]
NewName = Annotated[str | None, Parameter(help="The run's name; made from the preset and the time when not given.")]
Overrides = Annotated[tuple[str, ...], Parameter(
    "--set", help="`section.field=value`, as in `--set optimizer.learning_rate=0.05`; may be repeated.", negative=(),
    show_default=False,
)]  # fmt: skip
Headless = Annotated[bool, _switch("Without a view: progress on stderr, and a summary at the end.")]
Json = Annotated[bool, _switch("The same, with the summary as one JSON object.")]
Fps = Annotated[float, Parameter(help="Frames a second, 0.5 to 10.")]
Mouse = Annotated[bool, Parameter(help="Take clicks; `--no-mouse` leaves them to the terminal, for selecting text.")]
Ascii = Annotated[bool, _switch("Draw with ASCII alone.")]

app = App(name="eos", version=engine.__version__, help="Gradient descent at the edge of stability, live in the terminal.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eos` with these arguments and return its exit status."""
    headless = _headless()
    for name in headless.app:
        if not name.startswith("-") and name not in app:
            app.command(headless.app[name], name=name)
    tokens = sys.argv[1:] if argv is None else list(argv)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in app:
        return headless.report_error(_no_command(tokens[0]))
    return headless.run_command(app, tokens)


def _no_command(word: str) -> str:
    """What to say of a first word that is no command."""
    names = [name for name in app if not name.startswith("-")]
    if word in preset_names():
        return f"{word}: a preset, not a command; `eos run {word}` runs it"
    near = difflib.get_close_matches(word, names, n=1)
    return f'{word}: no such command{f"; did you mean `eos {near[0]}`?" if near else "; `eos --help` lists them"}'


@app.default
def launcher(*, fps: Fps = DEFAULT_FPS, mouse: Mouse = True, ascii: Ascii = False) -> int:
    """Open the launcher: presets to start, runs to open."""
    return view(None, fps, mouse, ascii)


@app.command
def run(preset: Preset, *, overrides: Overrides = (), name: NewName = None, headless: Headless = False, json: Json = False,
        fps: Fps = DEFAULT_FPS, mouse: Mouse = True, ascii: Ascii = False) -> int:
    """Start a run and watch it."""
    if headless or json:
        return _headless().run_headless(preset, overrides, name, json)
    need_terminal(fps)  # before anything is made
    return view(launch.begin(preset, overrides, name)[0], fps, mouse, ascii)


@app.command
def demo(*, overrides: Overrides = (), name: NewName = None, headless: Headless = False, json: Json = False,
         fps: Fps = DEFAULT_FPS, mouse: Mouse = True, ascii: Ascii = False) -> int:
    """Start the default preset, T-shirts against shirts, and watch it. Takes what `run` takes."""
    return run(DEFAULT_PRESET, overrides=overrides, name=name, headless=headless, json=json, fps=fps, mouse=mouse, ascii=ascii)


@app.command
def resume(name: Name, *, headless: Headless = False, json: Json = False, fps: Fps = DEFAULT_FPS, mouse: Mouse = True,
           ascii: Ascii = False) -> int:
    """Go on with a stopped, failed or crashed run from its last checkpoint, and watch it."""
    if headless or json:
        return _headless().resume(name, json=json)
    need_terminal(fps)
    found = resolve(name)
    _headless().restart(found)
    return view(found, fps, mouse, ascii)


@app.command
def attach(name: Name | None = None, *, fps: Fps = DEFAULT_FPS, mouse: Mouse = True, ascii: Ascii = False) -> int:
    """Open a run where it stands: the latest one, or that of this name or path."""
    need_terminal(fps)
    return view(resolve(name), fps, mouse, ascii)


def view(run: Run | None, fps: float, mouse: bool, ascii: bool) -> int:
    """Show a run, or the launcher, until the user leaves; then say how to come back."""
    need_terminal(fps)
    from eos_tui.app import HANGUP_STATUS, EosApp

    if "utf" not in (sys.stderr.encoding or "").lower():  # Textual writes there
        ascii = True
        sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    shown = EosApp(run, fps, ascii)
    status = shown.run(mouse=mouse)
    if status is None:
        status = shown.return_code or 0
    if shown.seen is not None and status != HANGUP_STATUS:  # after a hang-up there is nobody to tell
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


def need_terminal(fps: float) -> None:
    """Raise UserError where no view can be drawn, or not so often."""
    if not SLOWEST <= fps <= FASTEST:
        raise UserError(f"--fps {fps:g}: expected a number from {SLOWEST:g} to {FASTEST:g}")
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UserError("this is not a terminal, so nothing can be shown here; `eos demo --headless` runs without one")
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        raise UserError(f'TERM = "{kind}" names no terminal that can draw; `eos demo --headless` runs without one')


def _headless() -> ModuleType:
    """The engine's own command line. By name: import contracts read imports, and jax lies behind some of its commands."""
    return import_module("engine.cli")
