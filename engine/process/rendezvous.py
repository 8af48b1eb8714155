"""How the processes of a run meet: they come, find that they are alike, and from then on each sees that the others answer.

All of this goes through the coordination service of jax, which process 0 keeps, and not through the devices: there unlike processes, or
one that is gone, leave the others waiting for ever.
"""

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import jax
import msgspec

import engine
from engine.base.errors import UserError, first_line
from engine.base.exit import end_at_once
from engine.jobs.groups import SLURM, Group, need_port, take_place
from engine.jobs.launch import environment, python
from engine.xla import small_matrices
from engine.xla.device import version_of
from engine.xla.known_jax import KNOWN

WAIT_SECONDS = 300.0
"""For all processes to come. A scheduler may start them minutes apart."""
SILENT_SECONDS = 20.0
"""Silence after which a process counts as lost."""
BEAT_SECONDS = 1.0
"""Between signs of life."""
GONE_SECONDS = 3.0
"""Without a sign of life after a connection broke, after which a process counts as gone where the others have given one;"""
ALL_GONE_SECONDS = 10.0
"""and where several have given none."""
HEARTBEAT_SECONDS = 60
"""Silence after which jax itself counts a process as dead, and ends the others without a word to the run: the last resort."""
LEAVE_SECONDS = 30
"""For all processes to end together."""
PARTING_SECONDS = 0.5
"""For what process 0 has said last to reach the others."""
SIGNS, LEAVING, GONE = "eos/pulse/", "leaving", "eos/gone/"
"""Where signs of life are left, the last one of a process that ends in good order, and where process 0 says who is gone."""
CALLS = ("key_value_set", "blocking_key_value_get", "key_value_dir_get")
"""What is asked of the coordination service."""
ASK_JAX = "import jax; print(jax.default_backend())"
MUST_AGREE = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax")
"""Packages that decide what is computed, and in which order."""


def join(group: Group, give_up: Callable[[str], None]) -> "Heartbeat":
    """Meet the other processes, before jax's first computation. Raises UserError where they cannot work together.

    Where they do not all come, or one falls silent later, `give_up` is called with the reason, in another thread, and is to end this
    process: it may be waiting for the other one for ever.
    """
    _require_service()
    take_place(group)
    need_port(group)
    awaited = f"process 0 at {group.coordinator}" if group.process else f"{group.processes - 1} more of {group.processes} processes"
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for {awaited}; not all came"):
        initialize(group)
    heartbeat = Heartbeat(group, give_up)
    # Both before any of them has looked for its devices: with one GPU among them, jax waits there for the GPUs of the others.
    compare(group, "versions", versions())
    compare(group, "platforms", {"kind of device": foreseen()})
    with _within(WAIT_SECONDS, give_up, f"waited {WAIT_SECONDS:.0f} s for the devices of all processes; expected the same kind in each"):
        compare(group, "devices", devices())
    return heartbeat


@contextmanager
def _within(seconds: float, give_up: Callable[[str], None], text: str) -> Iterator[None]:
    """Call `give_up` where the block inside takes longer than so many seconds."""
    watch = threading.Timer(seconds, give_up, [text])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def initialize(group: Group) -> None:
    """Have jax meet the other processes of the group."""
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


def leave(status: int) -> NoReturn:
    """End this process with its exit status, together with the others where it has met them.

    Not by the interpreter's own end, in which a thread of jax that asks for the interpreter aborts the process now and then; and process 0
    does not take down the coordination service, which has aborted it there, too: it waits until the others have heard that all have come.
    """
    try:
        state = _require_service().global_state
        served, state.service = state.service, None
        jax.distributed.shutdown()
        if served is not None:
            time.sleep(PARTING_SECONDS)
    except Exception as error:  # what is to be written is written
        print(f"eos: the other processes were not waited for ({first_line(error)})", file=sys.stderr)
    end_at_once(status)


def versions() -> dict[str, str]:
    """The versions of eos and of the packages that decide what is computed."""
    return {"eos": engine.__version__, **{name: version_of(name) for name in MUST_AGREE}}


def foreseen() -> str:
    """The kind of device that jax will compute on here, `cpu` or `gpu`: as another process finds it, which waits for nobody."""
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not entry_points(group="jax_plugins"):
        return "cpu"
    around = environment() | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the GPU's memory is for this process
    done = subprocess.run(
        [*python(), "-c", ASK_JAX], capture_output=True, text=True, env=around, stdin=subprocess.DEVNULL, check=False
    )
    answer = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [f"exit status {done.returncode}"]
    return answer[-1] if done.returncode == 0 else f"none ({answer[-1][:200]})"


def devices() -> dict[str, str]:
    """The devices that this process computes on. Another kind rounds otherwise, and a solver there takes another number of iterations."""
    device = jax.local_devices()[0]
    kind = _processor() if device.platform == "cpu" else device.device_kind
    return {"device": kind, "number of devices": str(jax.local_device_count()), small_matrices.VARIABLE: small_matrices.chosen()}


