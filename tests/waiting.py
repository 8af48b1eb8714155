"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import Any

from engine.jobs import launch
from engine.record.messages import AnyEvent, Event
from engine.record.reader import Run


def until(holds: Callable[[], Any], seconds: float = 90.0, otherwise: Callable[[], object] = lambda: "") -> Any:
    """Wait until this holds, and return what it returned; `otherwise` says what there is instead."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
    return value


def until_run(run: Run, holds: Callable[[], Any]) -> Any:
    """The same of a run, whose state and log are told where it does not come to it."""
    return until(holds, otherwise=lambda: f"{run.state()}\n{[event.text for event in run.events()]}\n{launch.log_tail(run)}")


def answer(run: Run, identifier: str, kind: type = Event) -> AnyEvent:
    """The last event of this kind that answers a command: what begins with one and ends later has an answer for each."""
    return until_run(
        run, lambda: next((event for event in reversed(run.events()) if event.answers == identifier and isinstance(event, kind)), None)
    )
