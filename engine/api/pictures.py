"""A record as a picture: what `plot` draws and a notebook shows, in the colours of the paper's figures. Needs matplotlib."""

import html as markup
import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.base.errors import UserError, meant, one_of
from engine.record.columns import Column, meets_threshold
from engine.report.ink import BLACK, STROKES
from engine.report.style import escape, in_style, read_style
from engine.report.summary import summarize, words
from engine.spec import PREDICTIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from engine.api.records import Record

USUAL = ("gd.loss", "gd.sharpness", "preconditioned.sharpness", "batch.sharpness")
"""What is drawn when nothing is chosen, as far as it was recorded; with the prediction's own beside."""
WIDTH, HEIGHT = 7.0, 2.2
"""Inches of a figure, and of each of its plots."""


def figure(record: "Record", columns: Sequence[str], style: Path | None = None) -> "Figure":
    """A plot of each of the quantities over the step; columns of one quantity share one. Raises UserError for what was not recorded."""
    for name in columns:
        if name not in record:
            raise UserError(f"column {name}: not recorded by run {record.name}{meant(name, record)}; it has {one_of(record)}")
    chosen = list(columns) or [name for name in USUAL if name in record] or list(record)[1:2]
    plots: dict[str, list[Column]] = {}
    known = {column.name: column for column in record.run.columns}
    for name in dict.fromkeys(chosen):
        plots.setdefault(name.rpartition(".")[2], []).append(known[name])
    with in_style(None if style is None else read_style(style)):
        canvas = _shown_figure()(figsize=(WIDTH, HEIGHT * len(plots)))
        for axes, curves in zip(canvas.subplots(len(plots), 1, sharex=True, squeeze=False)[:, 0], plots.values(), strict=True):
            _plot(axes, record, curves)
        axes.set_xlabel("step")
        escape(canvas)
    return canvas


@cache
def _shown_figure() -> "type[Figure]":
    """The kind of figure that a notebook shows: matplotlib's own is a line of text there until pyplot is imported."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that shows itself as SVG."""

        def _repr_svg_(self) -> str:
            return _svg(self)

    return ShownFigure


def _plot(axes: "Axes", record: "Record", curves: Sequence[Column]) -> None:
    step = record["step"]
    for (color, _), column in zip(STROKES, curves, strict=False):
        values = record[column.name]
        seen = np.isfinite(values)
        predicted = column.name.partition(".")[0] in PREDICTIONS
        axes.plot(step[seen], values[seen], color=color, linestyle="--" if predicted else "-", zorder=2 if predicted else 3,
                  label=f"{column.symbol}: {column.words}")  # what is measured lies on top
    if any(meets_threshold(column.name) for column in curves) and "threshold" in record:
        axes.plot(step, record["threshold"], color=BLACK, linestyle=":", label="edge")
    elif all(column.name.endswith(".loss") for column in curves) and all((record[column.name] > 0).any() for column in curves):
        axes.set_yscale("log")
    axes.legend(loc="best")


def html(record: "Record") -> str:
    """The outcome, the summary as a table, and where matplotlib is installed the usual plots as SVG; of a run that is gone, that it is, in
    place of the summary."""
    try:
        pairs = words(summarize(record.run))
    except UserError as error:
        pairs = [("run", str(error))]
    rows = "".join(f"<tr><td>{markup.escape(name)}</td><td>{markup.escape(str(value))}</td></tr>" for name, value in pairs)
    drawing = _svg(figure(record, ())) if find_spec("matplotlib") is not None and len(record["step"]) > 1 else ""
    return f"<div><p>{markup.escape(repr(record)[1:-1])}</p><table>{rows}</table>{drawing}</div>"


def _svg(drawn: "Figure") -> str:
    """A figure as an SVG element, the same each time."""
    body: Any = io.StringIO()
    drawn.savefig(body, format="svg", metadata={"Date": None})
    text = body.getvalue()
    return text[text.index("<svg"):]
