"""x turning on the screen: its path in two directions at the edge, over the ellipse of the covariance that is predicted of it."""

from textual.strip import Strip

from eos_tui.draw import line_plot, turning
from eos_tui.draw.axes import Limits
from eos_tui.draw.plot_spec import Window
from eos_tui.model.history import History
from eos_tui.widgets.plot import Drawing


class TurningPath(Drawing):
    """The path over its ellipses, or the words for why nothing turns."""

    def __init__(self, *, id: str | None = None, classes: str | None = None, ascii: bool = False):
        super().__init__(id=id, classes=classes, ascii=ascii)
        self.turn: turning.Turn | None = None
        self.words, self.subtitle = "", ""
        self._limits: tuple[Limits, Limits] | None = None
        self._pair = 0, 0

    def show_turn(self, turn: turning.Turn | None, words: str, subtitle: str) -> None:
        """Show a path, or the words where there is none."""
        self.turn, self.words, self.subtitle = turn, words, subtitle
        if turn is not None and (turn.first, turn.second) != self._pair:
            self._pair, self._limits = (turn.first, turn.second), None
        self.update()

    def show(self, history: History, window: Window) -> None:
        """Show the path in the first two directions up to the cursor, or else to the end of the window."""
        if why := turning.why_none(history, window):
            self.show_turn(None, why, "")
        else:
            shown = turning.turn(history, window, 1, 2)
            self.show_turn(shown, "", f"{shown.directions} directions at the edge")

    def on_resize(self) -> None:
        self._limits = None  # the axes are of one scale in cells of another number
        super().on_resize()

    def titles(self, width: int) -> tuple[str, str]:
        pair = "" if self.turn is None else f": x{self.turn.second} against x{self.turn.first}"
        return f"x turns{pair}" if self.turn is not None else "x in several directions", self.subtitle

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        if self.turn is None:
            return line_plot.message(self.words, width, height, theme)
        strips, self._limits = turning.paint(self.turn, width, height, ascii=self.ascii, theme=theme, held=self._limits)
        return strips
