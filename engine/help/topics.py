"""The engine's topics, in the order in which they are listed. A view adds its own."""

from collections.abc import Callable, Mapping
from functools import partial

from engine.help import scripts, settings, tables
from engine.help.catalog import Topic, listed, written

MADE: Mapping[str, Callable[[], str]] = {
    "presets": tables.presets, "columns": lambda: listed(tables.column_sections()), "settings": lambda: listed(settings.sections()),
    "examples": scripts.listing, "figures": tables.figures, "optimizers": tables.optimizers, "data": tables.data_sets,
    "layout": tables.layout,
}  # fmt: skip
"""What stands for each marker of the texts."""


def _text(name: str) -> Callable[[], str]:
    return partial(written, __package__, name, MADE)


TOPICS: tuple[Topic, ...] = (
    Topic("theory", "The theory, and where it goes on", _text("theory")),
    Topic("optimizers", "Every optimizer's edge", _text("optimizers")),
    Topic("batches", "Steps on batches", _text("batches")),
    Topic("presets", "Presets", _text("presets")),
    Topic("columns", "Columns of a record", _text("columns"), tables.column_sections),
    Topic("settings", "Settings of a run", _text("settings"), settings.sections),
    Topic("ssh", "Over SSH, in tmux", _text("ssh")),
    Topic("gpu", "On a GPU machine", _text("gpu")),
    Topic("slurm", "On a SLURM cluster, and on several hosts", _text("slurm")),
    Topic("data", "Data sets", _text("data")),
    Topic("sweeps", "Sweeps over a grid of settings", _text("sweeps")),
    Topic("export", "Runs for other programs", _text("export")),
    Topic("figures", "The paper's figures", _text("figures")),
    Topic("own-model", "A model or a loss of your own", _text("own-model")),
    Topic("python", "In Python", _text("python")),
    Topic("examples", "Example scripts", _text("examples"), scripts.sections),
    Topic("run-directory", "The run directory", _text("run-directory")),
    Topic("extending", "To carry eos on", _text("extending")),
    Topic("numbers", "Numbers to trust", _text("numbers")),
)
