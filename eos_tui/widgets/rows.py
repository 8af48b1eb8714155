"""Rows of styled text over the whole of a widget, of which only those that changed are painted again."""

from collections.abc import Callable

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

Rows = Callable[[int, int, str], list[Strip]]
"""The rows of a width, a height and a theme."""


class RowsOf(Widget):
    """What a function draws."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "RowsOf { width: 1fr; height: 1fr; }"

    def __init__(self, drawn: Rows):
        super().__init__()
        self._drawn = drawn
        self._strips: list[Strip] = []
        self._drawn_for: tuple[int, int, str] | None = None

    def update(self) -> None:
        """Draw again, and refresh the rows that differ."""
        before, known = self._strips, self._drawn_for
        self._redraw()
        if known != self._drawn_for:
            self.refresh()
            return
        changed = [Region(0, y, self.size.width, 1) for y, (old, new) in enumerate(zip(before, self._strips, strict=True)) if old != new]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        if self._drawn_for != (*self.size, self.app.theme):
            self._redraw()
        style = self.visual_style.rich_style
        return self._strips[y].apply_style(style) if y < len(self._strips) else Strip.blank(self.size.width, style)

    def _redraw(self) -> None:
        width, height = self.size
        self._drawn_for = width, height, self.app.theme
        self._strips = self._drawn(*self._drawn_for)
