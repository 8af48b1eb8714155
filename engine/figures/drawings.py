"""How each figure is drawn, by matplotlib: measured curves solid, predicted ones dashed, the threshold 2/η always in sight.

Colours are those of Okabe and Ito, distinct to colour-blind eyes, and no meaning rests on colour alone.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from engine import theory
from engine.base.atomic import output
from engine.figures.catalog import Figure
from engine.figures.page import Page, at_width
from engine.figures.runs import Result, curves
from engine.report.gauges import GAUGES, reading
from engine.report.ink import BLACK, BLUE, CONSTRAINED, DESCENT, FLOW, GREY, PREDICTED, RATES, STAGES, STROKES
from engine.report.style import escape, in_style
from engine.spec import Phase, load_spec

PER_DELTA = "x / δ"
UNDATED = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}
"""What a file would say of when it was made, and is left out: the same figure is the same file."""

Pages = dict[str, Canvas]
"""Canvases by what their file name adds to the figure's."""


def save(figure: Figure, results: Sequence[Result], out: Path, stem: str, page: Page, force: bool = False) -> list[str]:
    """Draw the figure and write each of its pages in every format asked for; their names."""
    files, draw = list[str](), DRAWINGS[figure.name]
    with in_style(page.style, page.latex):
        natural = {suffix: canvas.get_size_inches() for suffix, canvas in draw(results).items()}
    for suffix, size in natural.items():
        with in_style(page.style, page.latex, page.text_scale(size[0])):
            canvas = draw(results)[suffix]
            escape(canvas)
            if page.width is not None:
                at_width(canvas, page)
            dots = page.dots_per_inch()
            for ending in page.formats:
                name = f"{stem}{suffix}.{ending}"
                with output(out / name, force, anew=True) as handle:
                    canvas.savefig(handle, format=ending, dpi=dots, metadata=UNDATED[ending])
                files.append(name)
    return files


def edge(results: Sequence[Result]) -> Pages:
    """Figure 1: loss and sharpness at several η."""
    canvas, (above, below) = _canvas(1, 2, 9, 3.4)
    for color, result in zip(RATES, results, strict=False):
        _series(above, result, "gd.loss", color, label=result.wanted.label)
        _series(below, result, "gd.sharpness", color)
        _threshold(below, result, color)
    _labels(above, "training loss L(θ)", log=True)
    _labels(below, "sharpness S(θ)")
    above.legend()
    _style_legend(below, [("gradient descent", "-"), ("2/η", ":")])
    return {"": canvas}


def stages(results: Sequence[Result]) -> Pages:
    """Figure 2: the oscillation and the sharpness on the toy, shaded by the stages of Section 4.1, the energy that the map (3) gains, and
    the orbit about the fixed point."""
    result = results[0]
    step, x, y, stage = (result.column(name) for name in ("step", "gd.x", "gd.y", "stage"))
    delta, eta = float(np.nanmedian(result.column("constrained.delta"))), result.learning_rate
    canvas = Canvas(figsize=(10, 6.2))
    grid = canvas.add_gridspec(3, 2, width_ratios=(1.25, 1))
    above = canvas.add_subplot(grid[0, 0])
    below, gain = (canvas.add_subplot(grid[row, 0], sharex=above) for row in (1, 2))
    plane = canvas.add_subplot(grid[:, 1])
    for axes in (above, below, gain):
        axes.grid(False)
        for kind, run in groupby(range(len(step)), key=lambda k: stage[k]):
            inside = list(run)
            if kind in STAGES:
                axes.axvspan(step[inside[0]] - 0.5, step[inside[-1]] + 0.5, color=STAGES[int(kind)], alpha=0.3, linewidth=0)
    above.plot(step, x, color=DESCENT, linewidth=0.7)
    for side in (-delta, delta):
        above.axhline(side, color=BLACK, linestyle="--", linewidth=0.9)
    above.set(ylabel="oscillation x", title="x along the top eigenvector, ±δ dashed")
    below.plot(step, result.threshold + y, color=DESCENT)
    _threshold(below, result, BLACK)
    below.set(ylabel="2/η + y", title="sharpness along u, 2/η dotted")
    for kind, color in STAGES.items():
        at = stage == kind
        plane.plot(np.abs(x[at]) / delta, y[at], ".", color=color, markersize=5, markeredgecolor="#555555", markeredgewidth=0.3,
                   label=f"{kind} {theory.STAGES[kind]}: {theory.CONDITIONS[kind]}")
    alpha, beta = (float(np.nanmedian(result.column(f"constrained.{name}"))) for name in ("alpha", "beta"))
    energy, growth = theory.conserved(x, y, alpha, beta), 1 + 2 * float(theory.epsilon(eta, alpha)) ** 2
    gain.plot(step, energy / energy[0], color=DESCENT, label="g of gradient descent, which is the map (3) here")
    gain.plot(step, growth ** (step - step[0]), color=BLACK, linestyle="--", linewidth=0.9, label=f"(1+2ε²)ᵗ = {growth:.4f}ᵗ, small orbits")
    gain.axhline(1, color=GREY, linestyle="-.", linewidth=0.9, label="the flow (4) keeps it, Lemma 3")
    gain.set(ylabel="g / g at the start", xlabel="gradient-descent step t", title="the map (3) gains energy: about 1 + 2ε² a step")
    gain.legend()
    orbit = theory.level_set(float(energy[0]), alpha, beta)
    plane.plot(orbit[:, 0], orbit[:, 1], color=BLACK, linestyle="--", linewidth=0.9, zorder=0, label="level set of Lemma 3")
    plane.plot(1, 0, "+", color=BLACK, markersize=9)
    plane.set(xlabel="|x| / δ", ylabel="y = change of sharpness", title="the orbit, turning clockwise about (1, 0), and outward")
    plane.legend(loc="center", bbox_to_anchor=(0.5, 0.36))  # inside the orbit, under the fixed point
    return {"": canvas}


