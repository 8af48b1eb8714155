"""What a shell may complete where a command line names a preset, a run, or a column of a run.

Asked at each press of the key, so nothing is imported here that takes time, and nothing is said where nothing is found.
"""

from collections.abc import Iterator
from pathlib import Path

from cyclopts.completion import CompletionContext

from engine import store
from engine.errors import UserError
from engine.spec import preset_names, preset_words


def presets(context: CompletionContext) -> dict[str, str]:
    """Names of presets with their titles, and the preset files in the folder typed so far."""
    folder, slash, _ = context.incomplete.rpartition("/")
    files = sorted(f"{folder}{slash}{path.name}" for path in Path(folder + slash).glob("*.toml"))
    return {name: preset_words(name).title for name in preset_names()} | dict.fromkeys(files, "preset file")


def runs(context: CompletionContext) -> dict[str, str]:
    """Names of runs, each with what became of it."""
    return {run.name: run.liveness() for run in store.all_runs()}


def columns(context: CompletionContext) -> dict[str, str]:
    """Columns of the run that the command line names, or of the latest one."""
    try:
        return {column.name: column.words for column in store.resolve(next(_named(context), None)).columns}
    except UserError:
        return {}


def data_sets(context: CompletionContext) -> list[str]:
    """Names of the data sets that do not ship with eos."""
    from engine.data.catalog import ENTRIES

    return list(ENTRIES)


def figures(context: CompletionContext) -> dict[str, str]:
    """Names of the figures that can be made anew."""
    from engine.figures.catalog import FIGURES

    return {name: figure.title for name, figure in FIGURES.items()}


def _named(context: CompletionContext) -> Iterator[str]:
    """The run that the command line names so far."""
    for argument in context.arguments:
        if argument.parameter.completer is runs and argument.tokens:
            yield argument.tokens[0].value
