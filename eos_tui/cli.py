"""The command `eos`: the headless commands of the engine, and the view on top of them.

Everything heavy is imported inside the command that needs it: the engine process is started before Textual is loaded, so
that both get ready at the same time, and jax never comes into this process unless the run itself is to happen here. Command
lines that only open the view need none of this: `eos_tui.opening` reads them.
"""

import difflib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

import engine
from engine.base import toml
from engine.base.errors import UserError
from engine.base.exit import report_error
from engine.base.files import resolved
from engine.base.text import print_json
from engine.commands import completion, options
from engine.commands import help as topics
from engine.commands.options import FROM_ENVIRONMENT, DataDir, Meeting, PresetName, RunName, RunNames, Trust
from engine.jobs import launch
from engine.record import trust
from engine.record.store import resolve
from engine.spec import DEFAULT_PRESET, preset_names
from eos_tui import config, keys
from eos_tui.config import Dots, Graphics, Layout, ThemeChoice
from eos_tui.opening import need_terminal, need_view, opened, played, view
from eos_tui.topics.topics import TOPICS


def _switch(help: str) -> Parameter:
    return Parameter(help=help, negative=(), show_default=False)


Preset = Annotated[PresetName, Parameter(help="A preset's name (`eos presets` lists them), or the path of a preset file.")]
Name = Annotated[RunName, Parameter(help="A run's name (`eos ls` lists them), or the path of a run directory.")]
Names = Annotated[RunNames, Parameter(help="Names of runs (`eos ls` lists them) or of a sweep, or paths of run directories.")]
NewName = Annotated[str | None, Parameter(help="The run's name; made from the preset and the time when not given.")]
Overrides = Annotated[options.Overrides, Parameter(
    help="`section.field=value`, as in `--set optimizer.learning_rate=0.05`; may be repeated.")]  # fmt: skip
Headless = Annotated[bool, _switch("Without a view: progress on stderr, and a summary at the end.")]
Json = Annotated[bool, _switch("The same, with the summary as one JSON object.")]
Force = Annotated[bool, _switch("Also where its engine on another host is silent. If it still works, both write one record for a moment.")]
JsonObject = Annotated[bool, _switch("Print one JSON object.")]


@Parameter(name="*")
@dataclass(frozen=True)
class ViewOptions:
    """How the view is to look and behave; what is not given is as the settings say (`eos config show`)."""

    fps: Annotated[float | None, Parameter(help="Frames a second, 0.5 to 10.")] = None
    theme: Annotated[ThemeChoice | None, Parameter(help="Colours; `auto` looks at what the terminal can.")] = None
    mouse: Annotated[bool | None, Parameter(help="Take clicks; `--no-mouse` leaves them to the terminal.")] = None
    ascii: Annotated[bool | None, Parameter(help="Draw with ASCII alone.")] = None
    low_bandwidth: Annotated[bool | None, Parameter(help="For slow links: a frame a second, sixteen colours, no mouse.")] = None
    dots: Annotated[Dots | None, Parameter(help="What curves are drawn of; octants are solid, where the terminal draws them.")] = None
    graphics: Annotated[Graphics | None, Parameter(help="Plots as pixels, where the terminal draws them; auto asks it.")] = None
    layout: Annotated[Layout | None, Parameter(help="Plots at first: all that fit, two large ones, or one.")] = None
    plots: Annotated[tuple[str, ...] | None, Parameter(help="A plot that stands first, by name; repeat it for those after.")] = None
    pictures: Annotated[str | None, Parameter(help="Folder that screenshots are saved to; eos in the platform's when not set.")] = None

    def given(self) -> dict[str, Any]:
        """What was given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


AS_SET = ViewOptions()
CELLS = Number(gte=1, lte=2000)

app = App(
    name="eos",
    version=engine.__version__,
    help="Gradient descent at the edge of stability, live in the terminal. `eos help` tells more.",
    help_epilogue="Exit status: 0 done · 1 something to mend · 2 bad input · 3 the run ended badly · 4 another engine has the run · "
                  "5 the coordinator's port is taken · 6 the place of this process is · "
                  "129 the terminal hung up · 130 interrupted · 141 nobody reads stdout · 143 terminated.",
)


def _keys_in_force() -> str:
    """The topic of keys, with those that the settings give."""
    keys.remap(config.key_changes(config.load().config))
    return next(topic for topic in TOPICS if topic.name == "keys").render()


app.command(topics.command([topic._replace(render=_keys_in_force) if topic.name == "keys" else topic for topic in TOPICS]))
app.register_install_completion_command(help="Install completion of commands, options and names for the shell in use.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eos` with these arguments and return its exit status."""
    headless = _headless()
    for name in headless.app:
        if not name.startswith("-") and name not in app:
            app.command(headless.app[name], name=name)
    tokens = sys.argv[1:] if argv is None else list(argv)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in (*app, completion.COMPLETE, ""):
        return report_error(_no_command(tokens[0]))
    return headless.run_command(app, tokens)


