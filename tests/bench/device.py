"""One card in eight minutes: what eos takes there, and whether it gives there what it gives on a CPU.

    python -m engine bench device FOLDER --prepare [--small]     on CPUs, as long as it takes
    python -m engine bench device FOLDER [--small] [--json]      on the card, at most eight minutes

Prepared are the trajectories that runs on the card are compared with. They are made, not kept with the sources: they are those of the code,
the presets and the versions at hand, and a stored one would differ for other reasons than the device.

Each item is a process of its own with seconds of its own, so that it may be ended in the midst of a compilation, and its peak of memory is
its own; what one leaves of its time, later ones have. An item writes each figure to `results/` as soon as it has it: whatever ends this
loses none. The items are in the order of what they are worth. `--small` is the same at small sizes, for a test of it on CPUs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from engine.base import atomic
from engine.base.clone import commit
from engine.base.errors import UserError
from engine.jobs import launch

ALL_SECONDS = 480.0
"""For everything on the card."""
ROUNDS, EDGE_STEPS, TOLERANCE = 3, 150, 1e-2
COLUMNS = ("step", "gd.loss", "gd.sharpness", "gd.x", "constrained.loss", "constrained.sharpness", "constrained.delta")
"""What a prepared trajectory has: what `agreement` compares."""
AGREEMENT = ("digits", "fashion", "fashion-cnn")
IN_FLOAT64 = [f"precision.{part}=float64" for part in ("approach", "edge", "curvature")]
SMALL_PROBLEM = {
    "data": {"name": "digits", "examples": 60}, "model": {"kind": "mlp", "widths": [8], "activation": "tanh"}, "criterion": "mse",
}
FULL_SHAPES = {"fig4-mlp": "fig4-mlp", "ResNet18": "appendix-resnet"}
"""Presets on pictures of CIFAR-10's shape, which are generated here: 5,000 of 32×32×3."""

Emit = Callable[[str, Any], None]
"""Writes a figure by its name."""


class Item(NamedTuple):
    """What is measured in one process."""

    seconds: float
    """After which it is ended."""
    measure: Callable[[Path, bool, Emit], None]
    """(folder, small, emit)."""


def problem(name: str, folder: Path, small: bool, emit: Emit) -> None:
    """The tracked step against the published procedure and its floor, and plain gradient descent against a bare scan."""
    del folder
    import jax
    import tracked

    from engine.dynamics.descent import DESCENT_CHUNK, descend
    from engine.problems.build import build

    spec = tracked.spec_of(name, SMALL_PROBLEM if small else tracked.PROBLEMS[name])
    loss, theta, _ = build(spec)
    setup, state = tracked.brought_to_edge(spec, loss, theta, 1 if small else 12)
    emit("parameters", theta.size)
    timed = tracked.in_turn(setup, state, 1 if small else ROUNDS)
    published_s, single_s, alike_s, ours_s, floor_s = timed.medians()
    emit("published_s", published_s)
    emit("without_statistics_s", single_s)
    emit("alike_s", alike_s)
    emit("eos_s", ours_s)
    emit("floor_s", floor_s)
    emit("eigen_residual", max(row["constrained.eigen_residual"] for row in timed.rows))
    eta = float(timed.state.optimizer.learning_rate)
    emit("constraint_residual", max(row["constrained.sharpness_gap"] for row in timed.rows) * eta / 2)
    start, scan = timed.state.center.theta.astype("float32"), tracked.scan_of(eta / 4)
    rate = setup.optimizer.init(start, loss.unravel, eta / 4)

    def plain() -> None:
        jax.block_until_ready(descend(loss, setup.optimizer, start, rate, DESCENT_CHUNK).theta)

    def bare() -> None:
        jax.block_until_ready(scan(loss, start))

    seconds = alternated((plain, bare), 1 if small else ROUNDS)
    emit("plain_rate", DESCENT_CHUNK / seconds[0])
    emit("scan_rate", DESCENT_CHUNK / seconds[1])
    emit("peak_bytes", peak_bytes())


def agreement(name: str, folder: Path, small: bool, emit: Emit) -> None:
    """A run against the one that was prepared on CPUs, both in float64 throughout."""
    import agreement as agreements

    prepared = dict(np.load(folder / "trajectories" / f"{name}.npz"))
    for key, value in agreements.compare(prepared, trajectory(name, small), TOLERANCE).items():
        emit(key, value)


