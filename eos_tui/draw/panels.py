"""Which plots a run has: chosen by what it records, and by which predictions are asked for."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.record.columns import CROSSED, METRIC, PREDICTION_WORDS, Column
from engine.spec import PREDICTIONS
from eos_tui.draw.line_plot import Curve, PlotSpec
from eos_tui.draw.theme import FAMILIES, ROLES

_PREDICTED = tuple(name for name, family in FAMILIES.items() if family.predicted)
CHOICES: tuple[tuple[str, ...], ...] = (*(_PREDICTED[: k + 1] for k in range(len(_PREDICTED))), ())
"""What the key for predictions goes through: one more of them each time, then none."""

PORTRAIT, TURNING = "portrait", "turning"
"""Panels that are no line plots."""
COVARIANCE = "covariance"
ORDER = ("sharpness", "loss", "x", "ratio", TURNING, PORTRAIT, "smoothness", "preconditioned", "y", COVARIANCE, "distance")
"""Panels in the order in which they stand, where a run has them; others follow."""
_ORBIT_ROLES = ("gd", "generalized", "transported", "code", "flow", "constrained", "good", "warn")


def described(choice: Sequence[str]) -> str:
    """A choice of predictions, in words."""
    return ", ".join(PREDICTION_WORDS[form][0] for form in choice) or "no prediction"


def line_plots(columns: Sequence[Column], forms: Collection[str], log: Collection[str] = ()) -> tuple[PlotSpec, ...]:
    """The line plots of a run with these columns, the chosen predictions drawn and those named in `log` logarithmic."""
    recorded = dict.fromkeys(column.name for column in columns)
    wanted = _phase_plots(recorded) if "ode1.x" in recorded else (*_edge_plots(recorded), *_training_plots(forms))
    if "threshold_ratio" in recorded or other_edge(recorded):
        wanted = tuple(_of_another_optimizer(plot, other_edge(recorded)) for plot in wanted)
    if BATCHES in recorded:
        wanted = tuple(_on_batches(plot) for plot in wanted if plot.id != "ratio")
    wanted += tuple(PlotSpec(name, name.removeprefix(METRIC), (Curve(name, "", "gd"),)) for name in recorded if name.startswith(METRIC))
    kept = [plot._replace(curves=tuple(c for c in plot.curves if c.column in recorded)) for plot in wanted]
    return tuple(plot._replace(log=plot.id in log) for plot in kept if plot.curves)


BATCHES = "batch.sharpness"
"""A column of runs on batches."""


def _on_batches(plot: PlotSpec) -> PlotSpec:
    """A plot as it is where steps are taken on batches: what these show stands beside what all examples show."""
    if plot.id == "sharpness":
        own = Curve(BATCHES, "of batches, S_B", "gd", error="batch.sharpness_error")
        full = _relabelled(plot.curves, "gd.sharpness", "of all examples, λ1", "good")
        return plot._replace(words="what a step meets, and all examples", curves=(own, *full), threshold=True, near=True)
    if plot.id == "loss":
        full = _relabelled(plot.curves, "gd.loss", "all examples", "gd")
        return plot._replace(curves=(*full, Curve("batch.loss", "a step's batch", "muted")))
    return plot


def _relabelled(curves: Sequence[Curve], column: str, label: str, role: str) -> tuple[Curve, ...]:
    return tuple(curve._replace(label=label, role=role) if curve.column == column else curve for curve in curves)


def names() -> tuple[str, ...]:
    """What the panels of any run are called."""
    plots = (*_edge_plots(()), *_training_plots(()), *_phase_plots(("ode1.x",)))
    return tuple(dict.fromkeys([*ORDER, *(plot.id for plot in plots)]))


class PlotOptions(NamedTuple):
    """The user's choices for a plot."""

    log: bool = False
    smooth: int = 0
    strands: bool = False
    hidden: frozenset[str] = frozenset()
    """Columns left out."""
    added: tuple[str, ...] = ()
    """Columns drawn beside the plot's own."""


def adapted(plot: PlotSpec, options: PlotOptions, columns: Sequence[Column]) -> PlotSpec:
    """The plot as the user wants it."""
    own = tuple(curve for curve in plot.curves if curve.column not in options.hidden)
    added = tuple(_curve(column) for column in columns if column.name in options.added)
    return plot._replace(log=options.log, smooth=options.smooth, strands=options.strands, curves=own + added or plot.curves)


def _curve(column: Column) -> Curve:
    """Any recorded quantity, in the colour of its family."""
    family, _, quantity = column.name.partition(".")
    if family in ("average", COVARIANCE):  # of gradient descent where measured, of θ† where predicted
        measured = quantity.startswith("measured_") or (family == "average" and not quantity.startswith("predicted_"))
        return Curve(column.name, column.symbol, "gd" if measured else "constrained", dashed=not measured)
    return Curve(column.name, column.symbol, family if family in ROLES else "muted", dashed=family in PREDICTIONS)


