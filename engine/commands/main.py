"""The headless command line: runs without a view.

stdout carries the data, stderr the story. Exit status: 0 done; 2 bad input, said in one sentence; 3 the run ended badly
(diverged, failed, crashed); 4 another engine is at work on the run; 5 the port where its processes meet is taken; 6 the place of
this process among them is; 130 interrupted with Ctrl-C, the engine stopped cleanly; 141 nobody reads stdout any more; 143 terminated,
the engine stopped as cleanly.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

import engine
from engine.base.errors import BAD_END, INTERRUPTED, UserError, one_of
from engine.base.exit import report_error, status_of
from engine.base.text import harmless, print_json, print_line, print_pairs
from engine.commands import check, control, data, help, lists, presets, records, sweep
from engine.commands.completion import COMPLETE
from engine.commands.options import FROM_ENVIRONMENT, DataDir, FigureName, Meeting, Overrides, PresetName, RunName, Switch, Trust
from engine.commands.usage import mistake
from engine.data.catalog import ready
from engine.help.topics import TOPICS
from engine.jobs import fork as forks
from engine.jobs import launch
from engine.jobs.follow import follow, gone_words, refusal
from engine.jobs.groups import Group
from engine.jobs.launch import BAD_ENDS
from engine.process import worker
from engine.record import store, trust
from engine.record.reader import Run, step_of
from engine.record.store import resolve
from engine.report.summary import Summary, as_json, summarize, words
from engine.spec import DEFAULT_PRESET, Own, OwnOptimizer, RunSpec, load_spec

app = App(
    name="python -m engine",
    version=engine.__version__,
    help="Gradient descent at the edge of stability, without a view.",
    help_epilogue="Exit status: 0 done · 2 bad input · 3 the run ended badly · 4 another engine has the run · "
                  "5 the coordinator's port is taken · 6 the place of this process is · 130 interrupted, engine stopped cleanly · "
                  "141 nobody reads stdout · 143 terminated, engine stopped cleanly.",
)
app.command(data.app)
app.command(presets.app)
check.add_to(app)
control.add_to(app)
lists.add_to(app)
records.add_to(app)
sweep.add_to(app)
app.command(help.command(TOPICS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m engine` with these arguments and return its exit status."""
    return run_command(app, argv)