def portraits(results: Sequence[Result]) -> Pages:
    """Figure 3: orbits of (4) for several X(0), a column for each pair of α and β: in the plane above, X over time below."""
    canvas, panels = _canvas(2, len(results), 3.4 * len(results), 6.4, sharex="row", sharey="row", squeeze=False)
    for (axes, over_time), result in zip(panels.T, results, strict=True):
        part = result.wanted.spec.problem
        assert isinstance(part, Phase)
        delta = theory.delta(part.alpha, part.beta)
        for k, (start, (color, dashes)) in enumerate(zip(part.starts, STROKES, strict=False), start=1):
            x, y = result.column(f"ode{k}.x"), result.column(f"ode{k}.y")
            energy = float(theory.conserved(x[0], y[0], part.alpha, part.beta))
            once = int(theory.period(energy, part.alpha, part.beta, result.learning_rate)) + 2  # dashes over dashes would be solid
            axes.plot(x[:once], y[:once], color=color, linestyle=dashes, label=f"X(0) = {start:g} δ")
            over_time.plot(result.column("time"), x, color=color, linestyle=dashes)
            turn = int(np.argmax(x > delta))
            axes.annotate("", (x[turn + 5], y[turn + 5]), (x[turn], y[turn]), arrowprops={"arrowstyle": "-|>", "color": color})
        axes.plot(delta, 0, "+", color=BLACK, markersize=9, linestyle="", label="fixed point (δ, 0)")
        over_time.axhline(delta, color=BLACK, linestyle=":", linewidth=1.2)
        axes.set(xlabel="oscillation X", title=f"{result.wanted.label}: δ = {delta:.3g}")
        over_time.set(xlabel="ODE time τ = ηt")
    panels[0, 0].set_ylabel("change of sharpness Y")
    panels[1, 0].set(ylabel="oscillation X", title="δ dotted: the smaller X(0), the later its burst")
    panels[0, -1].legend(loc="upper right", handlelength=3)
    return {"": canvas}


def trajectories(results: Sequence[Result]) -> Pages:
    """Figure 4: a column for each setting, a page for each place in its list of η; predicted by (5), in its form (6)."""
    settings = _by_preset(results)
    pages: Pages = {}
    for rank in range(max(map(len, settings.values()))):
        shown = [runs[rank] for runs in settings.values() if rank < len(runs)]
        canvas, panels = _canvas(3, len(shown), 3.9 * len(shown), 7.4, squeeze=False)
        for (loss, sharpness, distance), result in zip(panels.T, shown, strict=True):
            _compared(loss, sharpness, result, "transported")
            for family, color in (("flow", FLOW), ("gd", DESCENT)):
                _at_edge(distance, result, f"{family}.distance", color)
            _foretold(distance, result, "transported", "distance")
            loss.set_title(f"{_setting(result)}, {result.wanted.label}")
            _labels(distance, "distance to θ†", x="steps since the edge")
            _within(distance, _largest(result, "gd.distance", "flow.distance"))
        canvas.legend(handles=_roles("transported"), loc="outside lower center", ncols=min(6, 2 * len(shown)))
        pages["" if rank == 0 else f"-{rank + 1}"] = canvas
    return pages


