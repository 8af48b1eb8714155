"""The screens that stand on the ground: one of them is always open, the clock draws it, and other screens stand above it."""

from typing import ClassVar

from textual.screen import Screen

from eos_tui.keys import Place
from eos_tui.terminal.diffdisplay import APPLIES, Composition
from eos_tui.terminal.pace import Pace


class Ground(Screen[None]):
    """The launcher, the dashboard or the tour."""

    place: ClassVar[Place]
    """Where it is, as the table of keys says it."""

    def __init__(self, pace: Pace, ascii: bool = False):
        super().__init__()
        self.pace, self.ascii = pace, ascii
        if APPLIES:
            self._compositor = Composition()

    async def draw(self) -> bool:
        """Read what is new and show it; returns whether there was anything to show. Called by the clock alone."""
        raise NotImplementedError

    def _compositor_refresh(self) -> None:
        """As Textual's, but nothing while the app holds its updates back: it would be drawn in full, and thrown away."""
        if not self.app._batch_count:
            super()._compositor_refresh()