def run_command(commands: App, argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; whatever a user may cause is said in one sentence."""
    tokens = _with_streams(sys.argv[1:] if argv is None else argv)
    _widen()

    def command() -> int | None:
        _refuse_empty(tokens)
        try:
            return commands(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            raise UserError(mistake(error, commands)) from error

    return status_of(command)


def _refuse_empty(tokens: Sequence[str]) -> None:
    """Raise UserError for an argument of nothing, as of a variable of the shell that is not set: as a path it is the folder one is in."""
    for before, token in pairwise(["", *tokens]):
        if (token == "" or re.fullmatch("--[a-z0-9-]+=", token)) and tokens[0] != COMPLETE:
            option = token[:-1] or (before if before.startswith("-") else "")
            raise UserError(f"{option} ''".strip() + ": an empty argument; give a value, `.` for this folder, or leave it out")


NARROWEST = 10
"""Columns that help is laid out in at the least: in two the libraries that do it never end, and in none they raise."""


def _widen() -> None:
    """Have COLUMNS, where it says less than help takes, say as much; 0 and what is no number say nothing, as elsewhere."""
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isascii() and given.isdigit() else 0
    if columns == 0:
        os.environ.pop("COLUMNS", None)
    elif columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def _with_streams(tokens: Sequence[str]) -> list[str]:
    """The tokens with `--out -` as `--out=-`: a dash alone would be taken for the beginning of an option."""
    joined: list[str] = []
    for token in tokens:
        if token == "-" and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += "=-"
        else:
            joined.append(token)
    return joined


def run_headless(preset: str, overrides: Sequence[str] = (), name: str | None = None, json: bool = False,
                 data_dir: str | None = None, group: Group | None = None, trusted: bool = False) -> int:
    """Run a preset to its end with progress on stderr and a summary on stdout. Returns the exit status.

    A process that follows in a group leaves nothing on disk or stdout.
    """
    if group is not None and group.process:
        asked = ready(load_spec(preset, tuple(overrides)), data_dir or "")
        trust.asking(lambda: trust.need_preset(preset, asked), trusted)
        return help_compute(group, asked)
    run, pid = trust.asking(lambda: launch.begin(preset, overrides, name, data_dir, group), trusted)
    optimizer = run.spec.optimizer
    if others := [f"{rate:g}" for rate in optimizer.learning_rates if rate != optimizer.learning_rate]:
        how = f"`sweep {preset} --grid optimizer.learning_rate={','.join(others)}`"
        print_line(f"this is η = {optimizer.learning_rate:g} alone; {how} runs the others it is shown at", error=True)
    return _see_through(run, pid, json, made=True)


def help_compute(group: Group, asked: RunSpec | None = None) -> int:
    """Be a process that follows in a group, asked for this run or for whichever process 0 leads; it ends with the run."""
    engine.configure(sparing=True)
    return importlib.import_module("engine.process.lockstep").follow(group, asked)


@app.command
def run(
    preset: PresetName, *, overrides: Overrides = (), name: str | None = None, json: Switch = False, data_dir: DataDir = None,
    trusted: Trust = False, meeting: Meeting = FROM_ENVIRONMENT,
) -> int:
    """Run a preset to its end and print a summary. Ctrl-C stops it cleanly.

    Several processes, on one host or many, run it together where each is given --coordinator, and process 0 alone writes the run.

    Args:
        preset: A preset's name (`presets` lists them), or the path of a preset file.
        overrides: `section.field=value`, as in `--set optimizer.learning_rate=0.05`; may be repeated.
        name: The run's name; made from the preset and the time when not given.
        json: Print the summary as one JSON object.
    """
    return run_headless(preset, overrides, name, json, data_dir, meeting.group(), trusted)


@app.command
def demo(*, overrides: Overrides = (), name: str | None = None, json: Switch = False) -> int:
    """Run the default preset, T-shirts against shirts, and print a summary. Takes what `run` takes."""
    return run_headless(DEFAULT_PRESET, overrides, name, json, group=FROM_ENVIRONMENT.group())


@app.command
def resume(
    name: RunName, /, *, force: Switch = False, json: Switch = False, trusted: Trust = False, meeting: Meeting = FROM_ENVIRONMENT
) -> int:
    """Go on with a stopped, failed or crashed run from its last checkpoint, and follow it to its end.

    As many processes may share it out as --coordinator says, however many there were before.

    Args:
        name: A run's name (`ls` lists them), or the path of a run directory.
        force: Also a run whose engine on another host has fallen silent. Where it still works, both write one record until it notices.
        json: Print the summary as one JSON object.
    """
    group = meeting.group()
    if group is not None and group.process:
        trust.heed_leader(trusted)
        return help_compute(group)
    chosen = resolve(name)
    return _see_through(chosen, trust.asking(lambda: launch.restart(chosen, group, force), trusted), json)


@app.command
def show(name: RunName | None = None, /, *, json: Switch = False) -> int:
    """Show where a run stands: its summary, what it ran on, and its latest events. Without a name, the latest run.

    Args:
        name: A run's name (`ls` lists them), or the path of a run directory.
        json: Print one JSON object, with the specification, every event, and every column with its words and formula.
    """
    chosen = resolve(name)
    summary, facts, events = summarize(chosen), chosen.provenance(), chosen.events()
    if json:
        parts = {"summary": as_json(summary), "state": chosen.state(), "provenance": facts, "spec": chosen.spec}
        parts["snapshots"] = [{"step": step_of(path.name), "path": str(path)} for path in chosen.snapshots()]
        print_json(parts | {"events": events, "columns": [column._asdict() for column in chosen.columns]})
        return 0
    problem = facts.get("problem", {})
    sources: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
        (facts, ("device", "precision", "started")),
        (problem, ("parameters", "start_file", "data", "rule", "notes", "products", "sha256", "origin", "vocabulary_sha256")),
    )
    origin = [(name, str(source[name])) for source, names in sources for name in names if name in source]
    print_pairs([*words(summary), ("preset", chosen.spec.name), ("directory", str(chosen.path)), *_kept(chosen), *origin])
    for event in events[-10:]:
        print_line(f"step {event.step}: {event.text}")
    return 0


def _kept(run: Run) -> list[tuple[str, str]]:
    """The snapshots of a run in words; nothing where it has none."""
    steps = [step_of(path.name) for path in run.snapshots()]
    return [("snapshots", f"{len(steps)}, of steps {steps[0]} to {steps[-1]}")] if steps else []


@app.command
def reproduce(
    figure: FigureName, *, small: Switch = False, out: Path = Path("figures"), overrides: Overrides = (), json: Switch = False,
    data_dir: DataDir = None, force: Switch = False, style: Path | None = None, width: str | None = None, dpi: int | None = None,
    format: str | None = None, latex: Switch = False,
) -> int:
    """Make a figure of the paper anew: its runs, then SVG, PNG or PDF, CSV and a manifest. Needs the extra `figures`.

    Runs that have ended are kept and those cut short go on, so the same command again goes on after an interruption.

    Args:
        figure: fig1 to fig6, appendix-e or appendix-g.
        small: The small twins, on data that ship with eos: minutes on a laptop.
        out: The folder that the files are written to.
        overrides: `section.field=value` for every run of the figure; may be repeated.
        json: Print the manifest as one JSON object.
        force: Replace files of the figure that are read-only, too.
        style: A matplotlib style file, over eos' own style: fonts, sizes, axes. Colours and dashes mean something, and stay.
        width: How wide the figure is, with its unit: 5.5in, 84mm or 8.4cm. Without it, 9 to 14 inches, as the figure needs.
        dpi: Dots per inch of the PNG; 110 when neither this nor the style file says.
        format: Any of svg, png and pdf, as in `--format pdf,png`; svg,png when not given. Text stays text in SVG and PDF.
        latex: Have LaTeX set the text; `latex` and `dvipng` are to be on the path.
    """
    from engine.figures.page import page
    from engine.figures.reproduce import reproduce as make

    manifest = make(figure, small, out, overrides, data_dir, force, page(style, width, dpi, format, latex))
    if manifest is None:
        print("interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    if json:
        print_json(manifest)
    else:
        for name in manifest["files"]:
            print(out / name)
    return 0


@app.command
def fork(
    parent: RunName, /, *, step: Annotated[int | None, Parameter(("--step", "--at"))] = None, overrides: Overrides = (),
    name: Annotated[str | None, Parameter(("--name", "--new-name"))] = None, other_loss: Switch = False, headless: Switch = False,
    json: Switch = False, trusted: Trust = False,
) -> int:
    """Go on from a checkpoint of a run as a new run, with another learning rate or other settings. One process takes its steps.

    Args:
        parent: A run's name, or the path of a run directory.
        step: Fork from the newest checkpoint at or before this step; without it, from the newest of all.
        overrides: `section.field=value`, as in `--set optimizer.learning_rate=0.05`; may be repeated.
        name: The new run's name; made from the preset and the time when not given.
        other_loss: Go on with the code and data there are now, though the loss at the checkpoint was another.
        headless: Follow the new run to its end, and print its summary, as `run` does.
        json: Print one JSON object: both names, and the step; with --headless the summary.
    """
    run = resolve(parent)
    at = run.state().step if step is None else step
    made = trust.asking(lambda: forks.fork(run, at, overrides, name, other_loss), trusted)
    pid = launch.start(made)
    if headless:
        return _see_through(made, pid, json, True)
    if several := forks.shared_out(run):
        print_line(f"{several}; `stop {made.name}` and `resume {made.name} --coordinator …` give it to several", error=True)
    if json:
        print_json({"run": made.name, "from": run.name, "step": made.events()[-1].step})
    else:
        print_line(f"run {made.name} goes on from {run.name}")
    return 0


@app.command
def rm(name: RunName, /, *others: RunName, force: Switch = False, json: Switch = False) -> int:
    """Delete runs and everything they recorded; also damaged ones, and those of a newer eos, which nothing else can be done with here.

    Args:
        name: A run's name, or the path of a run directory.
        others: More of them. One that cannot be deleted does not keep the next from it.
        force: Also runs whose engine on another host has fallen silent. Where it still works, what it does from then on is lost.
        json: Print one JSON object: the run that is gone; for several an array of them.
    """
    gone, status = list[dict[str, Any]](), 0
    for each in dict.fromkeys((name, *others)):
        try:
            removed = store.discard(each, force)
        except UserError as error:
            if not others:
                raise
            status = report_error(str(error))
            continue
        gone.append({"run": removed, "removed": True})
        print_line(f"run {removed}: removed", error=True)
    if json:
        print_json(gone if others else gone[0])
    return status


@app.command
def reference() -> int:
    """Print the reference of `import engine` as Markdown, from its signatures and docstrings."""
    print(importlib.import_module("engine.reference").markdown(), end="")
    return 0


@app.command
def bench(
    problems: tuple[str, ...] = (), /, *, rounds: Annotated[int, Parameter(validator=Number(gte=1))] = 5, json: Switch = False,
    prepare: Switch = False, small: Switch = False,
) -> int:
    """Time a tracked step against the published procedure and against its floor, in the same run.

    `bench scaling` times the derivatives instead, shared out over devices and over processes, one for each core of this machine.
    `bench runs` times recorded runs: small ones, one with a viewer attached, the first step of `eos demo`, memory against n.
    `bench batch` times several learning rates in one batch against one after the other.
    `bench several` times a tracked step with two directions at the edge against the floor of its own products, told by part.
    `bench memory` reads the memory of a tracked step of 1e6 and 1e7 parameters, beside what `check` says of it.
    `bench device FOLDER` takes the measure of a GPU in eight minutes, and compares runs there with what --prepare has left in the folder.

    Args:
        problems: digits, fashion-1000, fashion-5000, fashion-cnn, transformer; all when none is named. Or one of those above, alone.
        rounds: Interleaved rounds; medians are printed.
        json: Print a JSON array, an object a problem.
        prepare: Of `bench device`: make the runs on CPUs that those on the device are compared with.
        small: Of `bench device`: small sizes, which a CPU takes too.
    """
    folder = Path(__file__).parents[2] / "tests" / "bench"
    if not (folder / "tracked.py").is_file():
        raise UserError(f"{folder}: the benchmark is not installed with eos; run `python -m engine bench` in a clone of its sources")
    sys.path.insert(0, str(folder))
    others = {"scaling": "scaling", "runs": "recorded", "batch": "batched", "several": "several", "memory": "footprint"}
    if problems[:1] == ("device",):
        if len(problems) != 2:
            raise UserError("bench device: expected one folder, as in `bench device measured`")
        return importlib.import_module("device").main(Path(problems[1]), prepare, small, json)
    if prepare or small:
        raise UserError(f"bench {' '.join(problems)}: --prepare and --small are options of `bench device FOLDER` alone")
    if len(problems) == 1 and problems[0] in others:
        return importlib.import_module(others[problems[0]]).main(rounds, json)
    from engine.xla.device import configure

    configure()
    tracked = importlib.import_module("tracked")
    unknown = [name for name in problems if name not in tracked.PROBLEMS]
    if unknown:
        choices = f'expected some of {one_of(tracked.PROBLEMS)}, or {one_of(others)} alone, or "device" and a folder'
        raise UserError(f'bench problem "{unknown[0]}": not known; {choices}')
    return tracked.main(problems, rounds, json)


@app.command(show=False)
def work(directory: str, *, code: str = "", meeting: Meeting = FROM_ENVIRONMENT) -> int:
    """Be the engine of a run directory, trusted with the code of this digest. The other commands start this one."""
    # Options alone: engines that a sweep starts inherit the environment, and each is at a run of its own.
    return worker.work(directory, meeting.group(environment={}), code)


def _see_through(run: Run, pid: int, json: bool, made: bool = False) -> int:
    print_line(f"run {run.name} in {run.path}", error=True)
    for part in (run.spec.problem, run.spec.optimizer):
        if isinstance(part, Own | OwnOptimizer):
            print_line(f"its engine imports {part.function}, from Python's path or {part.folder}", error=True)
    for function in run.spec.metrics.functions.values():
        print_line(f"its engine imports {function}, from Python's path or {run.spec.metrics.folder}", error=True)
    run = run.held()  # the one that this engine is at, whatever has its name in a moment
    status = follow(run, pid)
    launch.refuse_unbuilt(run, made)
    summary, state = summarize(run), run.state()
    outcome = state.outcome if state.pid == pid else None  # else the last word is that of an earlier engine
    if outcome is None and (refused := refusal(run, pid)) is not None:  # it never got as far as its loop
        raise refused
    if outcome is None:
        summary = summary._replace(outcome="crashed")
        print(harmless(gone_words(run, pid), lines=True), file=sys.stderr)
    else:
        print_line(outcome.text, error=True)
    if json:
        print_json(as_json(summary))
    else:
        print_pairs(words(summary))
    return status if status and summary.outcome in ("stopped", "crashed") else _status(summary)


def _status(summary: Summary) -> int:
    return BAD_END if summary.outcome in BAD_ENDS else 0
