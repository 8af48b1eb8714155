"""A little text that is painted again only when it has changed."""

from textual.content import Content
from textual.widget import Widget


class Line(Widget):
    """A row of styled text, cut at the right edge; wrapped where it is given more rows."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, id: str | None = None):
        super().__init__(id=id)
        self.content = Content("")

    def show(self, content: Content) -> None:
        """Show this text."""
        if content != self.content or content.spans != self.content.spans:
            self.content = content
            self.refresh()

    def render(self) -> Content:
        return self.content if self.size.height > 1 else self.content.truncate(max(self.size.width, 1), ellipsis=True)
