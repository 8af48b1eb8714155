"""What is printed: JSON, pairs and tables on stdout, and words that are harmless to any terminal, the app's too, whatever they quote.

Names, titles, events and outcomes may come from a run directory of unknown origin. A character that a terminal would obey
(escape sequences, C1 controls, reversed writing) or would not show is shown as its escape, `\\x1b`, and never sent.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unicodedata import category

import msgspec

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula."""
_SKIPPED = ("\t", "\r", "\n")
"""What it may skip before one."""
JOINERS = "\u200c\u200d"
JOINED = ("Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Sk", "So")
"""What may be joined: letters and their marks, pictures and their shades."""
_KEPT = "\n\t"
"""White space that moves the cursor, as it is meant to where text has lines."""


def harmless(text: str, lines: bool = False) -> str:
    """The text with every character that is not seen shown as its escape; with `lines`, newlines and tabs stay."""
    return text if text.isprintable() else _escaped(text, _KEPT if lines else "", lambda one: ascii(one)[1:-1])


def is_harmless(text: str) -> bool:
    """Whether the text holds nothing that a terminal would obey or hide; newlines and tabs do no harm."""
    return text.isprintable() or harmless(text, lines=True) == text


def _escaped(text: str, kept: str, escape: Callable[[str], str]) -> str:
    """The text with every character that is not seen given to `escape`, but for those kept and those that join letters."""
    return "".join(one if one.isprintable() or one in kept or _joins(text, k) else escape(one) for k, one in enumerate(text))


def _joins(text: str, k: int) -> bool:
    """Whether the character is a zero-width joiner or non-joiner between two letters or two pictures. There it is spelling, as Persian,
    the scripts of India and composed emoji have it; elsewhere it is nothing but hidden.
    """
    return text[k] in JOINERS and 0 < k < len(text) - 1 and all(category(text[at]) in JOINED for at in (k - 1, k + 1))


def print_line(text: str, error: bool = False) -> None:
    """One line on stdout, or on stderr."""
    print(harmless(text), file=sys.stderr if error else sys.stdout)


def to_json(value: Any, indent: int | None = 1) -> str:
    """Structs and plain values as JSON. NaN and infinities, which JSON lacks, become null."""
    try:
        text = json.dumps(_finite(msgspec.to_builtins(value)), ensure_ascii=False, indent=indent, allow_nan=False)
    except RecursionError:
        text = json.dumps("nested too deeply to be shown")
    if is_harmless(text):
        return text
    return _escaped(text, _KEPT, lambda one: json.dumps(one)[1:-1])


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(to_json(value))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print labelled text in two columns."""
    rows = [(harmless(name), harmless(value)) for name, value in pairs]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under the names of their columns."""
    shown = [[harmless(cell) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """A value as text for a table; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_cell(value: Any) -> Any:
    """A value for a file of comma- or tab-separated ones: text that is harmless, and quoted where a spreadsheet would take it for a
    formula and carry it out.
    """
    if not isinstance(value, str):
        return value
    return f"'{harmless(value)}" if value.lstrip().startswith(FORMULA) or value[:1] in _SKIPPED else harmless(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def bytes_words(count: int) -> str:
    """A number of bytes as a person reads it: `1.3 GB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
