"""Runs handed to a SLURM cluster through submitit, or to its stand-ins on this machine. Without jax.

A job is the engine of one run. When its time is up or it is preempted, the engine writes a checkpoint and the job is handed in
anew; a job that finds its run at its end does nothing. Nothing but the run directory passes between the two sides.
"""

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from engine.base.errors import UserError
from engine.base.exit import report_error
from engine.base.files import resolved
from engine.base.text import print_line
from engine.jobs import groups, launch
from engine.jobs.sweep import TAKE_OVER_SECONDS, begin, is_done, is_waited_for, waiting_words
from engine.record import messages
from engine.record.reader import Run

Cluster = Literal["slurm", "local", "debug"]
CLUSTERS = ("slurm", "local", "debug")
PATIENCE_SECONDS = 20.0
"""For an engine to write its checkpoint, of the 30 s that submitit's local stand-in leaves a job whose time is up."""
WARNING_SECONDS = 90
"""Between the word that a job's time is up and its end on SLURM, where no `slurm_signal_delay_s` is given,"""
HANDING_IN_SECONDS = 10
"""and what handing the job in anew may take of them."""
LOOK_SECONDS = 0.1
SILENT_LOOK_SECONDS = 1.0
"""Between two looks at a run whose engine is silent."""
MADE_WITH = ("max_num_timeout", "max_pickle_size_gb", "python")
"""Parameters that submitit takes when an executor is made, and refuses afterwards."""
LEAST = {
    "timeout_min": 1, "time": 1, "nodes": 1, "tasks_per_node": 1, "ntasks_per_node": 1, "cpus_per_task": 1, "cpus_per_gpu": 1,
    "gpus_per_node": 0, "gpus_per_task": 0, "num_gpus": 0, "max_num_timeout": 0, "signal_delay_s": HANDING_IN_SECONDS + 1,
    "array_parallelism": 1,
}  # fmt: skip
"""Whole numbers among the parameters, and the least of each that makes sense: SLURM takes a limit of 0 for none, submitit for no time."""
TASKS = ("nodes", "tasks_per_node", "ntasks_per_node")
"""Parameters that would start a job several times at once."""


class Work:
    """An engine at work on a run, as a job."""

    patience = PATIENCE_SECONDS
    """For the engine to stop, before it is killed: a job that is not done by then is killed with it, and never handed in again."""

    def __init__(self, path: str, patience: float = PATIENCE_SECONDS, take_over_after: float = TAKE_OVER_SECONDS):
        self.path, self.patience, self.take_over_after = path, patience, take_over_after
        self._engine = 0
        self._status: int | None = None

    def __call__(self) -> int:
        """Carry the run to its end; the engine's exit status, or that of what cannot be done."""
        try:
            groups.refuse_copies("a job of a sweep is one task: leave out --ntasks and the like")
            run = Run(self.path)
            self._wait(run)
            if is_done(run):
                return 0
            self._engine = begin(run)  # in a session of its own: what a scheduler signals is this job, which says what that means
        except UserError as error:  # in submitit's stand-in `debug`, any exception opens a debugger
            return report_error(error)
        if "SUBMITIT_EXECUTOR" in os.environ:  # else this process is the user's
            with suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, self._save)
        try:
            while not self._has_ended():  # not a wait without end: a signal that another thread takes would not interrupt it
                time.sleep(LOOK_SECONDS)
            return self._status or 0
        finally:
            self._stop()

    def _wait(self, run: Run) -> None:
        """Wait, as a sweep does, while an engine on another host is silent and may be at work."""
        reported = False
        while is_waited_for(run, self.take_over_after):
            if not reported:
                print_line(waiting_words(run, self.take_over_after), error=True)
            reported = True
            time.sleep(SILENT_LOOK_SECONDS)

    def checkpoint(self) -> Any:
        """The job's time is up: stop the engine cleanly and hand the rest in anew. Called by submitit, from a signal handler that
        interrupts `__call__` anywhere.
        """
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(Work(self.path, self.patience, self.take_over_after))

    def _save(self, *_: object) -> None:
        """SIGTERM may be the first word of a preemption, and then a signal or the end follows; submitit goes on, and so does the run."""
        with suppress(UserError):  # the inbox cannot be written to, and neither can a checkpoint
            messages.send(Path(self.path), messages.Checkpoint())

    def _stop(self) -> None:
        """Have the engine write a checkpoint and end; kill one that does not, as its step takes too long: the last checkpoint stands."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._engine or self._has_ended():
                return
            with suppress(ProcessLookupError):
                os.kill(self._engine, number)
            until = time.monotonic() + self.patience
            while time.monotonic() < until and not self._has_ended():
                time.sleep(LOOK_SECONDS)

    def _has_ended(self) -> bool:
        """Whether the engine has ended. Safe in a signal handler: whoever comes second finds that there is no such child any more."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self._engine, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None


