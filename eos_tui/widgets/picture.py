"""A drawing of one sample that a page shows, or the words for why there is none."""

from typing import Generic, TypeVar

from textual.strip import Strip

from eos_tui.draw import line_plot
from eos_tui.widgets.plot import Drawing

Sample = TypeVar("Sample")


class Picture(Drawing, Generic[Sample]):
    """A sample drawn. The page sets its titles and words."""

    title: str = ""
    subtitle: str = ""
    words: str = ""

    def __init__(self, *, ascii: bool = False):
        super().__init__(ascii=ascii)
        self.sample: Sample | None = None

    def show(self, sample: Sample | None) -> None:
        """Show this sample, or the words where there is none."""
        self.sample = sample
        self.update()

    def titles(self, width: int) -> tuple[str, str]:
        return self.title, self.subtitle

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        if self.sample is None:
            return line_plot.message(self.words, width, height, theme)
        return self.drawn(self.sample, width, height, theme)

    def drawn(self, sample: Sample, width: int, height: int, theme: str) -> list[Strip]:
        """The rows of a sample at this size."""
        raise NotImplementedError
