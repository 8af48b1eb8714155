"""An optimizer of one's own: an optax rule with the edge that belongs to it, and the sharpness read against that edge."""

import numpy as np
import optax

import engine

BETA = 0.5


def heavy_ball():
    """m ← βm + ∇L, θ ← θ − ηm: unstable above (2+2β)/η. Leave the learning rate and the sign to eos."""
    return engine.from_optax(optax.trace(BETA), threshold=lambda state: (2 + 2 * BETA) / state.learning_rate)


record = engine.run("chebyshev", steps=300, overrides=[
    "optimizer.kind=own", "optimizer.function=__main__:heavy_ball", "optimizer.learning_rate=0.1",
    "tracking.mode=sharpness", "tracking.sharpness_every=20", "tracking.eigenvalues=2",
])  # fmt: skip
ratio = record["threshold_ratio"]
print(f"S/edge rises from {ratio[np.isfinite(ratio)][0]:.3f} to {ratio[np.isfinite(ratio)][-1]:.3f}, edge {record['threshold'][-1]:.1f}")
