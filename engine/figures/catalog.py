"""Which experiments each figure shows, and which recorded columns it is drawn from."""

from typing import NamedTuple

from engine.base.errors import UserError, meant, one_of
from engine.report.gauges import GAUGES


class Figure(NamedTuple):
    """A figure of the paper."""

    name: str
    title: str
    presets: tuple[str, ...]
    """One for each setting. Each is run at every η of its `learning_rates`."""
    columns: tuple[str, ...]
    """What the figure is drawn from, and its CSV file holds."""
    variants: tuple[tuple[str, ...], ...] = ()
    """Overrides that make further runs of the preset, or, for a phase portrait, all of them."""
    twins: bool = True
    """Whether each preset has a small twin; else the experiment is small by itself."""
    curves: bool = False
    """Whether it shows the sampled F_t as well."""


COUPLED = (
    "gd.loss", "gd.midpoint_sharpness", "gd.sharpness", "gd.distance", "gd.x", "gd.y", "constrained.loss", "constrained.sharpness",
    "constrained.delta", "flow.loss", "flow.sharpness", "flow.distance",
)  # fmt: skip
"""What is measured beside a prediction."""


def foretold(form: str) -> tuple[str, ...]:
    """What is drawn of a form of the prediction."""
    return tuple(f"{form}.{quantity}" for quantity in ("x", "y", "loss", "sharpness", "distance", "since_anchor"))


SETTINGS = ("fig4-mlp", "fig4-cnn", "appendix-cnn-logistic", "appendix-resnet", "fig4-transformer", "appendix-transformer-logistic")
"""The six settings of Appendices E and G. Figure 4 is three of them."""

FIGURES = {
    figure.name: figure
    for figure in (
        Figure("fig1", "Progressive sharpening, and the edge of stability", ("fig1",), ("gd.loss", "gd.sharpness")),
        Figure(
            "fig2", "The four stages of self-stabilization", ("fig2",),
            ("gd.loss", "gd.x", "gd.y", "stage", "constrained.delta", "constrained.alpha", "constrained.beta"), twins=False,
        ),
        Figure(
            "fig3", "Orbits of the simplified system", ("fig3",),
            ("time", *(f"ode{k}.{axis}" for k in range(1, 9) for axis in "xy")),
            variants=(
                ("problem.alpha=1", "problem.beta=1"), ("problem.alpha=4", "problem.beta=1"), ("problem.alpha=1", "problem.beta=4"),
            ), twins=False,
        ),
        Figure(
            "fig4", "Gradient descent follows the constrained trajectory", ("fig4-mlp", "fig4-cnn", "fig4-transformer"),
            COUPLED + foretold("transported"),
        ),
        Figure(
            "fig5", "Several unstable eigenvalues", ("fig5",),
            ("gd.loss", "gd.midpoint_sharpness", "gd.sharpness", *(f"gd.lambda{k}" for k in range(2, 17))),
        ),
        Figure(
            "fig6", "Training on every image", ("fig6",),
            ("gd.loss", "gd.sharpness", "train.accuracy", "test.loss", "test.accuracy"),
            variants=(("optimizer.schedule=inverse_sharpness",),),
        ),
        Figure(
            "appendix-e", "The assumptions, measured", SETTINGS,
            tuple(gauge.column for gauge in GAUGES),
        ),
        Figure("appendix-g", "The generalized prediction, and the loss along u", SETTINGS, COUPLED + foretold("generalized"), curves=True),
    )
}  # fmt: skip


def named(name: str) -> Figure:
    """The figure of this name. Raises UserError with what there is."""
    if name not in FIGURES:
        raise UserError(f'figure "{name[:80]}": not known{meant(name, FIGURES)}; expected one of {one_of(FIGURES)}')
    return FIGURES[name]


def presets(figure: Figure, small: bool) -> tuple[str, ...]:
    """The presets that the figure is made from: at full size, or their small twins."""
    return tuple(f"{name}-small" for name in figure.presets) if small and figure.twins else figure.presets
