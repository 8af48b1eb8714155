"""Theorem 1 as numbers: how far gradient descent is from what the predicted dynamics say, next to the orders it states.

For t ≤ O(1/ε) and |x⋆| ≥ cδ:  L(θ) = L(θ†) + x⋆²/η + O(εδ²/η),  S(θ) = 2/η + y⋆ + (∇S·u)x⋆ + O(ε²/η),  θ = θ† + v⋆ + O(εδ).
"""

import numpy as np


def residuals(
    loss, sharpness, deviation, predicted_loss, predicted_sharpness, x, delta, epsilon, learning_rate: float, least: float
) -> dict[str, np.ndarray]:
    """The residuals of Theorem 1 and their orders, by name. Scalars or arrays, one entry a step.

    `loss` and `sharpness` are those of gradient descent, `deviation` is ‖θ − θ† − v⋆‖, and `x` is x⋆. `hypothesis` is 1 where
    |x⋆| ≥ `least`·δ, else 0: there the theorem claims nothing. NaN where the prediction is lost or δ undefined.
    """
    holds = np.where(np.isnan(x) | np.isnan(delta), np.nan, np.abs(x) >= least * np.asarray(delta))
    return {
        "loss": abs(loss - predicted_loss), "loss_order": epsilon * delta**2 / learning_rate,
        "sharpness": abs(sharpness - predicted_sharpness), "sharpness_order": epsilon**2 / learning_rate,
        "deviation": deviation, "deviation_order": epsilon * delta, "hypothesis": holds,
    }
