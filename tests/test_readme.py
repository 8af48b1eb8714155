"""The README says what the code says."""

from pathlib import Path

import pytest

import readme_tables

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [readme_tables.presets, readme_tables.keys, readme_tables.notation])
def test_generated_tables_are_up_to_date(table):
    assert table() in README


def test_the_first_block_holds_the_two_commands():
    first = README.split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    assert first == ["pip install -e . && eos demo", "pip install -e '.[test]' && pytest"]


def test_the_picture_is_there():
    assert (Path(__file__).parent.parent / ".github" / "dashboard.png").stat().st_size > 10_000
