"""The outcomes of a sweep as a figure: each against the first field of the grid, a line for every choice of the others."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.base.atomic import check_output, output
from engine.base.errors import UserError
from engine.record.columns import METRIC
from engine.report.comparison import HEADINGS, Outcomes, with_metrics

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
    figure = Figure(figsize=(8, 2 * len(kept) + 1), layout="constrained")
    axes: Any = figure.subplots(len(kept), 1, sharex=True, squeeze=False)[:, 0] if kept else []
    for axis, name in zip(axes, kept, strict=True):
        lines: dict[str, list[tuple[Any, Any]]] = {}
        for values, row in zip(grid, rows, strict=True):
            label = ", ".join(f"{other.rpartition('.')[2]} = {values[other]}" for other in others)
            lines.setdefault(label, []).append((values[field], row[name]))
        for label, pairs in lines.items():
            known = [(x, y) for x, y in pairs if y is not None]
            axis.plot([x for x, _ in known], [y for _, y in known], "o-", label=label or None, markersize=4)
        axis.set_ylabel(HEADINGS.get(name, name))
        axis.spines[["top", "right"]].set_visible(False)
    if kept:
        axes[-1].set_xlabel(field)
    if others and kept:
        axes[0].legend(fontsize="small")
    with output(file, force) as handle:
        figure.savefig(handle, format=file.suffix[1:])
