"""The whole spectrum, read of a run on demand: by its engine between two steps, or of one that is over at its last checkpoint."""

import json

import numpy as np
import pytest

from engine import spec as specs
from engine.commands.main import main
from engine.phases import whole_spectrum
from engine.phases.experiment import Experiment
from engine.process.runner import Runner
from engine.record import messages, store
from engine.record.reader import Run
from engine.record.safe_read import read_arrays
from engine.record.writer import Writer

from small import chebyshev_spec, dense_hessian, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
ASKED = messages.Density(probes=3, steps=12)


def run_of(spec: specs.RunSpec, steps: int, where, name: str = "read") -> Run:
    return store.create(specs.with_overrides(spec, [f"budget.steps={steps}"]), name, where)


def worked(run: Run, *commands: messages.AnyCommand) -> Run:
    """The run carried to its end in this process, with these commands handed in before its first step."""
    with Writer(run) as writer:
        runner = Runner(run, writer)
        for command in commands:
            runner.ask(command)
        runner.work()
    return run


def answers(run: Run, command: messages.AnyCommand) -> list[messages.AnyEvent]:
    return [event for event in run.events() if event.answers == command.id]


def reproducible(run: Run) -> np.ndarray:
    return run.rows()[:, [k for name, k in run.index.items() if name != "cost.seconds"]]


def test_what_is_read_at_a_step_is_the_spectrum_there_and_leaves_the_run_as_it_was(tmp_path):
    run = worked(run_of(chebyshev_spec(mode="sharpness"), 12, tmp_path), ASKED)
    (taken,) = answers(run, ASKED)
    assert isinstance(taken, messages.DensityTaken)
    assert taken.step == 0
    assert "3 × 12 Hessian products" in taken.text
    (step, path), = run.densities().items()
    assert (step, run.samples()) == (0, {})
    read = read_arrays(path)
    experiment = Experiment(run.spec)
    hessian = np.asarray(dense_hessian(experiment.setup.problem, experiment.state.theta))
    eigenvalues = np.linalg.eigvalsh(hessian)[::-1]
    assert read["nodes"].shape == (3, 12)
    np.testing.assert_allclose(read["weights"].sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(read["eigenvalues"], eigenvalues[: len(read["eigenvalues"])], rtol=1e-5)
    assert read["nodes"].max() == pytest.approx(eigenvalues[0], rel=1e-6)
    assert list(read["layers"]) == [f"Dense_{k}/{part}" for k in range(3) for part in ("bias", "kernel")]
    assert read["layer_sizes"].sum() == read["parameters"] == 97
    assert float(read["threshold"]) == 2 / 0.1
    assert ((read["gauss_newton"] > 0) & (read["layer_sharpness"].max() <= eigenvalues[0])).all()
    undisturbed = worked(run_of(chebyshev_spec(mode="sharpness"), 12, tmp_path, "undisturbed"))
    np.testing.assert_array_equal(reproducible(run), reproducible(undisturbed))


@pytest.mark.parametrize("spec", [toy_spec(), toy_spec(mode="sharpness")])
def test_every_phase_is_read_at_its_own_step(spec, tmp_path):
    """The toy is at its edge at once, and its loss has no Gauss–Newton matrix, which is said."""
    experiment = Experiment(spec)
    experiment.advance(4)
    while experiment.clock.step < 8:
        experiment.advance(2)
    reading = whole_spectrum.whole(experiment.whole_spectrum(ASKED))
    assert f"at step {experiment.clock.step}," in reading.text
    exact = np.linalg.eigvalsh(np.asarray(dense_hessian(experiment.setup.problem, experiment.state.theta)))[::-1]
    np.testing.assert_allclose(reading.arrays["eigenvalues"][0], exact[0], rtol=1e-5)
    absent = str(reading.arrays["gauss_newton_absent"])
    assert absent.startswith("Appendix B toy: its loss is given as a whole")
    assert np.isnan(reading.arrays["gauss_newton"]).all()


def test_each_part_is_named_before_it_is_computed():
    experiment = Experiment(toy_spec())
    parts: list[str] = []
    whole_spectrum.whole(experiment.whole_spectrum(ASKED), parts.append)
    assert parts == [
        *(f"spectral density: vector {k} of 3" for k in (1, 2, 3)), "Gauss–Newton share of the 2 eigenvalues followed",
        "sharpness by layer: 1 of 1, θ",
    ]


def test_the_state_says_what_is_computed_and_commands_are_heard_between_two_parts(tmp_path):
    run = run_of(toy_spec(), 30, tmp_path)
    again, tasks = messages.Density(), list[str]()
    with Writer(run) as writer:
        runner = Runner(run, writer)
        runner.ask(ASKED)
        runner.ask(again)
        going_on = runner.spectrum.go_on

        def watched() -> None:
            tasks.append(runner._state().task)
            going_on()
            if len(tasks) == 2:
                runner.ask(messages.Stop())

        runner.spectrum.go_on = watched
        outcome = runner.work()
    assert tasks == ["spectral density: begins", "spectral density: vector 1 of 3"]
    assert (outcome.kind, outcome.step) == ("stopped", 0)
    (second,), (first,) = answers(run, again), answers(run, ASKED)
    assert "being taken already" in second.text
    assert "was not taken: the run was stopped" in first.text
    assert run.densities() == {}
    assert run.state().task == ""


def test_what_is_more_than_the_memory_is_refused_and_the_run_goes_on(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr("engine.phases.whole_spectrum.density.quadrature", full)
    run = worked(run_of(toy_spec(), 10, tmp_path), ASKED)
    (refused,) = answers(run, ASKED)
    assert isinstance(refused, messages.Refused)
    assert "not enough memory (spectral density: vector 1 of 3)" in refused.text
    assert run.state().outcome.kind == "completed"


def test_a_phase_portrait_has_no_spectrum(tmp_path):
    run = worked(run_of(specs.load_spec("phase"), 10, tmp_path), ASKED)
    (refused,) = answers(run, ASKED)
    assert isinstance(refused, messages.Refused)
    assert "no loss" in refused.text


def test_a_run_that_is_over_is_read_at_its_last_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EOS_HOME", str(tmp_path))
    run = worked(run_of(toy_spec(), 20, tmp_path))
    before = reproducible(run)
    assert main(["density", "read", "--probes", "2", "--steps", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["step"]) == ("density_taken", 20)
    assert "spectral density: vector 2 of 2" in err
    assert list(run.densities()) == [20]
    assert read_arrays(run.densities()[20])["nodes"].shape == (2, 3)
    assert run.events()[-1].text == event["text"]
    assert (run.liveness(), run.state().outcome.kind) == ("finished", "completed")
    np.testing.assert_array_equal(reproducible(run), before)
    assert main(["density", "read", "--probes", "0"]) == 2
    for path in run.checkpoints():
        path.write_bytes(b"none")
    assert main(["density", "read"]) == 2
    assert "no checkpoint to read the spectrum at" in capsys.readouterr().err
