"""A fork holds what its engine needs and nothing of the other run's engine; what a checkpoint depends on is refused."""

import json

import numpy as np
import pytest

from engine.base.errors import UserError
from engine.commands import main
from engine.jobs.fork import checkpoint_at, differences, fork
from engine.record import messages, store
from engine.record.arrays import CHANGED_RATE, load_checkpoint
from engine.record.writer import Writer
from engine.spec import with_overrides

from synthetic import EDGE, make_run


@pytest.fixture
def run(own_home):
    """A finished run of 400 steps with checkpoints at 90, 200 and 400."""
    made = make_run(own_home)
    with Writer(made) as writer:
        for step in (90, 200, 400):
            writer.checkpoint(step, {"state": np.array(step)}, keep=3)
    return made


def test_it_goes_on_from_the_newest_checkpoint_at_or_before_the_step(run):
    for step, at in ((90, 90), (199, 90), (200, 200), (10_000, 400)):
        assert checkpoint_at(run, step)[1] == at
    with pytest.raises(UserError, match=r"the oldest is at step 90.*keep_checkpoints"):
        fork(run, 89)


def test_a_fork_without_a_step_to_take_is_refused_with_the_budget_to_ask_for(run):
    for overrides, said in (
        (["budget.steps=400"], r"budget.steps: 400, and the checkpoint is at step 400.*add budget.steps=800"),
        (["budget.edge_steps=100"], r"budget.edge_steps: 100, and the checkpoint is 300 steps after the edge.*add budget.edge_steps=400"),
    ):
        with pytest.raises(UserError, match=said):
            fork(run, 400, overrides)
    assert len(store.all_runs()) == 1
    fork(run, 400, ["budget.edge_steps=100", "optimizer.learning_rate=0.03"])  # a new edge, and steps from there on


def test_it_holds_the_rows_and_events_up_to_there_and_one_checkpoint(run):
    made = fork(run, 250, ["budget.steps=900", "optimizer.learning_rate=0.03"], "other")
    np.testing.assert_array_equal(made.rows(), run.rows(0, 200))
    assert [path.name for path in made.checkpoints()] == ["step-000000200.npz"]
    [started, edge, forked] = made.events()
    assert isinstance(started, messages.Started)
    assert edge.step == EDGE
    assert (forked.parent, forked.step) == ("made", 200)
    assert "budget.steps = 900" in forked.text
    assert messages.receive(made.path).commands == []
    [leaves] = [leaves for _, leaves in load_checkpoint(made)]
    assert leaves[CHANGED_RATE] == 0.03
    assert made.spec.budget.steps == 900
    assert fork(run, 250, ["precision.products=float32x6"]).spec.precision.products == "float32x6"
    assert run.row_count() == 400


def test_a_fork_of_what_several_processes_computed_says_that_one_goes_on(run, monkeypatch, capfd):
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: 1)
    assert main.main(["fork", "made", "--step", "200", "--name", "alone"]) == 0
    assert capfd.readouterr() == ("run alone goes on from made\n", "")
    with Writer(run) as writer:
        writer.provenance(run.provenance() | {"processes": 2})
    assert main.main(["fork", "made", "--step", "200", "--new-name", "one", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"run": "one", "from": "made", "step": 200}
    text = store.resolve("one").events()[-1].text
    assert text.startswith("forked from run made at its checkpoint of step 200; nothing changed; 2 processes took the steps up to there")
    assert err.startswith("2 processes took the steps up to there and one takes those from there, the same to rounding")
    assert "`stop one` and `resume one --coordinator …` give it to several" in err


def test_nothing_changed_leaves_nothing_to_change(run):
    assert messages.receive(fork(run, 200).path).commands == []
    [(_, leaves)] = load_checkpoint(fork(run, 200))
    assert CHANGED_RATE not in leaves


def test_a_fork_of_a_fork_that_never_began_goes_on_with_its_learning_rate_or_another(run):
    first = fork(run, 200, ["optimizer.learning_rate=0.03"], "first")
    before = run.rows(199, 200)[0, run.index["learning_rate"]]
    for overrides, rate in (((), 0.03), (["optimizer.learning_rate=0.05"], 0.05), ([f"optimizer.learning_rate={before}"], None)):
        [(_, leaves)] = load_checkpoint(fork(first, 200, overrides))
        assert leaves.get(CHANGED_RATE) == rate


def test_an_unreadable_checkpoint_is_reported_and_makes_nothing(run):
    run.checkpoints()[-1].write_bytes(b"PK half an archive")
    with pytest.raises(UserError, match=r"run made: checkpoint step-000000400.npz cannot be read; give the step of an earlier one"):
        fork(run, 400, ["budget.steps=900"])
    assert [each.name for each in store.all_runs()] == ["made"]


@pytest.mark.parametrize("override", ["seed=7", "tracking.eigenvalues=4", "precision.edge=float32", 'tracking.predictions=["code"]'])
def test_what_the_checkpoint_depends_on_is_refused_by_name_and_makes_nothing(run, override):
    before = [each.name for each in store.all_runs()]
    with pytest.raises(UserError, match=override.partition("=")[0]):
        fork(run, 200, [override])
    assert [each.name for each in store.all_runs()] == before


def test_differences_name_every_field_that_computes_something_else(run):
    other = with_overrides(run.spec, ["optimizer.learning_rate=0.5", "budget.steps=7", "title=x"])
    assert differences(run.spec, other) == {"optimizer.learning_rate": 0.5, "budget.steps": 7}


def test_a_fork_is_followed_to_its_end_as_a_run_is(run, monkeypatch, capfd):
    followed = []
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: 17)
    monkeypatch.setattr("engine.commands.main._see_through", lambda made, pid, json, made_now: followed.append((made.name, pid, json)) or 3)
    assert main.main(["fork", "made", "--step", "200", "--name", "on", "--headless", "--json"]) == 3
    assert followed == [("on", 17, True)]
    assert capfd.readouterr().out == ""