@contextmanager
def _submitit_refusals(cluster: Cluster) -> Iterator[None]:
    """A refusal of submitit becomes a UserError in submitit's words."""
    try:
        yield
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError, subprocess.CalledProcessError) as error:
        raise UserError(f"--cluster {cluster}: submitit says: {error}") from None


@contextmanager
def _safe_path() -> Iterator[None]:
    """Inside, the environment of jobs: submitit starts Python without -P, and nothing is to be imported from where it is started."""
    meant = {"PYTHONPATH": launch.environment()["PYTHONPATH"], "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in meant}
    os.environ.update(meant)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def queue(cluster: Cluster, parameters: Mapping[str, Any], folder: Path) -> Any:
    """The way to hand in jobs; submitit's logs go to the folder. Raises UserError where there is no such cluster or parameter."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--cluster: needs submitit; pip install 'eos-tui[slurm]'") from None
    check_parameters(cluster, parameters)
    made = {f"{cluster}_{key}" if key in MADE_WITH else key: value for key, value in parameters.items() if _bare(key) in MADE_WITH}
    others = {key: value for key, value in parameters.items() if _bare(key) not in MADE_WITH}
    with _submitit_refusals(cluster):
        executor = submitit.AutoExecutor(folder, cluster=cluster, **made)
        executor.update_parameters(**{"name": "eos"} | others)
        return executor


def _bare(key: str) -> str:
    """A parameter without the name of the cluster that it is for."""
    cluster, _, rest = key.partition("_")
    return rest if cluster in CLUSTERS else key


def check_parameters(cluster: Cluster, parameters: Mapping[str, Any]) -> None:
    """Raise UserError for parameters that submitit takes and no job can do anything with."""
    for key, value in parameters.items():
        least = LEAST.get(_bare(key))
        if least is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UserError(f"--submit {key}={str(value)[:40]}: expected a whole number, {least} or more")
        if _bare(key) in ("mem_gb", "max_pickle_size_gb") and not (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        ):
            raise UserError(f"--submit {key}={str(value)[:40]}: expected a number above 0")
        if _bare(key) in TASKS and value > 1:
            raise UserError(
                f"--submit {key}={value}: each job of a sweep is one process; `srun … python -m engine run … --coordinator slurm` has "
                "several share out one run"
            )
    minutes, warning = _given(parameters, cluster, "time") or _given(parameters, cluster, "timeout_min"), warning_seconds(parameters)
    if cluster == "slurm" and minutes and 60 * minutes <= warning:
        raise UserError(
            f"--submit timeout_min={minutes}: jobs are told {warning} s before their time is up, so they would have none; expected more "
            f"minutes, or fewer seconds, as in slurm_signal_delay_s={30 * minutes}"
        )


def _given(parameters: Mapping[str, Any], cluster: str, name: str) -> int | None:
    """A parameter's value for this cluster."""
    return parameters.get(f"{cluster}_{name}", parameters.get(name))


def warning_seconds(parameters: Mapping[str, Any]) -> int:
    """How long before its end SLURM warns a job."""
    return _given(parameters, "slurm", "signal_delay_s") or WARNING_SECONDS


def patience(cluster: Cluster, parameters: Mapping[str, Any]) -> float:
    """How long the engine of a job whose time is up may take to stop."""
    return warning_seconds(parameters) - HANDING_IN_SECONDS if cluster == "slurm" else PATIENCE_SECONDS


def hand_in(
    runs: Sequence[Run], cluster: Cluster, executor: Any, patience: float = PATIENCE_SECONDS, take_over_after: float = TAKE_OVER_SECONDS
) -> list[Any]:
    """A job for each run. Raises UserError where one is refused."""
    with _submitit_refusals(cluster), _safe_path():
        return [executor.submit(Work(str(resolved(run.path)), patience, take_over_after)) for run in runs]
