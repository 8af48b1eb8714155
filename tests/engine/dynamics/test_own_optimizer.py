"""What `eos check`, and a run before its first step, say of an optimizer of one's own: nothing of those that work, and of each fault its
name."""

from pathlib import Path

import pytest

import engine
from engine import spec as specs
from engine.base.errors import UserError
from engine.base.exit import BAD_INPUT
from engine.commands.main import main
from engine.dynamics.own_optimizer import complaints

from own_problems import good

pytestmark = pytest.mark.usefixtures("x64")
TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize(("function", "said"), [
    ("lion", ""), ("heavy_ball", ""), ("rmsprop", ""), ("noisy", ""),
    ("ascending", "its first step goes up: neither the learning rate nor a minus sign is its own, θ ← θ − η·direction (step 1 in float64)"),
    ("counting", "another one when it is taken again; expected a pure function of ∇L, θ and its state (step 1 in float64)"),
    ("widening", "is float64 (3,) after a step and was float32 (3,) before; no checkpoint could hold both (step 1 in float32)"),
    ("infinite", "θ after a step is not finite (step 1 in float64)"),
    ("negative_p", "preconditioner gives a P that is not positive; expected every number of it above 0 (step 1 in float64)"),
    ("short_p", "preconditioner gives shape (2,); expected a number, (3,), or a tree like the parameters (step 1 in float64)"),
    ("long_threshold", "threshold gives shape (2,); expected a single number (step 1 in float64)"),
    ("zero_threshold", "threshold gives 0; expected a positive number, or NaN where none is known (step 1 in float64)"),
])  # fmt: skip
def test_check_names_what_an_optimizer_does_wrong(function, said):
    wrong = complaints(specs.OwnOptimizer(learning_rate=0.01, function=f"own_optimizers:{function}"), *good())
    assert "; ".join(wrong).endswith(said)
    assert bool(wrong) == bool(said)


def spec_of(function):
    return specs.from_tree({
        "name": "mine", "problem": {"kind": "own", "function": "own_problems:good", "self_test": False},
        "optimizer": {"kind": "own", "learning_rate": 0.01, "function": f"own_optimizers:{function}"},
        "tracking": {"mode": "sharpness"}, "budget": {"steps": 6},
    }, "the test")


def test_a_run_refuses_what_check_refuses_and_leaves_nothing(own_home, monkeypatch):
    with pytest.raises(UserError, match=r"^own_optimizers:ascending: its first step goes up"):
        engine.run(spec_of("ascending"), trust=True)
    assert engine.runs() == []
    untested = engine.run(spec_of("ascending"), overrides=["optimizer.self_test=false"], trust=True)
    assert untested["gd.loss"][-1] > untested["gd.loss"][0]
    begun = engine.run(spec_of("lion"), trust=True)
    monkeypatch.setattr("engine.phases.experiment.require_sound", None)  # what has begun was tested, or began before there were tests
    assert engine.fork(begun, overrides=["budget.steps=8"]).outcome.kind == "completed"


def test_a_state_goes_on_with_its_key_of_random_numbers(own_home):
    spec = spec_of("noisy")
    whole, part = (engine.run(spec, name=name, overrides=[f"budget.steps={steps}"], trust=True) for name, steps in (("a", 6), ("b", 3)))
    on = engine.fork(part, overrides=["budget.steps=6"])
    assert len(on["gd.loss"]) == 6
    assert (on["gd.loss"] == whole["gd.loss"]).all()


@pytest.mark.slow  # both at the command line
def test_check_tests_the_optimizer_beside_the_loss(tmp_path, capfd, own_home):
    preset = tmp_path / "mine.toml"
    code = f'folder = "{TESTS}"\n'
    preset.write_text(
        f'[problem]\nkind = "own"\nfunction = "own_problems:good"\n{code}[optimizer]\nkind = "own"\nlearning_rate = 0.1\n'
        f'function = "own_optimizers:heavy_ball"\n{code}[tracking]\nmode = "sharpness"\n'
    )
    assert main(["check", str(preset), "--json"]) == 0
    assert '"optimizer": "own_optimizers:heavy_ball: two steps in each number format' in capfd.readouterr().out
    assert main(["check", str(preset), "--set", "optimizer.function=own_optimizers:ascending"]) == BAD_INPUT
    assert "own_optimizers:ascending: its first step goes up" in capfd.readouterr().err
