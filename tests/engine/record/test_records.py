"""Records in other formats, to the last digit; the end of a record; runs side by side."""

import csv
import io
import json
import re
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from engine.base.errors import BAD_INPUT
from engine.commands.main import main
from engine.record import store
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.report.comparison import horizon, outcomes, prediction_error
from engine.spec import load_spec

from synthetic import ALPHA, BETA, EDGE, LEARNING_RATE, FakeEngine, make_run


@pytest.fixture
def run(own_home):
    return make_run(own_home, steps=200)


def same(run: Run, table: dict) -> None:
    for name, values in table.items():
        np.testing.assert_array_equal(np.array(values, float), run.table()[name], err_msg=name)


def test_csv_holds_every_digit_and_empty_cells_where_there_is_no_value(run, capfd):
    assert main(["export", "made"]) == 0
    header, *lines = csv.reader(io.StringIO(capfd.readouterr().out))
    assert header == list(run.index)
    columns = zip(*lines, strict=True)
    same(run, {name: [float(text) if text else np.nan for text in texts] for name, texts in zip(header, columns, strict=True)})


def test_json_holds_rows_events_and_the_specification(run, capfd):
    assert main(["export", "made", "--json", "--columns", "step,gd.x"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert list(document["rows"]) == ["step", "gd.x"]
    same(run, {name: [np.nan if value is None else value for value in values] for name, values in document["rows"].items()})
    assert document["spec"] == json.loads(msgspec.json.encode(run.spec))
    assert [event["event"] for event in document["events"]] == ["started", "edge_reached", "finished"]
    assert document["columns"][1]["symbol"] == "x"


def test_npz_goes_to_a_file_or_down_a_pipe(run, tmp_path):
    out = tmp_path / "made.npz"
    assert main(["export", "--out", str(out)]) == 0
    with np.load(out) as arrays:
        same(run, dict(arrays))
        assert len(arrays.files) == len(run.columns)
    piped = subprocess.run([sys.executable, "-m", "engine", "export", str(run.path), "--npz"], capture_output=True, check=True).stdout
    with np.load(io.BytesIO(piped)) as arrays:
        same(run, dict(arrays))


def test_parquet_has_nulls_units_and_the_specification(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "made.parquet"
    assert main(["export", "made", "--out", str(out)]) == 0
    table = parquet.read_table(out)
    same(run, {name: [np.nan if value is None else value for value in table[name].to_pylist()] for name in table.column_names})
    assert table["gd.x"].null_count == EDGE
    assert table.schema.field("cost.seconds").metadata[b"unit"] == b"s"
    assert table.schema.field("gd.y").metadata[b"unit"] == b""
    assert b"[optimizer]" in table.schema.metadata[b"eos.spec"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(run, tmp_path, capfd, monkeypatch):
    out = tmp_path / "kept.csv"
    out.write_text("before")
    monkeypatch.setattr("engine.record.export.blocks", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", str(out))))
    assert main(["export", "made", "--out", str(out), "--force"]) == BAD_INPUT
    assert capfd.readouterr().err == f"eos: {out}: No space left on device\n"
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept.csv"]


BAD = [
    (["export", "--csv", "--npz"], "--csv --npz: expected one format"),
    (["export", "--out", "rows.xlsx"], "the ending names no format"),
    (["export", "--columns", "gd.z"], 'column gd.z: not recorded by run made; did you mean "gd.y"?; expected one of step, time'),
    (["export", "nowhere"], "run nowhere: not found"),
    (["export", "--out", "/nowhere/rows.csv"], "/nowhere/rows.csv: there is no folder /nowhere to write it to"),
    (["export", "--csv", "--out", "/"], "/: a folder; expected a file"),
    (["tail", "--count", "-1"], "--count -1: expected a number from 0"),
    (["compare", "made", "nowhere"], "run nowhere: not found"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_what_cannot_be_exported_is_reported_in_one_line(run, argv, said, capfd):
    assert main(argv) == BAD_INPUT
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_the_end_of_a_phase_portrait_is_printed_with_every_column(own_home, capfd):
    run = store.create(load_spec("phase"), "portrait")
    with Writer(run) as writer:
        writer.append(np.arange(2.0)[:, None] * np.ones(len(run.columns)))
    assert main(["tail", "portrait", "-n", "1"]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == [column.name for column in run.columns]


def test_the_end_of_a_record_is_printed_and_followed(own_home, capfd):
    run = make_run(own_home, steps=150, finished=False)
    assert main(["tail", "made", "-n", "3", "--columns", "step,gd.x"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "147", "148", "149"]
    command = [sys.executable, "-m", "engine", "tail", str(run.path), "-f", "-n", "1", "--columns", "step", "--json"]
    with FakeEngine(run):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert json.loads(process.stdout.readline()) == {"step": 149}
        main(["advance", "made", "2"])
        assert [json.loads(process.stdout.readline())["step"] for _ in range(2)] == [150, 151]
        main(["stop", "made"])
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 0


def test_the_last_events_are_printed(run, capfd):
    assert main(["tail", "made", "--events", "-n", "1"]) == 0
    assert capfd.readouterr().out == "step 199: completed 199 steps\n"
    assert main(["tail", "made", "--events", "--json"]) == 0
    assert [json.loads(line)["step"] for line in capfd.readouterr().out.splitlines()] == [0, EDGE, 199]


def test_runs_are_compared_in_a_table_csv_and_json(own_home, capfd):
    make_run(own_home, steps=200, name="one")
    make_run(own_home, steps=60, name="two")
    assert main(["compare", "one", "two"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert re.split(r"  +", lines[0]) == ["run", "outcome", "η", "steps", "edge", "S·η/2", "S/edge", "mean δ", "mean ε", "s"]
    assert [line.split()[0] for line in lines[1:]] == ["one", "two"]
    assert main(["compare", "one", "two", "--json"]) == 0
    one, two = json.loads(capfd.readouterr().out)
    assert (one["edge_step"], two["edge_step"], two["delta"]) == (EDGE, None, None)
    assert one["delta"] == pytest.approx(np.sqrt(2 * ALPHA / BETA))
    assert one["epsilon"] == pytest.approx(LEARNING_RATE * np.sqrt(ALPHA))
    assert main(["compare", "one", "--csv"]) == 0
    header, row = csv.reader(io.StringIO(capfd.readouterr().out))
    assert float(row[header.index("delta")]) == one["delta"]


def test_the_error_and_the_horizon_of_a_prediction_are_medians_over_its_anchors():
    since = np.concatenate([[np.nan], np.arange(50.0), np.arange(150.0)])
    x = np.full(201, 2.0)
    predicted = np.where(since <= 100, -2.2, -9.0)  # a tenth off, with the other sign; past 100 steps it does not count
    left = np.where(since >= 30, 30.0, np.nan)
    left[51:] = np.nan  # the second still holds
    table = {"f.x": predicted, "f.since_anchor": since, "f.horizon": left, "gd.x": x, "constrained.delta": np.full(201, 1.0)}
    assert prediction_error(table, "f") == pytest.approx(0.1)
    assert horizon(table, "f") == np.median([30, 149])
    assert prediction_error({}, "f") is horizon({}, None) is None


def test_a_run_without_rows_has_outcomes_too(own_home):
    run = make_run(own_home, steps=0)
    assert outcomes(run).sharpness_over_threshold is None
