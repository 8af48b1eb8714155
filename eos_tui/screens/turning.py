"""x turning: its path in two directions at the edge, over the ellipse of the covariance that is predicted of it."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from eos_tui import keys
from eos_tui.draw import turning
from eos_tui.draw.plot_spec import Window
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula
from eos_tui.screens.live import LivePage
from eos_tui.widgets.line import Line
from eos_tui.widgets.turning import TurningPath


class Turning(LivePage):
    """The path of (x_i, x_j), newest or up to the cursor; arrows choose i and j."""

    place = "turning"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("turning"), keys.closing("dashboard.turning_x")]

    DEFAULT_CSS = """
    Turning { background: $background; }
    Turning Drawing { height: 1fr; }
    Turning Line { padding-left: 1; }
    """

    def __init__(self, source: Source, window: Callable[[], Window], ascii: bool = False):
        super().__init__(source, ascii)
        self._window = window
        self.path = TurningPath(ascii=ascii)
        self._lines = Line(), Line()
        self.pair = [1, 2]
        """The directions along the horizontal and the vertical axis."""

    def compose(self) -> ComposeResult:
        yield self.path
        yield from self._lines

    @property
    def _history(self) -> History:
        return self.source.history

    def action_choose(self, axis: int, by: int) -> None:
        """Another direction along one axis, never the same along both."""
        count = turning.directions(self._history, self._window())
        if count < 2:
            return
        step = (self.pair[axis] - 1 + by) % count + 1
        if step == self.pair[1 - axis]:
            step = (step - 1 + by) % count + 1
        if step != self.pair[1 - axis]:
            self.pair[axis] = step
        self.paint()

    def action_formula(self) -> None:
        names = turning.columns(self.pair)
        known = [column for column in self.source.columns if column.name in names]
        self.app.push_screen(Formula("x in two directions at the edge", known, self.source.row()))

    def paint(self) -> None:
        if not self.path.is_attached:
            return
        window = self._window()
        if why := turning.why_none(self._history, window):
            self.path.show_turn(None, why, self.hint)
            for line in self._lines:
                line.show(Content(""))
            return
        count = turning.directions(self._history, window)
        if max(self.pair) > count:
            self.pair = [1, 2]  # a direction left the edge
        arrows = "arrows" if self.ascii else "←→ ↑↓"
        choice = f"{arrows} directions · " if count > 2 else ""
        shown = turning.turn(self._history, window, *self.pair)
        self.path.show_turn(shown, "", choice + self.hint)
        for line, text in zip(self._lines, turning.words(shown, self.size.width - 2), strict=True):
            line.show(Content(text))
