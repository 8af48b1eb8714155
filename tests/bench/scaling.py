"""How the derivatives scale over devices and over processes of this machine, against one device in the same rounds.

    python -m engine bench scaling [--rounds N] [--json]

Strong scaling shares out the same examples, weak scaling gives each device as many. A device is simulated: one core, to which the
process is bound where the system allows it, and one of several devices of one process, or the only one of one of several processes,
which add up through Gloo over the loopback. So what is measured is what sharing out costs (filled-up shares, all-reduced gradients,
a wait for the last) while cores compete for one memory: no network, and no GPU. One device is timed in the same rounds as each other
number of them, and medians are compared.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

EXAMPLES = 4000
"""In all for strong scaling, and for each device for weak scaling."""
PRESET = "fashion-10"
WORK = ("gradient", "hvp", "grad_sharpness")
LAWS = ("strong", "weak")
NOTE = (
    "Simulated devices: each is a core of this machine ({bound}), and all share its memory and caches. The efficiency is that of "
    "sharing out here; it says nothing of a network or of GPUs. Before it began, {load:.1f} of {cores} cores were at other work: what "
    "another program takes, several devices lack first."
)

Times = dict[str, dict[str, float]]
"""Law -> what was computed -> seconds."""


class Scaled(NamedTuple):
    """What so many devices take, in seconds, and against one of them: 1 is perfect."""

    what: str
    """`devices` of one process, or `processes` of one device."""
    workers: int
    law: str
    examples: int
    gradient_s: float
    hvp_s: float
    grad_sharpness_s: float
    gradient_efficiency: float
    hvp_efficiency: float
    grad_sharpness_efficiency: float


def scaled(what: str, count: int, alone: list[Times], together: list[Times]) -> list[Scaled]:
    """Both laws for so many devices, from the rounds of one device and those of all, which were interleaved."""
    entries = []
    for law in LAWS:
        one, many = ([statistics.median(times[law][work] for times in rounds) for work in WORK] for rounds in (alone, together))
        share = count if law == "strong" else 1
        efficiencies = [a / (share * b) for a, b in zip(one, many, strict=True)]
        entries.append(Scaled(what, count, law, EXAMPLES * (1 if law == "strong" else count), *many, *efficiencies))
    return entries


def main(rounds: int = 5, as_json: bool = False) -> int:
    """Measure over 1, 2, 4, … devices, up to the cores of this machine, and print a table or JSON."""
    from rich.console import Console
    from rich.table import Table

    cores = cores_here()
    counts = sorted({1 << k for k in range(1, cores.bit_length()) if 1 << k <= cores} | {cores} - {1})
    bound = "to which it is bound" if hasattr(os, "sched_setaffinity") else "to which this system cannot bind it"
    note = NOTE.format(bound=bound, load=os.getloadavg()[0], cores=cores)
    measured: list[Scaled] = []
    with Workers("devices", 1) as one:
        for count in counts:
            for what in ("devices", "processes"):
                print(f"{count} {what} …", file=sys.stderr, flush=True)
                with Workers(what, count) as several:
                    taken = [(one.round(), several.round()) for _ in range(rounds)]
                alone, together = ([*part] for part in zip(*taken, strict=True))
                measured += [*scaled("devices", 1, alone, alone), *scaled(what, count, alone, together)]
    if as_json:
        print(json.dumps([entry._asdict() | {"note": note} for entry in measured], indent=1))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"{PRESET}, float32, on {cores} cores; seconds, and efficiency against one device")
    for heading in ("", "scaling", "examples"):
        table.add_column(heading)
    for heading in ("gradient", "HVP", "∇S"):
        table.add_column(heading, justify="right")
    for entry in measured:
        seconds, efficiencies = entry[4:7], entry[7:]
        name = f"{entry.workers} {entry.what if entry.workers > 1 else 'device'}"
        cells = [f"{a:.3f} s {b:5.0%}" for a, b in zip(seconds, efficiencies, strict=True)]
        table.add_row(name, entry.law, f"{entry.examples:,}", *cells, end_section=entry.workers > 1 and entry.law == "weak")
    console.print(table)
    console.print(note, soft_wrap=True)
    if not counts:
        console.print("This machine has one core: there is nothing to share out to.")
    return 0


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that compute when they are told to. Use as a context manager: they end with it."""

    def __init__(self, what: str, count: int):
        processes, devices = (count, 1) if what == "processes" else (1, count)
        from engine.jobs import launch

        flags = os.environ.get("XLA_FLAGS", "")
        around = launch.environment() | {
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
        self.processes = [
            subprocess.Popen(
                [*launch.python(), __file__, str(processes), str(place), str(devices), str(port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=around,
            )
            for place in range(processes)
        ]  # fmt: skip
        self.round()  # compiled, and touched once

    def round(self) -> Times:
        """What each computation takes once; the slowest process counts."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [self._answer(process) for process in self.processes]
        return {law: {work: max(times[law][work] for times in answers) for work in WORK} for law in LAWS}

    def _answer(self, process: subprocess.Popen[str]) -> Times:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):  # Gloo greets on stdout
                return json.loads(line)
        raise SystemExit(f"a worker ended with status {process.wait()}")

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:  # no more to do for any: they end together
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def work(processes: int, place: int, devices: int, port: int) -> None:
    """Be one process of them: compute at each line of stdin, and print the seconds."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, mine[place : place + 1] if processes > 1 else mine[:devices])

    from engine.xla.device import configure

    configure(sparing=True)  # as the processes of a run are
    if processes > 1:
        from engine.jobs.groups import Group
        from engine.process.rendezvous import join

        join(Group(f"127.0.0.1:{port}", processes, place), sys.exit)

    import jax
    import jax.numpy as jnp
    import numpy as np

    from engine.problems import losses
    from engine.problems.build import learning
    from engine.problems.problem import Problem
    from engine.spec import Network, load_spec

    part = load_spec(PRESET, ["problem.data.examples=1000", "problem.devices=0"]).problem
    assert isinstance(part, Network)
    network = learning(part, 0)
    theta = np.asarray(network.theta, np.float32)
    v = np.asarray(np.random.default_rng(0).standard_normal(theta.size), np.float32)
    v /= np.linalg.norm(v)

    def problem_of(examples: int) -> Problem:
        index = np.arange(examples) % len(network.dataset.inputs)  # the images of the preset, over and over
        batches = network.batches(network.dataset.inputs[index], network.dataset.targets[index])
        return network.mean(losses.CRITERIA[part.criterion], batches)

    problems = {"strong": problem_of(EXAMPLES), "weak": problem_of(EXAMPLES * processes * devices)}
    calls = {"gradient": jax.jit(Problem.gradient), "hvp": jax.jit(Problem.hvp), "grad_sharpness": jax.jit(Problem.grad_sharpness)}
    at, along = jnp.asarray(theta), jnp.asarray(v)
    for _ in sys.stdin:
        times: Times = {law: {} for law in LAWS}
        for law, problem in problems.items():
            for name, call in calls.items():
                given = (problem, at) if name == "gradient" else (problem, at, along)
                began = time.perf_counter()
                jax.block_until_ready(call(*given))
                times[law][name] = time.perf_counter() - began
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    work(*map(int, sys.argv[1:]))
