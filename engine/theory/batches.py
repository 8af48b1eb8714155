"""What noise does at the edge: steps on batches keep up an oscillation of their own, short of 2/η. Numbers or arrays."""

import numpy as np


def sharpness_gap(learning_rate, alpha, beta, noise):
    """ηβσ²/(4α), by which the sharpness settles below 2/η for noise of variance σ² along u in a step's gradient; NaN unless α > 0.

    To first order: a step x ← (1 − ηS)x − ηξ keeps E[x²]·S(2/η − S) = σ², and self-stabilization holds E[x²] at δ² = 2α/β.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.greater(alpha, 0), learning_rate * beta * noise / (4 * np.asarray(alpha, float)), np.nan)[()]
