"""How the processes of a run meet: they come, find that they are alike, and from then on each sees that the others answer.

All of this goes through the coordination service of jax, which process 0 keeps, and not through the devices: there unlike processes, or
one that is gone, leave the others waiting for ever.
"""

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import msgspec
from jax._src import distributed  # jax has no other way to its coordination service

import engine
from engine.device import version_of
from engine.errors import UserError
from engine.hosts import SLURM, Group

WAIT_SECONDS = 300.0
"""For all processes to come. A scheduler may start them minutes apart."""
SILENT_SECONDS = 20.0
"""Silence after which a process counts as lost."""
BEAT_SECONDS = 1.0
"""Between signs of life."""
HEARTBEAT_SECONDS = 60
"""Silence after which jax itself counts a process as dead, and ends the others without a word to the run: the last resort."""
LEAVE_SECONDS = 30
"""For all processes to end together."""
MUST_AGREE = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax")
"""Packages that decide what is computed, and in which order."""


def join(group: Group, give_up: Callable[[str], None]) -> "Pulse":
    """Meet the other processes, before jax's first computation. Raises UserError where they cannot work together.

    Where they do not all come, or one falls silent later, `give_up` is told why, in another thread, and is to end this process: it may
    be waiting for the other one for ever.
    """
    awaited = f"process 0 at {group.coordinator}" if group.process else f"{group.processes - 1} more of {group.processes} processes"
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for {awaited}; not all came"):
        _initialize(group)
    pulse = Pulse(group, give_up)
    compare(group, "versions", versions())  # before any of them has looked for its devices
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for the devices of all processes; expected the same kind in each"):
        compare(group, "devices", devices())
    return pulse


@contextmanager
def _within(seconds: float, give_up: Callable[[str], None], text: str) -> Iterator[None]:
    """Give up where what is inside takes longer."""
    watch = threading.Timer(seconds, give_up, [text])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _initialize(group: Group) -> None:
    within: dict[str, Any] = {
        "initialization_timeout": int(WAIT_SECONDS) + 60, "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": LEAVE_SECONDS,
    }
    if group.coordinator == SLURM:
        jax.distributed.initialize(cluster_detection_method="slurm", **within)
        return
    # On one machine nobody else is to reach the port; over several, jax listens on every address of the host.
    alone = group.coordinator.rpartition(":")[0] in ("127.0.0.1", "localhost")
    jax.distributed.initialize(
        group.coordinator, group.processes, group.process, cluster_detection_method="deactivate",
        coordinator_bind_address=group.coordinator if alone else None, **within,
    )


def versions() -> dict[str, str]:
    """What this process computes with."""
    return {"eos": engine.__version__, **{name: version_of(name) for name in MUST_AGREE}}


def devices() -> dict[str, str]:
    """What this process computes on. Another kind rounds otherwise, and a solver there takes another number of iterations."""
    device = jax.local_devices()[0]
    kind = _processor() if device.platform == "cpu" else device.device_kind
    return {"device": kind, "number of devices": str(jax.local_device_count())}


def _processor() -> str:
    """The processor in words; jax calls every one `cpu`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compare(group: Group, topic: str, facts: dict[str, str]) -> None:
    """Tell the others of this process, and hear of them. Raises UserError in all processes alike where one is not as process 0."""
    service, limit = _service(), int(1000 * WAIT_SECONDS)
    service.key_value_set(f"eos/{topic}/{group.process}", msgspec.json.encode(facts).decode())
    told = [service.blocking_key_value_get(f"eos/{topic}/{process}", limit) for process in range(group.processes)]
    first, *others = (msgspec.json.decode(text, type=dict[str, str]) for text in told)
    for process, found in enumerate(others, start=1):
        for name, ours in first.items():
            if found.get(name) != ours:
                raise UserError(f"process {process} has {name} {found.get(name)}, process 0 has {ours}; expected the same of each")


def _service() -> Any:
    """The coordination service, as this process reaches it."""
    return distributed.global_state.client


class Pulse:
    """Signs of life, from when it is made until it is stopped: process 0 hears every other one, and every other one hears process 0."""

    def __init__(self, group: Group, give_up: Callable[[str], None]):
        self.group, self.give_up = group, give_up
        self._service = _service()
        self._beats: dict[str, str] = {}
        others = range(1, group.processes) if group.process == 0 else [0]
        self._heard = dict.fromkeys(others, time.monotonic())
        self._ended = threading.Event()
        for work in (self._exchange, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Neither beat nor listen any more."""
        self._ended.set()

    def _exchange(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_SECONDS):
            beats += 1
            with suppress(Exception):  # what fails here is not heard, and silence is what counts
                if self.group.process == 0:
                    self._listen()
                else:
                    self._service.key_value_set(f"eos/pulse/{self.group.process}", str(beats), allow_overwrite=True)
                    self._heard[0] = time.monotonic()  # process 0 has taken it

    def _listen(self) -> None:
        for key, beats in self._service.key_value_dir_get("eos/pulse/"):
            if self._beats.get(key) != beats:
                self._beats[key] = beats
                self._heard[int(key.rpartition("/")[2])] = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            for process, heard in self._heard.items():
                if time.monotonic() - heard > SILENT_SECONDS:
                    self.give_up(f"process {process} has not answered for {SILENT_SECONDS:.0f} s")
                    return
