"""The measure of a card in eight minutes: what ends an item loses nothing, and at small sizes all of it runs on CPUs."""

import json
import sys

import pytest

from engine.commands.main import main

from places import TESTS

sys.path.insert(0, str(TESTS / "bench"))

import device


def test_an_item_that_is_cut_off_or_fails_keeps_its_figures_and_what_has_no_time_is_said_to_be_left_out(tmp_path):
    line = "import sys, time; out = open(sys.argv[1], 'a'); print('{\"eos_s\": 0.5}', file=out, flush=True); "
    cut_off = "print('{\"floor_s\": 0', end='', file=out, flush=True); time.sleep(600)"
    ends = {"problem endless": cut_off, "problem whole": "", "shapes broken": "sys.exit(3)"}
    figures = device.measure(
        tmp_path, {"problem endless": 2, "problem whole": 10, "shapes broken": 10},
        lambda name: [sys.executable, "-S", "-c", line + ends[name]], seconds=22,
    )  # fmt: skip
    assert figures == json.loads((tmp_path / "device.json").read_text())
    assert figures["problem whole"]["ended"] == "measured"
    assert figures["problem endless"]["ended"] == "cut off after 2 s"
    assert figures["shapes broken"]["ended"].startswith("failed with status 3")
    assert all(each["eos_s"] == 0.5 for each in figures.values())
    assert "floor_s" not in figures["problem endless"]  # a line that was cut off
    left_out = device.measure(tmp_path, {"problem late": 1.5}, lambda name: [sys.executable], seconds=0.5)
    assert left_out["problem late"]["ended"] == "skipped: no time was left"
    text = device.table(figures | left_out)
    assert "skipped: no time was left" in text
    assert "shapes broken (failed with status 3" in text
    assert "0.5000" in text


def test_every_benchmark_of_the_five_is_measured_and_all_items_have_a_time():
    import tracked

    assert tuple(tracked.PROBLEMS) == device.PROBLEMS
    assert all(0 < item.seconds < device.ALL_SECONDS for item in device.ITEMS.values())
    assert set(device.SMALL_ITEMS) < set(device.ITEMS)


@pytest.mark.slow
def test_small_sizes_are_measured_on_cpus(tmp_path, capfd):
    folder = str(tmp_path / "card")
    assert main(["bench", "device", folder, "--prepare", "--small"]) == 0
    assert main(["bench", "device", folder]) != 0
    assert "prepared with --small; expected --small in both or in neither" in capfd.readouterr().err
    assert main(["bench", "device", folder, "--small", "--json"]) == 0
    figures = json.loads(capfd.readouterr().out)
    assert {each["ended"] for each in figures.values()} == {"measured"}
    assert figures["facts"]["device"].startswith("CPU")
    assert figures["agreement digits"]["loss_before_edge"] == figures["agreement digits"]["S(θ)"]["largest_first_20"] == 0
    assert figures["problem digits"]["eos_s"] > 0
    for name in device.FULL_SHAPES:
        assert figures[f"shapes {name}"]["hvp_s"] > 0
        assert figures[f"shapes {name}"]["eos_s"] > 0
