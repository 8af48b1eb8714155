"""States as earlier versions wrote them into checkpoints, brought into today's."""

import jax.numpy as jnp
import numpy as np

from engine.curvature import directions, guards
from engine.curvature.expansion import TaylorCenter, narrower
from engine.curvature.guards import Guards
from engine.curvature.halves import halved, shortened
from engine.dynamics.flow import FlowState
from engine.dynamics.optimizers import GradientDescentState
from engine.dynamics.prediction_scores import Score
from engine.dynamics.trajectory import Costs
from engine.phases.coupled_state import ConstrainedTrack, CoupledState, DescentTrack, PredictedTrack, started
from engine.xla.leaves import Leaves, unpack

FORMS = ("generalized", "transported", "code", "full_cubic")
"""The forms that had a place in every state, in this order; a form that was not followed had a vector of no numbers."""


def gradient_descent_state(leaves: Leaves) -> GradientDescentState:
    """The optimizer's state where the clock had the learning rate, and there was gradient descent alone."""
    return GradientDescentState(jnp.asarray(leaves["clock.learning_rate"], jnp.float64))


def coupled_state(leaves: Leaves) -> CoupledState:
    """The coupled state where all of it was one tuple, `moving`. Raises KeyError where that is not whole."""
    leaf = {path.removeprefix("moving."): value for path, value in leaves.items() if path.startswith("moving.")}

    def array(path: str) -> jnp.ndarray:
        return jnp.asarray(leaf[path])

    def narrow(path: str) -> jnp.ndarray:
        return jnp.asarray(leaf[path], narrower(leaf[path].dtype, leaf["bases"].dtype))

    vectors = leaf["bases"]
    unknown = guards.begin(0, 0, vectors.shape[-1], str(vectors.dtype))
    known = unpack(Guards, leaf, "guards.") if "guards.vectors" in leaf else unknown
    followed = [form for form in FORMS if leaf.get(f"predictions.{form}", np.zeros(0)).size]
    scores = {
        form: Score(*(jnp.asarray(leaf[f"scores.{name}"][FORMS.index(form)]) for name in Score._fields)) for form in followed
    }
    flow = {} if not leaf["flow"].size else {"flow": unpack(FlowState, {
        "theta": leaf["flow"], "eigenvectors": leaf["flow_vectors"], "sharpness": leaf["flow_sharpness"],
        "guard": leaf.get("flow_guard", np.asarray(unknown.vectors[0])),
    })}
    center, (before, last) = unpack(TaylorCenter, leaf, "center."), array("center_bases")
    return CoupledState(
        step=array("step"),
        descent=DescentTrack(
            array("theta"), gradient_descent_state(leaves), halved(array("bases")), halved(array("turns")), array("swings")
        ),
        constrained=ConstrainedTrack(
            center, *started(last, before, center.eigen.vectors, directions.none(center.theta)), guards.kept(known),
            array("projections"), jnp.asarray(leaf.get("sliding", np.array(True))).astype(int),
            shortened(narrow("correction")), shortened(narrow("remainder")), array("overlap"), directions.none(array("theta")),
            jnp.zeros((0, 0), leaf["theta"].dtype), jnp.zeros(0),
        ),
        predicted=PredictedTrack({form: narrow(f"predictions.{form}") for form in followed}, scores, {}),
        beside=flow, costs=unpack(Costs, leaf, "costs."),
    )