def spectra(results: Sequence[Result]) -> Pages:
    """Figure 5: loss and every followed eigenvalue, where each became unstable, and the way of the first to the edge.

    Each oscillates from step to step: its stroke is the mean of a step and the next, within the band that both leave.
    """
    canvas, panels = _canvas(2, len(results), 4.9 * len(results), 6.2, squeeze=False, sharex="col", height_ratios=(1, 1.7))
    for (above, below), result in zip(panels.T, results, strict=True):
        _series(above, result, "gd.loss", DESCENT)
        _series(below, result, "gd.midpoint_sharpness", BLUE, linewidth=2.6, alpha=0.35, label="λ1 half way between steps, to the edge")
        names = ["gd.sharpness", *(f"gd.lambda{k}" for k in range(2, 17))]
        for k, (name, (color, dashes)) in enumerate(zip(names, STROKES, strict=True), start=1):
            _band(below, result, name, color, linestyle=dashes, label=f"λ{k}")
            if k in result.unstable:
                at = result.unstable[k], result.threshold
                below.plot(*at, "v", color=color, markersize=8, markeredgecolor=BLACK, zorder=3)
        _threshold(below, result, BLACK)
        above.set_title(result.wanted.label)
        _labels(above, "training loss L(θ)", log=True, x="")
        _labels(below, "eigenvalues of ∇²L")
    handles, names = max((axes.get_legend_handles_labels() for axes in panels[1]), key=lambda legend: len(legend[0]))
    mark = Line2D([], [], color=BLACK, marker="v", linestyle="")
    handles, names = [*handles[1:], handles[0], mark, Line2D([], [], color=BLACK, linestyle=":")], [*names[1:], names[0]]
    canvas.legend(handles, [*names, "first above 2/η", "2/η"], loc="outside lower center", ncols=6, handlelength=3.5)
    return {"": canvas}


def training(results: Sequence[Result]) -> Pages:
    """Figure 6: training loss, sharpness and test accuracy at several η and at η = 1/λ_max."""
    canvas, (loss, sharpness, accuracy) = _canvas(1, 3, 12, 3.5)
    for color, result in zip(RATES, results, strict=False):
        scheduled = result.wanted.spec.optimizer.schedule == "inverse_sharpness"
        line = "-." if scheduled else "-"
        _series(loss, result, "gd.loss", color, label=result.wanted.label, linestyle=line)
        _series(sharpness, result, "gd.sharpness", color, linestyle=line)
        if not scheduled:  # there 2/η = 2S by definition
            _threshold(sharpness, result, color)
        share = result.column("test.accuracy") * 100
        _plot(accuracy, result.table["step"], share, color, linestyle=line)
    _labels(loss, "training loss L(θ)", log=True)
    _labels(sharpness, "sharpness S(θ), 2/η dotted", log=True)
    _labels(accuracy, "test accuracy (%)")
    loss.legend()
    return {"": canvas}


def gauges(results: Sequence[Result]) -> Pages:
    """Appendix E: the eight gauges, a page for each setting."""
    pages: Pages = {}
    title = FontProperties(size=matplotlib.rcParams["axes.titlesize"]).get_size_in_points()
    for preset, shown in _by_preset(results).items():
        canvas, panels = _canvas(2, 4, 13, 5.6)
        for axes, gauge in zip(panels.flat, GAUGES[:8], strict=True):
            for color, result in zip(RATES, shown, strict=False):
                values = np.array([reading(gauge, {gauge.column: value}) for value in result.column(gauge.column)])
                mark = "o" if gauge.column.startswith("assumption.") else ""  # read now and then: where
                _plot(axes, _since(result), values, color, label=result.wanted.label, marker=mark, markersize=3)
                if gauge.rule == "order epsilon":
                    _plot(axes, _since(result), result.column("constrained.epsilon"), color, linestyle=":")
            axes.set_title(f"plot {gauge.label}: {gauge.formula}, {gauge.claim}", fontsize=0.9 * title)
            _labels(axes, "", log=gauge.rule != "positive", x="steps since the edge")
        canvas.suptitle(f"{_setting(shown[0])}; dotted: ε; ρ3 and ρ4 are lower bounds")
        panels[0, 0].legend()
        pages[f"-{_short(preset)}"] = canvas
    return pages


