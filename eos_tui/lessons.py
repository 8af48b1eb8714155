"""The guided tour: what each of its steps says, shows and waits for.

A step waits for something to happen in a real run: `when` finds, in the columns recorded so far, the first row where it has.
Nothing here draws or drives; `eos_tui.screens.learn` does.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from engine.base.citations import PLACES
from engine.record.threshold import threshold
from engine.theory import RANK

Table = Mapping[str, np.ndarray]
"""Columns by name, (rows,); NaN where there is no value."""
When = Callable[[Table], np.ndarray]
"""For each row (rows,) whether what the step waits for has happened by then."""


class Step(NamedTuple):
    """One step of the tour."""

    title: str
    preset: str
    """The run it looks at; the runs go on from step to step."""
    text: str
    """Some three hundred characters: five lines of a narrow terminal."""
    formula: str
    source: str
    """Where in the paper."""
    watch: str
    """What to look at."""
    plots: tuple[str, ...]
    """Plots by their names on the dashboard, the most telling first: there may be room for one only."""
    waits_for: str
    """What `when` finds, in words."""
    when: When
    gauge: str = ""
    """Columns to tell the present values of while waiting, a space between."""
    forms: tuple[str, ...] = ()
    """Predictions drawn."""
    from_edge: bool = False
    """Leave the approach out of view."""
    after: int = 0
    """Steps that the engine goes on for once it has happened, before it waits."""
    meanwhile: int = 0
    """Steps that its engine takes while the tour goes on to another run. 0 lets it wait."""
    followed: bool = False
    """Show the steps at a speed that the eye can follow, up to where it happens: the engine is too quick. Else what there is is shown."""
    again: bool = False
    """Show it from the beginning again and again."""

    @property
    def words(self) -> int:
        """How many there are to read."""
        return len(f"{self.title} {self.text} {self.watch}".split())


def happened(step: Step, table: Table) -> int | None:
    """The row where what the step waits for first happened, or None while it has not."""
    if not len(table["step"]):
        return None
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(step.when(table))
    return int(rows[0]) if len(rows) else None


def after(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Whether `then` holds and `first` has held before."""
    return then & np.maximum.accumulate(first)


def column(table: Table, name: str) -> np.ndarray:
    """A column, NaN throughout where the run does not record it."""
    return table[name] if name in table else np.full(len(table["step"]), np.nan)


def ratio(table: Table, name: str) -> np.ndarray:
    """An eigenvalue relative to the stability threshold."""
    return column(table, name) / threshold(table)


def stages(*numbers: int) -> When:
    """Through these stages of the cycle of Section 4.1, in this order, and now in the last."""

    def reached(table: Table) -> np.ndarray:
        stage = column(table, "stage")
        through = stage == numbers[0]
        for number in numbers[1:]:
            through = after(through, stage == number)
        return through

    return reached


def _half_way(table: Table) -> np.ndarray:
    return np.fmax(ratio(table, "gd.midpoint_sharpness"), ratio(table, "gd.sharpness")) >= 0.5


def _at_edge(table: Table) -> np.ndarray:
    return np.isfinite(column(table, "constrained.sharpness"))


def _outside(table: Table) -> np.ndarray:
    return np.abs(column(table, "gd.x")) > column(table, "constrained.delta")


def _flow_left(table: Table) -> np.ndarray:
    """Gradient descent has been away and is near θ† again, and gradient flow is twice as far from it as that ever was."""
    distance = column(table, "gd.distance")
    farthest = np.fmax.accumulate(np.where(np.isfinite(distance), distance, -np.inf))
    back = after(_outside(table), ~_outside(table))
    return back & (column(table, "flow.distance") > 2 * farthest)


def _prediction_left(table: Table) -> np.ndarray:
    return np.isfinite(column(table, "generalized.horizon"))


def _prediction_holds(table: Table) -> np.ndarray:
    since, at_edge = column(table, "generalized.since_anchor"), np.cumsum(_at_edge(table))
    anchored_again = since < at_edge - 20
    return anchored_again & (since >= 60) & (column(table, "generalized.correlation") >= 0.9)


def _edge_of_adam(table: Table) -> np.ndarray:
    """The ratio has come up to 1, after the first steps: there P is small, and the ratio may be far above."""
    ratio = column(table, "threshold_ratio")
    return after(ratio < 0.5, ratio >= 1)


def _second_holds(table: Table) -> np.ndarray:
    return column(table, "covariance.lambda2") > RANK * column(table, "covariance.trace")


