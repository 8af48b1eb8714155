"""What the engine says that it is at while it takes no step, and what it takes of its host."""

import json
import sys
import types

import msgspec
import pytest

from engine.process import load, waits
from engine.process.waits import Wait, Waits
from engine.record.reader import Gpu, HostLoad, State
from engine.report.narrative import busy


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """The monotonic clock, set by hand, and a cache folder of its own."""
    monkeypatch.setenv("EOS_CACHE", str(tmp_path / "cache"))
    now = [100.0]
    monkeypatch.setattr(waits.time, "monotonic", lambda: now[0])
    return now


def waited(preset: str, words: str, seconds: float, clock: list[float], device: str = "CPU ×1") -> None:
    """Wait so long."""
    here = Waits(preset)
    here.on(device)
    with here.at(words):
        clock[0] += seconds


def test_a_wait_is_told_after_a_second_with_what_the_same_took_before(clock):
    waited("toy", "compiling", 12.0, clock)
    here = Waits("toy")
    here.on("CPU ×1")
    with here.at("compiling"):
        clock[0] += 0.9
        assert here.present() == waits.NOTHING
        clock[0] += 2.1
        assert here.present() == Wait("compiling", pytest.approx(3.0), 12.0)
        assert here.present(("the edge is here", clock[0] - 5)) == Wait("the edge is here", 5.0, 0.0)
    assert here.present() == waits.NOTHING
    assert here.before("compiling") == pytest.approx(3.0)  # the last one counts: compiled code is kept


def test_a_wait_that_was_more_than_its_words_is_not_kept(clock):
    here = Waits("toy")
    with here.at("measuring"):
        clock[0] += 40
        here.drop()
    assert here.before("measuring") == 0.0


def test_another_preset_is_told_what_is_usual_on_this_host_and_device(clock):
    for preset, seconds in (("a", 4.0), ("b", 6.0), ("c", 20.0)):
        waited(preset, "compiling", seconds, clock)
    waited("d", "compiling", 90.0, clock, device="H200 ×1")
    here = Waits("new")
    here.on("CPU ×1")
    assert here.before("compiling") == 6.0
    assert here.before("sampling") == 0.0


def test_what_is_short_is_not_kept_and_the_file_has_a_bound(clock, monkeypatch):
    waited("toy", "short", 0.5, clock)
    assert not waits._path().exists()
    monkeypatch.setattr(waits, "MOST", 3)
    for k in range(5):
        waited(f"p{k}", "compiling", 2.0 + k, clock)
    assert [*waits._read().values()] == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'{"seconds": 3}', b'{"seconds": {"a": "b", "c": -1, "d": null}}', b"[" * 9000])
def test_a_file_of_another_hand_tells_nothing(clock, body):
    waits._path().parent.mkdir(parents=True)
    waits._path().write_bytes(body)
    assert Waits("toy").before("compiling") == 0.0
    waited("toy", "compiling", 2.0, clock)
    assert len(json.loads(waits._path().read_bytes())["seconds"]) == 1


def test_a_cache_that_cannot_be_written_keeps_nothing(clock, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EOS_CACHE", str(tmp_path / "file" / "cache"))
    waited("toy", "compiling", 2.0, clock)
    assert Waits("toy").before("compiling") == 0.0


def test_a_wait_is_a_sentence_with_its_seconds():
    assert busy(State(task="compiling")) == "No step is taken meanwhile: compiling"
    assert busy(State(task="compiling", task_seconds=12.3)) == "No step is taken for 12 s: compiling"
    sentence = busy(State(task="compiling", task_seconds=12.3, task_estimate=140))
    assert sentence == "No step is taken for 12 s of about 2 min 20 s: compiling"


# -- the load of the host


def test_the_load_of_this_process_and_its_host_is_read_every_two_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: now[0])
    meter = load.Meter()
    assert meter.load() is None
    now[0] = load.EVERY_SECONDS
    read = meter.load()
    assert read.cores >= 1
    assert read.cpu >= 0  # over what the clock of the test says
    assert 0 < read.memory < read.host_memory_total
    assert 0 < read.host_memory <= read.host_memory_total
    assert meter.load() is read
    assert msgspec.json.decode(msgspec.json.encode(State(load=read)), type=State).load == read


def test_gpus_are_those_that_nvml_tells_of(monkeypatch):
    nvml = types.ModuleType("pynvml")
    nvml.NVMLError = type("NVMLError", (Exception,), {})

    def no_load(handle):
        if handle:
            raise nvml.NVMLError
        return types.SimpleNamespace(gpu=87)

    nvml.nvmlInit, nvml.nvmlDeviceGetCount, nvml.nvmlDeviceGetHandleByIndex = lambda: None, lambda: 2, lambda k: k
    nvml.nvmlDeviceGetName, nvml.nvmlDeviceGetUtilizationRates = lambda handle: b"NVIDIA H200", no_load
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(used=3, total=8)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = load.Meter()
    assert [meter._gpu(handle) for handle in meter._gpus] == [
        Gpu(name="NVIDIA H200", load=87.0, memory=3, memory_total=8), Gpu(name="NVIDIA H200", load=None, memory=3, memory_total=8),
    ]  # fmt: skip
    nvml.nvmlInit = lambda: no_load(1)
    assert load.Meter()._gpus == []


def test_names_of_gpus_are_harmless(tmp_path):
    from engine.record.reader import RunFolder

    state = State(load=HostLoad(cpu=1, host_cpu=1, cores=1, memory=1, host_memory=1, host_memory_total=1, gpus=(Gpu(name="\x1b[2J"),)))
    (tmp_path / "state.json").write_bytes(msgspec.json.encode(state))
    assert RunFolder(tmp_path).state().load.gpus[0].name == "\\x1b[2J"
