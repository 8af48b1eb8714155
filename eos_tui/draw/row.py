"""A row of styled text that costs little to make: a frame makes a dozen, and shows most of them once."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.segment import Segment
from textual.strip import Strip

OWN = ("_segments", "_cell_length")


class Row(Strip):
    """One of Textual's strips whose caches are made when they are first used. Textual makes seven with each strip, fourteen objects
    that the collector of garbage looks through; a row of a plot needs none of them.
    """

    __slots__ = ()

    def __init__(self, segments: Iterable[Segment], cell_length: int):
        self._segments, self._cell_length = list(segments), cell_length

    def __getattr__(self, name: str) -> Any:
        if name not in Strip.__slots__ or name in OWN:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        value = getattr(Strip(self._segments, self._cell_length), name)
        setattr(self, name, value)
        return value

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """As any strip's; a row that is not cut is itself."""
        cuts = [*cuts]
        return [self] if cuts == [self._cell_length] else super().divide(cuts)
