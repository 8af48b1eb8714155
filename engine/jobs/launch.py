"""Start an engine on a run directory: its own process in its own session, so that it outlives the terminal."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.base import folders
from engine.base.errors import UserError
from engine.base.files import append_plain, open_plain, resolved
from engine.jobs.groups import Group, need_port
from engine.record import lock, trust
from engine.record.lock import HeldError
from engine.record.reader import RISK, Run, doubt
from engine.record.safe_read import refuse_links
from engine.record.store import create, remove
from engine.spec import load_spec

LIVE = ("starting", "running", "paused")
"""Conditions with an engine at work."""
RESUMABLE = ("stopped", "failed", "eigensolver_failed")
"""Outcomes after which a run may go on."""
BAD_ENDS = ("diverged", "eigensolver_failed", "failed", "crashed", "silent", "unknown", *LIVE)
"""Ends, and conditions at the end, with which a command says that a run ended badly."""

LOG_TAIL_BYTES = 16 * 1024


def begin(
    preset: str, overrides: Sequence[str] = (), name: str | None = None, data_dir: str | None = None, group: Group | None = None
) -> tuple[Run, int]:
    """A new run of a preset and the process id of its engine. Raises UserError before anything is written."""
    from engine.data.catalog import ready  # here, for a view that only looks at a run needs no data sets

    spec = ready(load_spec(preset, tuple(overrides)), data_dir or "")
    trust.need_preset(preset, spec)
    need_port(group)
    run = create(spec, name)
    return run, start(run, group)


def start(run: Run, group: Group | None = None) -> int:
    """Start the engine on this run and return its process id. What it prints goes to `engine.log`.

    The leader of a group learns so from options: the environment is inherited by much else. Raises Untrusted where the run names code
    that is not trusted.
    """
    refuse_links(run.path)
    trust.need(run.path, run.spec)
    try:
        opened = append_plain(run.path / "engine.log", create=True)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}), so no engine was started") from None
    with opened as log:
        process = subprocess.Popen(
            [*command(run), *(group.options() if group is not None else ())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folders.home(),  # the caller's folder may vanish
            env=environment(),
        )
    process.returncode = 0  # it outlives this process on purpose: Python is not to warn of a child left running
    return process.pid


def command(run: Run) -> list[str]:
    """The command line of an engine for a run."""
    return [*python(), "-m", "engine", "work", str(resolved(run.path)), *trust.option(run.spec)]


def python() -> list[str]:
    """How every process of eos is started. -P: nothing is imported from the folder that it happens to be in, nor from a script's."""
    return [sys.executable, "-P"]


def environment() -> dict[str, str]:
    """The environment of a process of eos: this one's, and where eos lies."""
    return os.environ | folders.environment() | {"PYTHONPATH": os.pathsep.join(_import_path())}


def _import_path() -> list[str]:
    """PYTHONPATH for the engine: that of this process made absolute, and the folder of a clone that is not installed."""
    given = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    root = Path(__file__).resolve().parents[2]
    return given if root.name in ("site-packages", "dist-packages") or str(root) in given else [*given, str(root)]


def restart(run: Run, group: Group | None = None, force: bool = False) -> int:
    """Start an engine on a run that has none; its process id. With `force` also on one whose engine, on another host, may be at work.
    Raises UserError where there is nothing to go on with, HeldError where an engine is at work.
    """
    prepare_restart(run, force, group)
    return start(run, group)


def prepare_restart(run: Run, force: bool = False, group: Group | None = None) -> None:
    """Make sure that an engine can go on with a run: raises as `restart` does, and with `force` takes it from an engine on another host."""
    liveness, outcome = run.liveness(), run.state().outcome
    if liveness in LIVE:
        on = f"; `go {run.name}` lets it go on" if liveness == "paused" else ""
        raise HeldError(f"run {run.name}: its engine is {liveness} already{on}")
    if liveness in ("silent", "unknown") and not force:
        raise UserError(f"{doubt(run, liveness)}; resume it there, or here by `resume {run.name} --force`: {RISK}")
    if outcome is not None and outcome.kind not in RESUMABLE:
        further = f"`fork {run.name} --set budget.steps=…` goes on from its last checkpoint as a new run"
        raise UserError(f"run {run.name}: it has ended ({outcome.text}); {further}")
    trust.need(run.path, run.spec)
    need_port(group)
    if force and liveness in ("silent", "unknown"):
        try:
            lock.break_lock(run.path)
        except OSError as error:
            raise UserError(f"{run.path}: its lock cannot be taken away ({error.strerror})") from None


def refuse_unbuilt(run: Run, made: bool = True) -> None:
    """Raise UserError with the engine's own sentence where the run's problem was refused before anything was computed. A run that was
    `made` for it goes, for there is nothing in it."""
    state = run.state()
    if state.refused and state.outcome is not None:
        if made:
            remove(run)
        raise UserError(state.outcome.text)


def log_tail(run: Run, lines: int = 5) -> str:
    """The last lines of the engine's log."""
    try:
        with open_plain(run.path / "engine.log") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return "\n".join(handle.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
