"""The example scripts do what they say."""

import os
import subprocess
import sys

import pytest

from places import ROOT, TESTS

SCRIPTS = sorted((TESTS / "examples").glob("*.py"))
TOLD = {
    "own_loss": "S = 40.0022, 2/η = 40.0000",
    "own_model": "η = 0.3: S·η/2 = ",
    "read_a_run": "completed 300 steps in",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_an_example_runs_and_tells_what_it_found(script, own_home):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert TOLD[script.stem] in done.stdout
