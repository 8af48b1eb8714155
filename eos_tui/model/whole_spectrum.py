"""What an engine read of the whole spectrum at one step, as a file of the run has it: anyone may have written it."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.base.text import harmless
from engine.record.safe_read import MAX_CURVE_BYTES, read_arrays

MOST_POINTS, MOST_LAYERS = 4096, 4096
"""That are read of a density, and of layers."""


class Layer(NamedTuple):
    """One parameter of the network."""

    name: str
    size: int
    sharpness: float
    """The top eigenvalue of its diagonal block."""


class WholeSpectrum(NamedTuple):
    """A reading of the whole spectrum."""

    grid: np.ndarray  # (n,) λ, ascending
    density: np.ndarray  # (n,) share of all eigenvalues per unit of λ
    one: float
    """The height of a single eigenvalue, of p, in it."""
    eigenvalues: np.ndarray  # (k,) those followed, descending
    shares: np.ndarray  # (k,) uᵀGu/λ of each; NaN where there is none
    why_no_share: str
    layers: tuple[Layer, ...]
    """In the order of θ."""
    threshold: float
    """2/η at that step."""
    probes: int
    steps: int


def read(path: Path) -> WholeSpectrum | None:
    """The reading in a file; None where it cannot be read as one."""
    arrays = read_arrays(path, MAX_CURVE_BYTES) or {}
    try:
        grid, density, eigenvalues, shares, tops = (
            np.asarray(arrays[name], float) for name in ("grid", "density", "eigenvalues", "gauss_newton", "layer_sharpness"))
        width, threshold, parameters = (float(arrays[name]) for name in ("width", "threshold", "parameters"))
        probes, steps = arrays["nodes"].shape
        names, sizes = arrays["layers"].tolist(), arrays["layer_sizes"].tolist()
        why = harmless(str(arrays["gauss_newton_absent"]))
        layers = tuple(Layer(harmless(str(name)), int(size), float(top)) for name, size, top in zip(names, sizes, tops, strict=True))
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    if not (grid.ndim == 1 and 1 < len(grid) <= MOST_POINTS and density.shape == grid.shape and len(layers) <= MOST_LAYERS):
        return None
    if not (np.isfinite(grid).all() and np.isfinite(density).all() and (np.diff(grid) > 0).all() and (density >= 0).all()):
        return None
    if eigenvalues.ndim != 1 or eigenvalues.shape != shares.shape:
        return None
    if not all(0 < each < math.inf for each in (width, threshold, parameters)):
        return None
    one = 1 / (parameters * width * math.sqrt(2 * math.pi))
    return WholeSpectrum(grid, density, one, eigenvalues, shares, why, layers, threshold, probes, steps)
