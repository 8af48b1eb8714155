"""A list of any length to choose from: only the items in sight are drawn.

Textual's own list lays out every option at each change, which takes half a second for three thousand of them.
"""

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip


class LongList(ScrollView, can_focus=True):
    """Items by number, each of so many rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "down", show=False),
        Binding("up", "move(-1)", "up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("home", "end(-1)", "first", show=False),
        Binding("end", "end(1)", "last", show=False),
        Binding("enter", "select", "select", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"long-list--item", "long-list--chosen"}
    DEFAULT_CSS = """
    LongList { width: 1fr; height: 1fr; overflow-x: hidden; overflow-y: auto; background: transparent; scrollbar-size-vertical: 1; }
    LongList > .long-list--chosen { color: $foreground; background: $block-cursor-blurred-background; }
    LongList:focus > .long-list--chosen { color: $block-cursor-foreground; background: $block-cursor-background;
        text-style: $block-cursor-text-style; }
    LongList:nocolor:focus > .long-list--chosen { text-style: bold underline; }
    """

    class Selected(Message):
        """An item was chosen, by enter or by a click."""

        def __init__(self, item: int):
            super().__init__()
            self.item = item

    def __init__(self, line: Callable[[int], Content], rows: int = 1, id: str | None = None):
        """`line` draws an item, on as many rows as each has."""
        super().__init__(id=id)
        self._line, self._rows = line, rows
        self.count = 0
        self.highlighted: int | None = None

    def show(self, count: int, highlighted: int | None = None) -> None:
        """Show so many items; one of them is highlighted, the first where none is given, none where there are none."""
        self.count = count
        self.virtual_size = Size(0, count * self._rows)
        self.highlighted = None if not count else min(max(highlighted or 0, 0), count - 1)
        self._keep_in_sight()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        item, row = divmod(self.scroll_offset.y + y, self._rows)
        width = self.scrollable_content_region.width
        if item >= self.count:
            return Strip.blank(width, self.get_visual_style("long-list--item").rich_style)
        chosen = ("long-list--chosen",) if item == self.highlighted else ()
        look = self.get_visual_style("long-list--item", *chosen)
        lines = self._line(item).split("\n")
        content = lines[row].truncate(max(width, 1), ellipsis=True) if row < len(lines) else Content("")
        return Strip(content.render_segments(look)).adjust_cell_length(width, look.rich_style)

    def on_resize(self) -> None:
        self._keep_in_sight()

    def _keep_in_sight(self) -> None:
        if self.highlighted is not None and self.is_mounted and self.size.height:
            region = Region(0, self.highlighted * self._rows, self.scrollable_content_region.width, self._rows)
            self.scroll_to_region(region, animate=False, force=True, immediate=True)

    def _highlight(self, item: int) -> None:
        if self.count:
            self.highlighted = min(max(item, 0), self.count - 1)
            self._keep_in_sight()
            self.refresh()

    def action_move(self, direction: int) -> None:
        """One item up or down; at an end, on from the other."""
        if self.count:
            self._highlight(((self.highlighted or 0) + direction) % self.count)

    def action_page(self, direction: int) -> None:
        self._highlight((self.highlighted or 0) + direction * max(self.size.height // self._rows, 1))

    def action_end(self, direction: int) -> None:
        self._highlight(0 if direction < 0 else self.count - 1)

    def action_select(self) -> None:
        if self.highlighted is not None:
            self.post_message(self.Selected(self.highlighted))

    def on_click(self, event: events.Click) -> None:
        """Choose what is clicked."""
        item = (self.scroll_offset.y + event.y) // self._rows
        if item < self.count:
            self._highlight(item)
            self.action_select()