STEPS: tuple[Step, ...] = (
    Step(
        "Progressive sharpening", "fashion",
        "A small network learns to tell T-shirts from shirts by full-batch gradient descent: θ ← θ − η∇L(θ). Its loss falls "
        "smoothly. Meanwhile the sharpness S, the largest eigenvalue of the Hessian, climbs: the valley it walks down becomes "
        "narrower. Nobody asked for that, and almost every network does it.",
        "S(θ) = λ_max(∇²L(θ)),   α = −∇L·∇S > 0", f"Section 1; {PLACES['α']}, {PLACES['α > 0']}",
        "S rises towards the line at 2/η, while the loss falls",
        ("sharpness", "loss"), "S has come half the way to 2/η", _half_way, "gd.midpoint_sharpness",
    ),
    Step(
        "The threshold 2/η", "fashion",
        "On a bowl of curvature S, one step multiplies the distance to the bottom by 1 − ηS. For S > 2/η that is below −1: "
        "each step overshoots by more than the last, and descent becomes divergence. The descent lemma promises progress "
        "only while S < 2/η. So what happens when the climbing sharpness gets there?",
        "L(θ−η∇L) ≤ L − η(2−ηS)/2·‖∇L‖²", f"Section 1.1, {PLACES['descent lemma']}",
        "the bar ηS/2: at 1 the run has reached the edge of stability",
        ("sharpness", "loss"), "S reaches 2/η", _at_edge, "gd.midpoint_sharpness", meanwhile=60,
    ),
    Step(
        "Blowup", "toy",
        "The answer is clearest on the smallest loss that shows it: three parameters, one of them the sharpness. Here x is the "
        "displacement along the unstable direction u, and y the excess of sharpness over 2/η. While y > 0, x changes sign at "
        "each step and grows.",
        "x ← −(1+ηy)·x", f"Section 4, equation {PLACES['map']}; {PLACES['toy']}",
        "x opens like a trumpet, to both sides of 0",
        ("x", "y"), "|x| exceeds δ = √(2α/β)", stages(3), "gd.x", followed=True,
    ),
    Step(
        "Self-stabilization", "toy",
        "Then the cubic term of the loss wakes up. Being off by x along u tilts the gradient by ½x²·∇S: gradient descent is "
        "pushed down the sharpness itself. Once |x| > δ the push −βx²/2 beats the sharpening α, and the "
        "sharpness falls, without any bowl to catch it.",
        "y ← y + η(α − βx²/2),   ∇S = ∇³L(u,u)", f"Section 4, equation {PLACES['map']}; {PLACES['∇S']}",
        "y turns where |x| crosses δ, and dives below 0",
        ("y", "x"), "y falls below 0: S is under 2/η again", stages(3, 4), "gd.y", followed=True,
    ),
    Step(
        "Return to stability", "toy",
        "With S below 2/η the unstable direction is stable again, and x dies out. The push vanishes with it, the sharpening α "
        "takes over, and the sharpness climbs anew. Four stages: sharpening, blowup, self-stabilization, return. "
        "Gradient descent has steadied itself.",
        "1 y ≤ 0, |x| ≤ δ · 2 y > 0, |x| ≤ δ · 3 y > 0, |x| > δ · 4 y ≤ 0, |x| > δ", "Section 4.1",
        "x closes like an eye, then y turns upward through 0",
        ("x", "y"), "y rises above 0 once more", stages(3, 4, 1, 2), "gd.y", followed=True,
    ),
    Step(
        "A cycle like predator and prey", "toy",
        "Seen in the plane of |x| and y, the four stages are one turn about the fixed point (δ, 0), as hares and foxes turn "
        "about theirs. In continuous time the orbit closes: a quantity g is conserved. Real steps of size η gain a "
        "little each turn, so this toy spirals outward.",
        "g = h(βX²/2α) + Y²/α,   h(z) = z − log z − 1", f"Section 4, equation {PLACES['flow']}; {PLACES['g']}",
        "the orbit goes around the diamond at (1, 0), along the faint level sets of g",
        ("portrait",), "the second burst: |x| > δ again", stages(3, 4, 1, 2, 3), "gd.x", followed=True, again=True,
    ),
    Step(
        "The same four stages, in 88,701 dimensions", "fashion",
        "Back to the network, now at the edge. x is its displacement along the unstable direction u, y that along ∇S, both "
        "measured from a trajectory θ† that the next step explains. Sharpening, blowup, self-stabilization, return: the "
        "network does what the toy did, for all other directions stay quiet.",
        "x = u·(θ−θ†),   y = ∇S⊥·(θ−θ†),   δ = √(2α/β)", "Section 5",
        "x and y: the first burst builds up after the edge",
        ("x", "y"), "|x| exceeds δ", _outside, "gd.x constrained.delta", from_edge=True,
    ),
    Step(
        "The constrained trajectory", "fashion",
        "If the oscillation keeps S near 2/η, where does the network go on average? The paper's answer: along θ†, descent on "
        "L under the constraint S ≤ 2/η, projected back at every step. eos computes θ† beside the run. Its loss is the "
        "smooth curve under the flicker, and gradient descent returns to it after each burst.",
        "θ† ← proj_M(θ† − η∇L(θ†)),   M = {S ≤ 2/η, ∇L·u = 0}", f"{PLACES['M']}, equation {PLACES['θ†']}",
        "the distance of gradient descent to θ† stays small; that of gradient flow grows and grows",
        ("distance", "loss"), "gradient flow is twice as far from θ† as gradient descent ever was", _flow_left,
        "flow.distance gd.distance", from_edge=True,
    ),
    Step(
        "The prediction, and its limits", "fashion",
        "The theory predicts more than a picture: from θ† alone it foretells x and y step by step. It was set to the true "
        "displacement at the edge, where |x| ≪ δ. There the growth of x is exponential and any error grows with it: "
        "the burst comes, but its exact step is not to be known. Theorem 1 asks for |x| not far below δ.",
        "v⋆: equation (6);   S(θ) ≈ 2/η + y⋆ + (∇S·u)x⋆", f"Section 5; {PLACES['v⋆']}; Theorem 1",
        "the dashed curve against the solid one: same shape, another moment",
        ("x", "sharpness"), "the prediction leaves its tolerance", _prediction_left, "generalized.since_anchor", ("generalized",),
        from_edge=True,
    ),
    Step(
        "Anchored again, it holds", "fashion",
        "130 steps after the edge, and whenever it is lost, eos sets the prediction to the true displacement once more. Now "
        "|x| is of the size of δ, and the generalized prediction follows the real oscillation: its |x⋆| "
        "correlates with |x| at 0.9 and more over a hundred steps. The key r anchors it now.",
        "x⋆ ← (1−ηy⋆)x⋆ − ηF′(x⋆),   F(x) = L(θ†+xu) − L(θ†)", PLACES["F"],
        "the solid curve hides the dashed one: both flip their sign together",
        ("x",), "60 steps after an anchor, correlation ≥ 0.9", _prediction_holds, "generalized.correlation", ("generalized",),
        from_edge=True,
    ),
    Step(
        "Past one direction", "chebyshev-several",
        "All this asks for one unstable direction, and there the paper ends. Here η is so large that a second eigenvalue comes to "
        "2/η with the first. θ† goes on, held by both, and tells the covariance X† of the oscillation. But xxᵀ has rank one, X† "
        "two: nothing settles, x turns, and λ1 hovers above the line. Only means agree: those of L are L(θ†) + tr X†/η.",
        "λ2(θ†) ≥ 1.9/η:   x ← (I−η(Λ+Y))x,   Y ← Y + (η/2)B⊥[X†−xxᵀ]", f"{PLACES['λ2']}; X†: arXiv 2410.24206, at θ†; eos",
        "λ1 above the line, λ2 below it, and the mean loss on its prediction, above L(θ†)",
        ("sharpness", "loss"), "an oscillation is predicted in both directions: X† has rank two", _second_holds,
        "gd.lambda2 constrained.directions", after=300,
    ),
    Step(
        "And Adam?", "adam",
        "Who trains with plain gradient descent? Adam divides each step by the size of recent gradients and adds momentum, so its "
        "steps feel another sharpness, and can bear more of it: 38/η in place of 2/η. The story is the same. The sharpness that its "
        "steps feel climbs to that edge and stays there. Other optimizers have edges of their own.",
        "S(P^-½HP^-½) → (2+2β₁)/((1−β₁)η) = 38/η", "arXiv 2207.14484; eos help optimizers",
        "the sharpness over the edge: it climbs to the line at 1, and goes on along it",
        ("ratio", "preconditioned"), "the sharpness that steps feel comes to its edge", _edge_of_adam, "threshold_ratio", after=300,
    ),
)
