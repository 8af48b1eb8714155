"""The folder of all runs: a run is made in it, looked up by its name, and removed.

A directory is made under a hidden name and renamed when it is whole and on the disk, and is renamed to a hidden name before it is removed.
"""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.base.errors import UserError, meant
from engine.base.files import resolved, sync
from engine.base.folders import data, environment
from engine.base.text import print_line
from engine.record import lock, tags
from engine.record.columns import columns_for
from engine.record.identity import give_identity, identity
from engine.record.lock import HeldError
from engine.record.metric_words import described
from engine.record.reader import Run, RunFolder, doubt
from engine.record.trust import RUN_FILES, grant
from engine.spec import RunSpec, to_toml

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
MAKING, REMOVING = "making", "removing"
HIDDEN = re.compile(rf"\.eos-({MAKING}|{REMOVING})-([0-9a-f]{{8}})-([0-9]{{1,10}})-[0-9a-f]{{16}}(?:-(.*))?\Z", re.DOTALL)
"""Names of folders that are being made or removed: by a process of which system, and of which run."""
ABANDONED_SECONDS = 3600.0
"""Unchanged, after which a folder that a process of another host was making is nobody's."""
PARTS = (*RUN_FILES, "spec.toml", "curves", "snapshots", "engine.log", tags.FILE, lock.LOCK, lock.HELD)
"""What there may be in a run directory, but for hidden files."""


def home() -> Path:
    """The folder of all runs: `$EOS_HOME`, else the platform's user data folder."""
    return data()


def create(spec: RunSpec, name: str | None = None, where: Path | None = None, fill: Callable[[Run], None] | None = None) -> Run:
    """A new run directory for the specification. Raises UserError when the name is taken, not allowed or not writable.

    It is made under a hidden name, where `fill` may put more into it, and has its own when it is whole and on the disk. Code that the
    specification names is trusted from here on: whoever has it from elsewhere asks first (`engine.record.trust`).
    """
    where = where or home()
    wanted = name if name is not None else f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not (isinstance(wanted, str) and NAME.match(wanted)):
        raise UserError(f"run name {str(wanted)[:100]!a}: use up to 80 letters, digits, '.', '_' and '-', beginning with a letter or digit")
    environment()  # what would keep its engine from starting is refused before anything is made
    draft = where / _hidden(MAKING)
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear(where)
        _free_path(where, wanted, numbered=name is None)  # before anything is made
        draft.mkdir(mode=0o700)
        (draft / "inbox").mkdir(mode=0o700)
        (draft / "checkpoints").mkdir(mode=0o700)
        (draft / "spec.toml").write_text(to_toml(spec), encoding="utf-8")
        (draft / "metrics.f64").touch()
        (draft / "events.jsonl").touch()
        columns = [column._asdict() for column in described(columns_for(spec), spec.metrics)]
        (draft / "columns.json").write_text(json.dumps(columns, ensure_ascii=False, indent=1), encoding="utf-8")
        give_identity(draft)
        made = Run(draft)
        if fill is not None:
            fill(made)
        unsigned = grant(draft, made.spec)
        for part in (draft / "spec.toml", draft / "columns.json", draft):
            sync(part)
        path = _give_name(draft, where, wanted, numbered=name is None)
        sync(where)
    except OSError as error:
        raise UserError(f"{where}: a run cannot be created there ({error.strerror}); set EOS_HOME to a folder you can write") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # not there any more, where all went well
    run = Run(path)
    if unsigned:
        print_line(f"run {run.name}: to go on with it will take --trust, for it could not be signed ({unsigned})", error=True)
    return run


def _free_path(where: Path, wanted: str, numbered: bool) -> Path:
    """A path of that name which nothing has; when `numbered`, the first free one of name, name-2, name-3, …"""
    for attempt in range(1, 1000 if numbered else 2):
        path = where / (wanted if attempt == 1 else f"{wanted}-{attempt}")
        if not os.path.lexists(path):
            return path
    raise UserError(f"run {wanted}: exists already in {where}; choose another --name, or `eos rm {wanted}`")


