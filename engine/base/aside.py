"""What may hang, carried out in a thread that is abandoned: whatever a disk does, the thread that asked for it goes on."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from engine.base.errors import UserError

Result = TypeVar("Result")


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises UserError where this user or this machine has too many."""
    try:
        thread.start()
    except RuntimeError as error:
        raise UserError(f"{error}: too many processes here, or not enough memory") from None


class Aside(threading.Thread):
    """A function carried out in a thread of its own, which ends with the process."""

    def __init__(self, function: Callable[[], Any], done: Callable[[], object]):
        super().__init__(daemon=True)
        self._function, self._done = function, done
        self.value: Any = None
        self.error: BaseException | None = None
        start(self)

    def run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # raised where it is asked for
            self.error = error
        self._done()

    def result(self) -> Any:
        """The value that the function returned. Raises the error that the function raised."""
        if self.error is not None:
            raise self.error
        return self.value


def wait_for(function: Callable[[], Result], seconds: float | None = None) -> Result:
    """The value of the function, which runs in a thread: a signal is heeded meanwhile. Raises TimeoutError after so many seconds."""
    done = threading.Event()
    read = Aside(function, done.set)
    if not done.wait(seconds):
        raise TimeoutError
    return read.result()
