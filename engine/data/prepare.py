"""Prepare and verify the data sets of a data folder."""

import fcntl
import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from engine.base.errors import UserError
from engine.base.files import append_plain, open_plain
from engine.data import catalog, compact
from engine.data.catalog import Archive, Entry
from engine.data.embedded import Pool

REACH_SECONDS = 8.0
"""Wait for a host's first answer; name servers that do not answer take longer than any timeout of a connection."""


def prepare(entry: Entry, where: Path, progress: bool = False) -> str:
    """Have a data set ready in a data folder, and say what was done. Raises DataUnavailable without a network or archives."""
    if _is_whole(entry, where):
        return f"{entry.name}: ready in {where}"
    with _alone(entry, where):
        _clear_leftovers(entry, where)
        if not _has_records(entry, where):
            _write_records(entry, where, progress)
        from engine.data import upstream

        pool, origin = upstream.read(entry, where)
        compact.write(entry, where, pool, origin)
    return f"{entry.name}: {len(pool.labels):,} + {len(pool.test_labels):,} examples prepared in {where}"  # type: ignore[arg-type]


def verify(entry: Entry, where: Path) -> str:
    """Read everything there is of a data set and compare. Raises UserError at what is damaged, half there, or not there."""
    has_records = _has_records(entry, where)
    if not catalog.is_prepared(entry, where):
        raise catalog.unavailable(entry, where, f"not prepared in {where}")
    copy = compact.read(entry, where)
    if copy is not None:
        _check_counts(entry, where, copy[0])
    if has_records:
        from engine.data import upstream

        records, _ = upstream.read(entry, where)
        if copy is not None and not _equal(records, copy[0]):
            raise UserError(f"{compact.copy_path(entry, where)}: not what the records in {where / entry.source} say; remove it, "
                            f"then `eos data prepare {entry.name} --data-dir {where}`")  # fmt: skip
    read = " and ".join(["the compact copy"] * (copy is not None) + ["the records"] * has_records)
    leftovers = _leftovers(entry, where)
    left = f"; {len(leftovers)} leftovers of unfinished downloads, which the next prepare removes" if leftovers else ""
    return f"{entry.name}: whole in {where} ({read}){left}"


def _is_whole(entry: Entry, where: Path) -> bool:
    """Whether there is a compact copy that is not damaged; a damaged one is written again."""
    try:
        return compact.read(entry, where) is not None
    except UserError:
        return False


def _has_records(entry: Entry, where: Path) -> bool:
    """Whether tensorflow-datasets finished here. Raises UserError where a folder of records is without its dataset_info.json."""
    versions = [path for path in (where / entry.source).glob("*") if path.is_dir() and "incomplete" not in path.name]
    for path in versions:
        if not (path / "dataset_info.json").is_file():
            raise UserError(f"{path}: half prepared or half copied (no dataset_info.json); remove it, then `eos data prepare {entry.name}`")
    return bool(versions)


def _write_records(entry: Entry, where: Path, progress: bool) -> None:
    known = catalog.archives(entry)
    wanted = [archive for archive in known if not _brought(archive, where)]
    unreachable = _unreachable(wanted) if wanted else ""
    from engine.data import upstream

    if unreachable and not all(upstream.is_cached(archive, entry, where) for archive in wanted):
        raise catalog.unavailable(entry, where, unreachable)
    try:
        upstream.prepare(entry, where, known, progress)
    finally:
        _clear_leftovers(entry, where)


def _brought(archive: Archive, where: Path) -> bool:
    """Whether the archive was put into `downloads/manual/`. Raises UserError when another file has its name."""
    path = catalog.manual(where) / archive.file
    if not path.exists():
        return False
    with open_plain(path, follow=True) as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != archive.sha256:
        raise UserError(f"{path}: not the archive expected: it has {path.stat().st_size:,} bytes and SHA-256 {found}; expected {archive}")
    return True


def _unreachable(wanted: list[Archive]) -> str:
    """Why the first of the archives' hosts cannot be reached, in words; empty when all can."""
    import requests

    for host, url in {urlsplit(archive.url).netloc: archive.url for archive in wanted}.items():
        failures = [f"{host} does not answer within {REACH_SECONDS:g} s"]

        def ask(url: str = url, failures: list[str] = failures, host: str = host) -> None:
            try:
                requests.head(url, timeout=REACH_SECONDS, allow_redirects=True).close()
                failures.clear()
            except requests.RequestException as error:
                failures[:] = [f"{host} cannot be reached ({type(error).__name__})"]

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(REACH_SECONDS)
        if failures:
            return failures[0]
    return ""


def _leftovers(entry: Entry, where: Path) -> list[Path]:
    """What a broken download or a killed preparation left."""
    downloads = where / "downloads"
    families = (
        downloads.glob("*.tmp.*"), (downloads / entry.source.split("/")[0]).glob("**/*.tmp.*"),
        (where / entry.source).glob("*incomplete*"),
    )  # fmt: skip
    return [path for family in families for path in family]


def _clear_leftovers(entry: Entry, where: Path) -> None:
    for path in _leftovers(entry, where):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def _alone(entry: Entry, where: Path) -> Iterator[None]:
    """Hold the data folder: two preparations at once would clear away each other's downloads."""
    try:
        (where / "eos").mkdir(parents=True, exist_ok=True)
        handle = append_plain(where / "eos" / ".lock", create=True)
    except OSError as error:
        raise UserError(f"{where}: {entry.name} cannot be prepared there ({error.strerror}); give a --data-dir you can write") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{where}: another `eos data prepare` is at work there; wait for it") from None
        yield


def _check_counts(entry: Entry, where: Path, pool: Pool) -> None:
    assert pool.test_labels is not None
    found = (len(pool.labels), len(pool.test_labels))
    if found != entry.examples:
        raise UserError(f"{compact.copy_path(entry, where)}: has {found} examples, expected {entry.examples}")


def _equal(one: Pool, other: Pool) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]
