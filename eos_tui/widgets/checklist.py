"""A list to choose several from: each line begins with [x] or [ ], so that the choice shows without colour."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from eos_tui.widgets.options import Options


class Checklist(Options):
    """Options by name; space or a click chooses the highlighted one or leaves it out."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "select", "choose")]
    DEFAULT_CSS = """
    Checklist { height: auto; max-height: 1fr; border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1;
        text-wrap: nowrap; text-overflow: ellipsis; }
    Checklist:focus { border: none; background-tint: transparent; }
    """

    class Full(Message):
        """One more than there may be was asked for."""

    def __init__(self, most: int | None = None):
        super().__init__()
        self.chosen: list[str] = []
        """In the order in which they were chosen."""
        self._most = most
        self._offered: dict[str, Content] = {}

    def offer(self, lines: Iterable[tuple[str, Content]], chosen: Iterable[str]) -> None:
        """Show these lines by name, some of them chosen."""
        self._offered = dict(lines)
        self.chosen = [name for name in chosen if name in self._offered]
        self.clear_options()
        self.add_options([Option(self._prompt(name), id=name) for name in self._offered])
        if self._offered:
            self.highlighted = 0

    def _prompt(self, name: str) -> Content:
        return Content.assemble(("[x] " if name in self.chosen else "[ ] ", "bold"), self._offered[name])

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        message.stop()
        name = message.option.id or ""
        if name in self.chosen:
            self.chosen.remove(name)
        elif self._most is not None and len(self.chosen) >= self._most:
            self.post_message(self.Full())
        else:
            self.chosen.append(name)
        self.replace_option_prompt(name, self._prompt(name))
