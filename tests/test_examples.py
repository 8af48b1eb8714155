"""The example scripts do what they say."""

import runpy

import pytest

from places import TESTS

SCRIPTS = sorted((TESTS / "examples").glob("*.py"))
PRINTED = {
    "own_loss": "S = 40.0022, 2/η = 40.0000",
    "own_model": "η = 0.3: S·η/2 = ",
    "read_a_run": "completed 300 steps in",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_an_example_runs_and_tells_what_it_found(script, own_home, x64, capsys):
    """In this process: a fresh one would begin by loading jax, and by compiling what others have compiled."""
    runpy.run_path(str(script), run_name="__main__")
    assert PRINTED[script.stem] in capsys.readouterr().out
