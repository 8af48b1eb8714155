"""A little text that is painted again only when it has changed."""

from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Line(Widget):
    """A row of styled text, cut at the right edge; wrapped where it is given more rows."""

    ALLOW_SELECT = False  # else each of its styles would carry where it stands
    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, id: str | None = None):
        super().__init__(id=id)
        self.content = Content("")

    def show(self, content: Content) -> None:
        """Show this text."""
        if content != self.content or content.spans != self.content.spans:
            self.content = content
            self.refresh()

    def render_lines(self, crop: Region) -> list[Strip]:
        """A single row by itself: by Textual, where it could be wrapped, aligned, linked and selected, it takes three times as long."""
        width, height = self.outer_size
        if height != 1 or crop != Region(0, 0, width, 1):
            return super().render_lines(crop)
        look, indent = self.visual_style, self.styles.padding.left
        strip = Strip(self.render().pad_left(indent).render_segments(look)).adjust_cell_length(width, look.rich_style)
        for filter in self.get_line_filters():
            strip = strip.apply_filter(filter, self.background_colors[1])
        return [strip]

    def render(self) -> Content:
        return self.content if self.size.height > 1 else self.content.first_line.truncate(max(self.size.width, 1), ellipsis=True)
