"""What is read of the whole spectrum at one θ, on demand: the density of its eigenvalues, the Gauss–Newton share u_iᵀGu_i/λ_i of each
eigenvalue that is followed, and the sharpness of each parameter's diagonal block.

It takes hundreds of Hessian–vector products, so it is done in parts: before each it is said what comes, and between two the engine hears
commands. θ is that of the step at which it was asked for; no step is taken meanwhile.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import blocks, density, gauss_newton
from engine.curvature.eigensolver import LOOSE_TOLERANCE, solve_at
from engine.phases.context import Setup
from engine.record import messages
from engine.xla.shares import numbers

MOST_NAMED = 80
"""Characters of a parameter's name that are kept."""


class WholeSpectrum(NamedTuple):
    """What was read, as arrays to keep and in a sentence."""

    arrays: dict[str, np.ndarray]
    text: str


Reading = Generator[str, None, WholeSpectrum]
"""Says before each part what comes, and returns the whole."""


def whole(reading: Reading, tell: Callable[[str], None] = lambda part: None) -> WholeSpectrum:
    """A reading with all of its parts, each told before it is computed."""
    while True:
        try:
            tell(next(reading))
        except StopIteration as ended:
            return ended.value


def read(setup: Setup, theta: Array, start: Array, step: int, learning_rate: float, threshold: float, asked: messages.Density) -> Reading:
    """The whole spectrum of the training loss at θ (p,), in the curvature's format; `start` (k, p) are the eigenvectors followed."""
    problem, dtype, seed = setup.problem, setup.spec.precision.curvature, setup.spec.seed
    at = theta.astype(dtype)
    parts = []
    for k in range(asked.probes):
        yield f"spectral density: vector {k + 1} of {asked.probes}"
        parts.append(density.quadrature(problem, at, density.probe(seed, step, k, at.size, dtype, problem.shares), asked.steps))
    whole = density.joined(parts)
    yield f"Gauss–Newton share of the {len(start)} eigenvalues followed"
    values, shares, why_not = gauss_newton_shares(setup, at, start)
    layers = blocks.blocks(problem, at)
    tops = []
    for k, layer in enumerate(layers, 1):
        yield f"sharpness by layer: {k} of {len(layers)}, {layer.name[:MOST_NAMED]}"
        tops.append(blocks.sharpness_of(problem, at, layer, seed, step, dtype))
    width = whole.width
    grid = whole.grid(width)
    arrays = {
        "nodes": whole.nodes, "weights": whole.weights, "width": np.array(width), "grid": grid, "density": whole.at(grid, width),
        "eigenvalues": values, "gauss_newton": shares, "gauss_newton_absent": np.array(why_not),
        "layers": np.array([layer.name[:MOST_NAMED] for layer in layers]),
        "layer_sizes": np.array([layer.indices.size for layer in layers]), "layer_sharpness": np.array(tops),
        "parameters": np.array(numbers(at.size, problem.shares)),
        "learning_rate": np.array(learning_rate), "threshold": np.array(threshold),
    }
    return WholeSpectrum(arrays, _words(arrays, step, asked.probes))


def gauss_newton_shares(setup: Setup, theta: Array, start: Array) -> tuple[np.ndarray, np.ndarray, str]:
    """The top eigenvalues at θ (k,), the share u_iᵀGu_i/λ_i of each, and why there is none, where that is so: then they are NaN."""
    pairs, _ = solve_at(setup.problem, theta, start, LOOSE_TOLERANCE, str(theta.dtype), tight=len(start))
    values = np.asarray(pairs.values, float)
    if why_not := gauss_newton.why_absent(setup.problem):
        return values, np.full_like(values, np.nan), why_not
    forms = np.asarray(gauss_newton.forms(setup.problem, theta, jnp.asarray(pairs.vectors)), float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return values, forms / values, ""


def _words(arrays: dict[str, np.ndarray], step: int, probes: int) -> str:
    """The reading in a sentence."""
    nodes, share, tops = arrays["nodes"], float(arrays["gauss_newton"][0]), arrays["layer_sharpness"]
    of = "" if np.isnan(share) else f"; Gauss–Newton share of λ1 {share:.3f}"
    first, sharpest = float(arrays["eigenvalues"][0]), int(np.argmax(tops))
    return (
        f"spectral density at step {step}, from {probes} × {nodes.shape[1]} Hessian products: λ from {nodes.min():.4g} to "
        f"{nodes.max():.4g}{of}; sharpest layer {arrays['layers'][sharpest]}, {tops[sharpest] / first:.3f} of λ1"
    )
