"""A flax module of one's own as a preset: `problem = "own_model:make_problem"`, and a run of it."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import engine


class Regressor(nnx.Module):
    """A tanh network from one number to one."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(1, width, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, inputs):
        return self.last(jnp.tanh(self.first(inputs)))


def make_problem(width: int = 8, seed: int = 0):
    """What the preset calls: the mean squared error on a cubic."""
    inputs = np.linspace(-1, 1, 16)[:, None]
    return engine.from_flax(Regressor(width, nnx.Rngs(seed)), inputs, 4 * inputs**3 - 3 * inputs, "mse")


PRESET = """
problem = "own_model:make_problem"
[optimizer]
learning_rate = 0.3
[budget]
steps = 150
"""

if __name__ == "__main__":
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        preset = Path(folder) / "regression.toml"
        preset.write_text(PRESET)
        record = engine.run(str(preset), steps=120, folder=str(Path(__file__).parent))
        sharpness = record["gd.midpoint_sharpness"]
        print(f"η = 0.3: S·η/2 = {sharpness[np.isfinite(sharpness)][-1] * 0.3 / 2:.3f}; {record}")
