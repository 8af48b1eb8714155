"""Every recorded quantity, once: its column, symbol, words, unit, formula and place in the paper.

A run records the columns that its specification asks for, one float64 row a step; NaN where a column has no value yet.
Names are `trajectory.quantity`: `gd` gradient descent, `constrained` the constrained trajectory θ†, `flow` gradient flow,
`central` the central flow, and one family for each form of the predicted dynamics.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from engine.base.citations import PLACES
from engine.record import edges
from engine.record.threshold import RATE, THRESHOLD, of_gradient_descent
from engine.spec import CoupledTracking, Metrics, Network, Optimizer, Own, Phase, RunSpec, SharpnessTracking


class Column(NamedTuple):
    """One recorded quantity."""

    name: str
    symbol: str
    words: str
    unit: str
    """Of time and counts; "" for what is measured in the units of the loss and of θ, as sharpness is, and for pure numbers."""
    formula: str
    source: str
    """Equation, definition or section of the paper; "eos" for what is our own."""


METRIC = "metric."
"""What the columns of the user's own quantities begin with."""
PROJECTION = "projection."
"""What the columns of projections of θ begin with."""

CLOCK = (
    Column("step", "t", "gradient-descent step", "steps", "t", "Section 1"),
    Column("time", "τ", "ODE time: the sum of the learning rates used", "", "τ = Σ η", "Section 4"),
    Column("learning_rate", "η", "learning rate in force", "", "η", "Section 1"),
    Column("threshold", "2/η", "sharpness above which steps are unstable", "", "2/η", "Section 1"),
)

DESCENT = (
    Column("gd.loss", "L(θ)", "training loss of gradient descent", "", "L(θ_t)", "Section 1"),
    Column("gd.gradient_norm", "‖∇L‖", "gradient norm of gradient descent", "", "‖∇L(θ_t)‖", "Section 1"),
    Column("gd.midpoint_sharpness", "S½", "sharpness half way to the next step, on the approach", "",
           "S((θ_t+θ_{t+1})/2)", "authors' code"),
    Column("gd.sharpness", "S(θ)", "sharpness of gradient descent", "", "λ1(∇²L(θ_t))", "Section 1"),
    Column("gd.eigen_residual", "r(θ)", "relative residual of the top eigenpair at θ", "", "‖Hu−Su‖/S", "eos"),
)

COUPLED = (
    Column("gd.distance", "‖θ−θ†‖", "distance of gradient descent to the constrained trajectory", "", "‖θ_t − θ†_t‖",
           PLACES["distance"]),
    Column("gd.x", "x", "displacement along the top eigenvector: the oscillation", "", "x_t = u_t·(θ_t − θ†_t)", "Section 5"),
    Column("gd.y", "y", "displacement along ∇S⊥: the first-order change of sharpness", "",
           "y_t = ∇S⊥_t·(θ_t − θ†_t)", "Section 5"),
    Column("gd.spike", "x²/η", "predicted rise of the loss over that of θ†", "", "x_t²/η", "Theorem 1"),
    Column("constrained.loss", "L(θ†)", "training loss of the constrained trajectory", "", "L(θ†_t)", PLACES["θ†"]),
    Column("constrained.sharpness", "S(θ†)", "sharpness of the constrained trajectory", "", "λ1(∇²L(θ†_t))",
           PLACES["θ†"]),
    Column("constrained.lambda2", "λ2(θ†)", "second eigenvalue at θ†", "", "λ2(∇²L(θ†_t))", PLACES["λ2"]),
    Column("constrained.alpha", "α", "progressive sharpening", "", "α_t = −∇L·∇S at θ†", PLACES["α"]),
    Column("constrained.beta", "β", "strength of self-stabilization", "", "β_t = ‖∇S⊥‖² at θ†", "Section 5"),
    Column("constrained.delta", "δ", "size of the oscillation at the fixed point", "", "δ_t = √(2α/β)", "Section 5"),
    Column("constrained.epsilon", "ε", "small parameter of the theory", "", "ε_t = η√α", PLACES["ε"]),
    Column("constrained.gamma", "γ", "alignment of −∇L with ∇S⊥", "", "γ_t = α/(‖∇L‖‖∇S⊥‖)", PLACES["γ"]),
    Column("constrained.gradient_norm", "‖∇L†‖", "gradient norm at θ†", "", "‖∇L(θ†_t)‖", "Section 5"),
    Column("constrained.skew", "∇S·u", "cubic term along the top eigenvector", "", "∇S·u = ∇³L(u,u,u) at θ†", "Theorem 1"),
    Column("constrained.sharpness_gap", "|S−2/η|", "distance of S(θ†) from the threshold where that holds θ† back, 0 where it is slack",
           "", "|S(θ†) − 2/η|", PLACES["M"]),
    Column("constrained.active", "n", "directions in which S ≤ 2/η holds θ† back, 0 where it is slack", "",
           "rank of the multiplier of the projection", PLACES["M"]),
    Column("constrained.gradient_along_u", "|∇L·u|", "gradient left along the top eigenvector at θ†", "", "|∇L(θ†)·u|",
           PLACES["M"]),
    Column("constrained.eigen_residual", "r(θ†)", "relative residual of the top eigenpair at θ†", "", "‖Hu−Su‖/S", "eos"),
    Column("constrained.projections", "n_P", "linearised projections this step took", "", "count", PLACES["θ†"]),
    Column("constrained.overlap", "u·u′", "overlap of the top eigenvector with the previous one", "", "|u_t·u_{t−1}|", "eos"),
    Column("audit.age", "t−t_a", "steps since the top eigenvalues were last looked for from random vectors, on every trajectory", "steps",
           "t − t_a; 0 where the Hessian is formed", "eos"),
    Column("stage", "stage", "stage of the cycle, 1 to 4", "", "1 y≤0, |x|≤δ · 2 y>0, |x|≤δ · 3 y>0, |x|>δ · 4 y≤0, |x|>δ",
           "Section 4.1"),
)

