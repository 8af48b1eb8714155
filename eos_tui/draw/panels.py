"""Which plots a run has: chosen by what it records, and by which predictions are asked for."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.record.columns import PREDICTION_WORDS, Column
from engine.spec import PREDICTIONS
from eos_tui.draw.line_plot import Curve, PlotSpec
from eos_tui.draw.theme import ROLES

CHOICES: tuple[tuple[str, ...], ...] = (
    ("generalized",),
    ("generalized", "transported"),
    ("generalized", "transported", "code"),
    (),
)
"""What the key for predictions goes through."""

PORTRAIT = "portrait"
_ORBIT_ROLES = ("gd", "generalized", "transported", "code", "flow", "constrained", "good", "warn")


def described(choice: Sequence[str]) -> str:
    """A choice of predictions, in words."""
    return ", ".join(PREDICTION_WORDS[form][0] for form in choice) or "no prediction"


def line_plots(columns: Sequence[Column], forms: Collection[str], log: Collection[str] = ()) -> tuple[PlotSpec, ...]:
    """The line plots of a run with these columns, the chosen predictions drawn and those named in `log` logarithmic."""
    recorded = {column.name for column in columns}
    wanted = _phase_plots(recorded) if "ode1.x" in recorded else _training_plots(forms)
    kept = [plot._replace(curves=tuple(c for c in plot.curves if c.column in recorded)) for plot in wanted]
    return tuple(plot._replace(log=plot.id in log) for plot in kept if plot.curves)


class Look(NamedTuple):
    """How a plot is drawn, where the user chose."""

    log: bool = False
    smooth: int = 0
    strands: bool = False
    hidden: frozenset[str] = frozenset()
    """Columns left out,"""
    added: tuple[str, ...] = ()
    """and columns drawn beside its own."""


def adapted(plot: PlotSpec, look: Look, columns: Sequence[Column]) -> PlotSpec:
    """The plot as the user wants it."""
    own = tuple(curve for curve in plot.curves if curve.column not in look.hidden)
    added = tuple(_curve(column) for column in columns if column.name in look.added)
    return plot._replace(log=look.log, smooth=look.smooth, strands=look.strands, curves=own + added or plot.curves)


def _curve(column: Column) -> Curve:
    """Any recorded quantity, in the colour of its family."""
    family = column.name.partition(".")[0]
    return Curve(column.name, column.symbol, family if family in ROLES else "muted", dashed=family in PREDICTIONS)


def _predicted(forms: Collection[str], quantity: str) -> tuple[Curve, ...]:
    return tuple(Curve(f"{form}.{quantity}", form, form, dashed=True) for form in PREDICTIONS if form in forms)


def _training_plots(forms: Collection[str]) -> tuple[PlotSpec, ...]:
    descent, constrained, flow = "gradient descent", "constrained θ†", "gradient flow"
    return (
        PlotSpec("sharpness", "sharpness S", (
            Curve("gd.sharpness", descent, "gd"),
            Curve("gd.midpoint_sharpness", "at midpoints", "gd"),
            *_predicted(forms, "sharpness"),
            Curve("gd.lambda2", "λ2", "muted"),
            Curve("flow.sharpness", flow, "flow"),
        ), threshold=True),
        PlotSpec("loss", "training loss L", (
            Curve("gd.loss", descent, "gd"),
            Curve("constrained.loss", constrained, "constrained"),
            *_predicted(forms, "loss"),
            Curve("flow.loss", flow, "flow"),
            Curve("test.loss", "test examples", "flow"),
        )),
        PlotSpec("x", "x = u·(θ−θ†)", (Curve("gd.x", descent, "gd"), *_predicted(forms, "x")), zero=True, from_edge=True),
        PlotSpec("y", "y = ∇S⊥·(θ−θ†)", (Curve("gd.y", descent, "gd"), *_predicted(forms, "y")), zero=True, from_edge=True),
        PlotSpec("distance", "distance to θ†", (
            Curve("gd.distance", descent, "gd"),
            *_predicted(forms, "distance"),
            Curve("flow.distance", flow, "flow"),
        ), from_edge=True),
        PlotSpec("accuracy", "right answers", (
            Curve("train.accuracy", "training examples", "gd"),
            Curve("test.accuracy", "test examples", "flow"),
        )),
        PlotSpec("norm", "squared norm of θ", (
            Curve("norm.squared", "‖θ‖²", "gd"),
            Curve("norm.edge_squared", "at the edge S̄/(2/η−λ)", "constrained"),
        )),
        PlotSpec("normalised", "normalised sharpness S̄", (
            Curve("norm.sharpness", "S̄", "gd"),
            Curve("norm.balance_sharpness", "in balance", "constrained"),
        )),
    )


def _phase_plots(recorded: Collection[str]) -> tuple[PlotSpec, ...]:
    count = sum(f"ode{k}.x" in recorded for k in range(1, 9))

    def orbits(family: str, quantity: str) -> tuple[Curve, ...]:
        return tuple(Curve(f"{family}{k}.{quantity}", f"start {k}", _ORBIT_ROLES[k - 1]) for k in range(1, count + 1))

    return (
        PlotSpec("flow_x", "X of the flow (4)", orbits("ode", "x"), zero=True),
        PlotSpec("flow_y", "Y of the flow (4)", orbits("ode", "y"), zero=True),
        PlotSpec("map_x", "x of the map (3)", orbits("map", "x"), zero=True),
        PlotSpec("map_y", "y of the map (3)", orbits("map", "y"), zero=True),
        PlotSpec("energy", "g of the map (3)", orbits("map", "energy"), zero=True),
    )
