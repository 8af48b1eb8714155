"""What `eos help extending` says of an addition is made so, in a copy of the tree: by edits of the files that its row names and of no
others, after which it works, and does not where one of them is left out.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from places import ROOT, TESTS

COPIED = ("engine", "eos_tui", "presets", "pyproject.toml")


class Edit(NamedTuple):
    """What is done to a file."""

    at: str
    """A line that the file has once, as a regular expression; empty for a new file."""
    text: str
    """What comes in its place, with its groups; all of a new file."""
    without: str
    """What is said where this edit is left out."""


SECTION = '''class Divided(Optimizer, frozen=True, kw_only=True, tag_field="kind", tag="divided"):
    """Gradient descent with a part of its step: θ ← θ − (η/d)∇L(θ)."""

    divisor: Positive = 2.0
    """d."""


'''
OPTIMIZER = '''class DividedState(NamedTuple):
    """What a divided step needs."""

    learning_rate: Array  # () η
    taken: Array  # () steps


def divided(section: sections.Divided) -> Optimizer:
    """θ ← θ − (η/d)∇L(θ), stable on a quadratic while S ≤ 2d/η."""

    def step(theta: Array, state: DividedState, gradient: Array, gradient_at: Gradient) -> tuple[Array, DividedState]:
        moved = theta - (state.learning_rate / section.divisor * gradient).astype(theta.dtype)
        return moved, state._replace(taken=state.taken + 1)

    return Optimizer(
        lambda theta, unravel, learning_rate: DividedState(jnp.asarray(learning_rate, jnp.float64), jnp.zeros((), int)),
        step, lambda state: jnp.ones(()), lambda state: section.divisor * theory.threshold(state.learning_rate),
    )


'''
STILL = '''"""A point that stays where it began."""

from typing import NamedTuple

from jax import Array

from engine.curvature.expansion import loss_and_gradient
from engine.dynamics.trajectory import Costs, Trajectory
from engine.xla.reductions import norms


class StillState(NamedTuple):
    """Where it is."""

    theta: Array  # (p,)


def measure(at, state):
    """Its loss."""
    return loss_and_gradient(at.problem, state.theta.astype(at.dtype))[0]


def step(at, state, loss):
    """The same state, and the row here."""
    row = {"still.loss": loss, "still.distance": norms(state.theta - at.center.theta)[0]}
    return state, row, Costs(0, 1, 0)


STILL = Trajectory(StillState, lambda at, tracking: StillState(at.theta), measure, step)
'''
LINEAR = '''class Linear(nn.Module):
    """A dense layer."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        return nn.Dense(self.outputs)(inputs.reshape(len(inputs), -1))


'''
ADDITIONS: dict[str, dict[str, tuple[Edit, ...]]] = {
    "an optimizer": {
        "engine/spec/sections.py": (
            Edit(r"AnyOptimizer = (.*)", SECTION + r"AnyOptimizer = \1 | Divided", 'kind = "divided"; expected'),
        ),
        "engine/dynamics/optimizers.py": (
            Edit(r"(OPTIMIZERS: .* = \{)(.*)", OPTIMIZER + r"\1sections.Divided: divided, \2", "KeyError"),
        ),
    },
    "a trajectory": {
        "eos_tui/draw/theme.py": (Edit(
            r"(FAMILIES: .* = \{)", '\\1\n    "still": Family("the start", Colours("#ff8fb1", "#9b3b5a", "ansi_red"), companion=True),',
            "KeyError: 'still'",
        ),),
        "engine/record/columns.py": (Edit(
            r"(BESIDE: .* = \{)", '\\1\n    "still": Beside("A point that stays.", lambda tracking: True, lambda tracking: (\n'
            '        Column("still.loss", "L(θ_0)", "loss where it began", "", "L(θ_0)", "eos"),\n'
            '        Column("still.distance", "‖θ_0−θ†‖", "distance of the start to θ†", "", "‖θ_0 − θ†_t‖", "eos"),\n    )),',
            "nothing drawn is recorded",
        ),),
        "engine/dynamics/still.py": (Edit("", STILL, "No module named 'engine.dynamics.still'"),),
        "engine/dynamics/trajectories.py": (
            Edit(r"(from engine\.dynamics\.flow .*)", r"\1" + "\nfrom engine.dynamics.still import STILL", "NameError"),
            Edit(r"(TRAJECTORIES: .* = \{)(.*)", r'\1"still": STILL, \2', "still.loss is not read"),
        ),
    },
    "a predicted form": {
        "engine/spec/sections.py": (
            Edit(r"Prediction = Literal\[(.*)\]", r'Prediction = Literal[\1, "frozen"]', "[tracking] predictions"),
        ),
        "engine/dynamics/predicted.py": (
            Edit(r"(FORMS: .* = \{)", '\\1\n    "frozen": Form(lambda at: Advanced(at.v)),', "KeyError: 'frozen.newly_lost'"),
        ),
        "engine/record/columns.py": (
            Edit(r"(PREDICTION_WORDS = \{)", '\\1\n    "frozen": ("prediction that stays", "eos"),', "KeyError: 'frozen'"),
        ),
    },
    "a model": {
        "engine/spec/sections.py": (Edit(
            r"Model = (.*)", '''class Linear(Section, frozen=True, kw_only=True, tag_field="kind", tag="linear"):
    """A dense layer."""


