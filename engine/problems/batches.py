"""Which examples a step is taken on, where it is not taken on all: a pure function of seed and step, so that resuming is exact."""

import numpy as np

STREAM = 1
"""Tells these numbers apart from others that are drawn for the same seed and step."""


def indices(seed: int, step: int, examples: int, size: int) -> np.ndarray:
    """The indices (size,) of one step's examples, drawn without replacement from so many `examples`."""
    return np.random.default_rng([seed, step, STREAM]).choice(examples, size, replace=False)
