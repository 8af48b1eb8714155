"""What a coupled step moves, track by track: gradient descent, the constrained trajectory, its predictions, and what is followed beside.

What comes to a track later says at its declaration what stands in for it in an older checkpoint (`leaves.Earlier`).
"""

from enum import IntEnum
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import theory
from engine.curvature import directions
from engine.curvature.directions import Directions
from engine.curvature.expansion import Normals, TaylorCenter, narrower
from engine.curvature.guards import Guards, KeptGuards, Known, kept, unknown
from engine.curvature.halves import Shortened, halved, shortened, whole
from engine.curvature.predictor import turn_between
from engine.dynamics.optimizers import Optimizer
from engine.dynamics.predicted import Displacements
from engine.dynamics.prediction_scores import Score
from engine.dynamics.trajectories import TRAJECTORIES
from engine.dynamics.trajectory import Costs
from engine.xla.leaves import Earlier, Leaves

STATES: dict[str, type] = {name: trajectory.state for name, trajectory in TRAJECTORIES.items()}
"""What each trajectory beside gradient descent is read from a checkpoint as."""


class StepStatus(IntEnum):
    """What a step came to. The last three leave the state as it was, and GROW and DIVERGED give no row."""

    ON = 0  # go on
    HOST = 1  # go on after the host has looked
    ENDED = 2  # θ† cannot be followed further
    GROW = 3  # more eigenvalues are to be followed before this step is taken
    DIVERGED = 4  # the loss is no number
    UNSOLVED = 5  # no eigenpair was found at the next θ†


def _counted(leaf: np.ndarray, leaves: Leaves) -> np.ndarray:
    return leaf.astype(int)


def _short(name: str, leaves: Leaves) -> Shortened:
    """What earlier checkpoints had whole, in θ's number format or the curvature's."""
    return shortened(jnp.asarray(leaves[name], narrower(leaves[name].dtype, leaves["center.eigen.vectors"].dtype)))


def _one_direction(leaves: Leaves) -> Directions:
    return directions.none(jnp.asarray(leaves["center.theta"]))


def _no_covariance(leaves: Leaves) -> np.ndarray:
    return np.zeros((0, 0), leaves["center.theta"].dtype)


def _nothing(leaves: Leaves) -> np.ndarray:
    return np.zeros(0)


def _started(leaves: Leaves) -> "Started":
    """Of a checkpoint that has the eigenvectors of two centres whole."""
    before, last = map(jnp.asarray, leaves["eigenvector_history"])
    inner = {path.removeprefix("directions."): jnp.asarray(leaf) for path, leaf in leaves.items() if path.startswith("directions.")}
    along = Directions(**inner) if inner else _one_direction(leaves)
    return started(last, before, jnp.asarray(leaves["center.eigen.vectors"]), along)


def _no_guards(leaves: Leaves) -> KeptGuards:
    return kept(unknown("eigenvector_history")(leaves))


class DescentTrack(NamedTuple):
    """Gradient descent."""

    theta: Array  # (p,)
    optimizer: Any  # the optimizer's state
    eigenvectors: Annotated[Array, Earlier(lambda leaves: halved(leaves["eigenvector_history"]))]
    """(2, k, p) its top ones, `halved`, two steps ago first: it alternates"""
    offsets: Annotated[Array, Earlier(lambda leaves: halved(leaves["eigenvector_offsets"]))]
    """(4, p) what the first differed by from that of the centre, `halved`, four steps ago first,"""
    x_history: Array  # (4,) and x there


class ConstrainedTrack(NamedTuple):
    """The constrained trajectory."""

    center: TaylorCenter
    polish: Annotated[Array, Earlier(lambda leaves: _started(leaves).polish)]
    """(k, p) what a step of power iteration adds to the centre's eigenvectors, `halved`: the solver starts from there;"""
    turn: Annotated[Array, Earlier(lambda leaves: _started(leaves).turn)]
    """(1, p), or (K, p) of several directions, what the first of these differ by from those at the centre before, `halved`"""
    beyond: Annotated[KeptGuards, Earlier(_no_guards, ("guards",))]  # of the eigenvectors
    projections: Array  # () that the centre took
    active: Annotated[Array, Earlier(fitted=_counted)]  # () in how many directions S ≤ 2/η holds the centre back; 0 where it is slack
    kept_correction: Annotated[Shortened, Earlier(lambda leaves: _short("correction", leaves))]  # what the first guess left out
    kept_remainder: Annotated[Shortened, Earlier(lambda leaves: _short("remainder", leaves))]
    """what the tolerances left: one more step of the projection would move the centre so"""
    overlap: Array  # () |u_t·u_{t−1}|
    directions: Annotated[Directions, Earlier(_one_direction)]  # at the edge; no room for any where one is followed by its own formulas
    covariance: Annotated[Array, Earlier(_no_covariance)]  # (K, K) X† of theirs
    momentum: Annotated[Array, Earlier(_nothing)]  # (p,) m† that θ† has come here with; of no numbers where steps remember nothing

    @property
    def correction(self) -> Array:
        """What the first guess left out, (p,), in θ's number format."""
        return self.kept_correction.whole(self.center.theta.dtype)

    @property
    def remainder(self) -> Array:
        """What the tolerances left, (p,), in θ's number format."""
        return self.kept_remainder.whole(self.center.theta.dtype)

    @property
    def normals(self) -> Normals | Directions:
        """The normals of the stable set at the centre."""
        return self.directions if len(self.directions.basis) else self.center.normals

    @property
    def guards(self) -> Guards:
        """The next eigenvectors after those at the centre, so far as they are known."""
        return self.beyond.whole(self.center.eigen.vectors.dtype)

    @property
    def refined(self) -> Array:
        """The eigenvectors at the centre one step of power iteration on, (k, p), those of several directions in their basis."""
        return _reference(self.center.eigen.vectors, self.directions) + whole(self.polish, self.center.eigen.vectors.dtype)

    def expected(self) -> Array:
        """What the solver starts from at the next centre, (k, p): the first, or those of several directions, as far on as they turned."""
        refined = self.refined
        return refined.at[: len(self.turn)].add(whole(self.turn, refined.dtype))


