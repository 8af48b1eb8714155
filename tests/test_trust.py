"""Whose code is executed: a copied run is data, on every way from a run directory to an engine; what is made or trusted here goes on."""

import ast
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

import engine
from engine import api
from engine.base.errors import BAD_INPUT, UserError
from engine.commands.main import main
from engine.data.catalog import ready
from engine.jobs import fork, launch
from engine.process import worker
from engine.record import store, trust
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer
from engine.spec import RunSpec, from_tree, load_spec, sections, to_toml, with_overrides
from engine.spec.sections import Function, Section

from places import ROOT, TESTS
from synthetic import make_run

MARKED = "from pathlib import Path\nPath({mark!r}).touch()\nfrom own_problems import good\n"


@pytest.fixture(autouse=True)
def nothing_granted(monkeypatch, tmp_path):
    """A process that has seen nothing yet, where modules of the tests and of the clone can be imported."""
    monkeypatch.setattr(trust, "granted", set())
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{TESTS}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The file that the code leaves behind when it is executed."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "marked", raising=False)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "marked.py").write_text(MARKED.format(mark=str(tmp_path / "executed")))
    return tmp_path / "executed"


def own_spec(folder, **fields) -> RunSpec:
    """A specification that names the code of `mark`."""
    problem = {"kind": "own", "function": "marked:good", "folder": str(folder), "arguments": {"scale": 2.0}, **fields}
    return from_tree({"name": "own", "problem": problem, "optimizer": {"learning_rate": 0.1}, "budget": {"steps": 5}}, "a test")


@pytest.fixture
def got(mark, tmp_path):
    """A run from elsewhere: begun, with a checkpoint, and an identity and a signature that another user's key made."""
    made = store.create(own_spec(tmp_path / "code"), "got", tmp_path)
    rows = np.full((3, len(made.columns)), np.nan)
    rows[:, 0] = range(3)
    with Writer(made) as writer:
        writer.append(rows)
        writer.checkpoint(2, {"theta": np.zeros(3)}, 3)
        writer.state(State(status="finished", step=2, outcome=Outcome(kind="stopped", step=2, text="stopped")))
    trust.key_path().unlink()
    trust.granted.clear()
    assert (made.path / "trust.json").is_file()
    return Run(made.path)


@pytest.fixture
def engines(monkeypatch):
    """Command lines of the engines that would have been started."""
    commands: list[list[str]] = []

    class Started:
        pid, returncode = 2**22 + 1, None

    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: commands.append(command) or Started())
    return commands


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch, text: str) -> None:
    """Sit at a terminal and type this."""
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


# -- what is code


class Metrics(Section, frozen=True, kw_only=True):
    functions: tuple[Function, ...] = ()


class OwnOptimizer(Section, frozen=True, kw_only=True, tag_field="kind", tag="own"):
    step: Function
    folder: sections.CodeFolder = ""


class Later(Section, frozen=True, kw_only=True):
    """A specification as a later version may have it."""

    problem: sections.Own | sections.Toy
    optimizer: OwnOptimizer | None = None
    metrics: Metrics = Metrics()
    listed: tuple[OwnOptimizer, ...] = ()
    named: dict[str, Function] = msgspec.field(default_factory=dict)
    maybe: Function | None = None


def test_every_field_that_is_declared_as_code_is_trusted_shown_and_signed_whichever_part_has_it():
    toy, step = sections.Toy(), OwnOptimizer(step="a:step", folder="/there")
    assert trust.code_of(Later(problem=toy)) == {}
    assert trust.code_of(Later(problem=toy, optimizer=step)) == {"optimizer.step": "a:step", "optimizer.folder": "/there"}
    assert trust.code_of(Later(problem=toy, metrics=Metrics(functions=("m:f", "m:g")))) == {"metrics.functions": ("m:f", "m:g")}
    assert trust.code_of(Later(problem=toy, listed=(step,))) == {"listed[0].step": "a:step", "listed[0].folder": "/there"}
    assert trust.code_of(Later(problem=toy, named={"x": "m:f"})) == {"named": {"x": "m:f"}}
    assert trust.code_of(Later(problem=toy, maybe="m:f")) == {"maybe": "m:f"}
    own = Later(problem=sections.Own(function="m:f", arguments={"a": (1, "b")}), maybe="m:g")
    assert trust.code_of(own) == {"problem.function": "m:f", "problem.arguments": {"a": (1, "b")}, "maybe": "m:g"}
    assert trust.words(trust.code_of(own))[0] == 'problem.function = "m:f"'