def trajectory(name: str, small: bool) -> dict[str, np.ndarray]:
    """The columns of a run that goes so many steps past its edge, in float64 throughout; of the toy where it is to be small."""
    import engine

    overrides = [*IN_FLOAT64, f"budget.edge_steps={EDGE_STEPS}", "tracking.gauges_every=0", "tracking.landscape_every=0"]
    record = engine.run("toy", overrides=["budget.steps=40", "tracking.flow=false"]) if small else engine.run(name, overrides=overrides)
    return {column: record[column] for column in COLUMNS}


def full_shapes(name: str, folder: Path, small: bool, emit: Emit) -> None:
    """Derivatives and tracked steps of a preset of CIFAR-10's shape on generated pictures, these after some steps, with 2/η the
    sharpness there: from where a network begins θ† can be out of reach."""
    del folder
    import jax
    import published
    import tracked

    from engine import spec as specs
    from engine.curvature.expansion import grad_sharpness
    from engine.data import Dataset
    from engine.problems import losses
    from engine.problems.build import learning_of

    given = specs.load_spec(FULL_SHAPES[name], SMALL_SHAPES[name] if small else ()).problem
    assert isinstance(given, specs.Network)
    count, rng = given.data.examples, np.random.default_rng(0)
    pictures = rng.standard_normal((count, *((8, 8, 3) if small else (32, 32, 3))), np.float32)
    targets = np.where(np.arange(count) % 2, 1, -1).astype(np.float32)[:, None]
    network = learning_of(given, Dataset("generated", pictures, targets, 2, "normal numbers"), 0)
    theta = network.theta
    loss = network.mean(losses.CRITERIA[given.criterion], network.batches(pictures, targets), count)
    emit("parameters", theta.size)
    emit("examples", count)
    vector = theta.astype("float32") / np.linalg.norm(theta)
    calls: dict[str, Callable[[], Any]] = {
        "gradient_f32_s": lambda: published.gradient(loss, theta.astype("float32")),
        "gradient_f64_s": lambda: published.gradient(loss, theta), "hvp_s": lambda: published.product(loss, theta, vector),
        "grad_sharpness_s": lambda: grad_sharpness(loss, theta, vector, "float32"),
    }
    for key, call in calls.items():
        jax.block_until_ready(call())
        (seconds,) = alternated((lambda call=call: jax.block_until_ready(call()),), 1 if small else ROUNDS)
        emit(key, seconds)
    emit("derivatives_peak_bytes", peak_bytes())
    tracking_of = tracked.spec_of(name, SMALL_PROBLEM)  # its problem is none of this one: the loss is given
    setup, state = tracked.brought_to_edge(tracking_of, loss, theta, 1)
    began = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(tracked.some_steps(setup, state, ROUNDS)))
    emit("eos_s", (time.perf_counter() - began) / ROUNDS)
    emit("peak_bytes", peak_bytes())


SMALL_SHAPES = {
    "fig4-mlp": ["problem.data.examples=20", "problem.model.widths=[8]"],
    "ResNet18": ["problem.data.examples=20", "problem.micro_batch=10", "problem.model.widths=[4]", "problem.model.blocks=1"],
}


def first_step(folder: Path, small: bool, emit: Emit) -> None:
    """Seconds to the first recorded step of `eos demo`, with nothing compiled and with compiled code at hand."""
    del folder, small
    import recorded

    for key, seconds in recorded.first_step(1).items():
        emit(key, seconds)


def small_matrices(folder: Path, small: bool, emit: Emit) -> None:
    """Seconds of an eigenvalue problem of so many rows, by the platform's library and by operations of XLA: of a random matrix, and of one
    that is nearly diagonal."""
    del folder
    import jax
    import jax.numpy as jnp

    from engine.xla import jacobi

    rng = np.random.default_rng(0)
    for rows in (3,) if small else (2, 8, 12, 32, 64):
        random = rng.standard_normal((rows, rows))
        for kind, matrix in (("random", random + random.T), ("near", np.diag(np.arange(rows)) + 1e-3 * (random + random.T))):
            on_device = jnp.asarray(matrix)
            ways = [jax.jit(lambda a: tuple(jnp.linalg.eigh(a))), jacobi.eigh]
            calls = [partial(ten, way, on_device) for way in ways]
            for call in calls:
                call()
            library, xla = alternated(calls, 1 if small else 2 * ROUNDS)
            emit(f"library_{rows}_{kind}_s", library / 10)
            emit(f"xla_{rows}_{kind}_s", xla / 10)


