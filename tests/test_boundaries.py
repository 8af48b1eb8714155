"""What is imported where. The view must open without jax, the engine must work where Textual is not wanted."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ("spec", "columns", "control", "store", "theory", "narrative", "summary", "follow", "launch", "cli", "errors")
"""Modules of the engine that a viewer uses."""
HEAVY = ("jax", "jaxlib", "flax", "tensorflow_datasets")
DRAWING = ("textual", "plotext", "eos_tui")


def loaded_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of these packages a fresh Python has loaded after running the code."""
    code = f"{code}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()[-1].split()


def modules(package: str) -> list[str]:
    """Every module of a package, by its dotted name."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return [name for name in names if not name.endswith("__main__")]  # that one runs


def test_the_view_never_loads_jax():
    assert "eos_tui.app" in modules("eos_tui")
    assert loaded_by("\n".join(f"import {name}" for name in modules("eos_tui")), HEAVY) == []


def test_the_engine_never_loads_the_view():
    assert "engine.runner" in modules("engine")
    assert loaded_by("\n".join(f"import {name}" for name in modules("engine")), DRAWING) == []


@pytest.mark.parametrize("name", SHARED)
def test_what_a_viewer_shares_loads_neither(name):
    assert loaded_by(f"import engine.{name}", HEAVY + DRAWING) == []


def test_the_headless_commands_load_neither():
    code = "from engine.cli import main\nassert main(['presets', '--json']) == 0\nassert main(['ls']) == 0"
    assert loaded_by(code, HEAVY + DRAWING) == []


def test_a_headless_run_loads_neither_in_the_process_that_watches_it(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "from engine.cli import main\nassert main(['run', 'phase', '--set', 'budget.steps=10']) == 0"
    assert loaded_by(code, HEAVY + DRAWING) == []


def test_the_engine_process_itself_loads_no_textual(monkeypatch, own_home):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = (
        "from engine import store, spec, runner\n"
        "run = store.create(spec.load_spec('toy', ['budget.steps=3', 'tracking.flow=false']), 'mine')\n"
        "assert runner.work(run.path) == 0"
    )
    assert loaded_by(code, DRAWING) == []
    assert (own_home / "mine" / "metrics.f64").stat().st_size > 0
