"""How well each prediction has held since it was last anchored to the true displacement.

The correlation is that of |x⋆| with |x|: the sign of x alternates and carries no information. The horizon is the number of
steps until ||x⋆|−|x|| first exceeds `tolerance`·max(δ, |x|). A prediction is lost when it is not finite or leaves the orbit.
"""

from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.spec import PREDICTIONS
from engine.xla.leaves import Earlier

OUTSIDE = 20.0
"""|x⋆|, in units of max(δ, largest |x| since the anchor), from which a prediction counts as lost."""


def _more_forms(blank: float) -> Earlier:
    """An older checkpoint may have an entry for fewer forms: `blank` for the others."""
    return Earlier(fitted=lambda array, _: np.pad(
        array, [(0, max(len(PREDICTIONS) - len(array), 0)), *[(0, 0)] * (array.ndim - 1)], constant_values=blank
    ))


class Scores(NamedTuple):
    """Running sums since the last anchor, one entry a form, in the order of `PREDICTIONS`."""

    anchored: Annotated[Array, _more_forms(0)]  # (4,) step of the last anchor
    sums: Annotated[Array, _more_forms(0)]  # (4, 6) n, Σa, Σb, Σa², Σb², Σab with a = |x⋆|, b = |x|
    largest: Annotated[Array, _more_forms(0)]  # (4,) largest |x| since
    horizon: Annotated[Array, _more_forms(np.nan)]  # (4,) steps; NaN while within the tolerance
    lost: Annotated[Array, _more_forms(0)]  # (4,) 1 when lost


def fresh(step: int) -> Scores:
    """Scores of predictions anchored at this step."""
    count = len(PREDICTIONS)
    begun = np.full(count, step), np.zeros((count, 6)), np.zeros(count), np.full(count, np.nan), np.zeros(count, int)
    return Scores(*map(jnp.asarray, begun))


def observe(scores: Scores, step: Array, predicted: Array, x: Array, delta: Array, tolerance: float) -> Scores:
    """The scores after comparing the predicted x⋆ (4,) with the measured x."""
    a, b = jnp.abs(predicted), abs(x)
    size = jnp.fmax(delta, b)  # δ may be undefined
    largest = jnp.maximum(scores.largest, b)
    lost = scores.lost | ~(a <= OUTSIDE * jnp.fmax(delta, largest))
    held = lost == 0
    a = jnp.where(held, a, 0.0)
    terms = jnp.stack([jnp.ones_like(a), a, jnp.full_like(a, b), a * a, jnp.full_like(a, b * b), a * b], axis=1)
    off = ~(jnp.abs(a - b) <= tolerance * size) | ~held
    horizon = jnp.where(jnp.isnan(scores.horizon) & off, step - scores.anchored, scores.horizon)
    return Scores(scores.anchored, scores.sums + jnp.where(held[:, None], terms, 0), largest, horizon, lost.astype(int))


def correlation(scores: Scores) -> Array:
    """corr(|x⋆|, |x|) since the last anchor, (4,); NaN for fewer than three steps or where one of them is constant."""
    n, sa, sb, saa, sbb, sab = scores.sums.T
    spread = jnp.sqrt((saa - sa**2 / n) * (sbb - sb**2 / n))
    found = jnp.clip((sab - sa * sb / n) / spread, -1, 1)  # rounding
    return jnp.where((n >= 3) & (spread > 0), found, jnp.nan)
