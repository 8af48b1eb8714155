"""Plots on stdout: the dashboard's own for what runs along the step, plotext for one quantity against another.

Nothing here needs a terminal: width, height and colour are given, and the text goes wherever stdout does.
"""

import difflib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotext

from engine.base.atomic import STDOUT, check_output
from engine.base.errors import UserError, one_of
from engine.jobs.launch import LIVE
from engine.record.columns import Column, meets_threshold
from engine.record.reader import RowTail, Run
from eos_tui.draw import panels, theme
from eos_tui.draw.axes import Limits, ticks
from eos_tui.draw.line_plot import render_text
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.model.history import History
from eos_tui.model.timeline import first_edge
from eos_tui.terminal import picture, screenshot
from eos_tui.terminal.saving import save

ROLES = ("gd", "constrained", "generalized", "flow", "transported", "code", "good", "warn")
"""Colours of chosen series, in their order."""
MOST_POINTS = 5000
"""Of one quantity against another: plotext takes its time a point."""
NARROWEST, SHORTEST = 20, 6
SECONDS = 1.0
"""Between frames of a run that goes on."""


class Request(NamedTuple):
    """What to print of a run, and how."""

    plots: tuple[str, ...] = ()
    """Plots of the dashboard by name; the first there is, when neither these nor series are given."""
    series: tuple[str, ...] = ()
    """Columns to draw together in one plot."""
    against: str = ""
    """A column for the horizontal axis, instead of the step."""
    start: float | None = None
    stop: float | None = None
    """Steps to show; by default the whole run, or all from the edge on where nothing is recorded before."""
    log: bool = False
    width: int = 80
    height: int = 24
    color: bool = False
    ascii: bool = False
    theme: str = theme.DARK


def frame(run: Run, history: History, request: Request) -> str:
    """One frame as text. Raises UserError for a plot or column that the run does not have."""
    if request.width < NARROWEST or request.height < SHORTEST:
        raise UserError(f"{request.width}×{request.height} cells: a plot wants {NARROWEST}×{SHORTEST} at least")
    if request.start is not None and request.stop is not None and request.start >= request.stop:
        raise UserError(f"--from {request.start:g} --to {request.stop:g}: expected the first step before the last")
    if request.against:
        return against(history, request)
    chosen = specs(run, request)
    height = request.height // len(chosen)
    if height < SHORTEST:
        raise UserError(f"{len(chosen)} plots in {request.height} rows: each wants {SHORTEST}; `--rows` gives more")
    stop = request.stop if request.stop is not None else float(history.column("step")[-1]) if len(history) else 1.0
    from_edge = request.start is None and any(spec.from_edge for spec in chosen)
    edge = (first_edge(run.events()) or 0.0) if from_edge else 0.0

    def window(spec: PlotSpec) -> Window:
        start = request.start if request.start is not None else edge if spec.from_edge and edge < stop else 0.0
        return Window(start, max(stop, start + 1))

    return "\n".join(
        render_text(spec, history, window(spec), request.width, height, request.color, ascii=request.ascii, theme=request.theme)
        for spec in chosen
    )


def show(run: Run, request: Request, once: bool, svg: Path | None = None, png: Path | None = None, force: bool = False) -> int:
    """Print one frame, or a frame a second in place while the run goes on, and save the last as pictures. Raises UserError;
    returns the exit status.
    """
    for file in filter(None, (svg, png)):
        check_output(file, force)
    if svg == png == STDOUT:
        raise UserError("--svg - --png -: expected one of them on stdout")
    quiet = STDOUT in (svg, png)  # the picture alone is what goes on
    tail, history = RowTail(run), History(run.columns)
    while True:
        live = run.liveness() in LIVE  # before the rows: what ends meanwhile is read once more
        history.extend(tail.poll())
        history.over = not live
        text = frame(run, history, request)
        if not quiet:
            print(text, flush=True)
        if once or quiet or not live:
            break
        time.sleep(SECONDS)
        print(f"\x1b[{text.count(chr(10)) + 1}F", end="")
    if svg is None and png is None:
        return 0
    colored = text if request.color else frame(run, history, request._replace(color=True))
    if svg is not None:
        save(svg, screenshot.printed(colored, request.width, f"eos · {run.name}", request.theme).encode(), force)
    if png is not None:
        save(png, picture.png(colored, request.width, theme.picture_theme(request.theme)), force)
    return 0


