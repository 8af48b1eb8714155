"""A figure from nothing: the runs it needs, then SVG and PNG, the data as CSV, and a manifest of what it was made with."""

import csv
import io
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.base.atomic import check_output, output
from engine.base.clone import commit
from engine.base.errors import UserError
from engine.base.text import as_cell
from engine.figures import catalog, runs
from engine.figures.catalog import Figure
from engine.figures.page import AS_IT_IS, Page, require_matplotlib
from engine.figures.progress import FigureProgress
from engine.figures.runs import Result

RESIDUALS = ("gd.eigen_residual", "constrained.eigen_residual")


def reproduce(name: str, small: bool, out: Path, overrides: tuple[str, ...] = (), data_dir: str | None = None,
              force: bool = False, page: Page = AS_IT_IS) -> dict[str, Any] | None:
    """Make a figure in the folder `out`; returns the manifest, None when the user interrupted. Raises UserError for bad input, and for a
    file that is read-only, unless `force` says to replace it.
    """
    figure = catalog.named(name)
    require_matplotlib()
    wants = runs.wanted(figure, small, overrides, data_dir)
    stem = f"{name}-small" if small and figure.twins else name
    _make_folder(out)  # before hours of work
    for file in out.glob(f"{stem}*.*"):
        check_output(file, force, anew=True)
    kept = sum(runs.read(want) is not None for want in wants)
    if kept:
        print(f"{kept} of {len(wants)} runs are there already", file=sys.stderr)
    if not runs.carry_out(wants, FigureProgress(wants, kept).display):
        return None
    results = [result for want in wants if (result := runs.read(want)) is not None]
    files = _write_data(figure, results, out, stem, force)
    from engine.figures import drawings

    files = drawings.save(figure, results, out, stem, page, force) + files
    manifest: dict[str, Any] = {"figure": name, "title": figure.title, "small": small, "files": files, "matplotlib": version("matplotlib")}
    if (source := commit()) is not None:
        manifest["eos"] = source._asdict()
    manifest |= {"page": page.facts(), "columns": _described(figure, results), "runs": [facts(result) for result in results]}
    _write(out / f"{stem}.json", json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False) + "\n", force)
    return manifest | {"files": [*files, f"{stem}.json"]}


def facts(result: Result) -> dict[str, Any]:
    """What a reader needs to trust or repeat a run: how it ended, on what it ran, how well its eigenpairs converged."""
    state, origin = result.run.state(), result.run.provenance()
    assert state.outcome is not None
    return {
        "run": result.run.name, "preset": result.wanted.preset, "label": result.wanted.label,
        "learning_rate": result.learning_rate, "edge_step": result.edge_step, "outcome": state.outcome.text,
        "steps": len(result.table["step"]), "seconds": round(state.seconds, 1), "seed": result.wanted.spec.seed,
        "device": origin.get("device"), "precision": origin.get("precision"), "python": origin.get("python"),
        "versions": origin.get("versions"), "eos": origin.get("eos"), "data": origin.get("problem"),
        "eigen_residuals": {name: _spread(result.column(name)) for name in RESIDUALS if name in result.table},
        "unstable": {f"λ{k}": step for k, step in result.unstable.items()}, "spec": msgspec.to_builtins(result.wanted.spec),
    }


def _spread(values: np.ndarray) -> dict[str, float] | None:
    known = values[np.isfinite(values)]
    return {"median": float(np.median(known)), "largest": float(known.max())} if len(known) else None


def _write_data(figure: Figure, results: list[Result], out: Path, stem: str, force: bool) -> list[str]:
    """The recorded columns of every run in one CSV file, and the sampled curves in another; their names. A column that has a
    unit says it in its head.
    """
    columns = [name for name in figure.columns if any(name in result.table for result in results)]
    rows = (
        [as_cell(result.run.name), f"{eta:.10g}", int(step), *map(_cell, values)]
        for result in results
        for eta, step, *values in zip(
            result.column("learning_rate"), result.table["step"], *(result.column(name) for name in columns), strict=True
        )
    )
    units = {each["name"]: each["unit"] for each in _described(figure, results)}
    heads = [f"{name} [{units[name]}]" if units[name] else name for name in columns]
    _write_csv(out / f"{stem}.csv", ["run", "learning_rate", "step", *heads], rows, force)
    if not figure.curves:
        return [f"{stem}.csv"]
    samples = (
        [as_cell(result.run.name), f"{result.learning_rate:.10g}", step, _cell(x), _cell(rise)]
        for result in results for step, curve in runs.curves(result) for x, rise in zip(curve["x"], curve["F"], strict=True)
    )  # fmt: skip
    _write_csv(out / f"{stem}-curves.csv", ["run", "learning_rate", "step", "x", "F"], samples, force)
    return [f"{stem}.csv", f"{stem}-curves.csv"]


def _described(figure: Figure, results: list[Result]) -> list[dict[str, str]]:
    """Symbol, words, unit, formula and source of each column of the figure that is recorded."""
    recorded = {column.name: column for result in results for column in result.run.columns}
    return [recorded[name]._asdict() for name in figure.columns if name in recorded]


def _cell(value: float) -> str:
    return f"{value:.10g}" if np.isfinite(value) else ""


def _write_csv(path: Path, head: list[str], rows, force: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    _write(path, text.getvalue(), force)


def _write(path: Path, text: str, force: bool) -> None:
    with output(path, force, anew=True) as handle:
        handle.write(text.encode())


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: the figure cannot be written there ({error.strerror}); give another folder with --out") from None
    if not os.access(out, os.W_OK):
        raise UserError(f"{out}: not writable; give another folder with --out")
