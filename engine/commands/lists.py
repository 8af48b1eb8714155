"""The commands for many runs: list them, and put words on them to find them by."""

from datetime import datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from engine.base.errors import UserError
from engine.base.text import cell, print_json, print_line, print_table
from engine.commands.options import RunName, Switch
from engine.record import store, tags
from engine.record.glance import Glance, UnopenedRun, all_glances, unopened_runs
from engine.record.reader import State

Tags = Annotated[tuple[str, ...], Parameter("--tag", negative=(), show_default=False)]


def ls(*, tagged: Tags = (), json: Switch = False) -> int:
    """List the runs with status, steps, rate, η, tags and outcome, oldest first. After them, those that cannot be opened, with why:
    damaged ones, and those of a newer eos.

    Args:
        tagged: Only runs with this tag; several of them, and a run is to have them all.
        json: Print one JSON array, which also tells when each run was made.
    """
    wanted = set(tags.checked(tagged))
    entries = [_entry(glance, state) for glance, state in all_glances()]
    entries += [_unopened_entry(run) for run in unopened_runs({entry["run"] for entry in entries})]
    entries = [entry for entry in entries if wanted.issubset(entry["tags"])]
    if json:
        print_json(entries)
    elif not entries:
        which = f"no runs in {store.home()} have the tags {', '.join(sorted(wanted))}" if wanted else f"no runs in {store.home()} yet"
        print_line(f"{which}; {'`tag RUN WORD` puts one on' if wanted else '`demo` makes one'}", error=True)
    else:
        print_table(["run", "preset", "status", "steps", "rate", "η", "tags", "outcome"], [_cells(entry) for entry in entries])
    return 0


def _entry(run: Glance, state: State) -> dict[str, Any]:
    status, outcome = run.liveness(state), state.outcome
    return {
        "run": run.name, "preset": run.preset, "status": status, "step": state.step, "rate": state.rate if status == "running" else None,
        "outcome": outcome.text if outcome else None, "learning_rate": state.learning_rate or None,
        "made": datetime.fromtimestamp(run.made / 1e9).astimezone().isoformat(timespec="seconds"), "tags": run.tags(),
    }  # fmt: skip


def _unopened_entry(run: UnopenedRun) -> dict[str, Any]:
    return {
        "run": run.path.name, "preset": None, "status": run.status, "step": None, "rate": None, "outcome": run.why, "learning_rate": None,
        "made": None, "tags": tags.tags_of(run.path),
    }  # fmt: skip


def _cells(entry: dict[str, Any]) -> list[str]:
    rate, eta = entry["rate"], entry["learning_rate"]
    return [
        entry["run"], entry["preset"] or "", entry["status"], cell(entry["step"]), "" if rate is None else f"{rate:.3g}/s",
        "" if eta is None else f"{eta:.4g}", " ".join(entry["tags"]), entry["outcome"] or "",
    ]  # fmt: skip


def tag(name: RunName, /, *words: str, remove: Switch = False, json: Switch = False) -> int:
    """Put words on a run, to find it by in the launcher and with `ls --tag`. Without words, print those it has.

    Args:
        name: A run's name (`ls` lists them), or the path of a run directory.
        words: Letters, digits, `.`, `_`, `+` and `-`, beginning with a letter or digit; ten at most.
        remove: Take these words off it.
        json: Print one JSON object: the run and its tags.
    """
    run = store.resolve(name)
    had, given = tags.tags_of(run.path), tags.checked(words)
    if remove and (absent := [word for word in given if word not in had]):
        raise UserError(f"run {run.name}: not tagged {', '.join(absent)}; it has {', '.join(had) or 'no tags'}")
    if remove and not given:
        raise UserError("--remove: expected the words to take off")
    now = tuple(word for word in had if word not in given) if remove else (*had, *given)
    if words:
        now = tags.write_tags(run.path, now)
    if json:
        print_json({"run": run.name, "tags": now})
    else:
        print_line(" ".join(now) if now else f"run {run.name}: no tags", error=not now)
    return 0


def add_to(app: App) -> None:
    """Add the commands of this module to a command line."""
    for command in (ls, tag):
        app.command(command)
