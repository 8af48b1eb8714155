"""What the host asks of the device while something is called: executions of compiled code, and conversions of arrays to values of the host.

Both are read off a trace of jax's profiler. A conversion (`float(x)`, `np.asarray(x)`, `if x:`) has the host wait for all that x hangs on;
`jax.transfer_guard` lets it pass where the arrays lie in the host's own memory, as on a CPU.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData

EXECUTION = "ExecuteHelperOnSingleDevice"
"""What the names of events end with that launch a compiled program, on every platform of jaxlib's common client."""
CONVERSION = "np.asarray(jax.Array)"


class Asked(NamedTuple):
    """How often the host asked during a call."""

    executions: int
    host_waits: int


def asked(call: Callable[[], Any]) -> Asked:
    """What one call asks. Compile beforehand: compiling is not counted, but what it executes is."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(jax.tree.leaves(call()))
        (path,) = Path(folder).rglob("*.xplane.pb")
        names = [
            event.name for plane in ProfileData.from_file(str(path)).planes for line in plane.lines for event in line.events
        ]
    return Asked(sum(name.endswith(EXECUTION) for name in names), names.count(CONVERSION))
