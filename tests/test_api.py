"""The engine from a script."""

import subprocess
import sys

import numpy as np
import pytest

import engine
from engine.errors import UserError

from small import toy_spec

pytestmark = pytest.mark.usefixtures("x64")


def test_a_script_runs_a_preset_and_reads_named_columns(own_home):
    record = engine.run("toy", overrides=["budget.steps=50", "tracking.flow=false"], name="mine")
    assert record.outcome.kind == "completed"
    np.testing.assert_array_equal(record["step"], np.arange(50))
    assert record["gd.x"].shape == (50,)
    assert (own_home / "mine" / "metrics.f64").is_file()
    again = engine.load("mine")
    np.testing.assert_array_equal(again["gd.loss"], record["gd.loss"])
    assert again.spec == record.spec
    with pytest.raises(KeyError, match=r"gd\.sharp: not recorded"):
        record["gd.sharp"]


def test_a_record_has_what_was_sampled_by_step():
    record = engine.run(toy_spec(landscape_every=20), steps=50, name="sampled")
    found = record.samples()
    assert list(found) == [0, 20, 40]
    assert found[20]["F"].shape == found[20]["x"].shape == (51,)
    assert found[20]["plane"].shape == (*found[20]["plane_x"].shape, *found[20]["plane_y"].shape) == (13, 7)
    record.run.curves()[1].write_bytes(b"PK torn")
    assert list(record.samples()) == [0, 40]


def test_a_stream_gives_rows_as_they_come_and_stops_when_closed():
    rows = engine.stream(toy_spec(), name="streamed")
    steps = [next(rows)["step"] for _ in range(5)]
    rows.close()
    assert steps == [0, 1, 2, 3, 4]
    assert engine.load("streamed").outcome.kind == "stopped"


def test_bad_input_is_a_user_error():
    with pytest.raises(UserError, match='did you mean "toy"'):
        engine.run("toi")
    with pytest.raises(UserError, match="neither a run's name nor a run directory"):
        engine.load("no/such/run")


def test_importing_the_engine_is_cheap():
    code = "import sys, engine, engine.store, engine.control, engine.theory; print('jax' in sys.modules, 'flax' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


def test_a_field_is_set_by_its_own_name_where_there_is_one(own_home):
    record = engine.run("phase", learning_rate=np.float64(0.03), steps=7, starts=[0.2, 0.5], name="short")
    assert (record.spec.optimizer.learning_rate, record.spec.budget.steps, record.spec.problem.starts) == (0.03, 7, (0.2, 0.5))
    assert record.provenance["precision"] == "f64"
    for fields, said in (
        ({"momentum": 0.9}, "momentum: no field of this specification"),
        ({"steps": object()}, "steps = <object object at .*: expected a number, a text, or a list"),
        ({"steps": 0}, r"\[budget\] steps = 0"),
    ):
        with pytest.raises(UserError, match=said):
            engine.run("phase", **fields)
    with pytest.raises(UserError, match=r'kind: is one of "problem\.model\.kind", "problem\.kind"|"problem\.kind"'):
        engine.run("fashion", kind="toy")


def test_a_record_becomes_frames_and_datasets(own_home):
    from synthetic import make_run

    make_run(own_home, steps=150)
    record = engine.load("made")
    pandas = pytest.importorskip("pandas")
    frame = record.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index[:2]) == [0, 1]
    np.testing.assert_array_equal(frame["gd.x"], record["gd.x"])


def test_a_record_becomes_a_polars_frame_with_nulls(own_home):
    pytest.importorskip("polars")
    from synthetic import EDGE, make_run

    make_run(own_home, steps=150)
    frame = engine.load("made").to_polars()
    assert frame["gd.x"].null_count() == EDGE
    assert frame["step"].to_list() == list(range(150))


def test_a_record_becomes_a_dataset_with_units(own_home):
    pytest.importorskip("xarray")
    from synthetic import make_run

    make_run(own_home, steps=150)
    found = engine.load("made").to_xarray()
    assert found["cost.seconds"].attrs["units"] == "s"
    assert "units" not in found["gd.y"].attrs  # its numbers are not multiples of 1/η
    np.testing.assert_array_equal(found["gd.x"].sel(step=120), engine.load("made")["gd.x"][120])


def test_the_reference_tells_everything_and_its_links_lead_somewhere(capfd):
    import re

    from engine.cli import main

    assert main(["reference"]) == 0
    text = capfd.readouterr().out
    headings = re.findall(r"^## `engine\.(\w+)`$", text, re.MULTILINE)
    assert headings == [*engine.SCRIPTING, "theory"]
    anchors = {f"#engine{name.lower()}" for name in headings}
    links = re.findall(r"\]\((#[^)]*)\)", text)
    assert set(links) == anchors
    assert len(links) > len(headings)  # beside the contents, from one to another
    for name in headings:
        body = text.split(f"## `engine.{name}`\n", 1)[1].split("\n## ", 1)[0]
        assert len(body.split()) > 12, name
    assert "(problem: Problem, center: TaylorCenter, learning_rate: float" in text
