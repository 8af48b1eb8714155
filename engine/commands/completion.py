"""What a shell may complete where a command line names a preset, a run, a column of a run, or a field to set.

Asked at each press of the key, so nothing is imported here that takes time, and nothing is said where there is nothing to complete.
"""

import json
from collections.abc import Callable
from pathlib import Path

from cyclopts.completion import CompletionContext

from engine.base.errors import UserError
from engine.record import store
from engine.record.glance import all_glances
from engine.spec import DEFAULT_PRESET, fields_of, load_spec, preset_names, preset_words

COMPLETE = "__complete"
"""What the completion of a shell asks with; cyclopts answers it."""


def presets(context: CompletionContext) -> dict[str, str]:
    """Names of presets with their titles, and the preset files in the folder typed so far."""
    folder, slash, _ = context.incomplete.rpartition("/")
    files = sorted(f"{folder}{slash}{path.name}" for path in Path(folder + slash).glob("*.toml"))
    return {name: preset_words(name).title for name in preset_names()} | dict.fromkeys(files, "preset file")


def runs(context: CompletionContext) -> dict[str, str]:
    """Names of runs, each with what became of it."""
    return {run.name: run.liveness(state) for run, state in all_glances()}


def columns(context: CompletionContext) -> dict[str, str]:
    """Columns of the run that the command line names, or of the latest one; each again after a comma."""
    before, comma, _ = context.incomplete.rpartition(",")
    try:
        return {before + comma + column.name: column.words for column in store.resolve(_named(context, runs)).columns}
    except UserError:
        return {}


def fields(context: CompletionContext) -> list[str]:
    """Fields that may be set, with the values they have in the run or the preset that the command line names."""
    run, preset = _named(context, runs), _named(context, presets)
    try:
        spec = store.resolve(run).spec if run else load_spec(preset or DEFAULT_PRESET)
    except UserError:
        return []
    shown = ((path, value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))) for path, value in fields_of(spec))
    return [f"{path}={value}" for path, value in shown if "." in path or path == "seed"]


def data_sets(context: CompletionContext) -> list[str]:
    """Names of the data sets that do not ship with eos."""
    from engine.data.catalog import ENTRIES

    return list(ENTRIES)


def figures(context: CompletionContext) -> dict[str, str]:
    """Names of the figures that can be made anew."""
    from engine.figures.catalog import FIGURES

    return {name: figure.title for name, figure in FIGURES.items()}


def _named(context: CompletionContext, kind: Callable) -> str | None:
    """The run or preset that the command line names so far."""
    named = (argument for argument in context.arguments if argument.parameter.completer is kind and argument.tokens)
    return next((argument.tokens[0].value for argument in named), None)
