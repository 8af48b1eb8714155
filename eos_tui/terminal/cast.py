"""Frames as an asciicast of version 2: what `asciinema play`, and its player in a web page, show.

https://docs.asciinema.org/manual/asciicast/v2/
"""

import json
from collections.abc import Iterable, Iterator

from rich.console import Console
from textual.strip import Strip

from eos_tui.terminal.diffdisplay import Screenful

BEGIN, END = "\x1b[2J\x1b[?25l", "\x1b[0m\x1b[?25h"
"""A clear screen without a cursor, and the cursor again."""


def lines(frames: Iterable[tuple[float, list[Strip]]], width: int, height: int, title: str, seconds: float) -> Iterator[str]:
    """The lines of the file, of frames that each begin at a time: of every frame the cells that changed."""
    header = {"version": 2, "width": width, "height": height, "duration": round(seconds, 3), "title": title,
              "env": {"TERM": "xterm-256color"}}
    yield json.dumps(header, ensure_ascii=False) + "\n"
    console, shown = Console(color_system="truecolor", force_terminal=True, legacy_windows=False), Screenful()
    shown.resize(width, height)
    begin = BEGIN
    for at, strips in frames:
        sent = "".join(text for y, strip in enumerate(strips) for text in shown.put(0, y, strip, console)) + shown.lift()
        if begin + sent:
            yield _event(at, begin + sent)
        begin = ""
    yield _event(seconds, END)


def _event(at: float, text: str) -> str:
    return json.dumps([round(at, 6), "o", text], ensure_ascii=False) + "\n"
