"""The README and the topics of `eos help` say what the code says."""

import inspect
import re
import shlex
import tomllib

import numpy as np
import pytest

import engine
from engine.commands import main as headless
from engine.help.topics import TOPICS as OF_THE_ENGINE
from eos_tui import cli
from eos_tui.topics.topics import TOPICS

from guides import GUIDES, README, TEXTS
from places import ROOT
from synthetic import make_run


def test_the_readme_is_of_a_length_that_is_read():
    assert 8_000 <= len(README.encode()) <= 10_000


def test_the_first_block_holds_the_two_commands():
    first = README.split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    assert first == ["pip install -e . && eos demo", "pip install -e '.[test]' && pytest"]


def test_every_picture_is_shown_and_there():
    pictures = ROOT / ".github"
    shown = re.findall(r"!\[.+?\]\(\.github/(.+?)\)", README)
    assert len(shown) == 1
    shown += re.findall(r"!\[.+?\]\((.+?)\)", (pictures / "PICTURES.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in pictures.iterdir() if path.suffix in (".png", ".svg"))
    assert all((pictures / picture).stat().st_size > 10_000 for picture in shown)


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\((?!http)(.+?)\)", README) if link]
    assert len(links) >= 4
    assert all((ROOT / link).is_file() for link in links)


def test_every_topic_is_named():
    table = README.split("| topic | what it tells |\n|---|---|\n", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(TEXTS) - {"commands"}


def test_the_tree_has_every_package_in_the_order_of_imports():
    tree = README.split("```\nengine/ ", 1)[1].split("```", 1)[0]
    parts = dict(zip(("engine", "eos_tui"), re.split(r"^eos_tui/", tree, flags=re.MULTILINE), strict=True))
    for package, block in parts.items():
        named = re.findall(r"^  (\w+)/ +\S", block, re.MULTILINE)
        assert sorted(named) == sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py")), package
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    order = [name for layer in contract["layers"] for name in layer.split(" | ")]
    places = [order.index(name) for name in re.findall(r"^  (\w+)(?:/|\.py) +\S", parts["engine"], re.MULTILINE)]
    assert places == sorted(places)


def test_every_command_is_named():
    cli.main(["--version"])  # the engine's commands join the view's
    words = {word for code in re.findall(r"`([^`\n]+)`", TEXTS["commands"]) for word in re.findall(r"[a-z]+", code)}
    assert {name for name in cli.app if not name.startswith("-")} - {"work"} <= words


DRAWN = {"attach", "gallery", "learn", "play", "plot", "reference", "serve", "work"}
"""Commands that open a view, draw, or print a document; `work` is for the others to start."""


def test_every_command_that_prints_data_takes_json():
    cli.main(["--version"])

    def without_json(app) -> set[str]:
        parts = {name: app[name] for name in app if not name.startswith("-")}
        below = [without_json(part) or takes_none(part.default_command) for name, part in parts.items()]
        return set().union(*below)

    def takes_none(command) -> set[str]:
        return set() if command is None or "json" in inspect.signature(command).parameters else {command.__name__}

    assert without_json(cli.app) == DRAWN


COMMAND_LINES = [
    *(
        line.split("#")[0].replace("`", "").strip()
        for block in re.findall(r"```sh\n(.*?)```", GUIDES, re.DOTALL)
        for line in block.splitlines()
        if re.match(r"(eos|srun .*python -m engine|python -m engine) ", line)
    ),
    *re.findall(r"^\| `(eos [^`]+)` \|", README, re.MULTILINE),
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_of_the_guides_is_understood(line):
    """Its command and options exist and its values are of their types; `test_guides.py` carries it out."""
    cli.main(["--version"])
    tokens = shlex.split(line.split(" > ")[0])
    app, start = (headless.app, tokens.index("engine") + 1) if "engine" in tokens else (cli.app, 1)
    app.parse_args(tokens[start:], exit_on_error=False, print_error=False)


def test_the_lines_of_the_guides_are_found():
    assert len(COMMAND_LINES) > 25


def test_who_carries_eos_on_is_sent_where_things_are():
    """Every file of the table is there, and holds the names that its row gives."""
    table = TEXTS["extending"].split("| to add | go to |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    assert len(table) >= 7
    for row in table:
        names = re.findall(r"`([^`]+)`", row)
        files = [ROOT / name for name in names if "/" in name]
        assert files, row
        assert all(path.exists() for path in files), row
        text = "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
        assert all(re.search(rf"\b{name}\b", text) for name in names if "/" not in name), row


def python_block(text: str, word: str) -> str:
    """The one block of Python in a text that has this word."""
    [block] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in block]
    return block


def test_a_run_is_read_in_numpy_as_the_guide_does(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.chdir(run.path)
    names: dict = {}
    exec(python_block(TEXTS["run-directory"], "columns.json"), names)
    np.testing.assert_array_equal(names["table"], run.rows())
    np.testing.assert_array_equal(names["sharpness"], run.table()["gd.sharpness"])


def test_the_python_of_the_readme_does_what_it_says(own_home, capsys):
    block = python_block(README, "engine.stream")
    assert len(block.splitlines()) == 10
    names: dict = {}
    exec(block, names)
    out = capsys.readouterr().out.splitlines()
    assert str(own_home) in out[0]
    assert re.match(r"at the edge the sharpness is 0\.\d+ to 1\.\d+ of its threshold, 2/η", out[1])
    assert [line.split()[0] for line in out[2:5]] == ["0.0", "1.0", "2.0"]
    assert names["record"].outcome.kind == "completed"


def test_what_is_cited_is_of_this_version():
    citation = (ROOT / ".github" / "CITATION.cff").read_text(encoding="utf-8")
    for text in (citation, README):
        assert re.search(rf"version *[:=] *\{{?{re.escape(engine.__version__)}\b", text)
        assert "Self-Stabilization: The Implicit Bias of Gradient Descent at the Edge of Stability" in text
        assert "https://arxiv.org/abs/2209.15594" in text


def test_the_engine_tells_of_nothing_that_only_the_view_has():
    assert {topic.name for topic in TOPICS} - {topic.name for topic in OF_THE_ENGINE} == {"commands", "dashboard", "keys", "terminal"}
