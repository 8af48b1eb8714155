"""A list to choose several from: each line begins with [x] or [ ], so that the choice shows without colour."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from eos_tui.widgets.filter import matches
from eos_tui.widgets.long_list import LongList


class Checklist(LongList):
    """Options by name; space or a click chooses the highlighted one or leaves it out."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "select", "choose")]
    DEFAULT_CSS = "Checklist { height: auto; max-height: 1fr; }"

    class Full(Message):
        """One more than there may be was asked for."""

    def __init__(self, most: int | None = None, rows: int = 1):
        """`most` may be chosen; each option has so many `rows`."""
        super().__init__(self._prompt, rows)
        self.chosen: list[str] = []
        """In the order in which they were chosen."""
        self._most = most
        self._offered: dict[str, Content] = {}
        self.shown: list[str] = []
        """Names of the options that have the words looked for."""

    def offer(self, lines: Iterable[tuple[str, Content]], chosen: Iterable[str]) -> None:
        """Show these lines by name, some of them chosen."""
        self._offered = dict(lines)
        self.chosen = [name for name in chosen if name in self._offered]
        self.narrow("")

    def replace(self, lines: Iterable[tuple[str, Content]]) -> None:
        """Show these lines in place of those of the same names."""
        self._offered |= dict(lines)
        self.refresh()

    def narrow(self, words: str) -> None:
        """Show only what has these words."""
        self.shown = [name for name, line in self._offered.items() if matches(f"{name} {line.plain}", words)]
        self.show(len(self.shown))
        self.refresh(layout=True)

    @property
    def option_count(self) -> int:
        """How many options are shown."""
        return self.count

    def _prompt(self, item: int) -> Content:
        name = self.shown[item]
        return Content.assemble(("[x] " if name in self.chosen else "[ ] ", "bold"), self._offered[name])

    def on_long_list_selected(self, message: LongList.Selected) -> None:
        message.stop()
        name = self.shown[message.item]
        if name in self.chosen:
            self.chosen.remove(name)
        elif self._most is not None and len(self.chosen) >= self._most:
            self.post_message(self.Full())
        else:
            self.chosen.append(name)
        self.refresh()
