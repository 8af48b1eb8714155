"""The commands on data sets: list them, prepare one through tensorflow-datasets, verify what is there."""

import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from engine.base.errors import BAD_INPUT, UserError, one_of
from engine.base.exit import report_error
from engine.base.text import print_json, print_table
from engine.commands.options import DataDir, DataName, Switch
from engine.data import EMBEDDED, catalog
from engine.data.catalog import ENTRIES, Entry

app = App(name="data", help="List, prepare and verify data sets.")


@app.command(name="list")
def list_data(*, data_dir: DataDir = None, json: Switch = False) -> int:
    """List the data sets: those that ship with eos, and those that tensorflow-datasets brings.

    Args:
        json: Print one JSON array, with the archives to bring by hand.
    """
    where = catalog.folder(data_dir or "")
    found = [_embedded(name) for name in EMBEDDED] + [_prepared(entry, where) for entry in ENTRIES.values()]
    if json:
        print_json(found)
        return 0
    rows = [[str(one["data"]), f"{one['examples']:,}", f"{one['test_examples']:,}", one["state"], one["stand_in"]] for one in found]
    print_table(["data", "examples", "to test on", "state", "stand-in"], rows)
    print(f"data folder: {where}", file=sys.stderr)
    return 0


@app.command
def prepare(name: DataName, *, data_dir: DataDir = None, json: Switch = False) -> int:
    """Download a data set and make it ready to read; archives in downloads/manual/ of the data folder are taken from there.

    Args:
        name: A data set's name; `data list` lists them.
        json: Print the data set's row of `data list` as one JSON object.
    """
    from engine.data.prepare import prepare as make_ready

    if name in EMBEDDED:
        return _tell(f"{name}: ships with eos, always ready", _embedded(name), json)
    entry, where = _entry(name), catalog.folder(data_dir or "")
    said = make_ready(entry, where, progress=sys.stderr.isatty())
    return _tell(said, _prepared(entry, where), json)


@app.command
def verify(name: DataName | None = None, *, data_dir: DataDir = None, json: Switch = False) -> int:
    """Read a data set whole and compare it with its sums: the one named, or all that are there.

    Args:
        name: A data set's name; `data list` lists them.
        json: Print one JSON array.
    """
    where = catalog.folder(data_dir or "")
    names = [name] if name else [*EMBEDDED, *(entry.name for entry in ENTRIES.values() if catalog.is_begun(entry, where))]
    found: list[dict[str, Any]] = []
    for one in names:
        try:
            found.append({"data": one, "whole": True, "text": _read_whole(one, where)})
        except UserError as error:
            found.append({"data": one, "whole": False, "text": str(error)})
        if not found[-1]["whole"]:
            report_error(found[-1]["text"])
        elif not json:
            print(found[-1]["text"])
    if json:
        print_json(found)
    return 0 if all(row["whole"] for row in found) else BAD_INPUT


def _read_whole(name: str, where: Path) -> str:
    from engine.data.prepare import verify as read_whole

    if name in EMBEDDED:
        return f"{name}: whole ({len(EMBEDDED[name]().labels):,} examples ship with eos)"
    return read_whole(_entry(name), where)


def _tell(said: str, row: dict[str, Any], json: bool) -> int:
    print(said, file=sys.stderr if json else sys.stdout)
    if json:
        print_json(row)
    return 0


def _entry(name: str) -> Entry:
    if name not in ENTRIES:
        raise UserError(f"{name[:100]}: no such data set; expected one of {one_of([*EMBEDDED, *ENTRIES])}")
    return ENTRIES[name]


def _embedded(name: str) -> dict[str, Any]:
    pool = EMBEDDED[name]()
    held = 0 if pool.test_labels is None else len(pool.test_labels)
    return {"data": name, "examples": len(pool.labels), "test_examples": held, "state": "ships with eos", "stand_in": ""}


def _prepared(entry: Entry, where: Path) -> dict[str, Any]:
    ready = catalog.is_prepared(entry, where)
    return {
        "data": entry.name, "examples": entry.examples[0], "test_examples": entry.examples[1],
        "state": "prepared" if ready else "not prepared", "stand_in": entry.stand_in, "folder": str(where),
        "archives": [archive._asdict() for archive in catalog.archives(entry)], "manual": str(catalog.manual(where)),
    }  # fmt: skip