SHORT_SYMBOL = 10
"""Characters of an edge's formula that stand for it."""
MOST_DIRECTIONS = 16
"""Directions at the edge that a run can follow at most: the largest `tracking.max_eigenvalues`."""
CROSSED = 4
"""Directions at the edge whose covariances with one another are recorded: a row has the square of their number."""


def directions(count: int) -> tuple[Column, ...]:
    """What is recorded of the directions at the edge, up to `count`: NaN above those there are, and before θ† has any.

    X† is the covariance of the oscillation x that holds θ† where it is. The coordinates x1, x2, … are those of an orthonormal basis of
    the directions at the edge that turns as little as it can from step to step; with one direction x1 is x.
    """
    numbers, crossed = range(1, count + 1), range(1, min(count, CROSSED) + 1)
    return (
        Column("constrained.directions", "k", "directions at the edge: eigenvalues of θ† along which its gradient is held at 0", "",
               "number of λ_i(θ†) above 1.9/η, and the first", "eos"),
        *(Column(f"constrained.lambda{i}", f"λ{i}(θ†)", f"eigenvalue {i} at θ†", "", f"λ{i}(∇²L(θ†_t))", "eos") for i in numbers if i > 2),
        Column("constrained.excess", "(S−2/η)⁺", "how far θ† is beyond the edge, as a share of it", "", "max(0, λ1(θ†) − 2/η)·η/2", "eos"),
        Column("constrained.gradient_share", "‖Uᵀ∇L‖/‖∇L‖", "share of the gradient at θ† that lies along the directions at the edge", "",
               "‖Uᵀ∇L‖/‖∇L‖ at θ†", "eos"),
        Column("constrained.hvps", "n_H(θ†)", "Hessian–vector products that this θ† took, looks around among them", "", "count", "eos"),
        Column("constrained.contractions", "n_S(θ†)", "third-derivative contractions that this θ† took", "", "count", "eos"),
        Column("gd.x_norm", "|x|", "size of the oscillation over all directions at the edge", "", "|Uᵀ(θ_t − θ†_t)|", "eos"),
        *(Column(f"gd.x{i}", f"x{i}", f"oscillation along direction {i} of a basis of those at the edge", "",
                 f"x{i} = U_{i}·(θ_t − θ†_t), U turning as little as it can", "eos") for i in numbers),
        Column("covariance.trace", "tr X†", "predicted variance of the oscillation, over all directions", "",
               "tr X†, 0 ⪯ X† ⊥ (2/η − Λ)/η + ∇L·D + ½B⊥[X†] ⪰ 0", "arXiv 2410.24206, at θ†"),
        *(Column(f"covariance.lambda{i}", f"σ²{i}", f"predicted variance of the oscillation along its axis {i}", "",
                 f"λ{i}(X†)", "arXiv 2410.24206, at θ†") for i in numbers),
        *(Column(f"covariance.x{i}x{j}", f"X†{i}{j}", f"predicted covariance of the oscillation along directions {i} and {j}", "",
                 f"U_iᵀX†U_j, i = {i}, j = {j}", "arXiv 2410.24206, at θ†") for j in crossed for i in range(1, j + 1)),
        Column("covariance.measured_trace", "⟨|x|²⟩", "variance of the oscillation, over all directions, measured", "",
               "mean of |x|² over the last two bursts", "eos"),
        *(Column(f"covariance.measured_lambda{i}", f"⟨xxᵀ⟩{i}", f"variance of the oscillation along its axis {i}, measured", "",
                 f"λ{i} of the mean of xxᵀ over the last two bursts", "eos") for i in numbers),
        Column("average.loss", "⟨L⟩", "mean training loss of gradient descent over the last two bursts", "", "mean of L(θ)", "eos"),
        Column("average.predicted_loss", "L(θ†)+½⟨Λ,X†⟩", "predicted mean training loss of gradient descent", "",
               "mean of L(θ†) + ½⟨Λ, X†⟩ over the last two bursts; ½Λ = 1/η at the edge", "arXiv 2410.24206, at θ†"),
        Column("average.gradient_squared", "⟨‖∇L‖²⟩", "mean squared gradient of gradient descent over the last two bursts", "",
               "mean of ‖∇L(θ)‖²", "eos"),
        Column("average.predicted_gradient_squared", "‖∇L†‖²+⟨Λ²,X†⟩", "predicted mean squared gradient of gradient descent", "",
               "mean of ‖∇L(θ†)‖² + ⟨Λ², X†⟩ over the last two bursts; Λ² = 4/η² at the edge", "arXiv 2410.24206, at θ†"),
        Column("average.steps", "n_b", "steps of the last two bursts, over which means are taken: 2·2π/(√2ε)", "steps", "4π/(√2ε)", "eos"),
    )