def _processor() -> str:
    """The processor in words; jax calls every one `cpu`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compare(group: Group, topic: str, facts: dict[str, str]) -> None:
    """Tell the others of this process, and hear of them. Raises UserError in all processes alike where one is not as process 0."""
    service, limit = coordination_service(), int(1000 * WAIT_SECONDS)
    service.key_value_set(f"eos/{topic}/{group.process}", msgspec.json.encode(facts).decode())
    given = [service.blocking_key_value_get(f"eos/{topic}/{process}", limit) for process in range(group.processes)]
    first, *others = (msgspec.json.decode(text, type=dict[str, str]) for text in given)
    for process, theirs in enumerate(others, start=1):
        for name, ours in first.items():
            if theirs.get(name) != ours:
                raise UserError(f"process {process} has {name} {theirs.get(name)}, process 0 has {ours}; expected the same of each")


def _require_service() -> Any:
    """jax's module with the coordination service, by its private name: `jax.distributed` begins and ends a meeting, and has no way for
    its members to speak. Raises UserError where this jax has no such module.
    """
    try:
        module = import_module("jax._src.distributed")
    except ImportError:
        raise UserError(_not_served()) from None
    if not hasattr(getattr(module, "global_state", None), "client"):
        raise UserError(_not_served())
    return module


def coordination_service() -> Any:
    """The coordination service, as this process reaches it. Raises UserError where it does not take the calls that it is to take."""
    client = _require_service().global_state.client
    if not all(hasattr(client, call) for call in CALLS):
        raise UserError(_not_served())
    return client


def _not_served() -> str:
    return f"several processes: jax {jax.__version__} has no coordination service as eos knows it; expected a jax of {KNOWN}"


class Heartbeat:
    """Signs of life, from when it is made until it is stopped: process 0 hears every other one, and every other one hears process 0."""

    def __init__(self, group: Group, give_up: Callable[[str], None]):
        self.group, self.give_up = group, give_up
        self._service = coordination_service()
        self._last: dict[int, str] = {}
        others = range(1, group.processes) if group.process == 0 else [0]
        self._heard = dict.fromkeys(others, time.monotonic())
        self._ended = threading.Event()
        for work in (self._exchange, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Neither beat nor listen any more."""
        self._ended.set()

    def who_is_gone(self) -> str:
        """Which process is gone, in words, after an error that says that one is. Process 0 finds it out, and tells the others.

        Where it is process 0, jax mostly ends the others before they come to ask: with SIGABRT, and in its own words.
        """
        if self.group.process == 0:
            text = "another process is gone"
            with suppress(Exception):  # the run is to fail with some words
                text = self._find_gone() or text
                self._service.key_value_set(f"{GONE}0", text)
                time.sleep(2 * BEAT_SECONDS)  # for the others to hear it: the service ends with this process
            return text
        self.stop()  # from here on this thread says it
        try:
            self._beat(LEAVING)
            return self._service.blocking_key_value_get(f"{GONE}0", int(1000 * (ALL_GONE_SECONDS + 5 * BEAT_SECONDS)))
        except Exception as error:
            return "another process is gone" if "DEADLINE" in str(error) else f"process 0 is gone ({first_line(error)})"

    def _find_gone(self) -> str:
        """Whose signs of life have ended, in words; a process that ends since it has lost another one leaves a last one."""
        began, silent = time.monotonic(), list(self._heard)
        before = self._signs()
        while silent and (waited := time.monotonic() - began) < ALL_GONE_SECONDS and (waited < GONE_SECONDS or len(silent) > 1):
            time.sleep(BEAT_SECONDS / 4)
            signs = self._signs()
            silent = [process for process in silent if signs.get(process) in (None, before.get(process)) and signs.get(process) != LEAVING]
        if not silent:
            return ""
        *rest, last = map(str, silent)
        return f"processes {', '.join(rest)} and {last} are gone" if rest else f"process {last} is gone"

    def _exchange(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_SECONDS):
            beats += 1
            with suppress(Exception):  # what fails here is not heard, and silence is what counts
                if self.group.process == 0:
                    self._listen()
                else:
                    self._beat(str(beats))
                    self._heard[0] = time.monotonic()  # process 0 has taken it
                    for _, text in self._service.key_value_dir_get(GONE):  # to this one, nobody's connection may have broken
                        self.give_up(text)

    def _beat(self, sign: str) -> None:
        self._service.key_value_set(f"{SIGNS}{self.group.process}", sign, allow_overwrite=True)

    def _signs(self) -> dict[int, str]:
        """The latest sign of life of each process that follows."""
        return {int(key.rpartition("/")[2]): sign for key, sign in self._service.key_value_dir_get(SIGNS)}

    def _listen(self) -> None:
        for process, sign in self._signs().items():
            if self._last.get(process) != sign:
                self._last[process] = sign
                self._heard[process] = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            for process, heard in self._heard.items():
                if time.monotonic() - heard > SILENT_SECONDS:
                    self.give_up(f"process {process} has not answered for {SILENT_SECONDS:.0f} s")
                    return
