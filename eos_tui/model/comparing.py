"""What runs that are shown together are called: by what they differ in."""

from collections.abc import Sequence
from typing import Any

from engine.jobs.fork import LEARNING_RATE, WORDS
from engine.spec import RunSpec, fields_of

FIRST = (LEARNING_RATE, "problem.model.widths", "seed")
"""Fields told before others, where runs differ in them."""
MOST = 3
"""Fields in a label."""
NAMES = {"learning_rate": "η", "widths": "width"}


def settings(spec: RunSpec, learning_rate: float) -> dict[str, Any]:
    """Every field that says what is computed, with the learning rate in force in place of the one asked for."""
    fields = {name: value for name, value in fields_of(spec) if name not in WORDS}
    return fields | ({LEARNING_RATE: learning_rate} if learning_rate > 0 else {})


def labels(runs: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """A label for each run, given by its name and its settings: what it differs in from any of the others; its name where that is
    nothing or too much, or beside it where it does not tell it apart.
    """
    fields = list(dict.fromkeys(name for _, each in runs for name in each))
    differing = [name for name in fields if any(each.get(name) != runs[0][1].get(name) for _, each in runs)]
    shown = sorted(differing, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    if len(shown) > MOST:  # of another preset, as a rule: its name says more than a few of its settings
        return [name for name, _ in runs]
    said = [" · ".join(_said(name, each[name]) for name in shown if name in each) for _, each in runs]
    return [text if text and said.count(text) == 1 else name if not text else f"{text} ({name})"
            for text, (name, _) in zip(said, runs, strict=True)]  # fmt: skip


def _said(field: str, value: Any) -> str:
    """A field and its value, as short as they can be told: widths that are all one as that one."""
    name = field.rpartition(".")[2]
    if isinstance(value, list | tuple):
        value = "×".join(map(_short, [value[0]] if value and len(set(map(str, value))) == 1 else value)) or "none"
    return f"{NAMES.get(name, name)} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