ASSUMPTIONS = (
    Column("assumption.rho3", "ρ3", "lower bound on the size of the third derivative at θ†", "",
           "max ‖∇³L(v,v)‖ met over ‖v‖ = 1, by power iteration from several starts: a lower bound", PLACES["ρ3"]),
    Column("assumption.rho4", "ρ4", "lower bound on the size of the fourth derivative at θ†", "",
           "max ‖∇⁴L(v,v,v)‖ met over ‖v‖ = 1, by power iteration from several starts: a lower bound", PLACES["ρ4"]),
    Column("assumption.stabilization", "‖∇S⊥‖/ρ3", "strength of self-stabilization against the third derivative, ρ3 a lower bound", "",
           "‖∇S⊥‖/ρ3", PLACES["‖∇S⊥‖/ρ3"]),
    Column("assumption.quartic", "ρ4/(ηρ3²)", "fourth derivative against the third, both lower bounds", "", "ρ4/(ηρ3²)",
           PLACES["ρ4/(ηρ3²)"]),
    Column("assumption.cubic_displacement", "ρ3(v⊥)", "third derivative along v = θ−θ† without its u part, ρ3 a lower bound", "",
           "‖∇³L(v⊥,v⊥)‖/(ρ3‖v⊥‖²)", PLACES["v⊥"]),
    Column("assumption.cubic_gradient", "ρ3(g⊥)", "third derivative along g = ∇L(θ†) without its u part, ρ3 a lower bound", "",
           "‖∇³L(g⊥,g⊥)‖/(ρ3‖g⊥‖²)", PLACES["g⊥"]),
    Column("assumption.quadratic_displacement", "ρ2(v⊥)", "curvature along the displacement v = θ−θ† without its u part", "",
           "|∇²L(v⊥,v⊥)|/((2/η)‖v⊥‖²)", PLACES["v⊥"]),
)

FOURTHS = Column("cost.fourth_derivatives", "n_4", "fourth-derivative contractions since the last row", "", "count", "eos")

ACCURACY = (
    Column("train.accuracy", "acc", "share of the training examples answered right", "", "mean of 1[answer = y]", "Figure 6"),
)

TEST = (
    Column("test.loss", "L_test", "loss on the test examples, without weight decay", "", "mean of the criterion", "Figure 6"),
    Column("test.accuracy", "acc_test", "share of the test examples answered right", "", "mean of 1[answer = y]", "Figure 6"),
)

NORM = (
    Column("norm.squared", "‖θ‖²", "squared norm of the parameters", "", "‖θ_t‖²", "Appendix H"),
    Column("norm.sharpness", "S̄", "normalised sharpness, that of θ/‖θ‖ without weight decay where f(cθ) = f(θ)", "",
           "S̄ = (S − λ)‖θ‖²", "Appendix H; derived here"),
    Column("norm.edge_squared", "‖θ‖²_edge", "squared norm at which S̄ is at the edge", "", "S̄/(2/η − λ)",
           "Appendix H; derived here"),
    Column("norm.balance_sharpness", "S̄_bal", "normalised sharpness at the edge where the gradient step grows ‖θ‖ as decay shrinks it",
           "", "‖∇L‖‖θ‖√((2/η − λ)/λ), ∇L without decay", "Appendix H; derived here"),
)

COST = (
    Column("cost.hvps", "n_H", "Hessian–vector products since the last row", "", "count", "eos"),
    Column("cost.gradients", "n_∇", "full-batch gradients since the last row", "", "count", "eos"),
    Column("cost.grad_sharpness", "n_S", "third-derivative contractions since the last row", "", "count", "eos"),
    Column("cost.seconds", "s", "wall-clock time since the last row; the one column that differs when repeated", "s", "clock",
           "eos"),
)

PREDICTION_WORDS = {
    "generalized": ("generalized prediction", PLACES["F"]),
    "transported": ("cubic prediction, transported", PLACES["transported"]),
    "code": ("cubic prediction, authors' code form", "authors' code"),
    "full_cubic": ("prediction with all of the cubic term", "eos"),
}

