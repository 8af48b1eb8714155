"""What a notebook has of runs beyond their columns: pictures, lists, going on, sweeps, progress."""

import math

import numpy as np
import pytest

import engine
from engine.base.errors import UserError
from engine.record import messages, tags
from engine.record.store import resolve

import own_problems
from small import toy_spec
from synthetic import make_run

TOY = {"steps": 12, "apart": False}


@pytest.fixture
def record(own_home):
    make_run(own_home)
    return engine.load("made")


def test_a_record_shows_its_outcome_summary_and_plots(record):
    pytest.importorskip("matplotlib")
    shown = record._repr_html_()
    assert shown.count("<svg") == 1
    assert "400 rows" in shown
    assert "edge step" in shown
    assert "<script" not in shown


def test_columns_of_one_quantity_share_a_plot_with_their_threshold(record):
    pytest.importorskip("matplotlib")
    drawn = record.plot("gd.sharpness", "gd.x", "transported.x")
    sharpness, x = drawn.axes
    assert [line.get_label().partition(":")[0] for line in sharpness.lines] == ["S(θ)", "edge"]
    assert [line.get_linestyle() for line in x.lines] == ["-", "--"]
    seen = np.isfinite(record["gd.x"])
    np.testing.assert_array_equal(x.lines[0].get_ydata(), record["gd.x"][seen])
    assert drawn._repr_svg_().startswith("<svg")  # what a kernel shows that has not imported pyplot
    with pytest.raises(UserError, match=r'did you mean "gd\.sharpness"'):
        record.plot("gd.sharpnes")


def test_the_runs_that_there_are_are_listed_with_what_became_of_them(record):
    tags.write_tags(record.path, ("good",))
    [entry] = engine.runs()
    assert (entry.name, entry.preset, entry.status, entry.tags) == ("made", "synthetic", "finished", ("good",))
    assert engine.runs("good") == [entry]
    assert engine.runs("bad") == []


def test_a_script_goes_on_with_a_run_it_stopped_and_from_its_checkpoint_elsewhere(own_home, x64):
    whole = engine.run(toy_spec(), steps=40)
    rows = engine.stream(toy_spec(), steps=40, name="cut")
    for _ in range(10):
        next(rows)
    rows.close()
    assert resolve("cut").state().outcome.kind == "stopped"
    record = engine.resume("cut")
    assert record.outcome.kind == "completed"
    np.testing.assert_array_equal(record["gd.x"], whole["gd.x"])
    with pytest.raises(UserError, match="has ended"):
        engine.resume(record)
    longer = engine.fork(record, steps=60, name="longer")
    assert longer.outcome.text == "completed 60 steps"
    np.testing.assert_array_equal(longer["gd.x"][:40], whole["gd.x"])
    assert any(isinstance(event, messages.Forked) for event in longer.events)
    with pytest.raises(UserError, match="the checkpoint at step 40 depends on it"):
        engine.fork(record, seed=3)


def test_a_run_whose_problem_is_gone_stays_where_it_is_refused(own_home, x64):
    """What there is of a run is not lost because this process cannot go on with it."""
    rows = engine.stream(own_problems.valley(), learning_rate=0.05, steps=40, name="cut")
    next(rows)
    rows.close()
    spec = resolve("cut").path / "spec.toml"
    spec.write_text(spec.read_text().replace("handed_over:", "handed_over:gone_"))
    with pytest.raises(UserError, match="was handed over in Python"):
        engine.resume("cut", trust=True)
    assert resolve("cut").row_count() > 0


def test_a_sweep_is_a_table_and_its_means_over_seeds(own_home, monkeypatch):
    pandas = pytest.importorskip("pandas")
    sweep = engine.Sweep("toy", {"optimizer.learning_rate": [0.01, 0.02], "seed": range(2)}, overrides=["budget.steps=5"], name="two")
    assert [point.values for point in sweep.points][:2] == [
        {"optimizer.learning_rate": 0.01, "seed": 0}, {"optimizer.learning_rate": 0.01, "seed": 1},
    ]
    assert repr(sweep) == "<Sweep toy over optimizer.learning_rate, seed: 0 of 4 points have begun>"
    for k, point in enumerate(sweep.points[:3]):
        make_run(own_home, name=point.name, spec=point.spec, steps=10 + k)
    assert len(sweep.records()) == 3
    assert sweep.table()["steps"].tolist() == [10, 11, 12]
    means = sweep.aggregate()
    assert isinstance(means, pandas.DataFrame)
    assert means["n"].tolist() == [2, 1]
    assert means["steps mean"].tolist() == [10.5, 12.0]
    assert means["steps sd"][0] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(means["steps sd"][1])
    with pytest.raises(UserError, match='sed: not a field of this grid; did you mean "seed"'):
        sweep.aggregate("sed")
    with pytest.raises(UserError, match="expected values for each field"):
        engine.Sweep("toy", {"seed": []})


def test_the_seed_of_a_run_is_set_by_its_name_though_batches_have_one(own_home, x64):
    assert engine.run(toy_spec(), steps=2, seed=3).spec.seed == 3


def test_a_bar_tells_steps_loss_and_sharpness(own_home, x64, capfd):
    pytest.importorskip("tqdm")
    engine.run(toy_spec(), steps=12, progress=True)
    shown = capfd.readouterr().err
    assert "12/12" in shown
    assert "S=2" in shown
