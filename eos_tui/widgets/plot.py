"""A line plot on the screen: it repaints the rows that changed, and keeps its axis as long as it serves."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.events import Click, MouseEvent, MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from eos_tui.draw import line_plot
from eos_tui.draw.axes import Limits
from eos_tui.draw.picturing import CellSize, Pixels
from eos_tui.draw.plot_spec import Overlay, PlotSpec, Window
from eos_tui.draw.row import Row
from eos_tui.draw.theme import is_mixed
from eos_tui.model.history import History

FEW_COLOURS = ("standard", "256")
"""Of a terminal that cannot mix them: of 256, none is near a faint ground."""
BORDERS = 8
"""Borders kept of a widget: with and without the focus, for a few sizes and themes."""


class _Border(NamedTuple):
    """What stands around the rows of a drawing, as Textual draws it."""

    look: tuple
    """The size, theme and style that it is for."""
    left: Segment
    right: Segment
    edges: dict[int, tuple[Strip, str]]
    """The first and the last row, and the words in them."""


class Drawing(Widget, can_focus=True):
    """A bordered widget whose content is rows of styled text, made anew at each frame and sent only where they differ."""

    DEFAULT_CSS = """
    Drawing {
        border: round $border-blurred;
        border-title-color: $foreground;
        border-subtitle-color: $text-muted;
        border-title-align: left;
        border-subtitle-align: right;
        &:focus { border: round $primary; border-title-style: bold; border-subtitle-color: $foreground; }
    }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None, ascii: bool = False):
        super().__init__(id=id, classes=classes)
        self.ascii = ascii
        self.number = 0
        """Its place among the panels, which is the key that jumps to it; 0 says none."""
        self.strips: list[Strip] = []
        self._drawn_for: tuple[int, int, str] | None = None
        self._titles = "", ""
        self._retitling = False
        self._unstyled = False
        """Whether Textual's styles are still those of the focus before."""
        self._borders: dict[tuple, _Border] = {}
        """The border for each size, theme, style and focus there was."""
        self.border_drawn: _Border | None = None
        """The one that the rows below are in."""
        self._styled: dict[int, tuple[Strip, list[Segment]]] = {}
        """Each row of content, and how it is shown: most are those of the frame before."""
        self._framed: dict[int, Strip] = {}
        """The same with its sides."""
        self._shown_styles: dict[Style | None, Style | None] = {}
        """Each style of the content, and how it is shown on the widget's ground and through the app's filters."""
        self._pictured: tuple[CellSize, tuple[int, int, str] | None, list[Strip], Pixels | None] | None = None
        """The size of cells, the drawing and the rows that the last picture was made for, and the picture."""

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        """The rows to show at this size."""
        raise NotImplementedError

    def pixels(self, cell: CellSize) -> Pixels | None:
        """The plot as a picture over its cells, made anew when one of these changes; None where it has none."""
        of = cell, self._drawn_for
        if self._pictured is None or self._pictured[:2] != of or self._pictured[2] != self.strips:
            drawable = bool(self.strips) and not self.ascii and is_mixed(self.app.theme)
            self._pictured = *of, self.strips, self.draw_pixels(cell) if drawable else None
        return self._pictured[3]

    def draw_pixels(self, cell: CellSize) -> Pixels | None:
        """The plot as a picture, as it was drawn last."""
        return None

    def titles(self, width: int) -> tuple[str, str]:
        """The words on the border's top and bottom, for so many cells between its sides."""
        raise NotImplementedError

    def update(self) -> None:
        """Draw again, and refresh the rows that differ."""
        now = self._drawing_for() if self.is_attached else (0, 0, "")
        if not now[0] or not now[1]:
            return
        before, resized = self.strips, self._drawn_for != now
        self._redraw(now)
        border = self.retitle(now[0])
        if resized:
            self.refresh()
            return
        width = self.outer_size.width  # whole rows, as they are kept: cut to what is within the border, each would be copied
        # Most rows are the same object as before, as the same cells are.
        changed = [y for y, (old, new) in enumerate(zip(before, self.strips, strict=True)) if old is not new and old != new]
        regions = [Region(-1, y, width, 1) for y in [*changed, *border]]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        if self._drawn_for != (now := self._drawing_for()):
            self._redraw(now)
        style = self.visual_style.rich_style
        return self.strips[y].apply_style(style) if y < len(self.strips) else Strip.blank(self.size.width, style)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows with their border. Textual makes the top and the bottom one and the sides, once for each look of the widget:
        made anew with each row, the sides took longer than the plot.
        """
        if self._drawn_for != (now := self._drawing_for()):
            self._redraw(now)
        width, height = self.outer_size
        if not self.strips or height != len(self.strips) + 2:
            return self.by_textual(crop)
        framed_for = self._framed_for()
        if framed_for not in self._borders:
            if len(self._borders) >= BORDERS:
                self._borders.clear()
            row = list(self.by_textual(Region(0, 1, width, 1))[0])
            self._borders[framed_for] = _Border(framed_for[:-1], row[0], row[-1], {})
        border = self._borders[framed_for]
        if border is not self.border_drawn:
            if self.border_drawn is None or self.border_drawn.look != border.look:
                self._styled.clear()
                self._shown_styles.clear()
            self._framed.clear()
            self.border_drawn = border
        self._restyle([y for y in crop.line_range if 0 < y < height - 1])
        rows = [self.edge_strip(border, y) if y in (0, height - 1) else self._between(border, y) for y in crop.line_range]
        return rows if crop.column_span == (0, width) else [row.crop(*crop.column_span) for row in rows]

    def by_textual(self, crop: Region) -> list[Strip]:
        """Rows as any widget's."""
        self._retitling = True
        self.border_title, self.border_subtitle = (Content(words) for words in self._titles)
        if self._unstyled:
            self._unstyled = False
            self.update_node_styles(animate=False)
        self._retitling = False
        width, height = self.outer_size
        self._styles_cache.set_dirty(Region(0, 0, width, 1), Region(0, height - 1, width, 1))  # silent titles are not noticed
        return super().render_lines(crop)

    def edge_strip(self, border: "_Border", y: int) -> Strip:
        """The first or last row. Words take the place of those that Textual drew, and the line beside them what that leaves; what
        has no words, or no room for a line, Textual draws itself.
        """
        words = self._titles[y > 0]
        known = border.edges.get(y)
        if known is None or known[1] != words:
            strip = _reworded(*known, words, 3 if y == 0 else 1) if known is not None and words else None
            known = border.edges[y] = strip or self.by_textual(Region(0, y, self.outer_size.width, 1))[0], words
        return known[0]

    def _restyle(self, rows: Sequence[int]) -> None:
        """Style the rows of content that are others than when they were shown last."""
        known, shown = self._styled, self._shown_styles
        for y in rows:
            strip = self.strips[y - 1]
            if y in known and known[y][0] is strip:
                continue
            for _, style, _ in strip:
                if style not in shown:
                    shown[style] = self._shown_style(style)
            known[y] = strip, [Segment(text, shown[style]) for text, style, _ in strip]
            self._framed.pop(y, None)

    def _shown_style(self, style: Style | None) -> Style | None:
        """A style of the content as it is shown: over the widget's own, and through the app's filters, which change styles alone."""
        segments, ground = [*Segment.apply_style([Segment(" ", style)], self.visual_style.rich_style)], self.background_colors[1]
        for filter in self.get_line_filters():
            segments = filter.apply(segments, ground)
        return segments[0].style

    def _between(self, border: "_Border", y: int) -> Strip:
        """A row of content with its sides."""
        if y not in self._framed:
            self._framed[y] = Row([border.left, *self._styled[y][1], border.right], self.outer_size.width)
        return self._framed[y]

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False):
        """As any widget's; silent while the titles are set, which would otherwise repaint every row."""
        if self._retitling:
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def watch_has_focus(self, _has_focus: bool) -> None:
        """As any widget's, but nothing of the border moves by and by, which would be looked for in every style; and a border that is
        kept from before needs no styles at all.
        """
        if self._framed_for() in self._borders:
            self._unstyled = True
            self.refresh()
        else:
            self.update_node_styles(animate=False)

    def on_resize(self) -> None:
        if self.retitle(self.size.width):  # as many values as there is room for
            self.refresh()

    def _framed_for(self) -> tuple:
        """What the border depends on."""
        return *self.outer_size, self.app.theme, self.visual_style.rich_style, self.has_focus

    def _drawing_for(self) -> tuple[int, int, str]:
        width, height = self.size
        return width, height, self.app.theme

    def _redraw(self, now: tuple[int, int, str]) -> None:
        self._drawn_for = now
        with np.errstate(all="ignore"):  # rows of unknown origin may hold anything
            self.strips = self.content_strips(*now)

    def retitle(self, width: int) -> list[int]:
        """Set the border's words, and say which rows of the border they changed, counted from the first of the content."""
        title, values = self.titles(width)
        before, self._titles = self._titles, (f"{self.number} {title}".rstrip() if self.number else title, values)
        return [row for row, old, new in zip((-1, len(self.strips)), before, self._titles, strict=True) if old != new]