THEOREM = (
    Column("theorem.loss", "ΔL", "loss left over by Theorem 1", "", "|L(θ) − L(θ†) − x⋆²/η|, x⋆ transported", "Theorem 1"),
    Column("theorem.loss_order", "εδ²/η", "order that Theorem 1 states for the loss", "", "εδ²/η", "Theorem 1"),
    Column("theorem.sharpness", "ΔS", "sharpness left over by Theorem 1", "", "|S(θ) − S(θ†) − y⋆ − (∇S·u)x⋆|, transported", "Theorem 1"),
    Column("theorem.sharpness_order", "ε²/η", "order that Theorem 1 states for the sharpness", "", "ε²/η", "Theorem 1"),
    Column("theorem.deviation", "Δv", "displacement left over by Theorem 1", "", "‖θ − θ† − v⋆‖, v⋆ transported, (6)", "Theorem 1"),
    Column("theorem.deviation_order", "εδ", "order that Theorem 1 states for the displacement", "", "εδ", "Theorem 1"),
    Column("theorem.hypothesis", "|x⋆| ≥ cδ", "whether the hypothesis of Theorem 1 holds: 1 yes, 0 no", "", "|x⋆| ≥ cδ, x⋆ transported",
           "Theorem 1"),
)

LANDSCAPE = (
    Column("landscape.ratio", "ηF(δ)/δ²", "loss along u against the quadratic: under 1 sub-quadratic, over 1 super-quadratic", "",
           "η(F(δ)+F(−δ))/2δ²", "Appendix F"),
    Column("landscape.limit", "S∞", "sharpness at which the oscillation is predicted to settle, by the paper", "",
           "2/η + F''(δ) − F'(δ)/δ, F its even part", "Appendix F"),
    Column("landscape.limit_turned", "S∞ᵤ", "the same with the turn of u along the oscillation, ε²/η more", "",
           "2/η + F''(δ) − F'(δ)/δ + δ²βη/2", "Appendix F; derived here"),
)

UNROLLED = (
    Column("unrolled.x", "x⋆", "prediction summed from β: oscillation", "", "x⋆ ← −(1+ηy⋆)x⋆", PLACES["y⋆"]),
    Column("unrolled.y", "y⋆", "prediction summed from β: change of sharpness", "", "y⋆ = η Σ_s β_{s→t}(δ_s² − x⋆_s²)/2", PLACES["y⋆"]),
    Column("unrolled.beta", "β_{s→t}", "memory of the newest start", "", "∇S⊥_{t+1}·[∏(I−η∇²L)P⊥]∇S⊥_s", PLACES["β_{s→t}"]),
    Column("unrolled.beta_oldest", "β_{s→t}", "memory of the oldest start followed", "", "∇S⊥_{t+1}·[∏(I−η∇²L)P⊥]∇S⊥_s", PLACES["β_{s→t}"]),
)


def predicted(form: str, several: bool = False) -> tuple[Column, ...]:
    """The columns of one form of the predicted dynamics; `several` where more directions than one may be followed."""
    words, source = PREDICTION_WORDS[form]
    loss, sharpness, theorem = "L(θ†) + x⋆²/η", "S(θ†) + y⋆ + (∇S·u)x⋆", "Theorem 1"
    if form == "generalized":
        loss, sharpness, theorem = "L(θ†) + F(x⋆)", "F''(x⋆) + y⋆", "Appendix F"
    return (
        Column(f"{form}.x", "x⋆", f"{words}: oscillation", "", "x⋆ = u·v⋆", source),
        Column(f"{form}.y", "y⋆", f"{words}: change of sharpness", "", "y⋆ = ∇S⊥·v⋆", source),
        Column(f"{form}.loss", "L⋆", f"{words}: training loss", "", loss, theorem),
        Column(f"{form}.sharpness", "S⋆", f"{words}: sharpness", "", sharpness, theorem),
        Column(f"{form}.distance", "‖v⋆‖", f"{words}: distance to the constrained trajectory", "", "‖v⋆‖", source),
        Column(f"{form}.correlation", "corr", f"{words}: correlation of |x⋆| with |x| since the last anchor", "",
               "corr(|x⋆|, |x|)", "eos"),
        Column(f"{form}.horizon", "h", f"{words}: steps since the last anchor until it left its tolerance", "steps",
               "first t with ||x⋆|−|x|| > tol·max(δ,|x|)", "eos"),
        Column(f"{form}.since_anchor", "t−t₀", f"{words}: steps since the last anchor", "steps", "t − t₀", "eos"),
        *((
            Column(f"{form}.x_norm", "|x⋆|", f"{words}: size of the oscillation over all directions at the edge", "", "|Uᵀv⋆|", source),
            Column(f"{form}.error", "Δx/σ", f"{words}: what |x⋆| misses |x| by since the last anchor, over its predicted size", "",
                   "√mean (|x⋆|−|x|)²/√tr X†", "eos"),
        ) if several else ()),
    )