def _no_command(word: str) -> str:
    """What to say of a first word that is no command."""
    names = [name for name in app if not name.startswith("-")]
    if word in preset_names():
        return f"{word}: a preset, not a command; `eos run {word}` runs it"
    near = difflib.get_close_matches(word, names, n=1)
    return f'{word}: no such command{f"; did you mean `eos {near[0]}`?" if near else "; `eos --help` lists them"}'


@app.default
def launcher(*, look: ViewOptions = AS_SET) -> int:
    """Open the launcher: presets to start, runs to open."""
    return view(None, look.given())


@app.command
def run(preset: Preset, *, overrides: Overrides = (), name: NewName = None, headless: Headless = False, json: Json = False,
        data_dir: DataDir = None, trusted: Trust = False, meeting: Meeting = FROM_ENVIRONMENT, look: ViewOptions = AS_SET) -> int:
    """Start a run and watch it.

    Several processes, on one host or many, run it together where each is given --coordinator. Process 0 alone writes and shows it.
    """
    group = meeting.group()
    if headless or json or (group is not None and group.process):
        return _headless().run_headless(preset, overrides, name, json, data_dir, group, trusted)
    need_terminal(look.given())  # before anything is made
    return view(trust.asking(lambda: launch.begin(preset, overrides, name, data_dir, group), trusted)[0], look.given())


@app.command
def demo(*, overrides: Overrides = (), name: NewName = None, headless: Headless = False, json: Json = False,
         look: ViewOptions = AS_SET) -> int:
    """Start the default preset, T-shirts against shirts, and watch it. Takes what `run` takes."""
    return run(DEFAULT_PRESET, overrides=overrides, name=name, headless=headless, json=json, look=look)


@app.command
def resume(name: Name, /, *, force: Force = False, headless: Headless = False, json: Json = False, trusted: Trust = False,
           meeting: Meeting = FROM_ENVIRONMENT, look: ViewOptions = AS_SET) -> int:
    """Go on with a stopped, failed or crashed run from its last checkpoint, and watch it.

    As many processes may share it out as --coordinator says, however many there were before. Process 0 alone shows it.
    """
    group = meeting.group()
    if headless or json or (group is not None and group.process):
        return _headless().resume(name, force=force, json=json, trusted=trusted, meeting=meeting)
    need_terminal(look.given())
    resumed = resolve(name)
    trust.asking(lambda: launch.restart(resumed, group, force), trusted)
    return view(resumed, look.given())


@app.command
def attach(names: Names = (), /, *, look: ViewOptions = AS_SET) -> int:
    """Open a run where it stands: the latest one, or that of this name or path. Others named after it are laid over it.

    A sweep is opened by the name that its runs begin with, as in `eos attach fashion-sweep`.
    """
    return opened(names, look.given())


