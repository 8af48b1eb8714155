"""A run in the files of other programs, read back by their own packages and compared with the columns, exactly."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from engine.commands.main import main
from engine.record import bridges, hdf5
from engine.record.columns import columns_for
from engine.spec import load_spec, to_toml, with_overrides

from places import TESTS
from synthetic import make_run


@pytest.fixture
def run(own_home):
    return make_run(own_home, steps=150)


def exported(*argv: str) -> int:
    return main(["export", "made", *argv])


def test_every_column_is_in_the_hdf5_file_exactly_with_its_words(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    assert exported("--hdf5", str(tmp_path / "data.hdf5")) == 0
    table = run.table()
    with h5py.File(tmp_path / "data.hdf5", "r", libver="latest", swmr=True) as file:  # as their README opens it
        assert set(file["eos"]) == set(table)
        for column in run.columns:
            dataset = file[f"eos/{column.name}"]
            assert dataset.dtype == np.float64
            np.testing.assert_array_equal(dataset[:], table[column.name])
            assert (dataset.attrs["words"], dataset.attrs["unit"]) == (column.words, column.unit)
        assert file.attrs["eos.spec"] == to_toml(run.spec)
        assert json.loads(file.attrs["eos.provenance"]) == run.provenance()


def test_the_hdf5_file_has_the_names_and_shapes_of_the_central_flows_repository(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    assert exported("--hdf5", str(tmp_path / "data.hdf5")) == 0
    table = run.table()
    with h5py.File(tmp_path / "data.hdf5") as file:
        assert file["step"].dtype == np.int64
        np.testing.assert_array_equal(file["step"][:], table["step"])
        np.testing.assert_array_equal(file["discrete/train_loss"][:], table["gd.loss"])
        np.testing.assert_array_equal(file["stable/train_loss"][:], table["flow.loss"])
        np.testing.assert_array_equal(file["discrete/grad_norm_sq"][:], table["gd.gradient_norm"] ** 2)
        eigenvalues = file["discrete/hessian_eigs"][:]
        assert eigenvalues.shape[0] == 150
        np.testing.assert_array_equal(eigenvalues[:, :2], np.stack([table["gd.sharpness"], table["gd.lambda2"]], axis=1))
        effective = file["discrete/effective_hessian_eigs"][:]
        np.testing.assert_allclose(effective, eigenvalues * 0.02, rtol=1e-15)  # λη: 2 at the edge
        assert file["midpoint/hessian_eigs"].shape == (150, 1)
        assert file["discrete/train_loss"] == file["eos/gd.loss"]  # one dataset of two names


def test_chosen_columns_alone_are_written(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    assert exported("--hdf5", str(tmp_path / "a.h5"), "--columns", "gd.loss") == 0
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"eos", "step", "discrete"}
        assert set(file["discrete"]) == {"train_loss"}


@pytest.mark.parametrize("name", ["coupled", "portrait"])
def test_a_run_from_before_there_was_a_threshold_goes_to_hdf5_too(name, own_home, tmp_path):
    """Its edge is 2/η of its learning rate; the phase portrait has neither."""
    h5py = pytest.importorskip("h5py")
    shutil.copytree(TESTS / "runs_of_before" / name, own_home / name)
    assert main(["export", name, "--hdf5", str(tmp_path / "r.h5")]) == 0
    with h5py.File(tmp_path / "r.h5") as file:
        assert ("discrete/effective_hessian_eigs" in file) == (name == "coupled")
        if name == "coupled":
            expected = file["eos/gd.sharpness"][:] * file["eos/learning_rate"][:]
            np.testing.assert_allclose(file["discrete/effective_hessian_eigs"][:, 0], expected, rtol=1e-14)


@pytest.mark.parametrize(("overrides", "names"), [
    (['optimizer.kind="rmsprop"'], {"discrete/effective_hessian_eigs", "discrete/hessian_eigs"}),
    (['optimizer.kind="rmsprop"', "optimizer.scalar=true", "tracking.central_from=3"],
     {"discrete/effective_hessian_eigs", "central/effective_hessian_eigs"}),
])
def test_effective_eigenvalues_of_an_adaptive_optimizer_are_2_at_its_edge(overrides, names):
    spec = with_overrides(load_spec("digits"), [*overrides, 'tracking.mode="sharpness"'])
    ones = {column.name: np.full(3, 5.0) for column in columns_for(spec)} | {"threshold": np.full(3, 5.0)}
    made = hdf5.computed(spec, ones, ones)
    assert names <= made.keys()
    assert "central/hessian_eigs" not in made  # central.sharpness is that of P⁻¹H there
    for name in made:
        if "effective" in name:
            np.testing.assert_array_equal(made[name], 2.0)
    assert ("discrete/opt.nu" in hdf5.same(spec)) == (len(overrides) > 1)


def test_the_layout_names_recorded_columns_only():
    """Each name on eos' side is a column of some run; else the layout would have a line that does nothing."""
    known = {column.name for preset in ("digits", "fig6-small") for column in columns_for(load_spec(preset))}
    for overrides in (['optimizer.kind="rmsprop"', "optimizer.scalar=true", "tracking.central_from=3", 'tracking.mode="sharpness"'],):
        known |= {column.name for column in columns_for(with_overrides(load_spec("digits"), overrides))}
    known |= {column.name for column in columns_for(with_overrides(load_spec("digits"), ['tracking.flow="both"']))}
    named = {*hdf5.SAME.values(), *hdf5.SQUARES.values(), *(first for first, _ in (*hdf5.STACKED.values(), *hdf5.PRECONDITIONED.values()))}
    assert named <= known


