"""Tags on runs, and the list of many runs."""

import json

import pytest

from engine.base.errors import BAD_INPUT, UserError
from engine.commands.main import main
from engine.record import tags
from engine.record.glance import Glance, all_glances
from engine.record.store import all_runs, half_made, resolve

from synthetic import make_run


def listed(capfd, *words: str) -> list[dict]:
    """What `ls --json` prints."""
    assert main(["ls", "--json", *words]) == 0
    return json.loads(capfd.readouterr().out)


def test_tags_are_put_on_taken_off_and_listed_by(capfd, own_home):
    make_run(own_home, 20, "one")
    make_run(own_home, 20, "two")
    assert main(["tag", "one", "good", "größer", "good"]) == 0
    assert main(["tag", "two", "good", "--json"]) == 0
    assert "good größer" in (said := capfd.readouterr().out)
    assert json.loads(said.partition("\n")[2]) == {"run": "two", "tags": ["good"]}
    assert [entry["tags"] for entry in listed(capfd)] == [["good", "größer"], ["good"]]
    assert [entry["run"] for entry in listed(capfd, "--tag", "good", "--tag", "größer")] == ["one"]
    assert listed(capfd, "--tag", "none") == []
    assert main(["tag", "one", "good", "--remove"]) == 0
    assert main(["tag", "one"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "größer"
    assert main(["tag", "one", "good", "--remove"]) == BAD_INPUT
    assert capfd.readouterr().err == "eos: run one: not tagged good; it has größer\n"
    assert main(["tag", "one", "<b>"]) == BAD_INPUT
    assert "tag '<b>': use up to 32 letters" in capfd.readouterr().err
    assert main(["tag", "one", *(f"w{k}" for k in range(tags.MOST))]) == BAD_INPUT
    assert f"{tags.MOST + 1} tags: a run has {tags.MOST} at most" in capfd.readouterr().err


def test_as_many_tags_as_there_may_be_are_read_back(own_home):
    run = make_run(own_home, 20, "one")
    words = tuple("\N{MATHEMATICAL BOLD SMALL A}" * 32 for _ in range(1)) + tuple(f"{k}" + "ö" * 31 for k in range(tags.MOST - 1))
    assert tags.tags_of(run.path) == ()
    assert tags.write_tags(run.path, words) == tags.tags_of(run.path) == words


@pytest.mark.parametrize("body", [
    b"", b"[", b"[]", b'{"tags": 3}', b'{"tags": "good"}', b'{"tags": {"a": 1}}', b'{"tags": [1, null, "\\u001b[31m", "a b", ""]}',
    b'{"tags": ["' + b"a" * 33 + b'"]}', b"[" * 4000, b'{"tags": ["x"], "pad": "' + b" " * 5000 + b'"}', b"\xff\xfe",
])  # fmt: skip
def test_what_is_no_tag_is_not_shown(own_home, body):
    run = make_run(own_home, 20, "one")
    (run.path / tags.FILE).write_bytes(body)
    assert tags.tags_of(run.path) == ()


def test_tags_are_neither_read_nor_written_through_a_link(own_home, tmp_path):
    run = make_run(own_home, 20, "one")
    other = tmp_path / "other"
    other.write_text('{"tags": ["mine"]}')
    (run.path / tags.FILE).symlink_to(other)
    assert tags.tags_of(run.path) == ()
    tags.write_tags(run.path, ["yours"])
    assert other.read_text() == '{"tags": ["mine"]}'
    assert tags.tags_of(run.path) == ("yours",)


def test_a_folder_of_tags_and_nothing_else_is_a_run_half_made(own_home):
    run = make_run(own_home, 20, "one")
    tags.write_tags(run.path, ["good"])
    assert Glance(run.path).tags() == ("good",)
    (run.path / "spec.toml").unlink()
    assert half_made(run.path)


def test_a_list_reads_a_tenth_of_what_a_run_is(own_home, monkeypatch):
    """Of 3,000 runs a list took 15 s where each was opened, and takes 0.6 s."""
    for name in ("one", "two", "bad"):
        make_run(own_home, 20, name)
    (own_home / "bad" / "spec.toml").write_bytes(b"name = 3\n")
    later = json.loads((own_home / "two" / "state.json").read_bytes())
    (own_home / "two" / "state.json").write_text(json.dumps(later | {"format": 99}))
    assert [(glance.name, glance.preset, state.step) for glance, state in all_glances()] == [("one", "synthetic", 19)]
    assert [run.name for run in all_runs()] == ["one"]
    monkeypatch.setattr("engine.record.reader.load_recorded", lambda *_: pytest.fail("a specification is read"))
    monkeypatch.setattr("engine.record.reader.read_columns", lambda *_: pytest.fail("columns are read"))
    assert len(all_glances()) == 1


def test_the_latest_run_is_opened_and_no_other(own_home, monkeypatch):
    for name in ("a", "b", "c"):
        make_run(own_home, 20, name)
    (own_home / "c" / "spec.toml").write_text("no specification")
    (own_home / "c" / "columns.json").unlink()
    from engine.record import reader

    real, read = reader.load_recorded, []
    monkeypatch.setattr(reader, "load_recorded", lambda text, where: read.append(where) or real(text, where))
    assert resolve(None).name == "b"
    assert read == [str(own_home / "b" / "spec.toml")]


def test_a_specification_of_another_hand_is_named_as_well(own_home):
    run = make_run(own_home, 20, "one")
    spec = run.path / "spec.toml"
    spec.write_text("# mine\n" + spec.read_text().replace('name = "synthetic"', "name='by-hand'"))
    assert Glance(run.path).preset == "by-hand"
    spec.write_text('name = "not a name"\n')
    with pytest.raises(UserError, match="name"):
        Glance(run.path)