def all_parts(kind=RunSpec, seen=None):
    """Every part that a specification may have."""
    seen = set() if seen is None else seen
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and issubclass(each, Section) and each not in seen:
            seen.add(each)
            for field in msgspec.structs.fields(each):
                all_parts(field.type, seen)
    return seen


def test_no_field_of_a_specification_that_reads_like_code_is_left_undeclared():
    for part in all_parts():
        for name, roles in trust._fields(part):
            assert roles or not any(word in name for word in ("function", "module", "callable", "code")), (part, name)
    assert dict(trust._fields(sections.Own)) == {
        "function": {"function"}, "folder": {"folder"}, "arguments": {"arguments"}, "self_test": frozenset(),
        "start": frozenset(), "readings": frozenset(),
    }  # fmt: skip


def test_a_value_cannot_look_like_another_line_or_run_over():
    lines = trust.words({"problem.function": "m:f", "problem.arguments": {"a": "x\nproblem.folder = /safe\x1b[2J"}, "b": "y" * 5000})
    assert [line.count("\n") for line in lines] == [0, 0, 0]
    assert "\\nproblem.folder" in lines[1]
    assert "\x1b" not in "".join(lines)
    assert len(lines[2]) < 2100


# -- a copied run


def ways(run: Path) -> dict[str, list[str]]:
    """The commands that lead from a run directory to an engine, or to the code itself."""
    spec = str(run / "spec.toml")
    return {
        "resume": ["resume", str(run)], "fork": ["fork", str(run)], "run": ["run", spec], "check": ["check", spec],
        "sweep": ["sweep", spec, "--grid", "seed=0,1"], "work": ["work", str(run)],
        "demo twin": ["run", spec, "--set", "budget.steps=3", "--json"],
    }  # fmt: skip


@pytest.mark.parametrize("way", ways(Path()))
def test_a_copied_run_executes_nothing_without_a_word(way, got, mark, engines, capfd, own_home):
    assert main(ways(got.path)[way]) == BAD_INPUT
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    for shown in ('problem.function = "marked:good"', f'problem.folder = "{mark.parent / "code"}"', 'problem.arguments = {"scale": 2.0}',
                  "not made here by you", "--trust"):  # fmt: skip
        assert shown in err
    assert engines == []
    assert not mark.exists()
    assert not own_home.exists() or not list(own_home.iterdir())


@pytest.mark.parametrize("way", [name for name in ways(Path()) if name != "work"])
def test_trust_given_by_name_or_said_on_a_terminal_lets_it_go_on(way, got, mark, engines, capfd, monkeypatch, x64):
    command = ways(got.path)[way]
    answer(monkeypatch, "\n")
    assert main(command) == BAD_INPUT
    assert "Execute it, now and later? [y/N]" in capfd.readouterr().err
    assert (engines, mark.exists()) == ([], False)
    answer(monkeypatch, "y\n")
    assert main(command) in (0, 3)  # engines that are not really there have crashed
    assert mark.exists() if way == "check" else len(engines) == 1 + (way == "sweep")


@pytest.mark.parametrize("way", ["resume", "fork", "run", "sweep"])
def test_the_option_is_as_good_as_an_answer_and_the_run_is_signed(way, got, engines, capfd, monkeypatch):
    command = ways(got.path)[way]
    assert main([*command, "--trust"]) in (0, 3)
    assert len(engines) == 1 + (way == "sweep")
    assert all("--code" in each for each in engines)
    trust.granted.clear()  # another process
    assert main(["resume", str(got.path)]) == (3 if way in ("resume", "fork") else BAD_INPUT)
    capfd.readouterr()


def test_an_own_run_of_an_older_version_is_asked_about_once(got, engines, capfd, monkeypatch):
    for name in ("identity.json", "trust.json"):
        (got.path / name).unlink()
    assert Run(got.path).id == ""
    assert main(["resume", str(got.path)]) == BAD_INPUT
    assert not (got.path / "identity.json").exists()
    assert main(["resume", str(got.path), "--trust"]) == 3
    trust.granted.clear()
    assert main(["resume", str(got.path)]) == 3
    assert "--code" not in engines[-1]  # the engine looks at the signature
    assert len(Run(got.path).id) == 32
    capfd.readouterr()


