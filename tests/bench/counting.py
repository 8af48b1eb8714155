"""What the host asks of the device while something is called: executions of compiled code, and conversions of arrays to values of the host.

Both are read off a trace of jax's profiler. A conversion (`float(x)`, `np.asarray(x)`, `if x:`) has the host wait for all that x hangs on;
`jax.transfer_guard` lets it pass where the arrays lie in the host's own memory, as on a CPU, and numpy then takes an array without asking
jax: its functions are given arrays of the host here.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.profiler import ProfileData

EXECUTION = "ExecuteHelperOnSingleDevice"
"""What the names of events end with that launch a compiled program, on every platform of jaxlib's common client."""
CONVERSION = "np.asarray(jax.Array)"


class Asked(NamedTuple):
    """How often the host asked during a call."""

    executions: int
    host_waits: int


@contextmanager
def _numpy_asks() -> Iterator[None]:
    """numpy's two doors for arrays, by way of jax."""
    doors = {name: getattr(np, name) for name in ("asarray", "array")}

    def through(door: Callable[..., Any]) -> Callable[..., Any]:
        return lambda given, *args, **options: door(jax.device_get(given) if isinstance(given, jax.Array) else given, *args, **options)

    for name, door in doors.items():
        setattr(np, name, through(door))
    try:
        yield
    finally:
        for name, door in doors.items():
            setattr(np, name, door)


def asked(call: Callable[[], Any]) -> Asked:
    """What one call asks. Compile beforehand: compiling is not counted, but what it executes is."""
    with tempfile.TemporaryDirectory() as folder:
        with _numpy_asks(), jax.profiler.trace(folder):
            jax.block_until_ready(jax.tree.leaves(call()))
        (path,) = Path(folder).rglob("*.xplane.pb")
        names = [
            event.name for plane in ProfileData.from_file(str(path)).planes for line in plane.lines for event in line.events
        ]
    return Asked(sum(name.endswith(EXECUTION) for name in names), names.count(CONVERSION))