def generalized(results: Sequence[Result]) -> Pages:
    """Appendix G: loss and sharpness against the generalized prediction, and F_t against x²/η; a page for each setting."""
    pages: Pages = {}
    for preset, shown in _by_preset(results).items():
        canvas, panels = _canvas(3, len(shown), 4.6 * len(shown), 8, squeeze=False)
        for (loss, sharpness, shape), result in zip(panels.T, shown, strict=True):
            _compared(loss, sharpness, result, "generalized")
            loss.set_title(result.wanted.label)
            sampled = [(step, arrays) for step, arrays in curves(result) if float(arrays["delta"]) > 0]
            shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.85, len(sampled)))
            for shade, (step, arrays) in zip(shades, sampled, strict=True):
                delta, eta = float(arrays["delta"]), result.learning_rate
                since = step - (result.edge_step or 0)
                shape.plot(arrays["x"] / delta, arrays["F"] * eta / delta**2, color=shade, label=f"F, step +{since}")
            reach = np.linspace(-5, 5, 101)
            shape.plot(reach, reach**2, color=BLACK, linestyle="--", label="x²/η")
            _labels(shape, "ηF(x) / δ²", x=PER_DELTA)
            shape.legend()
        canvas.suptitle(_setting(shown[0]))
        canvas.legend(handles=_roles("generalized"), loc="outside lower center", ncols=min(6, 2 * len(shown)))
        pages[f"-{_short(preset)}"] = canvas
    return pages


def _compared(loss: Axes, sharpness: Axes, result: Result, form: str) -> None:
    """Loss and sharpness of gradient descent, flow and θ†, and what this form of the prediction says, from the edge on."""
    for quantity, axes in (("loss", loss), ("sharpness", sharpness)):
        for family, color, width in (("gd", DESCENT, 1.0), ("flow", FLOW, 1.3), ("constrained", CONSTRAINED, 1.3)):
            if (family, quantity) != ("constrained", "sharpness"):  # there it lies on 2/η
                _at_edge(axes, result, f"{family}.{quantity}", color, linewidth=width)
        _foretold(axes, result, form, quantity)
    _threshold(sharpness, result, BLACK)
    measured = np.where(_since(result) >= 0, result.column("gd.sharpness"), np.nan) / result.threshold
    low, high = np.nanmin(measured), np.nanmax(measured)
    sharpness.set_ylim((min(low, 0.95) - 0.05) * result.threshold, (max(high, 1.05) + 0.12) * result.threshold)
    _labels(loss, "training loss", log=True, x="")
    _labels(sharpness, "sharpness", x="")
    _within(loss, _largest(result, "gd.loss", "constrained.loss", "flow.loss"))


def _foretold(axes: Axes, result: Result, form: str, quantity: str) -> None:
    """What a form of the prediction says from the edge on, dashed, in pieces from anchor to anchor; a tick on the axis at each."""
    since, values = _since(result), result.column(f"{form}.{quantity}")
    anchors = np.flatnonzero((result.column(f"{form}.since_anchor") == 0) & (since >= 0))
    for piece in np.split(np.arange(len(since)), anchors):
        known = piece[np.isfinite(values[piece]) & (since[piece] >= 0)]
        axes.plot(since[known], values[known], color=PREDICTED, linestyle="--", linewidth=1.0)
    if len(anchors):  # marks of no place, which are not clipped, would be laid out in the figure's corner, and leave no room
        axes.plot(
            since[anchors], np.zeros(len(anchors)), "|", color=PREDICTED, markersize=11, markeredgewidth=1.6, clip_on=False, zorder=4,
            transform=axes.get_xaxis_transform(), scalex=False, scaley=False,
        )