def test_a_run_made_here_goes_on_wherever_it_lies_and_not_with_other_code(mark, tmp_path, own_home):
    run = store.create(own_spec(tmp_path / "code"), "mine")
    trust.granted.clear()
    trust.need(run.path, run.spec)
    shutil.copytree(run.path, tmp_path / "copy")
    shutil.move(run.path, tmp_path / "moved")
    for place in ("copy", "moved"):
        trust.need(tmp_path / place, Run(tmp_path / place).spec)
    spec = tmp_path / "moved" / "spec.toml"
    text = spec.read_text()
    spec.write_text(text.replace("steps = 5\n", "steps = 6\n"))  # data
    trust.need(spec.parent, Run(spec.parent).spec)
    for old, new in (('"marked:good"', '"os:system"'), (str(tmp_path / "code"), "/tmp"), ("scale = 2.0", "scale = 3.0")):
        assert old in text
        spec.write_text(text.replace(old, new))
        with pytest.raises(trust.Untrusted):
            trust.need(spec.parent, Run(spec.parent).spec)


def test_another_runs_signature_is_worth_nothing(mark, got, tmp_path):
    mine = store.create(own_spec(tmp_path / "code", arguments={"scale": 3.0}), "mine")
    trust.granted.clear()
    for names in (["trust.json"], ["trust.json", "identity.json"]):
        for name in names:
            shutil.copy(mine.path / name, got.path / name)
        with pytest.raises(trust.Untrusted):
            trust.need(got.path, got.spec)
    for body in ("", "[]", '{"signature": 5}', '{"signature": "é"}', "[" * 3000, '{"signature": ""}'):
        (got.path / "trust.json").write_text(body)
        with pytest.raises(trust.Untrusted):
            trust.need(got.path, got.spec)


def test_the_engine_itself_looks_at_what_it_has_read(got, mark, tmp_path):
    """Between a command's look and the engine's the specification may have become another."""
    seen = trust.digest(trust.code_of(got.spec))
    path = got.path / "spec.toml"
    path.write_text(path.read_text().replace("marked:good", "marked:other"))
    for code in ([], ["--code", seen], ["--code", "0" * 64]):
        done = subprocess.run([*launch.python(), "-m", "engine", "work", str(got.path), *code], capture_output=True, text=True,
                              env=launch.environment(), check=False)  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (BAD_INPUT, 1)
        assert "marked:other" in done.stderr
    with pytest.raises(trust.Untrusted):
        worker.work(str(got.path))
    assert not mark.exists()


def test_in_python_too(got, mark, own_home, monkeypatch):
    spec = engine.load(got.path).spec
    for given in (got.path / "spec.toml", str(got.path / "spec.toml"), spec, with_overrides(spec, ["budget.steps=4"])):
        for way in (engine.run, lambda given: next(engine.stream(given))):
            with pytest.raises(UserError, match=r"it would execute code: problem\.function = \"marked:good\".*in Python trust=True"):
                way(given)
    with pytest.raises(trust.Untrusted):
        launch.restart(engine.load(got.path).run)
    with pytest.raises(trust.Untrusted):
        fork.fork(got, 2)
    with pytest.raises(trust.Untrusted):
        launch.start(got)
    assert not mark.exists()
    assert not own_home.exists()
    monkeypatch.setattr(api.Stepping, "blocks", lambda self: iter(()))
    assert engine.run(spec, trust=True).spec == spec
    assert list(engine.stream(str(got.path / "spec.toml"), trust=True)) == []


def test_a_preset_file_of_the_users_own_choice_is_trusted_and_a_link_to_a_runs_is_not(got, tmp_path):
    spec = ready(load_spec(str(got.path / "spec.toml")))
    (tmp_path / "linked.toml").symlink_to(got.path / "spec.toml")
    (tmp_path / "folder").symlink_to(got.path)
    for preset in (got.path / "spec.toml", tmp_path / "linked.toml", "folder/spec.toml", "got/checkpoints/../spec.toml"):
        with pytest.raises(trust.Untrusted):
            trust.need_preset(str(preset), spec)
    (got.path / "columns.json").unlink()  # half a run is a run
    with pytest.raises(trust.Untrusted):
        trust.need_preset(str(got.path / "spec.toml"), spec)
    (tmp_path / "mine.toml").write_text(to_toml(spec))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "spec.toml").write_text(to_toml(spec))
    for preset in ("mine.toml", str(tmp_path / "mine.toml"), "project/spec.toml", "toy"):
        trust.need_preset(preset, spec)


