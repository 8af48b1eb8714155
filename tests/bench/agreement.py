"""How far two runs of one specification agree, step by step: on two devices, or in two number formats.

    python tests/bench/agreement.py RUN RUN [--tolerance T] [--json]

Near the edge a difference of rounding grows with every burst, so agreement has a horizon. Told are the largest relative
differences before the edge, and the steps after it for which each quantity keeps within the tolerance: loss and sharpness
relative to themselves (the sharpness of θ† is held at 2/η, its loss is not), |x| relative to the larger of |x| and δ.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import engine

QUANTITIES = {"L(θ)": "gd.loss", "S(θ)": "gd.sharpness", "|x|": "gd.x", "L(θ†)": "constrained.loss", "S(θ†)": "constrained.sharpness"}


def compare(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], tolerance: float) -> dict[str, Any]:
    """The agreement of two records. Raises SystemExit where one has no edge, or they share no step past it."""
    steps = np.intersect1d(first["step"], second["step"])
    rows = [np.searchsorted(record["step"], steps) for record in (first, second)]

    def both(column: str) -> tuple[np.ndarray, np.ndarray]:
        return first[column][rows[0]], second[column][rows[1]]

    tracked = [record["step"][np.isfinite(record["constrained.loss"])] for record in (first, second)]
    if not len(np.intersect1d(*tracked)):
        raise SystemExit("the runs share no step at which both follow θ†; compare two that reached their edge")
    edges = [int(steps_there[0]) for steps_there in tracked]
    a, b = both("gd.loss")
    before = steps < min(edges)
    gaps: dict[str, Any] = {"edge": edges, "loss_before_edge": float(np.max(np.abs(a - b)[before] / np.abs(a)[before], initial=0))}
    after = steps >= max(edges)
    delta = first["constrained.delta"][rows[0]]
    for label, column in QUANTITIES.items():
        a, b = (np.abs(part) for part in both(column))
        scale = np.fmax(a, np.nan_to_num(delta)) if column == "gd.x" else a
        off = (np.abs(a - b) / scale)[after]
        beyond = np.flatnonzero(~(off <= tolerance))
        gaps[label] = {"largest_first_20": float(np.max(off[:20])), "steps_within": int(beyond[0]) if len(beyond) else None}
    gaps["edge_steps"] = int(np.sum(after))
    return gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, help="folders of two runs")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    one, other = map(engine.load, given.runs)
    gaps = compare(one, other, given.tolerance)
    if given.json:
        print(json.dumps(gaps))
        return
    print(f"edge at {gaps['edge'][0]} and {gaps['edge'][1]}; the loss before it differs by at most {gaps['loss_before_edge']:.1e}")
    for label in QUANTITIES:
        part = gaps[label]
        within = f"all {gaps['edge_steps']}" if part["steps_within"] is None else f"{part['steps_within']} of {gaps['edge_steps']}"
        print(f"{label:6} {part['largest_first_20']:.1e} over the first 20 steps; within {given.tolerance:g} for {within}")


if __name__ == "__main__":
    main()
