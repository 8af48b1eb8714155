"""The one exception a user may cause: it says what was given, where, and what would do. And how commands end."""

import difflib
from collections.abc import Iterable

BAD_INPUT, BAD_END, HELD, NO_PORT, NO_PLACE, INTERRUPTED, BROKEN_PIPE = 2, 3, 4, 5, 6, 130, 141
"""Exit statuses: 2 bad input, 3 the run ended badly, 4 another engine is at work on it, 5 the port where its processes meet is taken, 6 the
place of this process among them is, 130 interrupted with Ctrl-C, 141 nobody reads stdout any more; after another signal 128 and its
number, as 143 when terminated."""


class UserError(Exception):
    """Bad input, in one sentence. Commands print it without a traceback and exit with its status."""

    status = BAD_INPUT


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had not enough memory. On a CPU jax says so in words alone, beneath INTERNAL."""
    text = str(error)
    return isinstance(error, MemoryError) or any(words in text for words in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory"))


def first_line(error: Exception) -> str:
    """`ValueError: what it says`, at most the first line of it; a sentence of eos as it is."""
    if isinstance(error, UserError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean "…"?` with the nearest of what is known; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def one_of(names) -> str:
    """`"a", "b", "c"`: the choices, as an error lists them."""
    return ", ".join(f'"{name}"' for name in names)
