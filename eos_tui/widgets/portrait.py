"""The phase portrait of self-stabilization on the screen: |x|/δ against y, as the predator–prey cycle it is, and a start that the
mouse or the arrow keys place in it.
"""

from collections.abc import Sequence

import numpy as np
from textual.events import Click
from textual.message import Message
from textual.strip import Strip

from eos_tui.draw import axes, line_plot, phase_portrait, portrait_words
from eos_tui.draw.orbits import Scene, scene
from eos_tui.draw.phase_portrait import Frame, Scale
from eos_tui.draw.picturing import CellSize, Pixels
from eos_tui.draw.plot_spec import Window
from eos_tui.model.history import History
from eos_tui.model.placed_orbit import Start
from eos_tui.widgets.plot import Drawing

WORDS = (": sharpness y against swing |x|/δ", ": y against |x|/δ")
"""What it shows, in plain words where there is room."""
NUDGE = 0.02
"""How far an arrow key moves a start, as a fraction of the axis; finely, a tenth of it."""


class Placed(Message):
    """A start was placed by the mouse."""


class PhasePortrait(Drawing):
    """The real orbit and the predicted ones over the level sets of Lemma 3."""

    def __init__(
        self, forms: Sequence[str] = ("generalized",), given: tuple[float, float] | None = None, *,
        id: str | None = None, classes: str | None = None, ascii: bool = False,
    ):
        """`given` are α and β where the run does not record them: the phase presets."""
        super().__init__(id=id, classes=classes, ascii=ascii)
        self.forms = tuple(forms)
        """Predictions drawn; may be replaced, and the next `show` draws them."""
        self._scaled_for = self.forms
        self._given = given
        self.history = History(())
        self._window = Window(0, 1)
        self.scale = Scale()
        self.start: Start | None = None
        """The start whose orbits are drawn beside the recorded ones."""
        self.anchored: frozenset[str] = frozenset()
        """Predictions that stand where the real orbit does, whatever the newest row says; the next `show` draws them there."""
        self._frame: Frame | None = None
        self._scene: Scene | None = None
        """What was drawn last, where it was a portrait."""
        self._now: tuple[float, float] | None = None
        """The newest point of the real orbit as it was drawn."""

    def show(self, history: History, window: Window) -> None:
        """Show the orbits up to the cursor, or else to the end of the window."""
        if history is not self.history or self.forms != self._scaled_for:
            self._scaled_for = self.forms
            self.scale = self.scale._replace(x=None, y=None)
        self.history, self._window = history, window
        self.update()

    def scene(self) -> Scene | None:
        """The orbits and constants to draw; None before there are any."""
        shown = scene(self.history, self._window, self.forms, self._given, self.start)
        if shown is None or shown.now is None or not self.anchored:
            return shown
        x, y = shown.now
        moved = [orbit._replace(x=np.append(orbit.x, x), y=np.append(orbit.y, y)) if orbit.label in self.anchored else orbit
                 for orbit in shown.orbits]  # fmt: skip
        return shown._replace(orbits=moved)

    # -- a start of one's own

    @property
    def present(self) -> tuple[float, float] | None:
        """The newest point of the real orbit, |x|/δ and y; None where there is none."""
        shown = self.scene()
        return None if shown is None else shown.now

    def place(self, point: tuple[float, float] | None) -> bool:
        """Put a start at |X|/δ and Y, or take it away; False where the system has no constants to go on from there."""
        if point is None:
            self.start = None
            return True
        shown = self.scene()
        if shown is None or not shown.constants.turns or not shown.constants.learning_rate > 0:
            return False
        self.start = Start(0.0, 0.0, shown.constants.alpha, shown.constants.beta, shown.constants.learning_rate).moved(*point)
        return True

    def nudge(self, right: int, up: int, fine: bool = False) -> None:
        """Move the start, if there is one."""
        x, y = self.scale.x, self.scale.y
        if self.start is not None and x is not None and y is not None:
            by = NUDGE / 10 if fine else NUDGE
            self.start = self.start.moved(self.start.x + right * by * x.span, self.start.y + up * by * y.span)

    def tick(self) -> None:
        """A frame later: the orbits of the start go on."""
        if self.start is not None:
            self.start = self.start.older()

    def on_click(self, event: Click) -> None:
        event.stop()
        at = event.get_content_offset(self)
        point = self._frame.point(at.y, at.x) if at is not None and self._frame is not None else None
        if point is not None and self.place(point):
            self.post_message(Placed())

    # -- drawing

    def titles(self, width: int) -> tuple[str, str]:
        words = next((words for words in WORDS if width >= len(words) + 20), "")
        title = "phase portrait" + words
        if self._now is not None and not self.history.has("ode1.x"):
            x, y = self._now
            return title, f"|x|/δ {axes.number(x, 3)} · y {axes.number(y, 3)}"
        return title, ""

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        shown = self.scene()
        self._frame = self._now = self._scene = None
        if shown is None:
            words = portrait_words.why_empty(self.history, self._window.cursor is None)
            return line_plot.message(words, width, height, theme)
        if not shown.constants.turns:
            return line_plot.message(portrait_words.undefined(shown.constants), width, height, theme)
        self._now, self._scene = shown.now, shown
        painted = phase_portrait.paint(shown, self.scale, width, height, ascii=self.ascii, theme=theme)
        self.scale, self._frame = painted.scale, painted.frame
        return painted.strips

    def draw_pixels(self, cell: CellSize) -> Pixels | None:
        from eos_tui.draw import pixels

        if self._scene is None or self._frame is None:
            return None
        return pixels.of_portrait(self._scene, self.scale, self._frame, self.strips, cell, self.app.theme)
