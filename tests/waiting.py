"""Waiting for what another process does."""

import time


def until(test, seconds: float = 60.0) -> None:
    """Wait until this holds."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.05)
