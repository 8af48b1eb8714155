"""A run directory that something befell, on every page of the view and in every printed plot: words or nothing, and never a traceback."""

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import pytest

from engine.base.errors import BAD_INPUT, UserError
from engine.record import messages
from engine.record.arrays import save_density
from engine.record.reader import Run, State
from eos_tui import cli
from eos_tui.printing import SHORTEST

from piloting import frames, notified, opened, until
from sampling import a_reading, sampled
from synthetic import EDGE, LEARNING_RATE, THRESHOLD, make_run

PAGES = {
    "dashboard": ("tab", "enter", "escape", "c", "left", "right", "Y", "escape"), "landscape": ("U", "left", "home", "tab", "i", "escape"),
    "spectrum": ("L", "i", "escape", "L", "tab", "tab", "i", "escape", "tab", "left", "d", "escape"),
    "theorem": ("T", "i", "escape"), "assumptions": ("a", "i", "escape"), "events": ("v", "i", "escape"),
    "formula": ("i", "escape"), "looks": ("p", "y", "s", "o", "u", "u", "+", "-", "[", "0", "h", "escape"), "start": ("d", "up", "d"),
    "replay": ("g", "right", "space", ".", "<", "U", "escape", "L", "escape", "escape"), "compare": ("m", "space", "enter", "m", "escape"),
    "driving": ("space", "S", "escape", "e", "escape", "N", "r", "k", "x", "escape"), "fork": ("F", "enter", "escape", "escape"),
    "tail": ("f", "n", "b", "ctrl+p", "escape", "question_mark", "escape", "w", "t"), "launcher": ("l", "tab", "r", "escape", "escape"),
}  # fmt: skip
"""Keys by the page that they open; each goes back to the dashboard."""


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def put(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """The damage that puts something else in a file's or a folder's place."""

    def act(path: Path) -> None:
        removed(path)
        make(path)

    return act


def cut(path: Path) -> None:
    if path.is_dir():
        for each in filter(Path.is_file, path.iterdir()):
            each.write_bytes(each.read_bytes()[: each.stat().st_size // 2])
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 3])


def lengthened(path: Path) -> None:
    for each in filter(Path.is_file, path.iterdir()) if path.is_dir() else [path]:
        each.write_bytes(each.read_bytes() + b"\x01\xff\x00" * 777)


OTHER = b'{"a": [1, {"b": null}], "step": 1e999, "status": 3}'
DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": removed, "empty": put(lambda path: path.write_bytes(b"")), "cut": cut, "longer": lengthened,
    "other": put(lambda path: path.write_bytes(OTHER)), "noise": put(lambda path: path.write_bytes(random.Random(1).randbytes(4096))),
    "pipe": put(os.mkfifo), "folder": put(Path.mkdir), "link": put(lambda path: path.symlink_to("/dev/zero")),
    "loop": put(lambda path: path.symlink_to(path.name)),
}  # fmt: skip
FILES = (
    "spec.toml", "columns.json", "metrics.f64", "events.jsonl", "state.json", "provenance.json", "engine.log", "lock", "inbox",
    "checkpoints", "curves", "curves/step-000000350.npz", "curves/density-000000350.npz", "checkpoints/step-000000009.npz", ".",
)  # fmt: skip
PRODUCT = list(itertools.product(FILES, DAMAGES, ("before", "after")))


def whole(home: Path) -> Run:
    """A run with something on every page, and another to be laid over it."""
    make_run(home, steps=120, name="other")
    run = sampled(home, last=400)
    save_density(run, 350, a_reading())
    (run.path / "provenance.json").write_text(json.dumps({"problem": {"data": "x", "sha256": "0" * 64}}))
    (run.path / "engine.log").write_text("a line\n")
    state = State(status="finished", phase="edge", step=399, learning_rate=LEARNING_RATE, pid=1, host="elsewhere")
    (run.path / "state.json").write_bytes(msgspec.json.encode(state))
    edge = messages.EdgeReached(step=EDGE, text="at the edge", sharpness=THRESHOLD)
    (run.path / "events.jsonl").write_bytes(messages.encode(edge) + b"\n")
    (run.path / "checkpoints" / "step-000000009.npz").write_bytes((run.path / "curves" / "step-000000350.npz").read_bytes())
    return run


async def look(run: Run, pages, befalls: Callable[[], object] = lambda: None) -> None:
    """Open a run and press the keys of pages; something befalls the run while it is shown."""
    async with opened(run) as (app, pilot):
        befalls()
        app.pace.hurry()
        await frames(app)
        for page in pages:
            await pilot.press(*PAGES[page])
            app.pace.hurry()
            await frames(app)


