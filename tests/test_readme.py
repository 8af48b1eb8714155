"""The README says what the code says."""

import re
from pathlib import Path

import pytest

from eos_tui import cli

import readme_tables

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
