"""Command lines that only open the view are read apart from all others, and mean the same."""

import pytest

from eos_tui import cli
from eos_tui.opening import ViewCommand

BOTH_WAYS = (
    "", "attach", "attach made", "--fps 2", "attach --fps 0.5 --theme light", "attach made --no-mouse --ascii --low-bandwidth",
    "--mouse --no-ascii --theme terminal", "attach a/path --fps 10", "attach one two --fps 2",
)
LEFT = (
    "attach --fps", "--fps fast", "--fps 99", "--theme blue", "--fps=4", "--help", "-h", "--version", "attach --help", "ls",
    "demo", "run toy", "--fps 4 attach", "attach --ascii made", "--no-fps 4", "--low_bandwidth", "attach --no-theme",
)


@pytest.mark.parametrize("line", BOTH_WAYS)
def test_a_command_line_that_opens_the_view_is_read_as_the_whole_command_line_reads_it(line, monkeypatch):
    seen: list = []
    for module in ("eos_tui.cli", "eos_tui.opening"):
        monkeypatch.setattr(f"{module}.need_terminal", lambda given: None)
        monkeypatch.setattr(f"{module}.view", lambda run, given, beside=(): seen.append((run, dict(given), beside)) or 0)
    monkeypatch.setattr("eos_tui.opening.resolve", lambda name: ("run", name))
    asked = ViewCommand.of(line.split())
    assert asked is not None
    assert asked.open() == cli.main(line.split()) == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize("line", LEFT)
def test_every_other_command_line_is_left_to_what_can_explain_it(line):
    assert ViewCommand.of(line.split()) is None