async def damaged(home: Path, file: str, damage: str, when: str, pages) -> None:
    run = whole(home)
    act = lambda: DAMAGES[damage](run.path / file)  # noqa: E731
    if when == "before":
        act()
        try:
            run = Run(run.path)
        except UserError as error:
            assert str(run.path) in str(error)
            return
    await look(run, pages, (lambda: None) if when == "before" else act)


CALLS = (["--once"], ["--once", "--plot", "x", "--columns", "70"], ["--once", "--series", "gd.sharpness"], ["--once", "--against", "gd.x"])


def printed_or_refused(run: Path, capsys) -> None:
    """Every kind of printed plot of a run, whatever befell it."""
    for call in CALLS:
        status = cli.main(["plot", str(run), *call])
        out, err = capsys.readouterr()
        assert status in (0, BAD_INPUT), (call, err)
        assert len(out.splitlines()) >= SHORTEST if status == 0 else len(err.splitlines()) == 1, (call, out, err)


@pytest.fixture(autouse=True)
def no_engines(monkeypatch):
    def start(run, group=None):
        raise UserError("here an engine would start")

    monkeypatch.setattr("engine.jobs.launch.start", start)


def spread(choices: Collection, count: int) -> list:
    """So many of each of the choices, in an order that is anything but theirs, and always the same."""
    return [each for round in range(count) for each in random.Random(round).sample(list(choices), len(choices))]


FEW = list(zip(spread(FILES, 1), spread(DAMAGES, 2), spread(PAGES, 1), spread(("before", "after"), 9), strict=False))
"""Each file once, and each page and damage: a thread through the product below."""


@pytest.mark.parametrize(("file", "damage"), [few[:2] for few in FEW])
def test_a_printed_plot_of_a_damaged_run_is_drawn_or_says_why_not(file, damage, runs, capsys):
    run = whole(runs)
    DAMAGES[damage](run.path / file)
    printed_or_refused(run.path, capsys)


@pytest.mark.parametrize(("file", "damage", "page", "when"), FEW[::2])
async def test_a_page_of_a_damaged_run_ends_in_no_traceback(file, damage, page, when, runs):
    await damaged(runs, file, damage, when, [page])


async def test_a_record_that_is_no_file_any_more_is_reported(runs):
    run = whole(runs)
    async with opened(run) as (app, _):
        DAMAGES["pipe"](run.path / "metrics.f64")
        app.pace.hurry()
        await until(lambda: "metrics.f64: cannot be read (not a plain file); the run has no record" in notified(app))


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage"), list(itertools.product(FILES, DAMAGES)))
def test_every_printed_plot(file, damage, runs, capsys):
    """The product of files and damages, of which the usual suite meets each once."""
    run = whole(runs)
    DAMAGES[damage](run.path / file)
    printed_or_refused(run.path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage", "when"), PRODUCT)
async def test_every_page(file, damage, when, runs):
    """Every page on every damaged file, damaged before the view opens and while it is open."""
    await damaged(runs, file, damage, when, PAGES)


COLUMNS = ("step", "learning_rate", "gd.sharpness", "gd.loss", "gd.x", "landscape.ratio", "constrained.sharpness", "time", "stage")


FEWER = [COLUMNS[:1], *[("step", name) for name in COLUMNS[1:]], COLUMNS[:3], COLUMNS]
COMPUTED = ("landscape", "spectrum", "theorem", "assumptions")
"""Pages that ask for columns by name."""


@pytest.mark.parametrize(("kept", "pages"), [
    (FEWER[0], COMPUTED), *[pytest.param(kept, tuple(PAGES), marks=pytest.mark.slow) for kept in FEWER],
])  # fmt: skip
async def test_a_run_of_fewer_columns_is_shown_as_far_as_it_goes(kept, pages, runs):
    run = whole(runs)
    columns = json.loads((run.path / "columns.json").read_text())
    rows = run.rows()[:, [run.index[name] for name in kept]]
    (run.path / "columns.json").write_text(json.dumps([column for name in kept for column in columns if column["name"] == name]))
    (run.path / "metrics.f64").write_bytes(rows.tobytes())
    await look(Run(run.path), pages)


async def test_a_screenshot_where_the_current_folder_is_gone_is_reported_or_goes_elsewhere(runs, monkeypatch):
    gone = runs / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("XDG_PICTURES_DIR", str(runs / "pictures"))
    async with opened(make_run(runs)) as (app, pilot):
        await pilot.press("w")
        await until(lambda: "screenshot" in notified(app))


async def test_what_is_copied_for_a_spreadsheet_is_no_formula(runs):
    run = make_run(runs)
    run.path.rename(runs / "=1+1")
    async with opened(Run(runs / "=1+1")) as (app, _):
        await until(lambda: len(app.screen.source.history) > 0)
        assert app.screen.clipping().startswith("run\t'=1+1\n")
