"""Which examples a step is taken on, where it is not taken on all: a pure function of seed and step, so that resuming is exact.

Drawn without replacement as the literature does: all examples are shuffled and cut into batches, one a step, and when no whole batch is
left they are shuffled anew. A reading draws its batches each for itself: a batch of such a shuffle is as likely to be any other.
"""

import numpy as np

STREAM, READING = 1, 2
"""Tell these numbers apart from others that are drawn for the same seed and step."""


def indices(seed: int, first: int, steps: int, examples: int, size: int, replacement: bool = False) -> np.ndarray:
    """The indices (steps, size) of the examples of so many steps from the `first` on, of so many `examples`."""
    if replacement:
        return np.stack([_generator(seed, step, STREAM).integers(examples, size=size) for step in range(first, first + steps)])
    each = examples // size  # batches of a shuffle
    numbers = range(first // each, (first + steps - 1) // each + 1)
    shuffles = {number: _generator(seed, number, STREAM).permutation(examples) for number in numbers}
    return np.stack([shuffles[step // each][step % each * size :][:size] for step in range(first, first + steps)])


class Drawn:
    """Batches that are drawn at a step for a reading there, some after others; the same for the same seed and step."""

    def __init__(self, seed: int, step: int, examples: int, size: int, replacement: bool = False):
        self._generator = _generator(seed, step, READING)
        self._of = examples, size, replacement

    def next(self, count: int) -> np.ndarray:
        """The indices (count, size) of the examples of so many batches more."""
        return np.stack([self._generator.choice(*self._of) for _ in range(count)])


def _generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