FLOW_STARTS = {"constrained": ("θ†_0", "θ(0) = θ†_0"), "descent": ("gradient descent's θ at the edge", "θ(0) = θ there")}
"""Where flows start by `tracking.flow_start`, in words and in a formula."""


def flow(start: str) -> tuple[Column, ...]:
    """The columns of gradient flow, which starts at θ†_0 or at gradient descent's θ."""
    words, formula = FLOW_STARTS[start]
    return (
        Column("flow.loss", "L(θ_GF)", f"training loss of gradient flow from {words}", "", f"L of θ' = −∇L(θ), {formula}",
               PLACES["flow from θ†"]),
        Column("flow.sharpness", "S(θ_GF)", f"sharpness of gradient flow from {words}", "", "λ1(∇²L) on the flow", PLACES["flow from θ†"]),
        Column("flow.distance", "‖θ_GF−θ†‖", f"distance of gradient flow from {words} to the constrained trajectory", "",
               "‖θ_GF − θ†_t‖", PLACES["flow from θ†"]),
    )


def central(start: str) -> tuple[Column, ...]:
    """The columns of the central flow, which starts where gradient flow does."""
    (words, _), flows = FLOW_STARTS[start], "arXiv 2410.24206"
    return (
        Column("central.loss", "L(w)", f"training loss of the central flow from {words}", "", "L of dw/dt = −η(∇L + ½∇³L(Σ))", flows),
        Column("central.predicted_loss", "L(w)+½⟨H,Σ⟩", "mean training loss of gradient descent that the central flow predicts", "",
               "L(w) + ½⟨∇²L(w), Σ⟩; Σ holds λ1 at 2/η", flows),
        Column("central.sharpness", "S(w)", "sharpness of the central flow", "", "λ1(∇²L(w))", flows),
        Column("central.lambda2", "λ2(w)", "second eigenvalue of the central flow", "", "λ2(∇²L(w))", flows),
        Column("central.trace", "tr Σ", "variance of the oscillation that the central flow predicts, over all directions", "",
               "tr Σ, the mean over the substeps of a step", flows),
        Column("central.distance", "‖w−θ†‖", "distance of the central flow to the constrained trajectory", "", "‖w_t − θ†_t‖", "eos"),
        Column("central.distance_smoothed", "‖w−w*‖", "distance of the central flow to smoothed gradient descent, a step ago", "",
               "‖w_{t−1} − w*‖, w* = (θ_{t−2} + 2θ_{t−1} + θ_t)/4", flows),
    )


class Beside(NamedTuple):
    """What a record has of a trajectory beside gradient descent."""

    words: str
    """What it is, and when it is followed."""
    follows: Callable[[CoupledTracking], bool]
    """Whether a run has it."""
    columns: Callable[[CoupledTracking], tuple[Column, ...]]


BESIDE: dict[str, Beside] = {
    "flow": Beside(
        'Gradient flow, with `tracking.flow` true, "gradient" or "both".', lambda tracking: "flow" in tracking.flows,
        lambda tracking: flow(tracking.flow_start),
    ),
    "central": Beside(
        'The central flow, with `tracking.flow` "central" or "both".', lambda tracking: "central" in tracking.flows,
        lambda tracking: central(tracking.flow_start),
    ),
}
"""By the name that it has in `dynamics.trajectories`, which is the family of its columns."""


def eigenvalues(count: int) -> tuple[Column, ...]:
    """λ2 to λ_count of gradient descent; NaN in a row that did not follow so many."""
    return tuple(
        Column(f"gd.lambda{k}", f"λ{k}", f"eigenvalue {k} of gradient descent", "", f"λ{k}(∇²L(θ_t))", PLACES["several eigenvalues"])
        for k in range(2, count + 1)
    )


STOCHASTIC = "arXiv 2412.20553"
"""Where the batch sharpness and the gradient–noise interaction are from."""


