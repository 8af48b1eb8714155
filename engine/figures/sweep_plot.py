"""The outcomes of a sweep as a figure: each against the first field of the grid, a line for every choice of the others."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

from engine.base.atomic import check_output, output
from engine.base.errors import UserError
from engine.record.columns import METRIC
from engine.report.comparison import HEADINGS, Outcomes, with_metrics
from engine.report.ink import STROKES
from engine.report.style import in_style

SHOWN = (
    "edge_step", "sharpness_over_threshold", "threshold_ratio", "delta", "epsilon", "prediction_error", "horizon", "test_accuracy",
    "seconds",
)  # fmt: skip


def check(file: Path, force: bool = False) -> None:
    """Raise UserError where the outcomes could not be drawn into this file: before hours of work."""
    if find_spec("matplotlib") is None:
        raise UserError("--plot: needs matplotlib; pip install 'eos-tui[figures]'")
    if file.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"{file}: expected a name that ends in .svg, .png or .pdf")
    check_output(file, force)


def save(grid: Sequence[dict[str, Any]], ends: Sequence[Outcomes], file: Path, force: bool = False) -> None:
    """Draw the outcomes into a file; its ending chooses SVG, PNG or PDF. Raises UserError as `check` does."""
    check(file, force)
    from matplotlib.figure import Figure

    rows = with_metrics(ends)
    own = [name for name in (rows[0] if rows else ()) if name.startswith(METRIC)]
    kept = [name for name in (*SHOWN, *own) if any(row[name] is not None for row in rows)]
    field, *others = grid[0]
    with in_style():
        figure = Figure(figsize=(8, 2 * len(kept) + 1))
        axes: Any = figure.subplots(len(kept), 1, sharex=True, squeeze=False)[:, 0] if kept else []
        for axis, name in zip(axes, kept, strict=True):
            lines: dict[str, list[tuple[Any, Any]]] = {}
            for values, row in zip(grid, rows, strict=True):
                label = ", ".join(f"{other.rpartition('.')[2]} = {values[other]}" for other in others)
                lines.setdefault(label, []).append((values[field], row[name]))
            for (label, pairs), (color, dashes) in zip(lines.items(), cycle(STROKES), strict=False):
                known = [(x, y) for x, y in pairs if y is not None]
                stroke = {"color": color, "linestyle": dashes, "marker": "o", "markersize": 4}
                axis.plot([x for x, _ in known], [y for _, y in known], label=label or None, **stroke)
            axis.set_ylabel(HEADINGS.get(name, name))
        if kept:
            axes[-1].set_xlabel(field)
        if others and kept:
            axes[0].legend()
        with output(file, force) as handle:
            figure.savefig(handle, format=file.suffix[1:])