def ten(function: Callable[[Any], Any], matrix: Any) -> None:
    """Ten calls, one after the other as each depends on the last."""
    import jax

    for _ in range(10):
        values, _ = function(matrix)
        matrix = matrix + 0 * values
    jax.block_until_ready(matrix)


PROBLEMS = ("digits", "fashion-1000", "fashion-5000", "fashion-cnn", "transformer")
ITEMS: dict[str, Item] = {
    **{f"problem {name}": Item(60, partial(problem, name)) for name in PROBLEMS}, "small matrices": Item(30, small_matrices),
    **{f"agreement {name}": Item(45, partial(agreement, name)) for name in AGREEMENT},
    **{f"shapes {name}": Item(60, partial(full_shapes, name)) for name in FULL_SHAPES},
    "first step": Item(75, first_step),
}
"""In their order. Together they may take more than there is: what comes last is then left out, and said to be."""
SMALL_ITEMS = ("problem digits", "agreement digits", "shapes fig4-mlp", "shapes ResNet18", "small matrices")


def alternated(calls: Any, rounds: int) -> list[float]:
    """Median seconds of each call, taken in turn after one that is not counted."""
    taken: list[list[float]] = [[] for _ in calls]
    for counted in (False, *[True] * rounds):
        for call, seconds in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            seconds.extend([time.perf_counter() - began] * counted)
    return [statistics.median(seconds) for seconds in taken]


def peak_bytes() -> int | None:
    """The most memory of the device that this process has had; None where the device does not tell, as a CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def facts() -> dict[str, Any]:
    """The device, its driver, versions, the commit and the date."""
    from engine.xla.device import device_words, version_of

    driver, source = None, commit()
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout.split("\n")[0] or None
    return {
        "device": device_words(), "driver": driver, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {name: version_of(name) for name in ("eos-tui", "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin")},
        "eos": None if source is None else source._asdict(),
    }


def prepare(folder: Path, small: bool) -> int:
    """Make the folder, and in it the trajectories of CPUs."""
    from engine.xla.device import configure

    os.environ["JAX_PLATFORMS"] = "cpu"
    (folder / "trajectories").mkdir(parents=True, exist_ok=True)
    os.environ["EOS_HOME"] = str(folder / "runs-cpu")
    configure()
    for name in [item.split(" ", 1)[1] for item in names(small) if item.startswith("agreement ")]:
        print(f"{name}, in float64 to some steps past its edge …", file=sys.stderr, flush=True)
        with atomic.write(folder / "trajectories" / f"{name}.npz") as handle:
            np.savez_compressed(handle, allow_pickle=False, **trajectory(name, small))
    with atomic.write(folder / "prepared.json") as handle:
        handle.write(json.dumps({"small": small, **facts()}, indent=1).encode())
    return 0


def names(small: bool) -> tuple[str, ...]:
    """The items that are measured."""
    return SMALL_ITEMS if small else tuple(ITEMS)


def measure(folder: Path, items: dict[str, float], command: Callable[[str], list[str]], seconds: float = ALL_SECONDS) -> dict[str, Any]:
    """The figures by item, each measured by a `command` of its own within its seconds and what is left of all; `ended` says how it went.
    They stand in `device.json` after each."""
    end = time.monotonic() + seconds
    results, figures = folder / "results", dict[str, Any]()
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    spare = max(0.0, seconds - sum(items.values()))
    for name, own in items.items():
        left, began = end - time.monotonic(), time.monotonic()
        path = results / f"{name.replace(' ', '-')}.jsonl"
        if left < min(own, 10):
            ended = "skipped: no time was left"
        else:
            within = min(own + spare, left)
            with (results / f"{path.stem}.log").open("wb") as log:
                started = subprocess.Popen(
                    [*command(name), str(path)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=launch.environment(), cwd=folder
                )
                try:
                    status = started.wait(within)
                    ended = "measured" if status == 0 else f"failed with status {status}: {log.name}"
                except subprocess.TimeoutExpired:
                    started.kill()
                    started.wait()
                    ended = f"cut off after {within:.0f} s"
        took = time.monotonic() - began
        spare = max(0.0, spare + own - took)  # what one leaves, later ones have
        figures[name] = {"ended": ended, "took_s": round(took, 1), **read(path)}
        with atomic.write(folder / "device.json") as handle:
            handle.write(json.dumps(figures, indent=1).encode())
        print(f"{name}: {ended}, {took:.0f} s", file=sys.stderr, flush=True)
    return figures


def read(path: Path) -> dict[str, Any]:
    """The figures that an item has come to, a line each; a last line that was cut off is none."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return {key: value for line in lines if line.endswith("\n") for key, value in json.loads(line).items()}