@app.command
def learn(*, look: ViewOptions = AS_SET) -> int:
    """Take the guided tour of the paper: twelve steps on real runs, each waiting for what it tells of."""
    return view(None, look.given(), tour=True)


@app.command
def play(
    name: Name | None = None, *,
    cast: Annotated[Path | None, Parameter(help="Write it as an asciicast, for slides and web pages.")] = None,
    png: Annotated[Path | None, Parameter(help="Save one frame as PNG; needs the extra `figures`.")] = None,
    at: Annotated[float, Parameter(help="The second of that frame.", validator=Number(gte=0))] = 24.5,
    record: Annotated[Path | None, Parameter(help="Save what is played of the run, as the recording that comes with eos.")] = None,
    columns: Annotated[int, Parameter(help="Width of a cast or a PNG in cells.", validator=CELLS)] = 100,
    rows: Annotated[int, Parameter(help="Their height in cells.", validator=CELLS)] = 30,
    force: Annotated[bool, _switch("Save anew where the file is there already.")] = False,
    look: ViewOptions = AS_SET,
) -> int:
    """Play the edge of stability in half a minute, round and round: a recording that comes with eos, or a run of this name or path.

    Nothing is computed. With --cast, --png or --record nothing is shown, and no terminal is needed.
    """
    if cast is None and png is None and record is None:
        return played(*([] if name is None else [name]), given=look.given())
    from eos_tui import presenting

    if record is not None:
        if name is None:
            raise UserError("--record: of which run? `eos play RUN --record FILE`; `eos ls` lists the runs")
        presenting.save_recording(resolve(name), record, force)
    settings = need_view(look.given())
    shown = presenting.Presentation.of(name, columns, rows, settings.ascii, theme_named(settings.theme))
    if png is not None:
        shown.save_png(png, at, force)
    if cast is not None:
        shown.save_cast(cast, force)
    return 0


Plots = Annotated[tuple[str, ...], Parameter(
    "--plot", help="A plot of the dashboard: sharpness, loss, x, y, distance, …; may be repeated.", negative=(), show_default=False,
)]  # fmt: skip
Series = Annotated[tuple[str, ...], Parameter(
    help="A recorded column to draw; may be repeated. `eos help columns` lists them.", negative=(), show_default=False,
    completer=completion.columns,
)]  # fmt: skip

@app.command
def plot(
    name: Name | None = None, /, *, plots: Plots = (), series: Series = (),
    against: Annotated[str, Parameter(help="A column for the horizontal axis, instead of the step.", show_default=False,
                                      completer=completion.columns)] = "",
    start: Annotated[float | None, Parameter("--from", help="The first step to show.")] = None,
    stop: Annotated[float | None, Parameter("--to", help="The last step to show.")] = None,
    log: Annotated[bool, _switch("Logarithmic values.")] = False,
    columns: Annotated[int | None, Parameter(help="Width in cells; that of the terminal, or 80.", validator=CELLS)] = None,
    rows: Annotated[int | None, Parameter(help="Height in cells; that of the terminal less the prompt, or 24.", validator=CELLS)] = None,
    color: Annotated[bool | None, Parameter(help="In colour; by default where stdout is a terminal and NO_COLOR is not set.")] = None,
    ascii: Annotated[bool, _switch("Draw with ASCII alone.")] = False,
    theme: Annotated[ThemeChoice, Parameter(help="Colours of which theme.")] = "auto",
    once: Annotated[bool, _switch("One frame; a running run is else drawn anew each second, on a terminal.")] = False,
    svg: Annotated[Path | None, Parameter(help="Save the frame as SVG, too.")] = None,
    png: Annotated[Path | None, Parameter(help="Save the frame as PNG, too; needs the extra `figures`.")] = None,
    force: Annotated[bool, _switch("Save anew where the file is there already.")] = False,
) -> int:
    """Print a plot of a run, live or finished: the latest one, or that of this name or path. Works through pipes."""
    from eos_tui import printing

    size, on_terminal = shutil.get_terminal_size(), sys.stdout.isatty()
    request = printing.Request(
        plots, series, against, start, stop, log, columns or size.columns, rows or (size.lines - 1 if on_terminal else 24),
        on_terminal and "NO_COLOR" not in os.environ if color is None else color,
        ascii or "utf" not in (sys.stdout.encoding or "").lower(), theme_named(theme),
    )
    return printing.show(resolve(name), request, once or not on_terminal, svg, png, force)


