"""What each optimizer does, which operator its stability is read from, and where its edge is: in words and formulas, once.

A run's columns, its events and the topic `optimizers` say it with these. The numbers are computed in `engine.dynamics` and `engine.theory`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from engine import theory
from engine.spec import sections


class Edge(NamedTuple):
    """An optimizer in a row of a table."""

    update: str
    """θ ← θ − η·this."""
    operator: str
    """Whose top eigenvalue, or whichever maximum, is read."""
    edge: Callable[[Any], str]
    """Its section to the formula of its edge; empty where it has none."""
    sources: str
    has_ratio: bool = True
    """Whether the sharpness is read against the edge: not where steps are the steepest in a norm of their own."""


def _of_momentum(section: Any) -> str:
    nesterov, ema = section.nesterov, section.ema
    below = {(False, False): "η", (True, False): "((1+2β)η)", (False, True): "((1−β)η)", (True, True): "((1−β)(1+2β)η)"}
    return f"(2+2β)/{below[nesterov, ema]}"


EDGES: dict[str, Edge] = {
    "gradient_descent": Edge("∇L", "H", lambda section: "2/η", "arXiv 2209.15594"),
    "momentum": Edge("m, m ← βm + ∇L; ∇L + βm (Nesterov); m ← βm + (1−β)∇L (EMA)", "H", _of_momentum, "arXiv 2103.00065"),
    "rmsprop": Edge("∇L/(√ν̂+ε), ν ← β₂ν + (1−β₂)∇L²", "P^-½HP^-½, P = √ν̂+ε", lambda section: "2/η", "arXiv 2207.14484"),
    "adam": Edge(
        "m̂/(√ν̂+ε), m ← β₁m + (1−β₁)∇L; β₁m̂ + (1−β₁)∇L̂ for m̂ (NAdam)", "P^-½HP^-½, P = (1−β₁^t)(√ν̂+ε)",
        lambda section: "(2+2β₁)/((1−β₁)(1+2β₁)η)" if section.nesterov else "(2+2β₁)/((1−β₁)η)", "arXiv 2207.14484",
    ),
    "sam": Edge("∇L(θ + ρ∇L/‖∇L‖)", "H", lambda section: "(‖∇L‖/2ρ)(√(1+8ρ/(η‖∇L‖))−1)", "arXiv 2309.12488"),
    "sign": Edge("sign(∇L)", "max vᵀHv/‖v‖∞²", lambda section: "2/η", "arXiv 2603.05002", has_ratio=False),
    "muon": Edge("UVᵀ of each matrix UΣVᵀ of ∇L", "max vᵀHv/‖v‖², ‖v‖ the largest singular value", lambda section: "2/η",
                 "arXiv 2603.05002", has_ratio=False),
    "own": Edge("what the transformation makes of ∇L", "P^-½HP^-½ with its own P", lambda section: "its own", "eos"),
}
"""By `[optimizer] kind`."""


def kind_of(section: sections.Optimizer) -> str:
    """The kind of an optimizer by its section."""
    return str(section.__struct_config__.tag)


def edge_of(section: sections.Optimizer) -> Edge:
    """The row of an optimizer; that of gradient descent for a kind that has none."""
    return EDGES.get(kind_of(section), EDGES["gradient_descent"])


def formula(section: sections.Optimizer) -> str:
    """The formula of its edge."""
    return edge_of(section).edge(section)


def in_units(section: sections.Optimizer, number: str, value: float) -> str:
    """An eigenvalue as λη, a `number` in digits, in words: 1.9/η; of another optimizer, whose edge counts as 2, as a share of its edge."""
    return f"{number}/η" if is_plain(section) else f"{value / 2:.3g} of the edge"


def of_hessian(section: sections.Optimizer) -> float:
    """The number that a toy is made with: the edge of momentum, where P is 1 too, and 2/η for all others."""
    if isinstance(section, sections.Momentum):
        return theory.momentum_edge(section.learning_rate, section.beta, section.nesterov, section.ema)
    return theory.threshold(section.learning_rate)


def is_plain(section: sections.Optimizer) -> bool:
    """Whether it is gradient descent, whose sharpness itself is read against 2/η."""
    return isinstance(section, sections.GradientDescent)


def has_ratio(section: sections.Optimizer) -> bool:
    """Whether a run records the ratio of a sharpness to the edge."""
    return not is_plain(section) and edge_of(section).has_ratio


def held_at_edge(spec: sections.RunSpec) -> str:
    """Which sharpness an optimizer's steps hold at its edge, by the column that it is read for; empty where none is known."""
    if spec.batch.size:
        return "batch.sharpness" if is_plain(spec.optimizer) else ""  # of momentum the edge hangs on the size of the batches
    return "gd.sharpness" if is_plain(spec.optimizer) or has_ratio(spec.optimizer) else ""