def _give_name(draft: Path, where: Path, wanted: str, numbered: bool) -> Path:
    """Give a draft its name. Of several drafts that want the same name, one gets that name."""
    while True:
        path = _free_path(where, wanted, numbered)
        try:
            draft.rename(path)
            return path
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise


def _hidden(purpose: str, name: str = "") -> str:
    return f".eos-{purpose}-{lock.system_mark()}-{os.getpid()}-{os.urandom(8).hex()}{name and f'-{name}'}"


def _leftovers(where: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders that a process which is gone was making or removing: path, purpose, and the run's name where it is known."""
    with suppress(OSError):
        for entry in os.scandir(where):
            if (given := HIDDEN.match(entry.name)) and entry.is_dir(follow_symlinks=False):
                purpose, system, pid, name = given[1], given[2], int(given[3]), given[4] or ""
                here = system == lock.system_mark()
                left = not lock.is_running(pid) if here else (lock.age(Path(entry.path)) or 0.0) > ABANDONED_SECONDS
                if left or purpose == REMOVING:  # two may well remove one thing
                    yield Path(entry.path), purpose, name


def clear(where: Path) -> list[str]:
    """Finish the making and removing of runs that a process had begun which is gone. Returns the names of the runs removed by this."""
    finished = []
    for path, purpose, name in _leftovers(where):
        if purpose == MAKING:
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(UserError, OSError):  # an engine has it: it ends by itself, and the next look finishes this
            held = lock.take(path, name) if (path / "spec.toml").exists() else None
            try:
                shutil.rmtree(path)
                finished.append(name)
            finally:
                if held is not None:
                    held.close()
    return finished


def half_made(path: Path) -> bool:
    """Whether a folder is a run that was never made whole, or not removed to its end: nothing in it but what a run directory holds."""
    return not path.is_symlink() and _is_folder(str(path)) and not _is_whole(path) and _holds_nothing_else(path)


def is_run(path: Path) -> bool:
    """Whether a folder is a run that was made whole, whether or not it can be opened: it has a run's id, or nothing in it but what a run
    directory holds.
    """
    return not path.is_symlink() and _is_whole(path) and (identity(path) != "" or _holds_nothing_else(path))


def _is_whole(path: Path) -> bool:
    return (path / "spec.toml").is_file() and (path / "columns.json").is_file()


def _holds_nothing_else(path: Path) -> bool:
    """Whether there is nothing in it but what a run directory holds. Hidden files alone are no sign of one."""
    with suppress(OSError):
        names = os.listdir(path)
        return all(name in PARTS or name.startswith(".") for name in names) and (not names or not set(names).isdisjoint(PARTS))
    return False


def run_folders(where: Path | None = None) -> Iterator[os.DirEntry[str]]:
    """What may be runs in the folder of runs; nothing where there is no such folder. Raises UserError where it cannot be read."""
    try:
        with suppress(FileNotFoundError), os.scandir(where or home()) as entries:
            for entry in entries:
                if NAME.match(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield entry
    except OSError as error:
        raise UserError(f"{where or home()}: the runs cannot be listed ({error.strerror})") from None


def _in_order(where: Path | None, named: re.Pattern[str] = NAME) -> list[Path]:
    """Folders of such names with a specification, the oldest first."""
    made = []
    for entry in run_folders(where):
        if named.match(entry.name):
            with suppress(OSError):  # removed while we look, or no run
                made.append(((Path(entry.path) / "spec.toml").stat().st_mtime_ns, entry.name, Path(entry.path)))
    return [path for _, _, path in sorted(made)]


def _readable(paths: Iterable[Path]) -> Iterator[Run]:
    """The runs among these folders."""
    for path in paths:
        with suppress(UserError, OSError):
            yield Run(path)


def all_runs(where: Path | None = None, named: re.Pattern[str] = NAME) -> list[Run]:
    """Every readable run of such a name, oldest first. Each is read whole, in 4 ms: for a list of what there is see `glance`."""
    return list(_readable(_in_order(where, named)))


def resolve(name: str | None = None, where: Path | None = None) -> Run:
    """The run of this name, the run directory at this path, or the latest run. Raises UserError when there is none."""
    where = where or home()
    _require_given(name)
    if name is None:
        latest = next(_readable(reversed(_in_order(where))), None)
        if latest is None:
            raise UserError(f"{where}: no runs yet; `eos demo` makes one")
        return latest
    if NAME.match(name):
        if not (where / name).is_symlink() and (where / name).is_dir():
            return Run(where / name)
        if not _is_folder(name):
            known = [folder.name for folder in where.iterdir()] if where.is_dir() else []
            raise UserError(f"run {name}: not found in {where}{meant(name, known)}; `eos ls` lists the runs")
    if not _is_folder(name):
        raise UserError(f"{name[:200]!a}: neither a run's name nor a run directory; `eos ls` lists the runs")
    path = Path(name)
    return Run(path.resolve() if path.name in ("", "..") else path)  # "." has no name to call it by


def _require_given(name: str | None) -> None:
    """Raise UserError for an empty name, as of a variable of the shell that is not set: as a path it would be the folder one is in."""
    if name == "":
        raise UserError("'': an empty name; expected a run's name or a run directory, `.` for this one; `eos ls` lists the runs")


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than a file's name may be
        return False


def remove(run: RunFolder, force: bool = False) -> None:
    """Delete a run directory. Raises UserError while an engine holds it, or may hold it: with `force` only where one is heard of.

    It is renamed first, so that half of it is never taken for a run, and then locked.
    """
    path = resolved(run.path)
    liveness = run.liveness()
    if liveness in ("starting", "running", "paused"):
        raise UserError(f"run {run.name}: still {liveness}; `eos stop {run.name}` first")
    if liveness in ("silent", "unknown") and not force:
        raise UserError(f"{doubt(run, liveness)}; `eos rm {run.name} --force` deletes it all the same, and what that engine does from then "
                        "on is lost")
    clear(path.parent)
    _delete(path, run.name, force)


def _delete(path: Path, name: str, force: bool = False) -> None:
    away = path.with_name(_hidden(REMOVING, path.name)[:255])
    try:
        path.rename(away)
    except FileNotFoundError:
        raise UserError(f"{path}: not there any more") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted ({error.strerror})") from None
    try:
        if force:
            lock.break_lock(away)
        held = lock.take(away, name)
    except (HeldError, OSError) as error:
        with suppress(OSError):
            away.rename(path)
        if isinstance(error, HeldError):
            raise UserError(f"run {name}: an engine has just begun on it; `eos stop {name}` first") from None
        raise UserError(f"{path}: cannot be deleted ({error.strerror})") from None
    try:
        shutil.rmtree(away)
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted to its end ({error.strerror}); the next `eos rm` goes on with {away.name}") from None
    finally:
        held.close()


def discard(name: str, force: bool = False, where: Path | None = None) -> str:
    """Remove the run of this name, or at this path; also one that cannot be opened, that was never made whole, or that an earlier removal
    has left half of. Returns its name. Raises UserError where there is none, and as `remove`.
    """
    where, finished = where or home(), list[str]()
    _require_given(name)
    named = NAME.match(name) and (os.path.lexists(where / name) or not _is_folder(name))
    path = where / name if named else Path(name)
    with suppress(OSError, ValueError):  # a name that is none
        finished = clear(resolved(path).parent)
    if half_made(path) and (resolved(path).parent == resolved(where) or identity(path)):  # elsewhere `checkpoints` alone is anybody's
        if lock.is_held(path):
            raise UserError(f"{path}: an engine is at work on it, though files of it are gone; end that process first")
        _delete(resolved(path), path.name, force)
        return path.name
    if path.name in finished and not os.path.lexists(path):
        return path.name
    try:
        run: RunFolder = resolve(name, where)
    except UserError:
        if not is_run(path):
            raise
        run = RunFolder(resolved(path))  # damaged, or written by a later version
    remove(run, force)
    return run.name