def batches(section: Optimizer) -> tuple[Column, ...]:
    """What steps on batches record. g is the gradient of a batch, H_B its Hessian, ⟨·⟩ the mean over batches, estimated from some."""
    plain = edges.is_plain(section)
    return (
        Column("batch.loss", "L_B", "loss of the batch that the step is taken on", "", "L_B(θ_t)", "eos"),
        Column("batch.gradient_norm", "‖g‖", "gradient norm of the batch that the step is taken on", "", "‖∇L_B(θ_t)‖", "eos"),
        Column("batch.sharpness", "S_B", "batch sharpness: the curvature that a step meets on its own examples, on average", "",
               "⟨g·H_Bg/‖g‖²⟩, over batches", STOCHASTIC),
        Column("batch.sharpness_error", "±S_B", "standard error of the batch sharpness", "", "standard deviation/√n_B", "eos"),
        Column("batch.samples", "n_B", "batches that were drawn for the batch sharpness", "", "count", "eos"),
        *((Column("threshold_ratio", "S_B/edge", "batch sharpness over the edge", "", "S_B/edge, edge 2/η", STOCHASTIC),) if plain else ()),
        Column("batch.gni", "GNI", "gradient–noise interaction: about 2/η wherever the loss is stationary, so no edge", "",
               "⟨g·Hg⟩/‖∇L‖², over batches", STOCHASTIC),
        Column("batch.gni_error", "±GNI", "standard error of the gradient–noise interaction", "", "standard deviation/√n", "eos"),
        Column("batch.noise", "σ_u²", "variance over batches of the gradient along the top eigenvector", "", "Var_B(u·g)",
               "arXiv 2604.21016"),
        *((Column("batch.gap", "ΔS", "estimate of how far below the edge noise holds the sharpness, to first order, at the iterate", "",
                  "ηβσ_u²/(4α), α = −P⊥∇L·∇S, β = ‖∇S⊥‖²", "arXiv 2604.21016"),) if plain else ()),
    )


def phase(starts: int) -> tuple[Column, ...]:
    """The orbits of a phase-portrait run: the flow (4) and the map (3) from each start."""
    orbits: list[Column] = []
    for k in range(1, starts + 1):
        orbits += [
            Column(f"ode{k}.x", "X", f"flow from start {k}: oscillation", "", "X' = XY", PLACES["flow"]),
            Column(f"ode{k}.y", "Y", f"flow from start {k}: change of sharpness", "", "Y' = α − βX²/2", PLACES["flow"]),
            Column(f"ode{k}.energy", "g", f"flow from start {k}: conserved quantity", "", "g = h(βX²/2α) + Y²/α", PLACES["g"]),
            Column(f"map{k}.x", "x", f"map from start {k}: oscillation", "", "x ← −(1+ηy)x", PLACES["map"]),
            Column(f"map{k}.y", "y", f"map from start {k}: change of sharpness", "", "y ← y + η(α − βx²/2)", PLACES["map"]),
            Column(f"map{k}.energy", "g", f"map from start {k}: grows by about (1+2ε²) a step", "",
                   "g = h(βx²/2α) + y²/α", PLACES["g"]),
        ]
    return tuple(orbits)


def training(spec: RunSpec) -> tuple[Column, ...]:
    """The columns of training with sharpness readings (`mode = "sharpness"`)."""
    columns = tuple(column for column in DESCENT if column.name != "gd.midpoint_sharpness") + eigenvalues(spec.tracking.eigenvalues)
    if isinstance(spec.problem, Network) and spec.problem.data.name != "chebyshev":  # a regression has no right answers
        columns += ACCURACY + (TEST if spec.problem.data.test_examples else ())
    if isinstance(spec.problem, Own):
        columns += tuple(column for column in ACCURACY + TEST if column.name in spec.problem.readings)
    drawn = batches(spec.optimizer) if spec.batch.size else ()
    if edges.is_plain(spec.optimizer):
        return columns + drawn + (NORM if spec.optimizer.weight_decay and not drawn else ())  # whose balance is that of a gradient step
    if not edges.has_ratio(spec.optimizer):
        return columns + smoothness(spec.optimizer)
    if isinstance(spec.tracking, SharpnessTracking) and spec.tracking.central_from:
        columns += rmsprop_flow(getattr(spec.optimizer, "scalar", False))
    replaced = ("gd.eigen_residual", *(f"gd.lambda{k}" for k in range(2, spec.tracking.eigenvalues + 1)))
    against = tuple(
        column for column in preconditioned(spec.optimizer, spec.tracking.eigenvalues) if not drawn or column.name != "threshold_ratio"
    )  # the edge is that of steps on all examples
    return tuple(column for column in columns if column.name not in replaced) + against + drawn


def preconditioned(section: Optimizer, eigenvalues: int) -> tuple[Column, ...]:
    """What is read against the edge of an optimizer other than gradient descent, of so many eigenvalues."""
    operator, source = edges.edge_of(section).operator, edges.edge_of(section).sources
    return (
        Column("preconditioned.sharpness", "S_P", "sharpness as the optimizer's steps feel it", "", f"λ1({operator}), P of the last step",
               source),
        *(Column(f"preconditioned.lambda{k}", f"λ{k}_P", f"eigenvalue {k} as the optimizer's steps feel it", "",
                 f"λ{k}({operator}), P of the last step", source) for k in range(2, eigenvalues + 1)),
        Column("preconditioned.eigen_residual", "r_P", "relative residual of the top eigenpair of the preconditioned Hessian", "",
               "‖Hu−Su‖/S", "eos"),
        ratio(section, "S_P"),
    )


