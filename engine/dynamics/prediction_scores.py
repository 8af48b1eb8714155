"""How well a prediction has held since it was last anchored to the true displacement.

The correlation is that of |x⋆| with |x|: the sign of x alternates and carries no information. The horizon is the number of
steps until ||x⋆|−|x|| first exceeds `tolerance`·max(δ, |x|). A prediction is lost when it is not finite or leaves the orbit.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

OUTSIDE = 20.0
"""|x⋆|, in units of max(δ, largest |x| since the anchor), from which a prediction counts as lost."""


class Score(NamedTuple):
    """Running sums of one prediction since its last anchor."""

    anchored: Array  # () step of the last anchor
    sums: Array  # (6,) n, Σa, Σb, Σa², Σb², Σab with a = |x⋆|, b = |x|
    largest: Array  # () largest |x| since
    horizon: Array  # () steps; NaN while within the tolerance
    lost: Array  # () 1 when lost


def fresh(step: int) -> Score:
    """The score of a prediction that is anchored at this step."""
    return Score(*map(jnp.asarray, (np.array(step), np.zeros(6), np.array(0.0), np.array(np.nan), np.array(0))))


def observe(score: Score, step: Array, predicted: Array, x: Array, delta: Array, tolerance: float) -> Score:
    """The score after comparing the predicted x⋆ with the measured x."""
    a, b = jnp.abs(predicted), abs(x)
    size = jnp.fmax(delta, b)  # δ may be undefined
    largest = jnp.maximum(score.largest, b)
    lost = score.lost | ~(a <= OUTSIDE * jnp.fmax(delta, largest))
    held = lost == 0
    a = jnp.where(held, a, 0.0)
    terms = jnp.stack([jnp.ones_like(a), a, b, a * a, b * b, a * b])
    off = ~(jnp.abs(a - b) <= tolerance * size) | ~held
    horizon = jnp.where(jnp.isnan(score.horizon) & off, step - score.anchored, score.horizon)
    return Score(score.anchored, score.sums + jnp.where(held, terms, 0), largest, horizon, lost.astype(int))


def correlation(score: Score) -> Array:
    """corr(|x⋆|, |x|) since the last anchor; NaN for fewer than three steps or where one of them is constant."""
    n, sa, sb, saa, sbb, sab = score.sums
    spread = jnp.sqrt((saa - sa**2 / n) * (sbb - sb**2 / n))
    value = jnp.clip((sab - sa * sb / n) / spread, -1, 1)  # rounding
    return jnp.where((n >= 3) & (spread > 0), value, jnp.nan)


def error(score: Score) -> Array:
    """√mean (|x⋆| − |x|)² since the last anchor; NaN before."""
    n, _, _, saa, sbb, sab = score.sums
    return jnp.sqrt(jnp.maximum(saa - 2 * sab + sbb, 0) / n)
