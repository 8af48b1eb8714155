"""A loss of one's own, and the paper's steps on it one by one: θ†, its trajectory, and the predicted oscillation."""

import jax.numpy as jnp
import numpy as np

import engine

engine.configure()  # float64 where asked; before anything is computed
ETA = 0.05


def loss(params):
    """Appendix B in disguise: the curvature 2/η + s of x rises as the loss pulls s up, and falls when x oscillates."""
    x, s, z = params["x"], params["s"], params["z"]
    return (2 / ETA + s) * x**2 / 2 - s - z + 0.05 * z**2


problem, theta = engine.from_loss(loss, {"x": jnp.array(0.3), "s": jnp.array(0.0), "z": jnp.array(0.0)})
assert engine.complaints(problem, theta) == []

pairs = engine.top_eigenpairs(problem, theta, engine.random_start(0, 0, 2, theta.size, "float64"))
print(f"S = {pairs.sharpness:.4f}, 2/η = {2 / ETA:.4f}")

center = engine.stable_point(problem, theta, ETA)
v = theta - center.theta
worst = 0.0
for _ in range(60):
    following = engine.constrained_step(problem, center, ETA)
    v = engine.predicted_step(problem, center, following, v, ETA)
    theta = theta - ETA * problem.gradient(theta)
    center = following
    real, predicted = (engine.displacement(w, center) for w in (theta - center.theta, v))
    worst = max(worst, float(abs(abs(real.x) - abs(predicted.x)) / np.sqrt(center.delta_squared)))
print(f"δ = {np.sqrt(center.delta_squared):.3f}; over 60 steps |x⋆| kept within {worst:.2%} of δ of |x|")
assert worst < 0.01