def test_a_run_of_a_figure_or_a_sweep_that_lies_there_already_is_looked_at(got, mark, engines, own_home, monkeypatch, capfd):
    from engine.figures import runs
    from engine.jobs import sweep

    want = runs.Wanted("toy", load_spec("toy"), "")
    own_home.mkdir()
    shutil.copytree(got.path, own_home / want.name)
    with pytest.raises(trust.Untrusted):
        runs.start(want)
    [point] = sweep.points("toy", [sweep.axis("seed=3")])
    shutil.copytree(got.path, own_home / point.name)
    with pytest.raises(UserError, match="its specification is not that of this point"):
        sweep.sweep([point], 1)
    assert engines == []
    (mark.parent / "mine.toml").write_text(to_toml(got.spec))
    [point] = sweep.points("mine.toml", [sweep.axis("seed=0")])  # the user's own code, in a folder that another has made
    shutil.copytree(got.path, own_home / point.name)
    sweep.sweep([point], 1)
    assert len(engines) == 1
    trust.granted.clear()
    trust.need(own_home / point.name, point.spec)


def test_a_follower_executes_no_code_that_it_was_not_asked_for(monkeypatch, capfd):
    from engine.process.lockstep import refuse_code

    spec = own_spec("/there")
    refuse_code(load_spec("toy"), None)
    refuse_code(spec, own_spec("/here"))  # each host may have its own folder
    for asked in (None, load_spec("toy"), own_spec("/there", function="marked:other"), own_spec("/there", arguments={})):
        with pytest.raises(UserError, match="process 0 would have this process execute code"):
            refuse_code(spec, asked)
    monkeypatch.setattr("engine.commands.main.help_compute", lambda group, asked=None: refuse_code(spec, asked) or 0)
    group = ["--coordinator", "127.0.0.1:4000", "--processes", "2", "--process", "1"]
    for words, status in ((["--trust"], 0), ([], BAD_INPUT)):
        assert main(["resume", "it", *group, *words]) == status
    capfd.readouterr()


async def test_the_view_asks_before_it_forks_or_resumes(got, engines, own_home, monkeypatch):
    from eos_tui.app import EosApp
    from eos_tui.screens.launcher import Launcher
    from eos_tui.screens.prompts import Ask, Confirm

    own_home.mkdir()
    shutil.copytree(got.path, own_home / "got")
    app = EosApp(None)
    async with app.run_test(size=(110, 36)) as pilot:
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, Launcher)
        app.pace.hurry()
        while not screen.runs.count:
            await screen.draw()
            await pilot.pause()
        screen.runs.focus()
        for key, started in (("n", 0), ("y", 1)):
            await pilot.press("r")
            assert isinstance(app.screen, Confirm)
            assert 'problem.function = "marked:good"' in app.screen.question
            await pilot.press(key)
            await pilot.pause()
            assert len(engines) == started
    trust.granted.clear()
    (own_home / "got" / "trust.json").unlink()
    app = EosApp(Run(own_home / "got"))
    async with app.run_test(size=(110, 36)) as pilot:
        await pilot.pause()
        await pilot.press("F")
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        await pilot.press("F")
        await pilot.press("y")
        await pilot.pause()
        assert isinstance(app.screen, Ask)
    assert len(engines) == 1


# -- the key


def test_the_key_is_made_once_for_this_user_alone_and_not_among_the_runs(tmp_path, own_home):
    before = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            keys = set(pool.map(lambda _: trust.key(make=True), range(32)))
    finally:
        os.umask(before)
    assert len(keys) == 1
    path = trust.key_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["key"]
    assert not path.is_relative_to(own_home)


def spoil_by_link(path):
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("spoil", [
    spoil_by_link, lambda path: path.chmod(0o640), lambda path: path.write_bytes(b"short"), lambda path: path.write_bytes(bytes(99)),
    lambda path: (path.unlink(), os.mkfifo(path, 0o600)), lambda path: (path.unlink(), path.mkdir(0o700)),
    lambda path: (path.unlink(), path.symlink_to("/nowhere/at/all")),
], ids=["link", "mode", "short", "long", "pipe", "folder", "dangling"])  # fmt: skip
def test_a_key_that_is_not_this_users_alone_signs_nothing_and_is_reported(spoil, got, mark, tmp_path, engines, capfd):
    trust.key(make=True)
    spoil(trust.key_path())
    assert main(["resume", str(got.path)]) == BAD_INPUT
    capfd.readouterr()
    assert main(["resume", str(got.path), "--trust"]) == 3  # this once
    err = capfd.readouterr().err
    assert "trusted this once, for that cannot be written down" in err
    assert str(trust.key_path()) in err
    assert "Traceback" not in err
    trust.granted.clear()
    with pytest.raises(trust.Untrusted):
        trust.need(got.path, got.spec)
    assert not Path("/nowhere").exists()


