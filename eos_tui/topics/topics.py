"""All topics of `eos help`: those of the view, whose texts lie in `text/`, then the engine's."""

from collections.abc import Callable, Mapping
from functools import partial

from engine.help import tables
from engine.help.catalog import Topic, written
from engine.help.topics import TOPICS as OF_THE_ENGINE
from eos_tui import keys


def key_tables() -> str:
    """The keys in force: a table for each place where they work."""
    parts = []
    for place, words in keys.PLACES.items():
        rows = [(code(key.shown), f"`{key.name}`", key.help) for key in keys.table() if key.place == place]
        parts.append(f"## {words.capitalize()}: `[keys.{place}]`\n\n{tables.table(('key', 'name', 'what it does'), rows)}")
    return "\n\n".join(parts)


def code(shown: str) -> str:
    """Keys as Markdown."""
    return " ".join(f"`{one}`" for one in shown.split())


def mouse() -> str:
    """What the mouse does."""
    return tables.table(("mouse", "what it does"), keys.MOUSE)


MADE: Mapping[str, Callable[[], str]] = {"keys": key_tables, "mouse": mouse}


def _text(name: str) -> Callable[[], str]:
    return partial(written, __package__, name, MADE)


TOPICS: tuple[Topic, ...] = (
    Topic("dashboard", "What you see, and why", _text("dashboard")),
    Topic("commands", "Commands", _text("commands")),
    Topic("keys", "Keys", _text("keys")),
    Topic("terminal", "The terminal, and settings of the view", _text("terminal")),
    *OF_THE_ENGINE,
)
