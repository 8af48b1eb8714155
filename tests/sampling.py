"""A run whose loss along u and whose terms of Theorem 1 were sampled, made in an instant."""

import math
from pathlib import Path

import numpy as np

from engine.record import store
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.spec import load_spec_text
from eos_tui.screens.theorem import PLOTS

from synthetic import ALPHA, BETA, EDGE, LEARNING_RATE, SPEC, THRESHOLD, rows_of

DELTA = math.sqrt(2 * ALPHA / BETA)
QUARTIC = 0.1 / DELTA**2
"""Of F(x) = (x² − QUARTIC·x⁴)/η, whose ratio at δ is 0.9."""
PLANE_X, PLANE_Y = 5 * DELTA * np.cos(np.pi * (np.arange(13)[::-1] + 0.5) / 13), 20 * np.cos(np.pi * (np.arange(7)[::-1] + 0.5) / 7)


def valley(x, y):
    """The loss in the plane of u and ∇S⊥, to third order."""
    return x**2 / LEARNING_RATE + y * (x**2 - DELTA**2) / 2


def a_reading(**changed) -> dict[str, np.ndarray]:
    """A reading of a whole spectrum: a bulk about 0, and λ1, λ2 at 1.02 and 0.7 of 2/η, one of 1,000 eigenvalues each."""
    first, second, width = 1.02 * THRESHOLD, 0.7 * THRESHOLD, THRESHOLD / 100
    grid = np.linspace(-10 * width, first + 5 * width, 401)
    shares = {0.0: 0.998, second: 0.001, first: 0.001}
    density = sum(share * np.exp(-(((grid - at) / width) ** 2) / 2) / (math.sqrt(2 * math.pi) * width) for at, share in shares.items())
    return {
        "nodes": np.zeros((8, 40)), "weights": np.full((8, 40), 1 / 40), "width": np.array(width), "grid": grid, "density": density,
        "eigenvalues": np.array([first, second]), "gauss_newton": np.array([0.987, 1.012]), "gauss_newton_absent": np.array(""),
        "layers": np.array(["Dense_0/bias", "Dense_0/kernel", "Dense_1/kernel"]), "layer_sizes": np.array([8, 64, 928]),
        "layer_sharpness": np.array([-0.5, 0.25 * first, 0.5 * first]), "parameters": np.array(1000),
        "learning_rate": np.array(LEARNING_RATE), "threshold": np.array(THRESHOLD),
    } | changed


def sampled(where: Path, last: int = 400, every: int = 50, spec: str = SPEC, **changed) -> Run:
    """A run whose loss along u is sub-quadratic in every sample, and whose theorem claims nothing in every fourth step."""
    run = store.create(load_spec_text(spec, "a test"), "sampled", where)
    rows = rows_of(run, 0, last)
    step = rows[:, 0]
    due = (step >= EDGE) & ((step - EDGE) % every == 0)
    x = DELTA * np.linspace(-5, 5, 51)
    values = {
        "landscape.ratio": np.where(due, 0.9, np.nan), "landscape.limit": np.where(due, 0.6 * THRESHOLD, np.nan),
        "landscape.limit_turned": np.where(due, 0.61 * THRESHOLD, np.nan),
        "theorem.hypothesis": np.where(step % 4 == 3, 0.0, 1.0), "transported.horizon": np.nan, "transported.since_anchor": step - EDGE,
        "generalized.horizon": 37.0, "generalized.since_anchor": step - EDGE, "generalized.correlation": 0.987, "unrolled.x": 0.25,
    } | {name: 0.1 for plot in PLOTS for name in (plot.curves[0].column,)} | {plot.curves[1].column: 0.2 for plot in PLOTS}
    for name, value in (values | {name.replace("__", "."): value for name, value in changed.items()}).items():
        if name in run.index:
            rows[:, run.index[name]] = np.where(step >= EDGE, value, np.nan)
    with Writer(run) as writer:
        writer.append(rows)
        for at in step[due].astype(int).tolist():
            even = (x**2 - QUARTIC * x**4) / LEARNING_RATE
            writer.curve(at, {"x": x, "F": even + x, "F_even": even, "quadratic": x**2 / LEARNING_RATE, "delta": np.array(DELTA),
                              "plane_x": PLANE_X, "plane_y": PLANE_Y, "plane": valley(PLANE_X[:, None], PLANE_Y)})
    return run
