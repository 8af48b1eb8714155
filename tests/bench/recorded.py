"""Recorded runs: how fast the small ones go, what a viewer costs, how soon the first step is there, and what memory follows n.

    python -m engine bench runs [--rounds N] [--json]

The engine that a viewer is attached to is held to one core and the viewer to the others, so that one is to spare; its rate is that
of alternating stretches with and without the viewer. First steps are those of `eos demo`, from the command to the row on disk.
"""

import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine import spec as specs
from engine.phases import memory
from engine.problems import build
from engine.process.runner import Runner
from engine.record import store
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.xla.device import configure, device_words

ROOT = Path(__file__).parents[2]
STRETCH_SECONDS = 8.0
GOALS = {
    "toy_rate": "≥ 20,000", "phase_rate": "≥ 20,000", "viewer_ratio": "≥ 0.97", "cold_s": "≤ 6", "cached_s": "≤ 3", "memory_ratio": "flat",
}
WORDS = {
    "toy_rate": "steps a second of the toy, recorded", "phase_rate": "steps a second of the phase portrait, recorded",
    "viewer_ratio": "rate with a viewer attached, of that without", "cold_s": "seconds to the first recorded step, nothing compiled",
    "cached_s": "the same with compiled code on disk", "memory_ratio": "temporaries of ∇S at n = 10,000, of those at 1,000",
}


def main(rounds: int = 5, as_json: bool = False) -> int:
    """Measure, and print a table or JSON."""
    configure()
    measured = {
        "toy_rate": rate("toy", rounds), "phase_rate": rate("phase", rounds), "viewer_ratio": viewer(rounds), **first_step(rounds),
        "memory_ratio": memory_ratio(),
    }
    if as_json:
        print(json.dumps(measured | {"device": device_words()}, indent=1))
        return 0
    table = Table(title=f"Recorded runs ({device_words()})")
    for heading in ("what", "goal", "measured"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, value in measured.items():
        table.add_row(WORDS[name], GOALS[name], f"{value:,.0f}" if value > 100 else f"{value:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def rate(preset: str, rounds: int) -> float:
    """Steps a second of a preset's run with everything written, from the first row on: all is compiled by then."""
    rates = []
    with tempfile.TemporaryDirectory() as home:
        for k in range(rounds + 1):
            run = store.create(specs.load_spec(preset), f"r{k}", Path(home))
            with Writer(run) as writer:
                blocks = Runner(run, writer).blocks()
                first = next(len(block) for block in blocks if len(block))
                began = time.perf_counter()
                steps = sum(len(block) for block in blocks)
                rates.append(steps / (time.perf_counter() - began))
            assert first + steps == run.row_count()
    return statistics.median(rates[1:])


def viewer(rounds: int) -> float:
    """The rate of an engine with a viewer attached over the rate without."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return float("nan")
    ratios = []
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "EOS_HOME": home, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        engine = _started(
            ["-m", "engine", "run", "digits", "--name", "watched", "--set", "budget.steps=1000000", "--set", "budget.edge_steps=0",
             "--set", "tracking.on_second_eigenvalue=keep"], env, cores[:1])
        try:
            path = Path(home) / "watched" / "metrics.f64"
            _wait(lambda: path.exists() and path.stat().st_size > 0, engine)
            run = Run(path.parent)
            _wait(lambda: run.row_count() and run.rows()[-1, run.index["constrained.loss"]] > 0, engine)
            time.sleep(5)  # everything is compiled
            for _ in range(rounds):
                alone = _rows_a_second(run)
                master, slave = pty.openpty()
                view = _started(["-m", "eos_tui", "attach", "watched"], env, cores[1:], slave)
                time.sleep(3)
                os.set_blocking(master, False)
                ratios.append(_rows_a_second(run, master) / alone)
                view.terminate()
                view.wait()
                os.close(master)
                os.close(slave)
        finally:
            engine.terminate()
            engine.wait()
    return statistics.median(ratios)


def _rows_a_second(run: Run, master: int | None = None) -> float:
    """Rows recorded over a stretch, what a viewer draws being read."""
    began, first = time.perf_counter(), run.row_count()
    while time.perf_counter() < began + STRETCH_SECONDS:
        time.sleep(0.02)
        if master is not None:
            with suppress(BlockingIOError):
                os.read(master, 1 << 16)
    return (run.row_count() - first) / (time.perf_counter() - began)


def first_step(rounds: int) -> dict[str, float]:
    """Seconds from the command to the first row, cold and with compiled code."""
    cold, cached = list[float](), list[float]()
    for _ in range(max(1, rounds // 2)):
        with tempfile.TemporaryDirectory() as folder:
            for seconds in (cold, cached):
                home = Path(folder) / ("cold" if seconds is cold else "cached")
                env = {**os.environ, "EOS_HOME": str(home), "EOS_CACHE": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
                began = time.perf_counter()
                engine = _started(["-m", "eos_tui", "demo", "--headless", "--name", "first"], env)
                path = home / "first" / "metrics.f64"
                _wait(lambda path=path: path.exists() and path.stat().st_size > 0, engine)
                seconds.append(time.perf_counter() - began)
                if seconds is cold:
                    time.sleep(20)  # what is compiled beside the approach is kept as well
                engine.terminate()
                engine.wait()
    return {"cold_s": statistics.median(cold), "cached_s": statistics.median(cached)}


def memory_ratio() -> float:
    """Temporaries of ∇S in micro-batches of 500, as the compiler tells them."""
    needed = []
    for count in (1_000, 10_000):
        tree = {
            "name": "n", "optimizer": {"learning_rate": 0.1},
            "problem": {
                "kind": "network", "criterion": "half_mse", "micro_batch": 500, "model": {"kind": "mlp", "widths": [200, 200]},
                "data": {"name": "chebyshev", "examples": count, "standardize": "none"},
            },
        }
        loss, theta, _ = build.build(specs.from_tree(tree, "bench"))
        needed.append(memory.estimate(loss, theta).third_derivative)
    return needed[1] / needed[0]


def _started(command: list[str], env: dict[str, str], cores: list[int] | None = None, terminal: int | None = None) -> subprocess.Popen:
    quiet = subprocess.DEVNULL if terminal is None else terminal
    began = subprocess.Popen(
        [sys.executable, "-P", *command], env=env, cwd=ROOT, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    if cores:
        os.sched_setaffinity(began.pid, cores)
    return began


def _wait(there, engine: subprocess.Popen) -> None:
    while not there():
        if engine.poll() is not None:
            raise SystemExit(f"the engine ended with status {engine.returncode}")
        time.sleep(0.005)
