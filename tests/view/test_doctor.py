"""The doctor: each finding for what it must tell, and the whole report as a user gets it."""

import json
import shutil
import time

import pytest

from engine.data import embedded
from eos_tui import cli, doctor
from eos_tui.doctor import Finding

JAX = Finding("devices", "cpu ×1; 2 CPU cores")


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "config.toml"))


def test_every_finding_that_is_bad_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: (30, 8))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    (tmp_path / "file").touch()
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "file" / "runs"))
    (tmp_path / "config.toml").write_text("[view]\nfast = true\n")
    monkeypatch.setitem(embedded.SHA256, "digits.npz", "0")
    findings = doctor.examine({}, lambda: doctor.devices(code="raise SystemExit('no such driver')"))
    bad = {each.subject: each for each in findings if each.verdict == "bad"}
    assert {"size", "devices", "data", "runs", "space", "settings"} <= set(bad)
    assert all(each.advice for each in bad.values())
    assert "no such driver" in bad["devices"].state
    assert "fast: unknown key" in bad["settings"].state
    assert doctor.as_text(findings).splitlines()[-1].startswith("To mend: ")


def test_a_driver_that_hangs_is_a_finding_and_not_a_hang():
    began = time.monotonic()
    finding = doctor.devices(seconds=0.5, code="import time\ntime.sleep(60)")
    assert (finding.verdict, time.monotonic() - began < 10) == ("bad", True)
    assert "within 0 s" in finding.state or "within 1 s" in finding.state


def test_what_jax_prints_before_its_answer_does_not_matter():
    code = "print('a warning')\nprint('{\"backend\": \"cpu\", \"devices\": [\"cpu\", \"cpu\"]}')"
    assert doctor.devices(code=code).state.startswith("cpu ×2; ")


@pytest.mark.parametrize(("environment", "state"), [
    ({"TERM": "xterm-256color"}, "256"),
    ({"TERM": "xterm", "COLORTERM": "truecolor"}, "16 million"),
    ({"TERM": "xterm"}, "16"),
    ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none, as NO_COLOR asks"),
])  # fmt: skip
def test_colours_are_those_of_the_environment(environment, state):
    assert doctor.colors(environment).state == state


@pytest.mark.parametrize(("environment", "state"), [
    ({}, "nothing: a local terminal"),
    ({"SSH_CONNECTION": "1", "TMUX": "/tmp/x"}, "ssh and tmux"),
    ({"TERM": "screen", "STY": "1"}, "screen"),
])  # fmt: skip
def test_what_lies_between_is_named(environment, state):
    assert doctor.between(environment).state == state


def test_the_report_is_lines_or_one_json_array(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "devices", lambda: JAX)
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(f" {each.subject} " in " ".join(lines) for each in doctor.examine({}, lambda: JAX)) >= 10
    assert lines[-1] == "Nothing to mend."
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [list(each) for each in findings] == [["subject", "state", "verdict", "advice"]] * len(findings)
    monkeypatch.setattr(doctor, "devices", lambda: JAX._replace(verdict="bad", advice="mend it"))
    assert cli.main(["doctor"]) == 1


def test_the_real_device_is_found():
    assert "cpu" in doctor.devices().state.lower()