def _reworded(edge: Strip, before: str, words: str, line: int) -> Strip | None:
    """A border's row, of corner, line, words, line and corner, with other words; the line at this place makes up for their width."""
    parts = list(edge)
    if len(parts) != 5 or parts[2].text != f" {before} ":
        return None
    size = len(parts[line].text) + cell_len(before) - cell_len(words)
    parts[line] = parts[line]._replace(text=parts[line].text[:1] * size)
    parts[2] = parts[2]._replace(text=f" {words} ")
    return Strip(parts, edge.cell_length) if size > 0 else None


class Pointed(Message):
    """The mouse did something at a step of a plot."""

    def __init__(self, deed: Literal["cursor", "zoom", "pan"], step: float, amount: float = 0.0):
        super().__init__()
        self.deed, self.step, self.amount = deed, step, amount


class LinePlot(Drawing):
    """Curves against the step."""

    def __init__(self, spec: PlotSpec, *, id: str | None = None, classes: str | None = None, ascii: bool = False):
        super().__init__(id=id, classes=classes, ascii=ascii)
        self.spec = spec
        """May be replaced; the next `show` draws it."""
        self._scaled_for = spec.log, spec.curves
        """What the limits were taken for: other curves have other ones."""
        self.history = History(())
        self._window = Window(0, 1)
        self._overlays: Sequence[Overlay] = ()
        self.limits: Limits | None = None
        self.painted: line_plot.Painted | None = None

    def show(self, history: History, window: Window, overlays: Sequence[Overlay] = ()) -> None:
        """Show these steps of this history, with other runs laid over it."""
        scaled_for = self.spec.log, self.spec.curves
        if history is not self.history or scaled_for != self._scaled_for:
            self.limits, self._scaled_for = None, scaled_for
        self.history, self._window, self._overlays = history, window, overlays
        self.update()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, 1)

    def on_click(self, event: Click) -> None:
        self._point(event, "cursor")

    def _wheel(self, event: MouseEvent, direction: int) -> None:
        """The wheel alone zooms; with shift, ctrl or alt held it pans."""
        if event.shift or event.ctrl or event.meta:
            self._point(event, "pan", -direction)
        else:
            self._point(event, "zoom", 2.0**direction)

    def _point(self, event: MouseEvent, deed: Literal["cursor", "zoom", "pan"], amount: float = 0.0) -> None:
        event.stop()
        at = event.get_content_offset(self)
        step = self.painted.step_at(at.x, self.history) if at is not None and self.painted is not None else None
        if step is not None:
            self.post_message(Pointed(deed, step, amount))

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        if not self.history.columns:
            return line_plot.message("no data yet", width, height, theme)
        painted = line_plot.paint(
            self.spec, self.history, self._window, width, height, ascii=self.ascii, theme=theme, limits=self.limits,
            overlays=self._overlays, tinted=self._tinted,
        )
        self.limits, self.painted = painted.limits, painted
        return painted.strips

    def draw_pixels(self, cell: CellSize) -> Pixels | None:
        from eos_tui.draw import pixels

        if self.painted is None:
            return None
        return pixels.of_plot(self.spec, self.history, self.painted, cell, self.app.theme, self._overlays)

    @property
    def _tinted(self) -> bool:
        """Whether the terminal can mix colours; a picture can."""
        return self.app.is_headless or self.app.console.color_system not in FEW_COLOURS

    def titles(self, width: int) -> tuple[str, str]:
        return line_plot.heading(self.spec, width - 4), line_plot.values_line(self.spec, self.history, self._window, max(width - 4, 0))