def ratio(section: Optimizer, sharpness: str) -> Column:
    """The sharpness, by its symbol, over the edge of an optimizer."""
    edge, source = edges.formula(section), edges.edge_of(section).sources
    words = "sharpness as the optimizer's steps feel it, over the optimizer's edge"
    return Column("threshold_ratio", "S/edge", words, "", f"{sharpness}/edge, edge {edge}", source)


def rmsprop_flow(scalar: bool) -> tuple[Column, ...]:
    """The central flow beside RMSProp with one ν, or with one for each parameter, which is followed before its edge alone."""
    what = "the central flow of RMSProp" + ("" if scalar else ", experimental and before its edge alone")
    moment, source = "ν̂" if scalar else "mean of ν̂", "arXiv 2410.24206"
    flow = "dw/dt = −(η/P)(∇L + ½∇³L(Σ)), P = √ν̂+ε" if scalar else "dw/dt = −ηP⁻¹∇L, P = √ν̂+ε"
    columns = (
        Column("second_moment", moment, "average of the squared gradient that the steps are divided by", "", f"{moment} of the last step",
               source),
        Column("central.loss", "L(w)", f"training loss of {what}", "", f"L of {flow}", source),
        Column("central.sharpness", "S_P(w)", f"sharpness as steps feel it at {what}", "", "λ1(P^-½HP^-½) at w", source),
        Column("central.second_moment", f"{moment}(w)", f"average of the squared gradient by {what}", "",
               "dν̂/dt = c(‖∇L‖² + <H²,Σ> − ν̂)" if scalar else "dν̂/dt = c(∇L² − ν̂)", source),
        Column("central.distance_run", "‖w−θ‖", f"distance of {what} to the run", "", "‖w_t − θ_t‖", "eos"),
    )
    if not scalar:
        return columns
    return (
        *columns,
        Column("central.predicted_loss", "L(w)+½⟨H,Σ⟩", f"mean training loss that {what} predicts", "", "L(w) + ½⟨∇²L(w), Σ⟩", source),
        Column("central.trace", "tr Σ", f"variance of the oscillation that {what} predicts", "",
               "tr Σ, the mean over the substeps of a step", source),
    )


def smoothness(section: Optimizer) -> tuple[Column, ...]:
    """What is read where steps are the steepest in a norm of their own: no eigenvalue of the Hessian has an edge there."""
    scaled, source = getattr(section, "dual_scaled", False), edges.edge_of(section).sources
    over = "" if scaled else "/‖g‖_*"
    step = "D = 2[L_t − L_{t−1} + η‖g‖_*²]/(η‖g‖_*)²" if scaled else "D = 2[L_t − L_{t−1} + η‖g‖_*]/(η²‖g‖_*)"
    return (
        Column("smoothness.directional", "D", "directional smoothness of the step that led here: below 2/η exactly where the loss fell", "",
               f"{step}, g of the step", source),
        Column("smoothness.generalized", "S_‖·‖", "lower bound on the generalized sharpness, a maximum that is met by Frank–Wolfe", "",
               f"max vᵀHv over ‖v‖ = 1{over}: a lower bound", source),
    )

def clock(spec: RunSpec) -> tuple[Column, ...]:
    """Where a run stands, with the edge of its optimizer."""
    if edges.is_plain(spec.optimizer):
        return CLOCK
    edge, source = edges.formula(spec.optimizer), edges.edge_of(spec.optimizer).sources
    words = "sharpness above which the optimizer's steps are unstable" if edges.has_ratio(spec.optimizer) else (
        "directional smoothness above which the loss rises")
    symbol = edge if len(edge) <= SHORT_SYMBOL else "edge"
    return *CLOCK[:-1], Column("threshold", symbol, words, "", edge, source)


def columns_for(spec: RunSpec) -> tuple[Column, ...]:
    """The columns a run of this specification records, in order; the first is the step."""
    if isinstance(spec.problem, Phase):
        return CLOCK + phase(len(spec.problem.starts))
    tracking, own = spec.tracking, projections(spec.recording.projections) + metrics(spec.metrics)
    if isinstance(tracking, SharpnessTracking):
        return clock(spec) + training(spec) + own + COST
    columns = clock(spec) + DESCENT + eigenvalues(tracking.eigenvalue_columns) + COUPLED
    if not edges.is_plain(spec.optimizer):
        columns += (ratio(spec.optimizer, "S"),)
    if tracking.on_second_eigenvalue == "follow":
        columns += directions(tracking.eigenvalue_columns)
    for form in tracking.predictions:
        columns += predicted(form, tracking.on_second_eigenvalue == "follow")
    if "transported" in tracking.predictions and edges.is_plain(spec.optimizer):
        columns += THEOREM
    if tracking.beta_every:
        columns += UNROLLED
    if tracking.landscape_every:
        columns += LANDSCAPE
    if tracking.gauges_every:
        columns += (*ASSUMPTIONS, FOURTHS)
    for beside in BESIDE.values():
        if beside.follows(tracking):
            columns += beside.columns(tracking)
    return (columns if edges.is_plain(spec.optimizer) else tuple(map(_of_momentum, columns))) + own + COST


