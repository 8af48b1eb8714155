"""Since when a thread compiles, by what jax tells of it: how long the lowering of a program took, just before it is compiled, and how long
that took after it.
"""

import math
import threading
import time
from functools import cache
from typing import Any
from weakref import WeakSet

LOWERED, COMPILED = "/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration"
GAP = 2.0
"""Seconds at most between two programs of one wait, for the next to be traced."""


class Compilations:
    """Those of one thread. Another one may ask since when."""

    def __init__(self) -> None:
        self._forget(0)

    def _forget(self, thread: int) -> None:
        self.seconds = 0.0
        """That they have taken since the beginning, the tracing between two included."""
        self._thread, self._began, self._last, self._under_way = thread, math.inf, -math.inf, False

    def begin(self) -> None:
        """Those of this thread from here on; the others are forgotten. Needs jax, as the constructor does not."""
        self._forget(threading.get_ident())
        _watchers().add(self)

    @property
    def since(self) -> float | None:
        """The moment of the monotonic clock since which one program after the other is compiled; None where none is."""
        return self._began if self._under_way or time.monotonic() - self._last < GAP else None

    def note(self, event: str, seconds: float) -> None:
        """Called by jax in the thread that it tells of."""
        if threading.get_ident() != self._thread or event not in (LOWERED, COMPILED):
            return
        now = time.monotonic()
        if now - seconds - self._last > GAP:
            self._began = self._last = now - seconds
        self.seconds += now - self._last
        self._last, self._under_way = now, event == LOWERED


@cache
def _watchers() -> WeakSet[Compilations]:
    """Whoever is to be told; jax tells this process's once."""
    from jax import monitoring

    watchers = WeakSet[Compilations]()

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        for each in [*watchers]:
            each.note(event, duration_secs)

    monitoring.register_event_duration_secs_listener(heard)
    return watchers