def test_without_a_place_for_a_key_a_run_of_ones_own_code_is_made_and_says_what_resuming_takes(mark, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(trust, "key_path", lambda: Path("~/.local/share/eos-trust/key"))
    run = store.create(own_spec(tmp_path / "code"), "mine")
    assert "run mine: to go on with it will take --trust, for it could not be signed (" in capfd.readouterr().err
    assert trust.option(run.spec)[0] == "--code"  # the engine of this command may
    assert not Path("~").exists()
    assert store.create(load_spec("toy"), "plain").name == "plain"  # runs without such code need no key
    assert capfd.readouterr().err == ""


def test_a_signature_is_written_through_no_link(got, engines, tmp_path, capfd):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (got.path / "trust.json").unlink()
    (got.path / "trust.json").symlink_to(outside)
    assert main(["resume", str(got.path), "--trust"]) == BAD_INPUT
    assert "a link, which an engine would follow" in capfd.readouterr().err
    assert outside.read_text() == "mine"


def test_every_run_has_an_id_of_its_own(own_home):
    first, second = make_run(own_home, name="a"), make_run(own_home, name="b")
    assert json.loads((first.path / "identity.json").read_text()) == {"format": 1, "id": first.id}
    assert len({first.id, second.id, store.create(first.spec, "c").id}) == 3
    for body in ("", "{}", '{"id": "x"}', '{"id": ["a"]}', "\xff"):
        (first.path / "identity.json").write_text(body)
        assert first.id == ""


# -- where modules come from


def test_every_process_that_is_started_leaves_the_folder_it_is_in_alone():
    """`sys.executable` is written where -P is, and nowhere else."""
    for folder in ("engine", "eos_tui", "tests/bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.List) and "sys.executable" in map(ast.unparse, node.elts):
                    at = list(map(ast.unparse, node.elts)).index("sys.executable")
                    starts_itself = ast.unparse(node.elts[at + 1]) == "*sys.argv[1:]"
                    assert starts_itself or ast.unparse(node.elts[at + 1]) == "'-P'", f"{path}:{node.lineno}"


def test_modules_named_like_ours_in_the_folder_one_is_in_are_not_imported(tmp_path, monkeypatch):
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("engine", "eos_tui", "presets", "textual", "random", "json", "jax", "submitit", "numpy", "sitecustomize"):
        (evil / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})")
    monkeypatch.chdir(evil)
    monkeypatch.setenv("PYTHONPATH", f":{ROOT}:")  # an empty entry means the folder one is in
    assert all(entry and Path(entry) != evil for entry in launch.environment()["PYTHONPATH"].split(os.pathsep))
    for code in ("import engine.spec, presets, random, json, numpy", "import eos_tui.opening, textual"):
        subprocess.run([*launch.python(), "-c", code], env=launch.environment(), check=True)
    assert not (tmp_path / "executed").exists()


def test_python_m_leaves_the_folder_it_is_given_in_too(tmp_path, monkeypatch):
    for name in ("random", "json", "textual", "cyclopts", "rich"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    for package in ("engine", "eos_tui"):
        done = subprocess.run([sys.executable, "-m", package, "presets", "--json"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_every_promise_names_tests_that_there_are():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / ".github" / "SECURITY.md").read_text())
    assert len(named) > 20
    for file, test in named:
        assert re.search(rf"def {test}\(", (ROOT / file).read_text()), test


def test_jobs_of_a_cluster_are_handed_in_with_a_safe_path(monkeypatch, own_home):
    from engine.jobs import cluster

    seen: list[tuple[str | None, str]] = []

    class Executor:
        def submit(self, work):
            seen.append((os.environ.get("PYTHONSAFEPATH"), os.environ["PYTHONPATH"]))
            return work

    monkeypatch.setenv("PYTHONPATH", f":{ROOT}")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    cluster.hand_in([make_run(own_home)], "local", Executor())
    assert seen == [("1", str(ROOT))]
    assert (os.environ.get("PYTHONSAFEPATH"), os.environ["PYTHONPATH"]) == (None, f":{ROOT}")