Model = \\1 | Linear''', 'kind = "linear"; expected',
        ),),
        "engine/problems/networks.py": (
            Edit(
                r"(NETWORKS: .* = \{)",
                LINEAR + "\\1\n    sections.Linear: lambda part, dataset, rematerialize: Linear(dataset.outputs),", "KeyError",
            ),
        ),
    },
    "a loss": {
        "engine/spec/sections.py": (Edit(r"Criterion = Literal\[(.*)\]", r'Criterion = Literal[\1, "quartic"]', "[problem] criterion"),),
        "engine/problems/losses.py": (Edit(
            r"(CRITERIA: .* = \{)", '''def quartic(outputs: Array, targets: Array) -> Array:
    """Σ(f − y)⁴."""
    return jnp.sum((outputs - targets.astype(outputs.dtype)) ** 4, axis=-1)


\\1
    "quartic": quartic,''', "KeyError: 'quartic'",
        ),),
    },
    "a gauge": {
        "engine/report/gauges.py": (Edit(
            r"(GAUGES: .* = \()", '\\1\n    Gauge("9", "η‖∇L‖", "O(1)", "assumption.speed", "bounded", "eos"),', "no gauge reads it",
        ),),
        "engine/record/columns.py": (Edit(
            r"(ASSUMPTIONS = \()", '\\1\n    Column("assumption.speed", "η‖∇L‖", "length of a step at θ†", "", "η‖∇L(θ†)‖", "eos"),',
            "it is not recorded",
        ),),
        "engine/phases/gauge_readings.py": (
            Edit(r"(    values = \{)", '\\1\n        "speed": eta * float(jnp.linalg.norm(center.grad)),', "it is not measured"),
        ),
    },
    "a plot": {
        "eos_tui/draw/panels.py": (Edit(
            r'(        PlotSpec\("loss", .*)', '        PlotSpec("rate", "learning rate η", (Curve("learning_rate", "η", "muted"),)),\n\\1',
            "no such plot",
        ),),
    },
    "a key": {
        "eos_tui/keys.py": (Edit(
            r"(TABLE: .* = \()",
            '\\1\n    Key("Z", "Z", "app.next_theme", "other colours", "The next theme, by another key.", "anywhere", EOS),', "no such key",
        ),),
    },
    "a setting": {
        "engine/spec/sections.py": (Edit(
            r"(    loss_goal: NonNegative = 0\.0)", '    patience: Count = 7\n    """Steps to wait, in vain."""\n\\1', "unknown key",
        ),),
    },
    "a topic": {
        "engine/help/text/additions.md": (Edit("", "What comes next.\n", "FileNotFoundError"),),
        "engine/help/topics.py": (Edit(
            r"(TOPICS: .* = \()", '\\1\n    Topic("additions", "Additions", _text("additions")),', '"additions": no such topic',
        ),),
    },
    "a topic of the view": {
        "eos_tui/topics/text/colours.md": (Edit("", "What is seen.\n", "FileNotFoundError"),),
        "eos_tui/topics/topics.py": (
            Edit(r"(TOPICS: .* = \()", '\\1\n    Topic("colours", "Colours", _text("colours")),', '"colours": no such topic'),
        ),
    },
    "a preset": {
        "presets/plain.toml": (Edit("", '''# The toy once more.
title = "Plain toy"
shows = "What the toy shows."
takes = "a second"

