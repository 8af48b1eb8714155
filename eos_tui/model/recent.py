"""A small cache: what was made last, each by all that it depends on."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key. With more than `most` of them all are forgotten: what is asked for anew is made anew."""

    def __init__(self, most: int):
        self._made: dict[Hashable, T] = {}
        self._most = most

    def of(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made where there is none yet. A value depends on nothing but its key."""
        if key not in self._made:
            if len(self._made) >= self._most:
                self._made.clear()
            self._made[key] = make()
        return self._made[key]
