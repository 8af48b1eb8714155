"""A line to type words into, by which a list is narrowed down while they are typed."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input


def matches(text: str, words: str) -> bool:
    """Whether each of the words, apart by blanks, is in a text, whatever the case."""
    within = text.casefold()
    return all(word in within for word in words.casefold().split())


class Filter(Input):
    """A filter of a list, hidden until it is asked for. Enter and the arrow down go back to the list, escape lets all of it be seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(False)", "all", show=False),
        Binding("enter,down", "leave(True)", "to the list", show=False),
    ]
    DEFAULT_CSS = """
    Filter, Filter:focus { display: none; height: 1; border: none; padding: 0 1; background: $surface; }
    Filter.open { display: block; }
    """

    class Narrowed(Message):
        """The words have changed."""

        def __init__(self, filter: "Filter"):
            super().__init__()
            self.filter = filter

    def __init__(self, what: str):
        """`what` is filtered, in words."""
        super().__init__(placeholder=f"filter {what}: words in any order", compact=True)
        self._list: Widget | None = None

    def begin(self, of: Widget) -> None:
        """Take the words for a list; it has the focus afterwards."""
        self._list = of
        self.add_class("open")
        self.focus()

    @property
    def words(self) -> str:
        """What is looked for."""
        return self.value

    def clear_words(self) -> bool:
        """Let all of the list be seen; whether there was anything to clear."""
        had = bool(self.value) or self.has_class("open")
        self.value = ""
        self.remove_class("open")
        return had

    def on_input_changed(self, message: Input.Changed) -> None:
        message.stop()
        self.post_message(self.Narrowed(self))

    def action_leave(self, keep: bool) -> None:
        if not keep or not self.value.strip():
            self.clear_words()
        if self._list is not None:
            self._list.focus()