def specs(run: Run, request: Request) -> list[PlotSpec]:
    """The plots asked for."""
    known = {spec.id: spec for spec in panels.line_plots(run.columns, panels.CHOICES[0])}
    chosen = []
    for name in request.plots:
        if name not in known:
            raise UserError(f"plot {name}: not in run {run.name}; {_nearest(name, list(known))}")
        chosen.append(known[name])
    if request.series:
        columns = [column_of(run, name) for name in request.series]
        curves = tuple(Curve(c.name, c.name, ROLES[k % len(ROLES)]) for k, c in enumerate(columns))
        unit = columns[0].unit if len({column.unit for column in columns}) == 1 else ""
        title = ", ".join(request.series) + (f" [{unit}]" if unit else "")
        chosen.append(PlotSpec("series", title, curves, threshold=all(meets_threshold(column.name) for column in columns)))
    return [spec._replace(log=request.log) for spec in chosen or list(known.values())[:1]]


def column_of(run: Run, name: str) -> Column:
    """A column by name. Raises UserError where the run does not record it."""
    if name not in run.index:
        raise UserError(f"series {name}: run {run.name} does not record it; {_nearest(name, list(run.index))}")
    return run.columns[run.index[name]]


def against(history: History, request: Request) -> str:
    """The chosen series against another column, a point a row that has both."""
    columns = {column.name: column for column in history.columns}
    names = request.series or ("gd.y",)
    for name in (request.against, *names):
        if name not in columns:
            raise UserError(f"series {name}: not recorded; {_nearest(name, list(columns))}")
    rows = history.rows_between(request.start or 0.0, history.last_step if request.stop is None else request.stop)
    across = history.column(request.against)[rows]
    figure = plotext.figure
    figure.clear()
    figure.theme("simple" if request.color else "colorless")
    figure.plot_size(request.width, request.height)
    drawn: list[np.ndarray] = []
    for name in names:
        up = history.column(name)[rows]
        known = np.isfinite(across) & np.isfinite(up) & ((up > 0) | (not request.log))
        kept = np.flatnonzero(known)[-MOST_POINTS:]
        if len(kept):
            signal = figure.signal(across[kept].tolist(), up[kept].tolist(), marker="*" if request.ascii else "braille")
            figure.draw(signal.label(name) if len(names) > 1 else signal)
            drawn.append(np.stack([across[kept], up[kept]]))
    if not drawn:
        raise UserError(f"{', '.join(names)} against {request.against}: no row has both")
    for axis, values, room in zip("xy", np.concatenate(drawn, axis=1), (request.width // 12, request.height // 4), strict=True):
        if axis == "y" and request.log:
            figure.ruler("y").scale("log")
            continue
        marks = ticks(Limits(float(values.min()), float(values.max())), max(room, 2))
        if len(marks.values) > 1:  # plotext's own are no round numbers
            figure.ruler(axis).ticks(list(marks.values), [f"{value:.4g}" for value in marks.values])
    figure.title(f"{', '.join(names)} against {request.against}")
    figure.label(request.against, axis="x")
    text = figure.build().string(colorless=not request.color)
    return _plain(text) if request.ascii else text.rstrip("\n")


BOX = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")


def _plain(text: str) -> str:
    """Without signs beyond ASCII."""
    return text.translate(BOX).encode("ascii", "replace").decode().rstrip("\n")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"it has {one_of(known)}"