class Started(NamedTuple):
    """What a track keeps of the eigenvectors at its centre, so that the solver starts from them."""

    polish: Array
    turn: Array


def started(refined: Array, before: Array, vectors: Array, directions: Directions) -> Started:
    """What is kept of the eigenvectors (k, p) that a step of power iteration made of the `vectors` at a centre, with those at the centre
    `before` it. The signs of several directions' are kept; a single one has that of the newest."""
    size = len(directions.basis)
    several = refined[:size] - before[:size]
    turn = jnp.where(directions.there[:, None], several, 0) if size else turn_between(before[0], refined[0])[None]
    return Started(halved(refined - _reference(vectors, directions)), halved(turn))


def _reference(vectors: Array, directions: Directions) -> Array:
    """Eigenvectors (k, p), those of several directions in their basis."""
    size = len(directions.basis)
    if not size:
        return vectors
    basis = jnp.where(directions.there[:, None], directions.basis.astype(vectors.dtype), vectors[:size])
    return vectors.at[:size].set(basis)


class PredictedTrack(NamedTuple):
    """The predictions."""

    displacements: Displacements  # v⋆ (p,) of each form
    scores: dict[str, Score]
    momenta: Annotated[Displacements, Earlier(lambda leaves: {})]  # n⋆ (p,) of each; none where steps remember nothing


def _narrow_predictions(track: PredictedTrack, leaves: Leaves) -> PredictedTrack:
    """What earlier checkpoints had in θ's number format."""
    dtype = leaves["constrained.center.eigen.vectors"].dtype

    def narrow(displacements: Displacements) -> Displacements:
        return {form: v.astype(narrower(v.dtype, dtype)) for form, v in displacements.items()}

    return track._replace(displacements=narrow(track.displacements), momenta=narrow(track.momenta))


class CoupledState(NamedTuple):
    """All that a coupled step reads but the settings."""

    step: Array  # ()
    descent: DescentTrack
    constrained: ConstrainedTrack
    predicted: Annotated[PredictedTrack, Earlier(fitted=_narrow_predictions)]
    beside: dict[str, Any]  # the states of the `TRAJECTORIES` that are followed
    costs: Costs  # of making the centre


def copied(state: CoupledState) -> CoupledState:
    """The same state in arrays of its own, which a step may overwrite."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, Array) else leaf, state)


def parted(tree: Any, size: int, beside: Any = ()) -> tuple[Any, Any]:
    """A tree in two, None where a leaf is in the other: vectors of `size` numbers that may be overwritten, and all else. What is there
    twice, or is `beside` too, is copied: only one of the two may be."""
    rest = jax.tree.map(lambda leaf: None if np.size(leaf) >= size else leaf, tree)
    seen = set(map(id, jax.tree.leaves(beside)))

    def own(leaf: Array) -> Array | None:
        if np.size(leaf) < size:
            return None
        given = jnp.copy(leaf) if id(leaf) in seen else leaf
        seen.add(id(leaf))
        return given

    return jax.tree.map(own, tree), rest


def joined(vectors: Any, rest: Any) -> Any:
    """The tree that was `parted`."""
    return jax.tree.map(lambda one, other: other if one is None else one, vectors, rest, is_leaf=lambda leaf: leaf is None)


def known_eigenvectors(track: ConstrainedTrack, others: Known = ()) -> Known:
    """The eigenvectors that are known at θ†, its pairs and their guards, and others beside."""
    return Guards(track.center.eigen.vectors, track.center.eigen.values), track.beyond, *others


class StaticConfig(NamedTuple):
    """What is compiled in."""

    optimizer: Optimizer
    curvature: str  # number format


NO_MEMORY = theory.Memory(0.0, 1.0, 0.0)
"""That of gradient descent."""


class StepParams(NamedTuple):
    """Numbers of the specification that a step reads."""

    learning_rate: float
    threshold: float  # the sharpness at the edge, 2/η
    plain_rate: float  # η of gradient descent with this edge
    memory: theory.Memory
    eigen_tolerance: float
    sharpness_tolerance: float
    gradient_tolerance: float
    max_projections: int
    horizon_tolerance: float
    edge_step: int
    flow_sharpness_every: int
    loss_goal: float
    edge_limit: float  # λη from which a further direction is at the edge, and the host looks
    leave_limit: float  # under which one of several leaves it, and the host looks
    most_seeded: float  # directions beyond which one more that holds θ† back makes the host look
    host_at_loss: bool  # of a prediction
    central_substeps: int
    most_followed: int  # eigenvalues, where a trajectory follows as many as there are
    seed: int  # of the random rows that looks around take


def next_drift(track: ConstrainedTrack, params: StepParams) -> tuple[Array | None, float]:
    """What the next step of θ† goes along but for what holds it back, (p,), and how far for a length of 1: ∇L(θ†), for which None stands,
    and η, where steps remember nothing."""
    if not track.momentum.size:
        return None, params.learning_rate
    return track.center.grad + params.memory.recalled * track.momentum, params.memory.gain(params.learning_rate)
