"""A run with two directions at the edge, made in an instant: θ† known exactly, and gradient descent about it by (3_k)."""

from pathlib import Path

import numpy as np

from engine.phases import averages
from engine.record import messages, store
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer
from engine.spec import load_spec_text

from synthetic import LEARNING_RATE, SPEC, THRESHOLD

EDGE, JOINS = 60, 240
"""Steps at which the first direction reaches the edge, and the second."""
BETA = 20_000.0
COVARIANCE = 1e-4 * np.array([[5.0, 1.2, 0.0], [1.2, 3.0, 0.5], [0.0, 0.5, 2.0]])
"""X† of three directions; of fewer, its first rows and columns."""
SEVERAL_SPEC = SPEC + '[tracking]\non_second_eigenvalue = "follow"\nmax_eigenvalues = 4\n'


def orbit(covariance: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """x of (3_k), x ← −(I + ηY)x, Y ← Y + (ηβ/2)(X† − xxᵀ), (steps, k): begun at its predicted size, where Y is 0."""
    k, eta = len(covariance), LEARNING_RATE
    x = np.linalg.cholesky(covariance) @ np.random.default_rng(seed).standard_normal(k)
    Y, path = np.zeros((k, k)), []
    for _ in range(steps):
        path.append(x)
        x, Y = -(x + eta * Y @ x), (1 - 0.2 * eta) * Y + eta * BETA / 2 * (covariance - np.outer(x, x))  # damped: it keeps its size
    return np.array(path).reshape(-1, k)


def several_rows(run: Run, steps: int, count: int = 2, ranks: int | None = None, seed: int = 1) -> np.ndarray:
    """Rows of the steps 0 to `steps`, with `count` directions at the edge from `JOINS` on, of which `ranks` swing."""
    ranks = count if ranks is None else ranks
    rows, step, two = np.full((steps, len(run.columns)), np.nan), np.arange(steps, dtype=float), min(JOINS, steps)

    def put(name: str, values, start: int = 0, stop: int = steps) -> None:
        rows[start:stop, run.index[name]] = np.broadcast_to(values, (steps,))[start:stop]

    x, covariance = np.zeros((steps, count)), np.zeros((steps, count, count))
    x[EDGE:two, 0] = orbit(COVARIANCE[:1, :1], two - EDGE, seed)[:, 0]
    x[two:, :ranks] = orbit(COVARIANCE[:ranks, :ranks], steps - two, seed)
    covariance[EDGE:, 0, 0] = COVARIANCE[0, 0]
    covariance[two:, :ranks, :ranks] = COVARIANCE[:ranks, :ranks]
    trace, square = np.trace(covariance, axis1=1, axis2=2), (x**2).sum(axis=1)
    eigenvalues = np.linalg.eigvalsh(covariance)[:, ::-1]
    base, second = 0.3 * np.exp(-step / 900), np.interp(step, [0, EDGE, JOINS], [0.5, 0.7, 1.0]) * THRESHOLD
    number, alpha = np.where(step < two, 1.0, count), BETA / 2 * COVARIANCE[0, 0]
    put("gd.sharpness", np.minimum(THRESHOLD, 40 + step), 0, EDGE)
    for name, values in {
        "step": step, "time": LEARNING_RATE * step, "learning_rate": LEARNING_RATE, "threshold": THRESHOLD,
        "gd.loss": base + THRESHOLD / 2 * square, "gd.gradient_norm": np.sqrt(1e-4 + THRESHOLD**2 * square),
    }.items():
        put(name, values)
    for name, values in {
        "gd.sharpness": THRESHOLD * 1.01, "gd.lambda2": second, "gd.lambda3": 0.6 * THRESHOLD, "gd.x": x[:, 0], "gd.y": 0.0,
        "gd.distance": np.sqrt(square), "constrained.loss": base, "constrained.sharpness": THRESHOLD, "constrained.lambda2": second,
        "constrained.lambda3": second if count > 2 else 0.6 * THRESHOLD, "constrained.alpha": alpha, "constrained.beta": BETA,
        "constrained.delta": np.sqrt(COVARIANCE[0, 0]), "constrained.epsilon": LEARNING_RATE * np.sqrt(alpha),
        "constrained.gradient_norm": 0.01, "constrained.directions": number, "constrained.active": np.minimum(number, ranks),
        "gd.x_norm": np.sqrt(square), "covariance.trace": trace, "stage": 3.0,
    }.items():
        put(name, values, EDGE)
    for i in range(count):
        begins = EDGE if i == 0 else two
        put(f"gd.x{i + 1}", x[:, i], begins)
        put(f"covariance.lambda{i + 1}", eigenvalues[:, i], begins)
        for j in range(i, count):
            put(f"covariance.x{i + 1}x{j + 1}", covariance[:, i, j], EDGE if j == 0 else two)
    table = {name: rows[EDGE:, place] for name, place in run.index.items()} | {
        "mean.loss": (base + THRESHOLD / 2 * trace)[EDGE:], "mean.gradient_squared": (1e-4 + THRESHOLD**2 * trace)[EDGE:],
    }
    for name, values in averages.observe(averages.begin(), table)[1].items():
        rows[EDGE:, run.index[name]] = values
    return rows


def make_several(
    where: Path, steps: int = 700, name: str = "several", count: int = 2, ranks: int | None = None, finished: bool = True
) -> Run:
    """A run of so many steps with `count` directions at the edge from `JOINS` on, of which `ranks` swing."""
    run = store.create(load_spec_text(SEVERAL_SPEC, "a test"), name, where)
    with Writer(run) as writer:
        writer.append(several_rows(run, steps, count, ranks))
        writer.event(messages.EdgeReached(step=EDGE, text=f"the sharpness reached 2/η = {THRESHOLD:g}", sharpness=THRESHOLD))
        outcome = Outcome(kind="completed", step=steps - 1, text=f"completed {steps - 1} steps") if finished else None
        writer.state(State(status="finished" if finished else "paused", phase="edge", step=steps - 1, learning_rate=LEARNING_RATE,
                           device="cpu", precision="float64", outcome=outcome))
    return run
