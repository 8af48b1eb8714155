"""The README says what the code says."""

import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from engine.commands import main as headless
from eos_tui import cli

import readme_tables
from synthetic import make_run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [readme_tables.presets, readme_tables.keys, readme_tables.notation])
def test_generated_tables_are_up_to_date(table):
    assert table() in README


def test_the_first_block_holds_the_two_commands():
    first = README.split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    assert first == ["pip install -e . && eos demo", "pip install -e '.[test]' && pytest"]


def test_every_picture_is_there():
    shown = re.findall(r"!\[.+?\]\((.+?)\)", README)
    assert len(shown) >= 4
    assert all((Path(__file__).parent.parent / picture).stat().st_size > 10_000 for picture in shown)


def test_every_command_is_told_of():
    cli.main(["--version"])  # the engine's commands join the view's
    words = {word for code in re.findall(r"`([^`\n]+)`", README) for word in re.findall(r"[a-z]+", code)}
    assert {name for name in cli.app if not name.startswith("-")} - {"work"} <= words


DRAWN = {"attach", "gallery", "learn", "plot", "reference", "serve", "work"}
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
    line.split("#")[0].replace("`", "").strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if re.match(r"(eos|srun .*python -m engine|python -m engine) ", line)
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_of_the_guides_is_understood(line):
    """Its command and options exist and its values are of their types; `test_guides.py` carries it out."""
    cli.main(["--version"])
    tokens = shlex.split(line.split(" > ")[0])
    app, start = (headless.app, tokens.index("engine") + 1) if "engine" in tokens else (cli.app, 1)
    app.parse_args(tokens[start:], exit_on_error=False, print_error=False)


def test_who_carries_eos_on_is_sent_where_things_are():
    """Every file of the table is there, and holds the names that its row gives."""
    root = Path(__file__).parent.parent
    table = README.split("| to add | go to |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    assert len(table) >= 7
    for row in table:
        told = re.findall(r"`([^`]+)`", row)
        files = [root / name for name in told if "/" in name]
        assert files, row
        assert all(path.exists() for path in files), row
        text = "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
        assert all(re.search(rf"\b{name}\b", text) for name in told if "/" not in name), row


def test_a_run_is_read_in_numpy_as_the_guide_does(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.chdir(run.path)
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "columns.json" in block)
    found: dict = {}
    exec(code, found)
    np.testing.assert_array_equal(found["table"], run.rows())
    np.testing.assert_array_equal(found["sharpness"], run.table()["gd.sharpness"])