def _curves(
    quantity: str, forms: Collection[str], beside: Sequence[Curve] = (), below: Sequence[Curve] = ()
) -> tuple[Curve, ...]:
    """A quantity of every trajectory: gradient descent with other curves `beside` it, θ†, the chosen predictions with others `below`
    them, and the rest.
    """
    drawn = {name: family for name, family in FAMILIES.items() if not (family.on_threshold and quantity == "sharpness")}
    curves = {name: Curve(f"{name}.{quantity}", family.label, name, family.predicted) for name, family in drawn.items()}
    first = [curves.pop(name) for name in ("gd", "constrained") if name in curves]
    predicted = [curve for name, curve in curves.items() if drawn[name].predicted and name in forms]
    return (first[0], *beside, *first[1:], *predicted, *below, *(curve for curve in curves.values() if not curve.dashed))


def other_edge(recorded: Collection[str]) -> bool:
    """Whether a run with these columns has an optimizer whose edge is not that of gradient descent."""
    return "preconditioned.sharpness" in recorded or "smoothness.directional" in recorded


def _of_another_optimizer(plot: PlotSpec, other: bool) -> PlotSpec:
    """A plot as it is where the run is not one of gradient descent; where the edge is that of an `other` sharpness, that of H has none."""
    curves = tuple(curve._replace(label="this run") if curve.label == FAMILIES["gd"].label else curve for curve in plot.curves)
    return plot._replace(curves=curves, threshold=plot.threshold and not (other and plot.id == "sharpness"))


def _edge_plots(recorded: Collection[str]) -> tuple[PlotSpec, ...]:
    """What is read against the edge of an optimizer other than gradient descent."""
    lower = tuple(Curve(f"preconditioned.lambda{k}", f"λ{k}", "muted") for k in range(2, 17))
    flow = (Curve("central.sharpness", FAMILIES["central"].label, "central"),) if "preconditioned.sharpness" in recorded else ()
    return (
        PlotSpec("ratio", "sharpness / edge", (Curve("threshold_ratio", "S/edge", "gd"),), words="above 1, steps overshoot", ratio=True,
                 near=True),
        PlotSpec("preconditioned", "sharpness as steps feel it", (
            Curve("preconditioned.sharpness", "S_P", "gd"), *flow, *(curve for curve in lower if curve.column in recorded),
        ), threshold=True, near=True),
        PlotSpec("gni", "GNI, no edge", (Curve("batch.gni", "GNI", "gd", error="batch.gni_error"),),
                 words="near 2/η where the loss rests", threshold=True, near=True),
        PlotSpec("second_moment", "average of ‖∇L‖²", (
            Curve("second_moment", "this run", "gd"), Curve("central.second_moment", FAMILIES["central"].label, "central"),
        )),
        PlotSpec("smoothness", "smoothness in the steps' norm", (
            Curve("smoothness.directional", "directional", "gd"),
            Curve("smoothness.generalized", "generalized, at least", "constrained"),
        ), threshold=True),
    )


def _training_plots(forms: Collection[str]) -> tuple[PlotSpec, ...]:
    midpoint, second = Curve("gd.midpoint_sharpness", "at midpoints", "gd", joins="gd.sharpness"), Curve("gd.lambda2", "λ2", "muted")
    tested = Curve("test.loss", "test examples", "flow")
    means = [Curve("average.loss", "mean", "gd"), Curve("average.predicted_loss", "mean, predicted", "constrained", dashed=True)]
    return (
        PlotSpec("sharpness", "sharpness S", _curves("sharpness", forms, [midpoint], [second]),
                 words="how curved the valley is", threshold=True, about=True),
        PlotSpec("loss", "training loss L", (*_curves("loss", forms), *means, tested), words="how wrong the network is"),
        PlotSpec("x", "swing x", _curves("x", forms), words="from wall to wall, u·(θ−θ†)", zero=True, from_edge=True),
        PlotSpec("y", "excess y", _curves("y", forms), words="sharpness beyond 2/η, ∇S⊥·(θ−θ†)", zero=True, from_edge=True),
        PlotSpec("distance", "distance to θ†", _curves("distance", forms), words="the constrained path", from_edge=True),
        PlotSpec(COVARIANCE, "variance of x along its axes", (
            *(Curve(f"covariance.measured_lambda{i}", f"σ²{i} measured", "gd") for i in range(1, CROSSED + 1)),
            *(Curve(f"covariance.lambda{i}", f"σ²{i} predicted", "constrained", dashed=True) for i in range(1, CROSSED + 1)),
        ), zero=True, from_edge=True),
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