def main(folder: Path, prepared: bool = False, small: bool = False, as_json: bool = False) -> int:
    """Prepare the folder, or measure with what is prepared there; a table, and `device.json` in the folder."""
    folder = folder.absolute()
    if prepared:
        return prepare(folder, small)
    if not (folder / "prepared.json").is_file():
        raise UserError(f"{folder}: nothing is prepared there; expected a folder of `bench device {folder} --prepare`, made on CPUs")
    if json.loads((folder / "prepared.json").read_text())["small"] != small:
        raise UserError(f"{folder}: prepared {'at full size' if small else 'with --small'}; expected --small in both or in neither")
    given = ["--small"] if small else []

    def command(name: str) -> list[str]:
        return [*launch.python(), __file__, str(folder), name, *given]

    figures = measure(folder, {"facts": 30.0, **{name: ITEMS[name].seconds for name in names(small)}}, command)
    print(json.dumps(figures, indent=1) if as_json else table(figures))
    return 0


def table(figures: dict[str, Any]) -> str:
    """The figures as lines: what each item was, and each figure, in seconds, ratios and bytes."""
    about = figures.get("facts", {})
    lines = [f"{about.get('device')}, driver {about.get('driver')}, jax {about.get('versions', {}).get('jax')}, {about.get('date')}"]
    heads = "problem               published s  alike s    eos s  floor s   faster  alike  over floor  plain/scan".rstrip()
    problems = {name.split(" ", 1)[1]: each for name, each in figures.items() if name.startswith("problem ")}
    lines += ["", heads, *(_row(name, each) for name, each in problems.items())]
    for name, each in figures.items():
        if not name.startswith("problem ") and name != "facts":
            numbers = ", ".join(f"{key} {_number(value)}" for key, value in each.items() if key not in ("ended", "took_s"))
            lines += ["", f"{name} ({each['ended']})", f"  {numbers or 'nothing'}"]
    return "\n".join(lines)


def _row(name: str, each: dict[str, Any]) -> str:
    def ratio(above: str, below: str) -> float:
        return each.get(above, np.nan) / each.get(below, np.nan)

    seconds = [each.get(key, np.nan) for key in ("published_s", "alike_s", "eos_s", "floor_s")]
    ratios = [ratio("published_s", "eos_s"), ratio("alike_s", "eos_s"), ratio("eos_s", "floor_s"), ratio("plain_rate", "scan_rate")]
    ended = "" if each["ended"] == "measured" else f"  ({each['ended']})"
    return f"{name:20} {seconds[0]:12.4f} {seconds[1]:8.4f} {seconds[2]:8.4f} {seconds[3]:8.4f}" + "".join(
        f"{value:{width}.2f}×" for value, width in zip(ratios, (8, 6, 11, 11), strict=True)
    ) + ended


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def work() -> None:
    """Be the process of one item."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("item")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()

    def emit(key: str, value: Any) -> None:
        with given.out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({key: value}) + "\n")

    from engine.xla.device import configure

    os.environ["EOS_HOME"] = str(given.folder / "runs")
    os.environ["EOS_CACHE"] = str(given.folder / "compiled")
    configure()
    if given.item == "facts":
        for key, value in facts().items():
            emit(key, value)
    else:
        ITEMS[given.item].measure(given.folder, given.small, emit)


if __name__ == "__main__":
    work()
