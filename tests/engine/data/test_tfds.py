"""The data sets of tensorflow-datasets, from archives in the true layout and without a network."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from msgspec.structs import replace

from engine import data
from engine.base.errors import BAD_INPUT, UserError
from engine.commands.main import main
from engine.data import catalog, compact, words
from engine.data import prepare as preparation
from engine.data.catalog import DataUnavailable
from engine.data.embedded import Pool
from engine.jobs import launch
from engine.process.runner import Runner
from engine.record import store
from engine.record.writer import Writer
from engine.spec import Data, load_spec
from eos_tui.cli import main as eos

from places import ROOT, TESTS
from tfds_archives import CIFAR_NAMES, COUNTS, MADE

NAMES = list(catalog.ENTRIES)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What happened in tfds_scenarios.py: one process for everything that imports tensorflow-datasets."""
    command = [sys.executable, str(TESTS / "tfds_scenarios.py"), str(tmp_path_factory.mktemp("tfds"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": "/nowhere", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # nothing but this stands on stdout


@pytest.mark.parametrize("name", NAMES)
def test_archives_brought_by_hand_give_their_examples_in_file_order(seen, name):
    report = seen["by_hand"][name]
    train, test = COUNTS[name]
    assert report["texts"][0].startswith(f"{name}: {train} + {test} examples prepared in ")
    assert report["texts"][1].startswith(f"{name}: ready in ")
    assert report["texts"][2].endswith("(the compact copy and the records)")
    assert report["copy"]
    assert report["records"]
    assert report["no_writes"]  # reading leaves a read-only folder as it is


@pytest.mark.parametrize(("name", "version", "keys"), [
    ("cifar10", "3.0.2", ["id", "image", "label"]), ("sst2", "2.0.0", ["idx", "label", "sentence"]),
    ("fashion_mnist", "3.0.1", ["image", "label"]),
])  # fmt: skip
def test_plain_tensorflow_datasets_reads_the_records_as_its_own(seen, name, version, keys):
    report = seen["by_hand"][name]
    assert (report["version"], report["keys"], report["plain"]) == (version, keys, COUNTS[name][0])
    assert version in report["origin"]
    labels = {"cifar10": list(CIFAR_NAMES), "sst2": ["negative", "positive"]}
    assert report["labels"] == labels.get(name, report["labels"])


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_copy_is_reported_and_written_again(seen, name):
    damaged, again, after = seen["by_hand"][name]["damaged"]
    assert "damaged or half copied: its SHA-256 sum is not the one in" in damaged
    assert f"`eos data prepare {name} --data-dir" in damaged
    assert "examples prepared in" in again
    assert "whole in" in after


def test_damaged_and_half_copied_records_are_reported(seen):
    assert "damaged (" in seen["by_hand"]["torn_records"]
    assert "damaged (" in seen["by_hand"]["torn_info"]
    assert all("2.0.0: half prepared or half copied (no dataset_info.json); remove it" in text for text in seen["network"]["half"])


def test_records_that_only_tensorflow_reads_are_reported(seen):
    assert "2.0.0: prepared as tfrecord, which only TensorFlow reads" in seen["by_hand"]["tensorflow_only"]


def test_a_wrong_archive_is_reported_by_its_sums_and_leftovers_are_cleared(seen):
    text = seen["wrong_archive"]["text"]
    assert "downloads/manual/SST-2.zip: not the archive expected: it has 9 bytes and SHA-256" in text
    assert "; expected SST-2.zip (" in text
    assert "examples prepared" in seen["wrong_archive"]["then"]
    assert seen["wrong_archive"]["left"] == []


def test_a_download_is_checked_and_a_wrong_one_not_kept(seen):
    network = seen["network"]
    assert network["right"].startswith("sst2: 30 + 8 examples prepared")
    assert "whole in" in network["verified"]
    assert network["wrong"].startswith("DataUnavailable: sst2: what was downloaded is not the archive expected")
    assert network["left"] == []


def test_a_silent_host_is_given_up_on_with_three_next_steps(seen):
    assert preparation.REACH_SECONDS <= 10  # of the fifteen, beside the import
    assert seen["network"]["seconds"] < 5
    text = seen["network"]["silent"]
    assert text.startswith("DataUnavailable: cifar10: 127.0.0.1:")
    for step in ("`eos data prepare cifar10 --data-dir DIR` where there is a network", "cifar-10-binary.tar.gz (", "or use the embedded"):
        assert step in text


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A data folder with compact copies of the tiny archives; reading them needs no tensorflow-datasets."""
    where = tmp_path / "data"
    for name, counts in COUNTS.items():
        monkeypatch.setitem(catalog.ENTRIES, name, catalog.ENTRIES[name]._replace(examples=counts))
        made, cut = MADE[name]()[1], counts[0]
        pool = Pool(made["inputs"][:cut], made["labels"][:cut], made["inputs"][cut:], made["labels"][cut:])
        compact.write(catalog.ENTRIES[name], where, pool, f"{name} of a test")
    monkeypatch.setenv("TFDS_DATA_DIR", str(where))
    monkeypatch.setitem(sys.modules, "engine.data.upstream", None)  # an import fails
    return where


def test_the_first_of_cifar_in_file_order_are_standardized_by_channel(small):
    truth = MADE["cifar10"]()[1]
    dataset = data.load(Data(name="cifar10", examples=30, order="file", test_examples=20, standardize="channel"))
    pixels = truth["inputs"].astype(float)
    mean, spread = pixels[:30].mean(axis=(0, 1, 2)), pixels[:30].std(axis=(0, 1, 2))
    np.testing.assert_allclose(dataset.inputs, (pixels[:30] - mean) / spread, atol=1e-5)
    np.testing.assert_allclose(dataset.test_inputs, (pixels[40:] - mean) / spread, atol=1e-5)
    np.testing.assert_array_equal(dataset.targets, truth["labels"][:30])
    assert dataset.rule == ("the first 30 of 10 classes in file order, tested on the first 20 of the test set; "
                          "mean of each channel removed, divided by its standard deviation")  # fmt: skip
    assert dataset.origin == f"cifar10 of a test, in {small}"


def test_cats_against_dogs_are_the_first_of_each(small):
    truth = MADE["cifar10"]()[1]
    dataset = data.load(Data(name="cifar10", classes=(3, 5), examples=6, standardize="none"))
    cats, dogs = (truth["inputs"][:40][truth["labels"][:40] == label][:3] for label in (3, 5))
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([cats, dogs]))
    np.testing.assert_array_equal(dataset.targets[:, 0], [-1, -1, -1, 1, 1, 1])
    assert dataset.rule.startswith("the first 3 of cat (−1) and dog (+1) in file order")


def test_two_classes_in_file_order_stay_mixed(small):
    truth = MADE["cifar10"]()[1]["labels"][:40]
    dataset = data.load(Data(name="cifar10", classes=(5, 3), examples=7, order="file", standardize="none"))
    np.testing.assert_array_equal(dataset.targets[:, 0], np.where(truth[np.isin(truth, (3, 5))][:7] == 5, -1, 1))


def test_sentences_of_sst2_take_the_words_of_the_training_subset(small):
    truth = MADE["sst2"]()[1]
    dataset = data.load(Data(name="sst2", classes=(0, 1), examples=10, test_examples=2, standardize="none"))
    pairs = list(zip(truth["inputs"][:30], truth["labels"][:30], strict=True))
    chosen = [[text for text, label in pairs if label == wanted][:5] for wanted in (0, 1)]
    kept = chosen[0] + chosen[1]
    assert dataset.vocabulary == words.vocabulary(kept)
    np.testing.assert_array_equal(dataset.inputs, words.tokens(kept, dataset.vocabulary))
    assert dataset.facts["data"] == "sst2"
    assert dataset.facts["vocabulary"] == len(dataset.vocabulary)
    assert len(dataset.facts["vocabulary_sha256"]) == 64


def test_what_is_missing_is_refused_before_anything_is_written(small, own_home, capsys):
    shutil.rmtree(small)
    assert main(["run", "fashion", "--set", "problem.data.name=cifar10"]) == BAD_INPUT
    err = capsys.readouterr().err
    assert f"cifar10: not prepared in {small}" in err
    assert "cifar-10-binary.tar.gz (170,052,171 bytes, SHA-256 c4a38c50" in err
    assert err.count("\n") == 1
    assert eos(["run", "fashion", "--set", "problem.data.name=cifar10", "--data-dir", str(small / "b"), "--headless"]) == BAD_INPUT
    assert f"cifar10: not prepared in {small / 'b'}" in capsys.readouterr().err
    assert not own_home.exists()
    with pytest.raises(DataUnavailable):
        data.load(Data(name="sst2", standardize="none"))


def test_a_run_keeps_the_data_folder_it_began_with(small, monkeypatch):
    monkeypatch.chdir(small.parent)
    monkeypatch.setenv("TFDS_DATA_DIR", "data")
    cifar = load_spec("fashion", ["problem.data.name=cifar10"])
    assert catalog.ready(cifar).problem.data.data_dir == str(small)
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert catalog.ready(cifar, "data").problem.data.data_dir == str(small)
    own = replace(cifar, problem=replace(cifar.problem, data=replace(cifar.problem.data, data_dir="./data")))
    assert catalog.ready(own).problem.data.data_dir == str(small)
    for untouched in (load_spec("fashion"), load_spec("toy")):
        assert catalog.ready(untouched, "data") == untouched


def test_a_relative_data_folder_reaches_the_engine_as_an_absolute_one(small, monkeypatch):
    monkeypatch.chdir(small.parent)
    monkeypatch.setattr(launch, "start", lambda run, group=None: 0)
    run, _ = launch.begin("fashion", ["problem.data.name=fashion_mnist"], "mine", "data")
    assert store.resolve("mine").spec.problem.data.data_dir == str(small) == run.spec.problem.data.data_dir


def test_a_run_does_not_go_on_with_other_data(small, x64):
    settings = ["problem.data.name=fashion_mnist", "problem.data.examples=4", "problem.model.widths=[2]"]
    run = store.create(catalog.ready(load_spec("fashion", settings)), "mine")
    with Writer(run) as writer:
        writer.provenance({"problem": {"sha256": "0" * 64}})
        outcome = Runner(run, writer).work()
    assert outcome.kind == "failed"
    assert f"its data are not those it began with (SHA-256 {'0' * 64})" in outcome.text


def test_half_a_copy_and_a_damaged_note_are_reported(small):
    entry = catalog.ENTRIES["cifar10"]
    compact.copy_path(entry, small).unlink()
    with pytest.raises(UserError, match=r"cifar10\.npz: cannot be read \(No such file or directory\); `eos data prepare cifar10"):
        data.load(Data(name="cifar10", standardize="none"))
    catalog.note_path(entry, small).write_text("[]")
    with pytest.raises(UserError, match=r"cifar10\.json: damaged"):
        compact.read(entry, small)


def test_the_commands_list_and_verify_what_is_there(small, capsys):
    assert main(["data", "list", "--json"]) == 0
    rows = {row["data"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["fashion", "digits", "sentences", *NAMES]
    assert (rows["fashion"]["state"], rows["cifar10"]["state"]) == ("ships with eos", "prepared")
    assert rows["cifar10"]["archives"][0]["bytes"] == 170_052_171
    assert rows["cifar10"]["manual"] == str(small / "downloads" / "manual")
    assert main(["data", "verify"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["data", "verify", "sst2", "--data-dir", str(small / "none")]) == BAD_INPUT
    assert f"sst2: not prepared in {small / 'none'}" in capsys.readouterr().err
    assert main(["data", "prepare", "fashion"]) == 0
    assert main(["data", "prepare", "mnist"]) == BAD_INPUT
    assert 'mnist: no such data set; expected one of "fashion", "digits"' in capsys.readouterr().err


def test_verifying_everything_tells_each_damage_and_goes_on(small, capsys):
    compact.copy_path(catalog.ENTRIES["cifar10"], small).write_bytes(b"damaged")
    (small / "fashion_mnist" / "3.0.1").mkdir(parents=True)
    compact.note_path(catalog.ENTRIES["fashion_mnist"], small).unlink()
    assert main(["data", "verify", "--json"]) == BAD_INPUT
    out, err = capsys.readouterr()
    assert {row["data"]: row["whole"] for row in json.loads(out)} == {
        "fashion": True, "digits": True, "sentences": True, "fashion_mnist": False, "cifar10": False, "sst2": True,
    }  # fmt: skip
    assert "fashion_mnist/3.0.1: half prepared or half copied" in err
    assert "cifar10.npz: damaged or half copied" in err


def test_preparing_what_is_ready_or_where_nothing_can_be_written(small, capsys):
    assert main(["data", "prepare", "cifar10"]) == 0
    assert capsys.readouterr().out == f"cifar10: ready in {small}\n"
    (small / "file").write_text("")
    assert main(["data", "prepare", "cifar10", "--data-dir", str(small / "file")]) == BAD_INPUT
    assert "cifar10 cannot be prepared there (Not a directory)" in capsys.readouterr().err


def test_the_embedded_sets_stand_in_with_the_same_shapes(small):
    stand_in = data.load(Data(name="fashion", classes=(0, 6), examples=6, pad_to=32, channels=3, standardize="channel"))
    real = data.load(Data(name="cifar10", classes=(3, 5), examples=6, standardize="channel"))
    assert (stand_in.inputs.shape, stand_in.targets.shape) == (real.inputs.shape, real.targets.shape)
    np.testing.assert_array_equal(stand_in.inputs[..., 0], stand_in.inputs[..., 2])
    assert "padded to 32×32, grey repeated in 3 channels" in stand_in.rule
