"""Pictures of every page of the app, at every size and on every ground: to look at before a release, and for the README."""

import asyncio
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NamedTuple

from engine.base.atomic import output
from engine.base.errors import UserError
from engine.record.reader import Run
from eos_tui.app import EosApp
from eos_tui.draw.theme import picture_theme
from eos_tui.lessons import STEPS
from eos_tui.model.recording import of_run
from eos_tui.screens.dashboard import Dashboard
from eos_tui.screens.learn import Learn
from eos_tui.screens.play import Play
from eos_tui.terminal import picture, screenshot

SIZES = ((80, 24), (100, 30), (120, 40), (200, 50))
GROUNDS = {"dark": "dark", "light": "light", "sixteen": "terminal", "colourless": "terminal"}
"""The choice of theme for each ground: dark, light, the sixteen colours of a terminal, and NO_COLOR."""
FRAMES = 3
"""Frames to wait for before keys and before a picture."""
PLAYED = 0.74
"""How much of a recording has been played in its picture, and of a run that is played when it is opened."""


class GalleryPage(NamedTuple):
    """One page: where it begins, and the keys that lead to it."""

    name: str
    begins: str = "run"
    """`run`, `launcher`, `tour` for a step of the tour that looks at such a run, or `play`."""
    keys: tuple[str, ...] = ()


PAGES: tuple[GalleryPage, ...] = (
    GalleryPage("launcher", "launcher"),
    GalleryPage("dashboard"),
    GalleryPage("plot", keys=("enter",)),
    GalleryPage("phase", keys=("4", "enter")),
    GalleryPage("cursor", keys=("c", *["left"] * 9)),
    GalleryPage("assumptions", keys=("a",)),
    GalleryPage("spectrum", keys=("L",)),
    GalleryPage("turning", keys=("X",)),
    GalleryPage("landscape", keys=("U",)),
    GalleryPage("plane", keys=("U", "tab")),
    GalleryPage("valley", keys=("U", "tab", "tab")),
    GalleryPage("theorem", keys=("T",)),
    GalleryPage("formula", keys=("i",)),
    GalleryPage("system", keys=("H",)),
    GalleryPage("events", keys=("v",)),
    GalleryPage("keys", keys=("question_mark",)),
    GalleryPage("topics", keys=("question_mark", "tab", "down", "down", "down")),
    GalleryPage("palette", keys=("ctrl+p",)),
    GalleryPage("tour", "tour"),
    GalleryPage("play", "play"),
)


class Picture(NamedTuple):
    """One file of the gallery."""

    page: str
    size: tuple[int, int]
    ground: str
    ending: str

    @property
    def file(self) -> str:
        """Its name."""
        return f"{self.page}-{self.size[0]}x{self.size[1]}-{self.ground}.{self.ending}"


def make(folder: Path, run: Run, png: bool = False, pages: Sequence[GalleryPage] = PAGES, sizes: Sequence[tuple[int, int]] = SIZES,
         grounds: Collection[str] = tuple(GROUNDS)) -> Iterator[Picture]:
    """Draw every page of this run and save it as SVG, or as PNG, one after the other; an index.html shows them all."""
    made = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for page in pages:
            if page.begins == "tour" and not tour_steps(run):
                continue
            for size in sizes:
                for ground in grounds:
                    one = Picture(page.name, size, ground, "png" if png else "svg")
                    with _colours(ground):
                        body = asyncio.run(_drawn(run, page, size, GROUNDS[ground], png))
                    _write(folder / one.file, body)
                    made.append(one)
                    yield one
        _write(folder / "index.html", _index(made).encode())
    except OSError as error:
        raise UserError(f"{folder}: pictures cannot be written there ({error.strerror})") from None


def _write(path: Path, body: bytes) -> None:
    with output(path, anew=True) as handle:
        handle.write(body)


@contextmanager
def _colours(ground: str) -> Iterator[None]:
    """An environment that asks for no colour where the ground is to have none, and else does not."""
    before = os.environ.pop("NO_COLOR", None)
    try:
        if ground == "colourless":
            os.environ["NO_COLOR"] = "1"
        yield
    finally:
        os.environ.pop("NO_COLOR", None)
        if before is not None:
            os.environ["NO_COLOR"] = before


async def _drawn(run: Run, page: GalleryPage, size: tuple[int, int], theme: str, png: bool) -> bytes:
    """One page as SVG or PNG."""
    played = of_run(run) if page.begins == "play" else None
    app = EosApp(run if page.begins == "run" else None, fps=10, theme_choice=theme, recording=played)
    async with app.run_test(size=size) as pilot:
        if page.begins == "tour":
            await app.push_screen(Learn(app.pace, runs={run.spec.name: run}, at=tour_steps(run)[-1]))
        await _frames(app)
        if isinstance(app.screen, Play):
            app.screen.player.seek(PLAYED * app.screen.player.schedule.seconds)
            app.pace.hurry()
        elif isinstance(app.screen, Dashboard) and (replay := app.screen.source.replay) is not None:
            replay.seek(PLAYED * replay.last)
            app.pace.hurry()
            await _frames(app)  # keys speak of what is drawn: a cursor begins at the last step in view
        for key in page.keys:
            await pilot.press(key)
        await _frames(app)
        await pilot.pause()
        drawn = screenshot.screen(app, f"eos · {page.name}")
        return picture.png(drawn.ansi.rstrip("\n"), size[0], picture_theme(app.theme)) if png else drawn.svg.encode()


async def _frames(app: EosApp) -> None:
    """Wait until the run is read, or what keys asked for is drawn."""
    goal = app.pace.frames + FRAMES
    while app.pace.frames < goal:
        await asyncio.sleep(0.02)


def tour_steps(run: Run) -> list[int]:
    """The steps of the tour that look at a run of this preset."""
    return [k for k, step in enumerate(STEPS) if step.preset == run.spec.name]


def _index(pictures: Sequence[Picture]) -> str:
    """A page with every picture on it."""
    shown = "\n".join(f'<h2>{escape(each.file)}</h2>\n<img src="{escape(each.file)}" width="{10 * each.size[0]}">' for each in pictures)
    return f'<!doctype html>\n<meta charset="utf-8">\n<title>eos</title>\n{shown}\n'
