"""The example scripts do what they say."""

import runpy

import pytest

from engine.base.errors import UserError
from engine.commands.main import main
from engine.help import scripts

PRINTED = {
    "go_on_elsewhere": "completed 400 steps",
    "own_loss": "S = 40.0022, 2/η = 40.0000",
    "own_model": "η = 0.3: S·η/2 = ",
    "own_optimizer": "edge 30.0",
    "own_quantities": "Share of the gradient that lies along the top eigenvector: ",
    "read_a_run": "300 rows, completed 300 steps> in",
    "sweep_learning_rates": "<Sweep toy over optimizer.learning_rate, problem.x0: 4 of 4 points have begun>",
}
SLOW = ("own_model", "own_optimizer", "sweep_learning_rates")


def test_every_example_is_run():
    assert scripts.names() == sorted(PRINTED)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PRINTED])
def test_an_example_runs_and_tells_what_it_found(name, own_home, x64, capsys, tmp_path):
    """In this process: a fresh one would begin by loading jax, and by compiling what others have compiled."""
    [script] = scripts.copy(tmp_path, name)
    runpy.run_path(str(script), run_name="__main__")
    assert PRINTED[name] in capsys.readouterr().out


def test_examples_are_listed_shown_and_copied(capfd, tmp_path):
    assert main(["help", "examples"]) == 0
    listed = capfd.readouterr().out
    assert all(f"`{name}`: {scripts.words(name)}" in listed for name in scripts.names())
    assert main(["help", "examples", "own_loss"]) == 0
    assert scripts.source("own_loss").rstrip() in capfd.readouterr().out
    assert main(["help", "examples", "--copy", str(tmp_path / "new")]) == 0
    assert sorted(path.stem for path in (tmp_path / "new").iterdir()) == scripts.names()
    with pytest.raises(UserError, match="did you mean"):
        scripts.copy(tmp_path, "own_los")
    with pytest.raises(UserError):
        scripts.copy(tmp_path / "new", "own_loss")
    assert main(["help", "columns", "--copy", str(tmp_path)]) == 2