WITH_MOMENTUM = {
    "gd.spike": ("predicted rise of the loss over that of θ†", "½·edge·x_t²", "eos"),
    "constrained.epsilon": (
        "small parameter of the theory: bursts take 2π/(√2 ε) steps and more",
        "√(ab·α): |x| grows by a share a·y in a step, y by b·α; both are η/(1−β) for the heavy ball", "eos"),
    "constrained.directions": (
        "directions at the edge: eigenvalues of θ† along which its gradient is held at 0", "number of λ_i(θ†) above 0.95 of the edge, and "
        "the first", "eos"),
    "covariance.trace": (
        "predicted variance of the oscillation, over all directions",
        "tr X†, 0 ⪯ X† ⊥ (edge − Λ)/c + d·D + ½B⊥[X†] ⪰ 0 where θ† steps by −c·d but for the projection", "eos"),
    "average.predicted_loss": (
        "predicted mean training loss", "mean of L(θ†) + ½⟨Λ, X†⟩ over the last two bursts; Λ is the edge there", "eos"),
    "average.predicted_gradient_squared": (
        "predicted mean squared gradient", "mean of ‖∇L(θ†)‖² + ⟨Λ², X†⟩ over the last two bursts; Λ is the edge there", "eos"),
}
"""Words, formula and source of what is another quantity with momentum."""
PREDICTED_WITH_MOMENTUM = {
    "x": "x⋆ = u·v⋆, n ← βn + G, v⋆ ← v⋆ − ηn, G what acts on v⋆",
    "loss": "L(θ†) + ½·edge·x⋆²",
}


def _of_momentum(column: Column) -> Column:
    """A column of a run with momentum: what it has in place of 2/η is its edge."""
    if column.name in ("threshold", "threshold_ratio"):
        return column
    family, _, quantity = column.name.partition(".")
    if column.name in WITH_MOMENTUM:
        words, formula, source = WITH_MOMENTUM[column.name]
        column = column._replace(words=words, formula=formula, source=source)
    elif family in PREDICTION_WORDS:
        known = family == "generalized" and quantity == "loss"
        formula = column.formula if known else PREDICTED_WITH_MOMENTUM.get(quantity, column.formula)
        column = column._replace(formula=formula, source="eos")
    symbol, words = column.symbol.replace("x²/η", "½Sx²").replace("2/η", "edge"), column.words.replace("2/η", "edge")
    return column._replace(symbol=symbol, words=words, formula=column.formula.replace("·η/2", "/edge").replace("2/η", "edge"))


def metrics(section: Metrics) -> tuple[Column, ...]:
    """The columns of the user's own quantities."""
    functions = section.functions.items()
    return tuple(Column(f"{METRIC}{name}", name, f"{given}, a quantity of your own", "", given, "yours") for name, given in functions)


def projections(count: int) -> tuple[Column, ...]:
    """The columns of θ projected on so many random directions."""
    return tuple(
        Column(f"{PROJECTION}{k}", f"r{k}·θ", f"projection of θ on random direction {k}, the same for every run of as many parameters", "",
               f"r{k}·θ_t, r{k} of ±1: ⟨(r·v)²⟩ over directions is ‖v‖² of any v", "eos")
        for k in range(1, count + 1)
    )


def column_index(columns: Sequence[Column]) -> dict[str, int]:
    """The place of each column in a row, by its name."""
    return {column.name: k for k, column in enumerate(columns)}


def layout(columns: Sequence[Column]) -> str:
    """Sixteen letters that stand for the columns of a row and their order: rows of another layout mean something else."""
    return sha256("\n".join(column.name for column in columns).encode()).hexdigest()[:16]


def arranged(rows: np.ndarray, given: Mapping[str, int], wanted: Mapping[str, int]) -> np.ndarray:
    """Rows (rows, columns) of one layout in another, by name: NaN where the first has no such column, but for the stability threshold,
    which rows of a record without it have by their learning rate.
    """
    block = np.full((len(rows), len(wanted)), np.nan)
    both = [name for name in wanted if name in given]
    block[:, [wanted[name] for name in both]] = rows[:, [given[name] for name in both]]
    if THRESHOLD in wanted and THRESHOLD not in given and RATE in given:
        block[:, wanted[THRESHOLD]] = of_gradient_descent(rows[:, given[RATE]])
    return block


def meets_threshold(column: str) -> bool:
    """Whether the quantity of this column is an eigenvalue of the Hessian, to be read against 2/η."""
    family, _, quantity = column.partition(".")
    eigenvalue = quantity in ("sharpness", "midpoint_sharpness") or quantity.startswith("lambda")
    return eigenvalue and family not in ("theorem", "norm", "covariance")
