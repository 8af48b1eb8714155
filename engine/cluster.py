"""Runs handed to a SLURM cluster through submitit, or to its stand-ins on this machine. Without jax.

A job is the engine of one run. When its time is up or it is preempted, the engine writes a checkpoint and the job is handed in
anew; a job that finds its run at its end does nothing. Nothing but the run directory passes between the two sides.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from engine import launch
from engine.errors import UserError
from engine.files import append_plain
from engine.store import Run
from engine.sweep import is_over

Cluster = Literal["slurm", "local", "debug"]


class Work:
    """An engine at work on a run, as a job."""

    def __init__(self, path: str):
        self.path = path
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Carry the run to its end; the engine's exit status."""
        run = Run(self.path)
        if is_over(run):
            return 0
        with append_plain(run.path / "engine.log", create=True) as log:
            self.process = subprocess.Popen(launch.command(run), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=launch.environment())
            return self.process.wait()

    def checkpoint(self) -> Any:
        """The job's time is up: stop the engine cleanly and hand the rest in anew. Called by submitit."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        return DelayedSubmission(Work(self.path))


@contextmanager
def _told(cluster: Cluster) -> Iterator[None]:
    """What submitit refuses, as a UserError in its words."""
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


def queue(cluster: Cluster, parameters: dict[str, Any], folder: Path) -> Any:
    """The way to hand in jobs; submitit's logs go to the folder. Raises UserError where there is no such cluster or parameter."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--cluster: needs submitit; pip install 'eos-tui[slurm]'") from None
    with _told(cluster):
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(name="eos", **parameters)
        return executor


def hand_in(runs: Sequence[Run], cluster: Cluster, executor: Any) -> list[Any]:
    """A job for each run. Raises UserError where one is refused."""
    with _told(cluster), _safe_path():
        return [executor.submit(Work(str(run.path.resolve()))) for run in runs]
