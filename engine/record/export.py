"""A run's rows for other programs: CSV, Parquet, NPZ and JSON, every digit kept. Without jax.

An empty cell, a null, or NaN in NPZ stands where a column has no value at a step.
"""

import csv
import io
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args

import msgspec
import numpy as np

from engine.base.atomic import STDOUT, output
from engine.base.errors import UserError, meant, one_of
from engine.base.text import to_json
from engine.record.columns import Column
from engine.record.reader import Run
from engine.spec import to_toml

Format = Literal["csv", "parquet", "npz", "json"]
FORMATS: tuple[str, ...] = get_args(Format)
BINARY = ("parquet", "npz")
CHUNK = 4096
"""Rows in memory at once, where a format takes them in pieces."""


def chosen_columns(run: Run, names: Sequence[str]) -> list[Column]:
    """The columns of these names, each `a,b` taken as two; all when none is given. Raises UserError for one not recorded."""
    wanted = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    for name in wanted:
        if name not in run.index:
            known = f"{meant(name, run.index)}; expected one of {', '.join(run.index)}"
            raise UserError(f"column {name}: not recorded by run {run.name}{known}")
    return [run.columns[run.index[name]] for name in dict.fromkeys(wanted)] or list(run.columns)


def refuse_two(given: Sequence[str]) -> None:
    """Raises UserError where more than one format is asked for by an option."""
    if len(given) > 1:
        raise UserError(f"--{given[0]} --{given[1]}: expected one format")


def chosen_format(given: Sequence[str], out: Path | None) -> str:
    """The format asked for by an option, else by the file's ending, else CSV. Raises UserError for two options."""
    refuse_two(given)
    if given:
        return given[0]
    suffix = out.suffix.lstrip(".").lower() if out and out != STDOUT else "csv"
    if suffix not in FORMATS:
        raise UserError(f"{out}: the ending names no format; expected one of {one_of(FORMATS)}, or --csv, --parquet, --npz or --json")
    return suffix


def export(run: Run, format: str, columns: Sequence[Column], out: Path | None, force: bool = False) -> None:
    """Write the rows to a file, or to stdout. A file is there whole or not at all; one that is there already is replaced with `force`.
    Raises UserError, OSError.
    """
    if out is None or out == STDOUT:
        if format not in BINARY:
            _text(run, format, columns, sys.stdout)
            return
        if sys.stdout.isatty():
            raise UserError(f"--{format}: not for a terminal; give --out FILE, or send it down a pipe")
        _binary(run, format, columns, sys.stdout.buffer)
        return
    with output(out, force) as handle:
        if format in BINARY:
            _binary(run, format, columns, handle)
        else:
            text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
            try:
                _text(run, format, columns, text)
            finally:
                text.detach()  # which writes what is left, and leaves the file open


def blocks(run: Run, columns: Sequence[Column]) -> Iterator[np.ndarray]:
    """The rows in pieces (rows, columns), as many as there are when it begins."""
    chosen, count = [run.index[column.name] for column in columns], run.row_count()
    for start in range(0, count, CHUNK):
        yield run.rows(start, min(start + CHUNK, count))[:, chosen]


def shown(value: float) -> str:
    """The shortest text that reads back as the same number; empty for none."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _text(run: Run, format: str, columns: Sequence[Column], handle: IO[str]) -> None:
    names = [column.name for column in columns]
    if format == "csv":
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(names)
        for block in blocks(run, columns):
            writer.writerows([shown(value) for value in row] for row in block.tolist())
        return
    whole = np.concatenate([np.empty((0, len(names))), *blocks(run, columns)])
    document: dict[str, Any] = {
        "run": run.name, "spec": msgspec.to_builtins(run.spec), "provenance": run.provenance(), "events": run.events(),
        "columns": [column._asdict() for column in columns],
        "rows": {name: whole[:, k].tolist() for k, name in enumerate(names)},
    }  # fmt: skip
    handle.write(to_json(document, indent=None) + "\n")


def _binary(run: Run, format: str, columns: Sequence[Column], handle: IO[bytes]) -> None:
    if format == "parquet":
        _parquet(run, columns, handle)
        return
    whole = np.concatenate([np.empty((0, len(columns))), *blocks(run, columns)])
    body = io.BytesIO()  # a zip file is written back and forth, which a pipe is not
    np.savez_compressed(body, **{column.name: whole[:, k] for k, column in enumerate(columns)})  # type: ignore[arg-type]
    handle.write(body.getvalue())


def _parquet(run: Run, columns: Sequence[Column], handle: IO[bytes]) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError("--parquet: needs pyarrow; pip install 'eos-tui[frames]'") from None
    fields = [
        pa.field(column.name, pa.float64(), metadata={"symbol": column.symbol, "words": column.words, "unit": column.unit})
        for column in columns
    ]
    schema = pa.schema(fields, metadata={"eos.run": run.name, "eos.spec": to_toml(run.spec)})
    with parquet.ParquetWriter(handle, schema) as writer:
        for block in blocks(run, columns):
            arrays = [pa.array(block[:, k], from_pandas=True) for k in range(len(columns))]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