@app.command
def serve(
    name: Name | None = None, /, *,
    host: Annotated[str, Parameter(help="The address to listen at; this machine alone reaches the default.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen at.", validator=Number(gte=1, lte=65535))] = 8000,
    look: ViewOptions = AS_SET,
) -> int:
    """Open the app in a browser: a run, or the launcher. Prints an address that holds a key; needs the extra `web`."""
    from eos_tui.terminal import browser

    settings = need_view(look.given())
    options = ["--fps", f"{settings.fps:g}", "--theme", settings.theme if settings.theme != "auto" else "dark"]
    return browser.serve(str(resolved(resolve(name).path)) if name else None, host, port, options + ["--ascii"] * settings.ascii)


@app.command(show=False)
def gallery(
    folder: Path, name: Name | None = None, /, *, png: Annotated[bool, _switch("As PNG; needs the extra `figures`.")] = False,
) -> int:
    """Save pictures of every page as SVG: the latest run's, or that of this name or path.

    At four sizes, dark, light, in sixteen colours and in none.
    """
    from eos_tui import gallery as pictures

    for picture in pictures.make(folder, resolve(name), png):
        print(folder / picture.file)
    return 0


settings = App(name="config", help="The settings: where they lie, what they say, whether they are right.")
app.command(settings)


@settings.command(name="show")
def show_settings(*, json: JsonObject = False) -> int:
    """Print every setting and key in force, as a complete file; `eos config show > FILE` makes one to edit."""
    text = config.to_toml(config.load().config)
    if json:
        print_json(toml.loads(text))
    else:
        print(text, end="")
    return 0


@settings.command(name="path")
def settings_path(*, json: JsonObject = False) -> int:
    """Print where the file of settings is looked for; EOS_CONFIG names another."""
    if json:
        print_json({"path": str(config.path()), "exists": config.path().exists()})
    else:
        print(config.path())
    return 0


@settings.command
def validate(file: Path | None = None, *, json: JsonObject = False) -> int:
    """Check the file of settings, or another, and say what is wrong with it."""
    loaded = config.load(file)
    if file is not None and not loaded.exists:
        raise UserError(f"{file}: no such file")
    if json:
        print_json({"path": str(loaded.path), "exists": loaded.exists, "in_order": True})
    else:
        print(f"{loaded.path}: {'in order' if loaded.exists else 'not there; the defaults hold'}", file=sys.stderr)
    return 0


@app.command
def doctor(*, json: Annotated[bool, _switch("Print one JSON array.")] = False) -> int:
    """Tell what eos finds here: terminal, colours, devices, data, versions, folders; and what to do where it will not do.

    Ends with status 1 where something must be mended.
    """
    from eos_tui import doctor as checks

    findings = checks.examine()
    if json:
        print(msgspec.json.format(msgspec.json.encode([each._asdict() for each in findings])).decode())
    else:
        print(checks.as_text(findings, ascii="utf" not in (sys.stdout.encoding or "").lower()))
    return int(any(each.verdict == "bad" for each in findings))


def theme_named(choice: str) -> str:
    """The theme for a choice, by what the environment tells of the terminal."""
    from eos_tui.draw.theme import chosen

    return chosen(choice, "NO_COLOR" not in os.environ, os.environ)


def _headless() -> ModuleType:
    """The engine's own command line. By name: import contracts read imports, and jax lies behind some of its commands."""
    return import_module("engine.commands.main")