def _largest(result: Result, *names: str) -> float:
    """The largest value of these columns from the edge on."""
    values = np.stack([result.column(name) for name in names])[:, _since(result) >= 0]
    return float(values[np.isfinite(values)].max(initial=0))


def _within(axes: Axes, measured: float) -> None:
    """Leave values of a prediction far above the largest measured value out of sight."""
    log = axes.get_yscale() == "log"
    if measured > 0 and axes.get_ylim()[1] > measured * (2 if log else 1.3):
        axes.set_ylim(top=measured * (1.6 if log else 1.15))
        if not log:
            axes.set_ylim(bottom=-0.04 * measured)


def _roles(form: str) -> list[Line2D]:
    predicted = {"generalized": "generalized prediction (Appendix F)", "transported": "prediction, equations (5) and (6)"}[form]
    return [
        Line2D([], [], color=DESCENT, label="gradient descent"), Line2D([], [], color=CONSTRAINED, label="constrained trajectory θ†"),
        Line2D([], [], color=PREDICTED, linestyle="--", label=predicted),
        Line2D([], [], color=PREDICTED, marker="|", markersize=11, markeredgewidth=1.6, linestyle="", label="anchored to the truth"),
        Line2D([], [], color=FLOW, label="gradient flow"), Line2D([], [], color=BLACK, linestyle=":", label="2/η"),
    ]  # fmt: skip


def _canvas(rows: int, columns: int, width: float, height: float, **options):
    canvas = Canvas(figsize=(width, height))
    return canvas, canvas.subplots(rows, columns, **options)


def _plot(axes: Axes, x: np.ndarray, values: np.ndarray, color: str, **options) -> None:
    """A curve through the values there are: what is read now and then is joined, not broken."""
    known = np.isfinite(values)
    axes.plot(x[known], values[known], color=color, **options)


def _series(axes: Axes, result: Result, name: str, color: str, **options) -> None:
    _plot(axes, result.table["step"], result.column(name), color, **options)


def _band(axes: Axes, result: Result, name: str, color: str, **options) -> None:
    """The mean of each value and the next as a curve, and the band between them; nothing where the column is empty."""
    step, values = result.table["step"], result.column(name)
    first, second = values[:-1], values[1:]
    if np.isfinite(first + second).any():
        axes.fill_between(step[:-1], np.minimum(first, second), np.maximum(first, second), color=color, alpha=0.3, linewidth=0)
        axes.plot(step[:-1], (first + second) / 2, color=color, **options)  # broken where fewer were followed


def _at_edge(axes: Axes, result: Result, name: str, color: str, **options) -> None:
    values = np.where(_since(result) >= 0, result.column(name), np.nan)
    _plot(axes, _since(result), values, color, **options)


def _since(result: Result) -> np.ndarray:
    return result.table["step"] - (result.edge_step or 0)


def _threshold(axes: Axes, result: Result, color: str) -> None:
    axes.axhline(result.threshold, color=color, linestyle=":", linewidth=1.2)


def _labels(axes: Axes, y: str, log: bool = False, x: str = "gradient-descent step t") -> None:
    axes.set(xlabel=x, ylabel=y)
    if log and any((np.asarray(line.get_ydata(), float) > 0).any() for line in axes.lines):
        axes.set_yscale("log")


def _style_legend(axes: Axes, entries: Sequence[tuple[str, Literal["-", ":"]]]) -> None:
    axes.legend(handles=[Line2D([], [], color="#555555", linestyle=line, label=words) for words, line in entries])


def _by_preset(results: Sequence[Result]) -> dict[str, list[Result]]:
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.wanted.preset, []).append(result)
    return grouped


def _setting(result: Result) -> str:
    """`MLP, squared loss`: what follows the colon of the preset's title."""
    title = load_spec(result.wanted.preset).title
    return title.partition(": ")[2] or title


def _short(preset: str) -> str:
    return preset.removeprefix("fig4-").removeprefix("appendix-").removesuffix("-small")


DRAWINGS: dict[str, Callable[[Sequence[Result]], Pages]] = {
    "fig1": edge, "fig2": stages, "fig3": portraits, "fig4": trajectories, "fig5": spectra, "fig6": training,
    "appendix-e": gauges, "appendix-g": generalized,
}  # fmt: skip