def test_tensorboard_reads_every_value_back_exactly(run, tmp_path):
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    assert exported("--tensorboard", str(tmp_path / "logs"), "--columns", "gd.loss,gd.sharpness,transported.x,step") == 0
    events = reader.EventAccumulator(str(tmp_path / "logs" / "made"), size_guidance={reader.TENSORS: 0})
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"gd/loss", "gd/sharpness", "transported/x", "spec/text_summary"}
    assert set(events.PluginTagToContent("scalars")) == {"gd/loss", "gd/sharpness", "transported/x"}
    for name in ("gd.loss", "gd.sharpness", "transported.x"):
        values, read = run.table()[name], events.Tensors(name.replace(".", "/"))
        seen = np.flatnonzero(~np.isnan(values))
        assert [event.step for event in read] == list(seen)
        np.testing.assert_array_equal([make_ndarray(event.tensor_proto).item() for event in read], values[seen])
    clocks = [event.wall_time for event in events.Tensors("gd/loss")]
    assert clocks == sorted(clocks)
    assert events.SummaryMetadata("gd/sharpness").summary_description == "S(θ): sharpness of gradient descent"
    assert to_toml(run.spec).encode() in make_ndarray(events.Tensors("spec/text_summary")[0].tensor_proto).item()


def test_what_is_there_already_is_written_anew_with_force_alone(run, tmp_path, capfd):
    pytest.importorskip("tensorboardX")
    logs = str(tmp_path / "logs")
    assert exported("--tensorboard", logs, "--columns", "gd.loss") == 0
    assert exported("--tensorboard", logs, "--columns", "gd.loss") == 2
    assert "--force writes it anew" in capfd.readouterr().err
    assert exported("--tensorboard", logs, "--columns", "gd.loss", "--force") == 0
    assert [path.name for path in (tmp_path / "logs" / "made").iterdir()] == ["events.out.tfevents.0.eos"]


@pytest.mark.parametrize("option", bridges.BRIDGES)
def test_without_its_package_a_bridge_says_what_to_install(option, run, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(bridges, "find_spec", lambda name: None)
    assert exported(f"--{option}", str(tmp_path / "x")) == 2
    bridge = bridges.BRIDGES[option]
    assert capfd.readouterr().err == f"eos: --{option}: needs {bridge.package}; pip install 'eos-tui[{bridge.extra}]'\n"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("argv", "words"), [
    (("--hdf5", "a", "--tensorboard", "b"), "--hdf5 --tensorboard: expected one format"), (("--hdf5", "a", "--csv"), "expected one format"),
    (("--tensorboard", "a", "--out", "b"), "--out b: --tensorboard says where already"),
])
def test_one_place_at_a_time(argv, words, run, capfd):
    assert exported(*argv) == 2
    assert words in capfd.readouterr().err


def records(path):
    """The records of a transaction log, which is a log of LevelDB behind seven bytes: block by block of 32,768, in pieces."""
    body, at, pieces = path.read_bytes(), 7, b""
    while at + 7 <= len(body):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", body[at:at + 7])
        pieces += body[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


@pytest.mark.slow
def test_what_wandb_wrote_offline_has_every_value_exactly_and_says_nothing_of_this_machine(run, tmp_path):
    """A process of its own, for wandb starts others and hooks into the end of this one. Where strace is installed it sees no connection but
    to the process that wandb starts.
    """
    pytest.importorskip("wandb")
    environment = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9", "WANDB_MODE": "online", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "engine", "export", "made", "--wandb-offline", str(tmp_path / "w")]
    if traced := shutil.which("strace"):
        command = [traced, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(tmp_path / "calls"), *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    if traced:
        assert set(re.findall(r"AF_\w+", (tmp_path / "calls").read_text())) == {"AF_UNIX"}
    [log] = (tmp_path / "w" / "wandb").glob("offline-run-*/run-*.wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    table, read = run.table(), {}
    for body in records(log):
        record = Record.FromString(body)
        if record.WhichOneof("record_type") == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                read.setdefault(name, {})[row["_step"]] = value
        elif record.WhichOneof("record_type") == "run":
            assert record.run.host == ""
            assert record.run.display_name == "made"
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert config["optimizer"]["learning_rate"] == 0.02
    for column in run.columns:
        values = table[column.name]
        if column.name != "step":
            seen = {k: value for k, value in enumerate(values.tolist()) if not np.isnan(value)}
            assert read.get(column.name.replace(".", "/", 1), {}) == seen
    assert not list(log.parent.glob("files/wandb-metadata.json"))
    assert not list(log.parent.glob("files/requirements.txt"))
