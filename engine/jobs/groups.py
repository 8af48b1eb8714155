"""One run on several hosts: which process of how many this one is, as options, the environment or SLURM say. Without jax.

Several processes join only where options or the environment say so, so that a plain run inside an allocation stays a run of one process;
several tasks without such a word are refused, for each would compute the same run by itself. Process 0 leads: it alone has the run
directory, and the others need nothing but the data and a way to it.
"""

import errno
import fcntl
import os
import socket
import stat
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.base.errors import NO_PLACE, NO_PORT, UserError

SLURM = "slurm"
"""The coordinator's name where SLURM's own variables say the rest."""
ALONE = "none"
"""The coordinator's name where there is to be none, and each of several tasks is at a run of its own."""
TASKS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK"),
    ("SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID"), ("EOS_PROCESSES", "EOS_PROCESS"),
)  # fmt: skip
"""Where what starts several tasks at once says how many there are, and which this one is."""
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
    """The group that this process is to join; None where it runs alone.

    What is not given stands in EOS_COORDINATOR, EOS_PROCESSES and EOS_PROCESS, and for the coordinator `slurm` in SLURM's variables.
    Raises UserError, naming what is missing or will not do.
    """
    coordinator = coordinator or environment.get("EOS_COORDINATOR")
    if not coordinator or coordinator == ALONE:
        if processes is not None or process is not None:
            raise UserError("--processes and --process: need --coordinator, the HOST:PORT of process 0, or slurm")
        return None
    slurm = coordinator == SLURM
    host, separator, port = coordinator.rpartition(":")
    if not slurm and not (host and separator and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {coordinator}: expected HOST:PORT of process 0, {SLURM}, or {ALONE}")
    processes = _number("--processes", processes, COUNT[slurm], environment)
    process = _number("--process", process, PLACE[slurm], environment)
    if not 0 <= process < processes:
        raise UserError(f"--process {process}: expected one of 0 to {processes - 1}, as there are {processes} processes")
    return Group(coordinator, processes, process) if processes > 1 else None


def refuse_copies(how: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where this process is one of several tasks that were started alike without a coordinator: `how` names the options."""
    if environment.get("EOS_COORDINATOR") == ALONE:
        return
    count, place = several(environment)
    if count > 1:
        raise UserError(f"this is task {place} of {count} that were started together, and each would compute this run by itself; {how}")


def several(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """How many tasks were started at once, and which of them this one is, from 0; (1, 0) where it was started by itself.

    In the script of a batch job SLURM_NTASKS counts what the job may start, and SLURM_PROCID is 0: the script itself is one task.
    """
    slurm = ("SLURM_NTASKS", "SLURM_PROCID") if _at(environment, "SLURM_PROCID") else ()
    for number, place in (*TASKS, *([slurm] if slurm else ())):
        if _at(environment, number) > 1:
            return _at(environment, number), _at(environment, place)
    return 1, 0


def _at(environment: Mapping[str, str], variable: str) -> int:
    text = environment.get(variable, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _number(option: str, given: int | None, variable: str, environment: Mapping[str, str]) -> int:
    """A number given as an option or in the environment."""
    if given is not None:
        return given
    text = environment.get(variable, "")
    if not text.isdecimal():
        given_there = f"{variable} is {text[:40]!a}" if text else f"{variable} is not set"
        raise UserError(f"--coordinator: {given_there}; expected a number there, or {option}")
    return int(text)


class PortError(UserError):
    """The port where the processes of a run are to meet cannot be had."""

    status = NO_PORT


class PlaceError(UserError):
    """Another process has the place among them that this one was given."""

    status = NO_PLACE


def need_port(group: Group | None) -> None:
    """Raise PortError where process 0 cannot listen at its port, before jax ends the process for that."""
    if group is None or group.process or group.coordinator == SLURM:
        return
    port = int(group.coordinator.rpartition(":")[2])
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trying:
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed a moment ago is free
                trying.bind((anywhere, port))
        except OSError as error:
            taken = "is taken by another process on this host" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise PortError(f"--coordinator {group.coordinator}: port {port} {taken}; give another one to all processes") from None


places_taken: list[int] = []
"""Descriptors of the places that this process has."""


def take_place(group: Group) -> None:
    """Have this process's place among those of the group, until it ends. Raises PlaceError where another process on this host has it: jax
    would end all of them where a second one comes.
    """
    folder = Path(tempfile.gettempdir()) / f"eos-{os.geteuid()}"
    job = "-".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")) if group.coordinator == SLURM else ""
    with suppress(OSError):  # where there is no such folder, or no flock, nothing can be said
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat()
        if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.geteuid():
            return
        name = f"place-{zlib.crc32(f'{group.coordinator} {job}'.encode()):08x}-{group.process}"
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        places_taken.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(places_taken.pop())
            raise PlaceError(
                f"--process {group.process}: another process on this host is that one already, at {group.coordinator}; expected another "
                "number for each process"
            ) from None
