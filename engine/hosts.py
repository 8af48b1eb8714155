"""One run on several hosts: which process of how many this one is, as options, the environment or SLURM say. Without jax.

Several processes join only where they are told to, so that a plain run inside an allocation stays a run of one process. Process
0 leads: it alone has the run directory, and the others need nothing but the data and a way to it.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from engine.errors import UserError

SLURM = "slurm"
"""The coordinator's name where SLURM's own variables say the rest."""
COUNT, PLACE = {True: "SLURM_NTASKS", False: "EOS_PROCESSES"}, {True: "SLURM_PROCID", False: "EOS_PROCESS"}
"""Where the number of processes and this one's place among them stand, under SLURM and elsewhere."""


class Group(NamedTuple):
    """The processes of one run, and which of them this one is."""

    coordinator: str
    """HOST:PORT of process 0, or `slurm`."""
    processes: int
    process: int
    """0 leads, the others follow."""

    def options(self) -> list[str]:
        """As a command line says it."""
        return ["--coordinator", self.coordinator, "--processes", str(self.processes), "--process", str(self.process)]


def asked(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, environment: Mapping[str, str] = os.environ
) -> Group | None:
    """The group that this process was told to join; None where it runs alone.

    What is not given stands in EOS_COORDINATOR, EOS_PROCESSES and EOS_PROCESS, and for the coordinator `slurm` in SLURM's variables.
    Raises UserError, naming what is missing or will not do.
    """
    coordinator = coordinator or environment.get("EOS_COORDINATOR")
    if not coordinator:
        if processes is not None or process is not None:
            raise UserError("--processes and --process: need --coordinator, the HOST:PORT of process 0, or slurm")
        return None
    slurm = coordinator == SLURM
    host, separator, port = coordinator.rpartition(":")
    if not slurm and not (host and separator and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {coordinator}: expected HOST:PORT of process 0, or {SLURM}")
    processes = _number("--processes", processes, COUNT[slurm], environment)
    process = _number("--process", process, PLACE[slurm], environment)
    if not 0 <= process < processes:
        raise UserError(f"--process {process}: expected one of 0 to {processes - 1}, as there are {processes} processes")
    return Group(coordinator, processes, process) if processes > 1 else None


def _number(option: str, given: int | None, variable: str, environment: Mapping[str, str]) -> int:
    """A number given as an option or in the environment."""
    if given is not None:
        return given
    text = environment.get(variable, "")
    if not text.isdecimal():
        found = f"{variable} is {text[:40]!a}" if text else f"{variable} is not set"
        raise UserError(f"--coordinator: {found}; expected a number there, or {option}")
    return int(text)
