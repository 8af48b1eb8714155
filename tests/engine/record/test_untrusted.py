"""A run directory of unknown origin: nothing in it makes a command fail, wait, write elsewhere, or send what a terminal obeys."""

import io
import json
import os
import stat
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpies

from engine.base.errors import BAD_INPUT, HELD, UserError
from engine.base.text import harmless, is_harmless, to_json
from engine.commands.main import main
from engine.jobs import launch
from engine.record import messages, reader, store
from engine.record.reader import Run
from engine.record.safe_read import read_arrays
from engine.record.writer import Writer
from engine.spec import load_spec_text

from fuzzing import fuzz
from small import toy_spec
from synthetic import make_run

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\r\u2028\x7f"
READING = (
    ["show", "{}"], ["show", "{}", "--json"], ["tail", "{}"], ["tail", "{}", "--events"], ["tail", "{}", "--events", "--json"],
    ["export", "{}", "--json"], ["export", "{}"], ["compare", "{}", "{}"], ["compare", "{}", "--json"], ["compare", "{}", "--csv"], ["ls"],
    ["resume", "{}"], ["pause", "{}"],
)  # fmt: skip


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The files of a small run."""
    run = make_run(tmp_path_factory.mktemp("runs"), steps=110)
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}


@pytest.fixture(autouse=True)
def no_engines(monkeypatch):
    """No process is started on what a test made up, and nobody waits for its answer."""

    def start(run, group=None):
        raise UserError("here an engine would start")

    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr("engine.commands.control.ANSWER_SECONDS", 0.01)


def run_of(where: Path, files: dict[str, bytes]) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    (where / "inbox").mkdir(exist_ok=True)
    for name, body in files.items():
        (where / name).write_bytes(body)
    return where


def read_every_way(path: Path, capfd) -> str:
    """Everything the commands print of a run; none of it harmful, none of it a traceback, and none takes long."""
    printed = []
    for command in READING:
        began = time.monotonic()
        status = main([part.format(path) for part in command])
        out, err = capfd.readouterr()
        assert status in (0, BAD_INPUT, HELD), (command, err)
        assert is_harmless(out), command
        assert is_harmless(err), command
        if status:
            assert (err.startswith("eos: "), err.count("\n")) == (True, 1), (command, err)
        elif "--json" in command and out:
            for text in [out] if command[0] != "tail" else out.splitlines():
                json.loads(text)
        assert time.monotonic() - began < 20
        printed.append(out + err)
    return "".join(printed)


def test_what_a_terminal_would_obey_is_shown_as_its_escape():
    assert harmless(EVIL) == "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202egpj.exe\\r\\u2028\\x7f"
    assert harmless("η = 2\t→\n") == "η = 2\\t→\\n"
    assert harmless("a\tb\n", lines=True) == "a\tb\n"
    for spelled in ("می\u200cخواهم", "क्\u200dष", "👩🏽\u200d🔬", "❤️\u200d🔥"):  # Persian, Hindi, pictures with a shade and a variant
        assert harmless(spelled) == spelled
        assert json.loads(to_json([spelled, EVIL])) == [spelled, EVIL]
        assert spelled in to_json([spelled, EVIL])
    for hidden in ("\u200da", "a\u200d", "a\u200d\u200db", "a \u200cb", "\x1b\u200da"):
        assert harmless(hidden) == ascii(hidden)[1:-1]
    assert json.loads(to_json({EVIL: [EVIL, float("nan"), 1.5]})) == {EVIL: [EVIL, None, 1.5]}
    assert is_harmless(to_json({EVIL: [EVIL]}))


@fuzz(150)
@given(st.text())
def test_any_text_is_made_harmless_and_json_keeps_it(text):
    assert is_harmless(harmless(text))
    assert json.loads(to_json(text)) == text


def test_events_outcomes_and_facts_with_escape_sequences_are_shown_harmless(pristine, own_home, capfd):
    state = msgspec.json.decode(pristine["state.json"])
    state |= {"device": EVIL, "precision": EVIL, "host": EVIL, "phase": EVIL}
    state["outcome"]["text"] = EVIL
    event = {"event": "finished", "step": 3, "text": EVIL, "outcome": EVIL}
    facts = {"device": EVIL, EVIL: EVIL, "problem": {"parameters": EVIL, "data": [EVIL]}, "started": {"a": EVIL}}
    files = pristine | {
        "state.json": json.dumps(state).encode(), "events.jsonl": json.dumps(event).encode() + b"\n",
        "provenance.json": json.dumps(facts).encode(), "engine.log": EVIL.encode(),
    }  # fmt: skip
    assert "\\x1b]0;owned" in read_every_way(run_of(own_home / "evil", files), capfd)
    assert Run(own_home / "evil").events()[0].text == harmless(EVIL)  # whoever reads them, the app too


def test_a_folder_with_an_evil_name_is_shown_harmless(pristine, tmp_path, capfd):
    assert "\\x1b[2J" in read_every_way(run_of(tmp_path / "\x1b[2J\x9bevil\u202e", pristine), capfd)


@pytest.mark.parametrize("field", ["title", "shows", "takes"])
def test_presets_with_escape_sequences_are_refused(field, pristine, tmp_path, capfd):
    text = pristine["spec.toml"].decode().replace(f'{field} = "', f'{field} = "\\u001b[2J', 1)
    with pytest.raises(UserError, match="control characters, which a terminal would obey"):
        load_spec_text(text, "preset")
    preset = tmp_path / "evil.toml"
    preset.write_text(text)
    assert main(["run", str(preset)]) == BAD_INPUT
    assert is_harmless(capfd.readouterr().err)


@pytest.mark.parametrize("change", [{"name": "gd.x\x1b"}, {"name": "../x"}, {"name": "step"}, {"symbol": EVIL}, {"words": "\x9b"}])
def test_columns_with_evil_names_are_refused(change, pristine, own_home, capfd):
    columns = json.loads(pristine["columns.json"])
    columns[5] |= change
    run_of(own_home / "evil", pristine | {"columns.json": json.dumps(columns).encode()})
    assert "so not written by eos" in read_every_way(own_home / "evil", capfd)


@pytest.mark.parametrize("name", ["spec.toml", "columns.json", "state.json", "provenance.json", "events.jsonl", "engine.log"])
def test_pipes_devices_and_endless_files_keep_nobody_waiting(name, pristine, own_home, capfd, monkeypatch):
    monkeypatch.setattr(reader, "MAX_JOURNAL_BYTES", 2**20)  # of an endless journal much is read elsewhere
    monkeypatch.setattr(reader, "MAX_PASSED_BYTES", 2**22)
    path = run_of(own_home / "odd", pristine)
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    read_every_way(path, capfd)
    (path / name).unlink()
    (path / name).symlink_to("/dev/zero")
    read_every_way(path, capfd)
    (path / name).unlink()
    with open(path / name, "wb") as handle:
        handle.truncate(2**40)  # sparse
    read_every_way(path, capfd)


@pytest.mark.parametrize("name", ["metrics.f64", "events.jsonl", "engine.log", "lock", ".state.json", "inbox/x.json", "checkpoints"])
def test_an_engine_does_not_follow_links_out_of_its_run(name, pristine, tmp_path, own_home, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("EOS_HOME", str(own_home))
    outside = tmp_path / "outside"
    outside.write_bytes(b"1234567")
    path = run_of(own_home / "linked", pristine)
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(outside)
    run = Run(path)
    for begin in (launch.start, Writer):
        with pytest.raises(UserError, match="a link, which an engine would follow out of the run; copy the run instead"):
            begin(run)
    assert outside.read_bytes() == b"1234567"


def test_a_command_is_not_left_behind_a_link(pristine, tmp_path, own_home):
    path = run_of(own_home / "linked", pristine)
    (path / "inbox").rmdir()
    (path / "inbox").symlink_to(tmp_path)
    with pytest.raises(UserError, match="a link, so no inbox of eos"):
        messages.send(path, messages.Stop())


def test_rows_that_no_engine_wrote_are_read_and_not_gone_on_with(pristine, own_home, capfd):
    width = len(json.loads(pristine["columns.json"]))
    for value in (np.nan, np.inf, -np.inf, 1e300, -5.0, 0.5):
        path = run_of(own_home / "odd", pristine | {"metrics.f64": np.full((3, width), value).tobytes()})
        read_every_way(path, capfd)
        with pytest.raises(UserError, match="so not written by eos"):
            Writer(Run(path))


TEXTS = st.text(max_size=8) | st.sampled_from([EVIL, "../../etc/passwd", "\ud800", "a" * 3000])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8,
)  # fmt: skip
STATES = st.fixed_dictionaries({}, optional={
    "status": st.sampled_from(["running", "finished", "paused", "gone"]) | VALUES, "step": VALUES, "rate": VALUES, "host": TEXTS,
    "heartbeat": st.floats() | VALUES, "seconds": VALUES, "pid": VALUES, "phase": TEXTS,
    "outcome": st.fixed_dictionaries({"kind": st.sampled_from(["completed", "failed", "?"]), "step": st.integers(), "text": TEXTS}),
})  # fmt: skip
EVENTS = st.lists(st.fixed_dictionaries({
    "event": st.sampled_from(["started", "edge_reached", "finished", "refused", "?"]), "step": st.integers() | VALUES, "text": TEXTS,
}, optional={"sharpness": VALUES, "outcome": VALUES, "at": VALUES, "answers": TEXTS}), max_size=3)  # fmt: skip
FACTS = VALUES | st.fixed_dictionaries({"problem": VALUES, "device": VALUES})
JSON = {"state.json": STATES, "provenance.json": FACTS, "columns.json": VALUES}


def lines(events: list) -> bytes:
    return b"".join(json.dumps(event).encode(errors="surrogatepass") + b"\n" for event in events)


@st.composite
def damages(draw) -> dict[str, bytes]:
    """Some files of a run, each anything at all, or well-formed with anything in it."""
    files = {}
    for name in draw(st.lists(st.sampled_from([*JSON, "events.jsonl", "metrics.f64", "spec.toml"]), min_size=1, max_size=3, unique=True)):
        if name in JSON and draw(st.booleans()):
            files[name] = json.dumps(draw(JSON[name])).encode()
        elif name == "events.jsonl":
            files[name] = lines(draw(EVENTS))
        elif name == "metrics.f64":
            files[name] = np.array(draw(st.lists(st.floats(), max_size=300))).tobytes()
        else:
            files[name] = draw(st.binary(max_size=200))
    return files


def look(files: dict[str, bytes], pristine, own_home, capfd) -> None:
    read_every_way(run_of(own_home / "fuzzed", pristine | files), capfd)


@fuzz(20)
@given(files=damages())
def test_nothing_in_a_run_directory_makes_a_command_fail(files, pristine, own_home, capfd):
    look(files, pristine, own_home, capfd)


@fuzz(35)
@given(name=TEXTS | st.text(alphabet="./\\\\~-_ aA0\x00\x1b\u202e", max_size=90))
def test_any_name_is_a_run_in_its_folder_or_a_sentence(name, own_home):
    for act in (lambda: store.create(toy_spec(), name), lambda: store.resolve(name)):
        try:
            run = act()
        except UserError as error:
            assert is_harmless(harmless(str(error)))
        else:
            assert run.path.resolve().parent == own_home.resolve()
            assert (run.path.name, stat.S_IMODE(run.path.stat().st_mode)) == (name, 0o700)


ARRAYS = numpies.arrays(numpies.scalar_dtypes(), numpies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))


@pytest.fixture(scope="module")
def snapshot():
    """The leaves of a state of the toy at its start, and an experiment to put others into."""
    from engine.phases.experiment import Experiment
    from engine.xla.device import configure

    configure()
    experiment = Experiment(toy_spec())
    return experiment, experiment.leaves()


@fuzz(70)
@given(data=st.data())
def test_a_checkpoint_spoilt_in_one_place_is_restored_or_passed_over(data, snapshot):
    from engine.process.checkpoints import NO_CHECKPOINT

    experiment, leaves = snapshot
    spoilt = dict(leaves)
    for name in data.draw(st.lists(st.sampled_from(sorted(leaves)), min_size=1, max_size=2)):
        if data.draw(st.booleans()):
            spoilt[name] = data.draw(ARRAYS)
        else:
            spoilt.pop(name, None)
    try:
        experiment.restore(spoilt)
    except NO_CHECKPOINT as error:
        assert str(error)
    finally:
        experiment.restore(leaves)


@fuzz(100)
@given(damage=st.dictionaries(st.integers(0, 700), st.binary(min_size=1, max_size=6), min_size=1, max_size=5), cut=st.integers(0, 400))
def test_a_damaged_npz_gives_arrays_or_nothing(damage, cut, tmp_path):
    body = io.BytesIO()
    np.savez(body, theta=np.arange(9.0), phase=np.array("edge"))
    spoilt = bytearray(body.getvalue())
    for at, piece in damage.items():
        spoilt[at : at + len(piece)] = piece
    path = tmp_path / "step-000000001.npz"
    path.write_bytes(bytes(spoilt[: len(spoilt) - cut]))
    arrays = read_arrays(path)
    assert arrays is None or all(isinstance(array, np.ndarray) for array in arrays.values())


def test_a_small_file_that_unpacks_into_a_large_one_is_not_read(tmp_path):
    path = tmp_path / "step-000000001.npz"
    np.savez_compressed(path, theta=np.zeros(10**6))
    assert path.stat().st_size < 20_000
    assert read_arrays(path) is None  # an engine packs nothing


@pytest.mark.slow
@fuzz(2000)
@given(files=damages())
def test_nothing_in_thousands_of_run_directories_makes_a_command_fail(files, pristine, own_home, capfd):
    """Rare combinations of fields, of which sixty examples meet few."""
    look(files, pristine, own_home, capfd)