[problem]
kind = "toy"

[optimizer]
learning_rate = 0.02
''', 'preset "plain": not known'),),
    },
}
"""The edits of each addition by file: the first file is the one that a test of seconds leaves out, as that is seen without jax."""


# -- what is seen of an addition, in a process that has the copy


def seen_optimizer() -> None:
    """It takes its steps, is unstable above its own threshold, and its state goes on from a checkpoint."""
    from engine.spec import fields_of

    assert dict(fields_of(spec_of("an optimizer")))["optimizer.divisor"] == 2
    experiment, table = at_the_edge()
    assert set(table["threshold"]) == {200.0}
    assert set(table["learning_rate"]) == {0.02}
    assert_half_steps(table)
    state = experiment.phases[experiment.phase].optimizer_state(experiment.state)
    assert int(state.taken) == experiment.clock.step == STEPS
    leaves = experiment.leaves()
    from engine.phases.experiment import Experiment

    other = Experiment(experiment.spec)
    other.restore(leaves)
    other.advance(1)
    experiment.advance(1)
    for each in (experiment, other):
        assert int(each.phases[each.phase].optimizer_state(each.state).taken) == STEPS + 1
    assert (experiment.state.theta == other.state.theta).all()


def assert_half_steps(table) -> None:
    """∇L of the toy along z is −1 everywhere, and along y −α/√β + √β x²/2: what y and z do, the loss does at x = 0."""
    x2 = table["gd.x"][:-1] ** 2
    assert abs(table["gd.y"][1:] - table["gd.y"][:-1] - 0.01 * (1 - x2 / 2)).max() < 0.02  # y is about θ†, which moves no faster


def seen_trajectory() -> None:
    """It is drawn in its colour, its columns are recorded, and it is what it is."""
    from engine.help.tables import column_sections
    from engine.record.columns import columns_for
    from eos_tui.draw.panels import line_plots
    from eos_tui.draw.theme import role_color

    assert role_color("eos-dark", "still") == "#ff8fb1"
    drawn = [curve for plot in line_plots(columns_for(spec_of()), ()) for curve in plot.curves if curve.role == "still"]
    assert [curve.column for curve in drawn] == ["still.loss", "still.distance"], "nothing drawn is recorded"
    assert "still" in [section.name for section in column_sections()]
    _, table = at_the_edge()
    assert (table["still.loss"] == table["gd.loss"][0]).all(), "still.loss is not read"
    assert table["still.distance"][-1] > table["still.distance"][0]


def seen_form() -> None:
    """Its columns are recorded, and its displacement stays."""
    assert "frozen" in spec_of("a predicted form").tracking.predictions
    _, table = at_the_edge()
    assert abs(table["frozen.distance"] - table["gd.distance"][0]).max() < 1e-12
    assert table["frozen.since_anchor"][-1] == STEPS - 1


def seen_model() -> None:
    """Its outputs are W·x + b."""
    network_of(model="linear")
    problem, theta, inputs, targets = learnt()
    parameters = problem.unravel(theta)["Dense_0"]
    outputs = inputs.reshape(len(inputs), -1) @ parameters["kernel"] + parameters["bias"]
    power = 4 if "a loss" in ROWS else 2
    assert abs(problem.loss(theta) - ((outputs - targets) ** power).sum(axis=1).mean()) < 1e-6


def seen_loss() -> None:
    """At outputs of 0 it is the mean of y⁴."""
    network_of(criterion="quartic")
    problem, theta, _, targets = learnt()
    assert abs(problem.loss(0 * theta) - (targets**4).sum(axis=1).mean()) < 1e-6


def seen_gauge() -> None:
    """It is recorded where the others are, and has a colour."""
    from engine.record.columns import columns_for
    from engine.report.gauges import GAUGES, reading, verdict

    gauge = next((gauge for gauge in GAUGES if gauge.column == "assumption.speed"), None)
    assert gauge is not None, "no gauge reads it"
    assert "assumption.speed" in [column.name for column in columns_for(spec_of())], "it is not recorded"
    _, table = at_the_edge()
    value = reading(gauge, {name: column[0] for name, column in table.items()})
    assert abs(value - 0.02 * table["constrained.gradient_norm"][0]) < 1e-12, "it is not measured"
    assert verdict(gauge, value, 0.1, 1.9) == "green"


def seen_plot() -> None:
    """The dashboard of a run that has its columns has it."""
    from engine.record.columns import columns_for
    from eos_tui.draw.panels import line_plots

    assert "rate" in [plot.id for plot in line_plots(columns_for(spec_of()), ())], "no such plot"
    assert "rate" in dashboard()[0]


def seen_key() -> None:
    """Help tells of it, and it does what it says."""
    from eos_tui import keys

    assert "Z" in [key.shown for key in keys.table()], "no such key"
    assert "The next theme, by another key." in shown("help", "keys")
    before, after = dashboard()[1]
    assert before != after


def seen_setting() -> None:
    """It is read, and help tells of it."""
    from engine.spec import load_spec

    assert [load_spec("toy", changes).budget.patience for changes in (["budget.patience=9"], [])] == [9, 7]
    assert "Steps to wait, in vain." in shown("help", "budget.patience")


def seen_preset() -> None:
    """It can be run, and is listed."""
    from engine.spec import load_spec

    assert load_spec("plain").title == "Plain toy"
    assert "plain" in shown("presets")


SEEN: dict[str, Callable[[], None]] = {
    "an optimizer": seen_optimizer, "a trajectory": seen_trajectory, "a predicted form": seen_form, "a model": seen_model,
    "a loss": seen_loss, "a gauge": seen_gauge, "a plot": seen_plot, "a key": seen_key, "a setting": seen_setting,
    "a topic": lambda: texts("additions", "# Additions\n\nWhat comes next."),
    "a topic of the view": lambda: texts("colours", "# Colours\n\nWhat is seen."), "a preset": seen_preset,
}  # fmt: skip
ROWS = sys.argv[1:] if __name__ == "__main__" else []
"""The additions that this process looks at."""
STEPS = 40


def spec_of(*rows: str):
    """Appendix B in float64, with the optimizer and the form that are added by these rows."""
    from engine import spec as specs

    divided = {"kind": "divided"} if "an optimizer" in rows else {}
    forms = ["generalized", "transported", *(["frozen"] if "a predicted form" in rows else [])]
    return specs.from_tree(
        {
            "name": "toy", "problem": {"kind": "toy", "x0": 0.3, "threshold": 200.0 if divided else 100.0},
            "optimizer": {"learning_rate": 0.02} | divided,
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
            "tracking": {"predictions": forms, "sharpness_tolerance": 1e-12, "gradient_tolerance": 1e-12},
        },
        "test",
    )


@cache
def at_the_edge():
    """An experiment at the edge after some steps, with all that is looked at here, and the table of its rows from the edge on."""
    import numpy as np

    from engine.phases.experiment import Experiment
    from engine.xla.device import configure

    configure()
    experiment, rows = Experiment(spec_of(*ROWS)), []
    while experiment.clock.step < STEPS:
        progress = experiment.advance(STEPS - experiment.clock.step)
        assert progress.outcome is None, progress.outcome
        rows += progress.rows
    table = np.array(rows)[experiment.edge_step :]
    return experiment, {name: table[:, k] for name, k in experiment.setup.column_index.items()}


def network_of(model: str = "mlp", criterion: str = "mse"):
    """A network on twelve points of a polynomial."""
    from engine import spec as specs

    data = {"name": "chebyshev", "examples": 12, "degree": 3, "standardize": "none"}
    problem = {"kind": "network", "criterion": criterion, "data": data, "model": {"kind": model}}
    return specs.from_tree({"name": "learnt", "optimizer": {"learning_rate": 0.1}, "problem": problem}, "test")


@cache
def learnt():
    """A problem with the model and the loss that are looked at here; its θ, inputs and targets."""
    from engine import data
    from engine.problems.build import build
    from engine.xla.device import configure

    spec = network_of("linear" if "a model" in ROWS else "mlp", "quartic" if "a loss" in ROWS else "mse")
    configure()
    problem, theta, _ = build(spec)
    dataset = data.load(spec.problem.data)
    return problem, theta, dataset.inputs, dataset.targets


@cache
def dashboard() -> tuple[list[str], tuple[str, str]]:
    """The plots of the dashboard of a run, and its theme before and after the new key is pressed."""
    from piloting import opened
    from synthetic import make_run

    async def look() -> tuple[list[str], tuple[str, str]]:
        async with opened(make_run(Path(os.environ["EOS_HOME"]))) as (app, pilot):
            before = app.theme
            await pilot.press("Z")
            await pilot.pause()
            return [plot.id for plot in app.screen.plots], (before, app.theme)

    return asyncio.run(look())


def shown(*words: str) -> str:
    """What `eos` prints."""
    from eos_tui import cli

    with redirect_stdout(StringIO()) as out:
        assert cli.main(list(words)) == 0
    return out.getvalue()


def texts(topic: str, beginning: str) -> None:
    """Help has this topic."""
    from engine.help.catalog import page
    from eos_tui.topics.topics import TOPICS

    assert page(TOPICS, [topic]).text.startswith(beginning)
    assert f"- `{topic}`: " in shown("help")


def main() -> None:
    """Say of each addition what is wrong with it."""
    wrong = {}
    for row in ROWS:
        try:
            SEEN[row]()
            wrong[row] = ""
        except Exception as error:
            wrong[row] = f"{type(error).__name__}: {error}"
    print(json.dumps(wrong))


# -- the tests


def rows_of_the_table() -> dict[str, set[str]]:
    """The files that each row of the table names; a folder, with a slash behind, is one of a new file."""
    text = (ROOT / "engine/help/text/extending.md").read_text(encoding="utf-8")
    lines = text.split("| to add | go to |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines]
    return {name: set(re.findall(r"`((?:engine|eos_tui|presets)/[\w./-]*)`", where)) for name, where in cells}


def copy(folder: Path) -> Path:
    """A copy of the tree."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def add(folder: Path, row: str, omitted: str = "") -> None:
    """Make an addition but for what it does to one file."""
    for name, edits in ADDITIONS[row].items():
        for edit in edits if name != omitted else ():
            path = folder / name
            if not edit.at:
                assert not path.exists()
                path.write_text(edit.text, encoding="utf-8")
                continue
            text, count = re.subn(f"(?m)^{edit.at}$", edit.text, path.read_text(encoding="utf-8"))
            assert count == 1, (name, edit.at)
            path.write_text(text, encoding="utf-8")


def wrong(folder: Path, rows: Iterable[str]) -> dict[str, str]:
    """What is wrong with each of these additions in a copy of the tree; nothing where it works."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{TESTS}", "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(Path(__file__)), *rows]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_row_of_the_table_is_made_by_edits_of_the_files_that_it_names():
    named = rows_of_the_table()
    assert list(named) == list(ADDITIONS) == list(SEEN)
    for row, edits in ADDITIONS.items():
        edited = {name if any(edit.at for edit in each) else name.rpartition("/")[0] + "/" for name, each in edits.items()}
        paths = {name if name in named[row] or not name.endswith("/") else f"{PurePosixPath(name).parent}/" for name in edited}
        assert paths == named[row], row


def test_all_additions_work_together(tmp_path):
    folder = copy(tmp_path)
    for row in ADDITIONS:
        add(folder, row)
    assert wrong(folder, ADDITIONS) == dict.fromkeys(ADDITIONS, "")


def test_no_addition_works_without_one_of_its_files(tmp_path):
    folder, said = copy(tmp_path), dict[str, str]()
    for row, edits in ADDITIONS.items():
        omitted = next(iter(edits))
        said[row] = edits[omitted][0].without
        add(folder, row, omitted)
    errors = wrong(folder, ADDITIONS)
    assert [row for row in ADDITIONS if said[row] not in errors[row] or not errors[row]] == [], errors


@pytest.mark.slow
@pytest.mark.parametrize("row", ADDITIONS)
def test_an_addition_works_alone(row, tmp_path):
    """That it needs no file which another addition has changed can be seen only here."""
    folder = copy(tmp_path)
    add(folder, row)
    assert wrong(folder, [row]) == {row: ""}


@pytest.mark.slow
@pytest.mark.parametrize(("row", "omitted"), [(row, name) for row, edits in ADDITIONS.items() for name in list(edits)[1:]])
def test_no_addition_works_without_any_of_its_files(row, omitted, tmp_path):
    """The files that are seen to be needed only once an engine runs: each in a process of its own."""
    folder = copy(tmp_path)
    add(folder, row, omitted)
    try:
        error = wrong(folder, [row])[row]
    except AssertionError as failed:
        error = str(failed)
    assert any(edit.without in error for edit in ADDITIONS[row][omitted]), error


if __name__ == "__main__":
    main()
