"""Topics on a terminal: Markdown drawn by rich, through the pager that the user has."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import MarkdownElement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from engine.base.errors import UserError

WIDEST = 110
"""Cells; longer lines are hard to read."""
THEME = Theme({
    "markdown.h1": "bold", "markdown.h2": "bold underline", "markdown.code": "bold", "markdown.code_block": "none",
    "markdown.table.header": "underline", "markdown.item.bullet": "none",
})  # fmt: skip
"""Weights rather than colours: to be read on any ground, and without colours."""
FIRST_COLUMN = 32
"""Cells that the first column of a table keeps whole: names, which are to be copied."""


class _Heading(markdown.Heading):
    """All of them at the left."""

    LEVEL_ALIGN: ClassVar = dict.fromkeys(markdown.Heading.LEVEL_ALIGN, "left")


class _Code(markdown.CodeBlock):
    """Code as it is, set in, on the ground of all else."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Padding(Text(str(self.text).rstrip()), (0, 0, 0, 4))


class _Table(markdown.TableElement):
    """A table without a frame, its names whole."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = self.header.row.cells if self.header is not None and self.header.row is not None else []
        rows = [row.cells for row in self.body.rows] if self.body is not None else []
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="markdown.table.header")
        for k, cell in enumerate(head):
            longest = max((row[k].content.cell_len for row in rows), default=0)
            table.add_column(cell.content, no_wrap=k == 0 and longest <= min(FIRST_COLUMN, options.max_width // 2))
        for row in rows:
            table.add_row(*(cell.content for cell in row))
        yield table


class Drawn(markdown.Markdown):
    """Markdown as the topics are drawn: in a terminal, and on a page of the app."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = markdown.Markdown.elements | {
        "heading_open": _Heading, "fence": _Code, "code_block": _Code, "table_open": _Table,
    }  # fmt: skip

    def __init__(self, text: str):
        super().__init__(text, hyperlinks=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with console.use_theme(THEME):
            yield from super().__rich_console__(console, options)


def show(text: str) -> None:
    """Markdown on stdout: drawn, and paged where it is longer than the terminal, if that is one; else as it is."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as captured:
        console.print(Drawn(text), width=min(console.width, WIDEST))
    _page(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))  # rich fills lines to the width, which a narrower terminal would break


def _page(text: str) -> None:
    """Text through `$PAGER`, else `less`, where there is a keyboard to leave it with; else printed."""
    chosen = os.environ.get("PAGER")
    command = shlex.split("less" if chosen is None else chosen)
    if command and shutil.which(command[0]) is None:
        if chosen is not None:
            raise UserError(f'PAGER = "{chosen}": no such program; `cat` pages nothing')
        command = []
    if not command or not sys.stdin.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        print(text, end="")
        return
    if Path(command[0]).name == "less":
        command.append("-R")  # it shows escape sequences as signs without
    # As git does: `less` ends at once where all fits on the screen, and leaves it there.
    pager = subprocess.Popen(command, stdin=subprocess.PIPE, env={"LESS": "FRX"} | os.environ)
    assert pager.stdin is not None
    try:
        with pager.stdin as stream:
            stream.write(text.encode(sys.stdout.encoding or "utf-8", "replace"))
    except BrokenPipeError:
        pass  # left before all of it was read
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            continue  # Ctrl-C is the pager's, as while it reads a command
