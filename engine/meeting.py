"""How the processes of a run meet: they come, and find that they are alike.

That goes through the coordination service of jax, which process 0 keeps, and not through the devices: there unlike processes would
wait for each other for ever.
"""

import platform
import threading
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
HEARTBEAT_SECONDS = 30
"""Silence after which jax counts a process as dead, and ends the others."""
LEAVE_SECONDS = 30
"""For all processes to end together."""
MUST_AGREE = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax")
"""Packages that decide what is computed, and in which order."""


def join(group: Group, give_up: Callable[[str], None]) -> None:
    """Meet the other processes, before jax's first computation. Raises UserError where they cannot work together.

    Where they do not all come, `give_up` is told why, and is to end this process: jax would do so without a word.
    """
    awaited = f"process 0 at {group.coordinator}" if group.process else f"{group.processes - 1} more of {group.processes} processes"
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for {awaited}; not all came"):
        _initialize(group)
        compare(group, "versions", versions())  # before any of them has looked for its devices
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for the devices of all processes; expected the same kind in each"):
        compare(group, "devices", devices())


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
