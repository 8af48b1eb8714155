"""The app run by a pilot, without a terminal: what the tests of its screens share."""

import asyncio
from contextlib import asynccontextmanager

from eos_tui.app import EosApp

SIZES = [(20, 6), (40, 12), (60, 15), (80, 24), (100, 30), (120, 40), (250, 70)]


@asynccontextmanager
async def opened(run=None, size=(120, 40), fps=10.0, beside=(), ascii=False):
    """The app, running without a terminal."""
    app = EosApp(run, fps=fps, beside=beside, ascii=ascii)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(lambda: app.pace.frames >= 1)
        await pilot.pause()
        yield app, pilot


async def until(holds, seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def frames(app: EosApp, count: int = 1) -> None:
    """Wait for so many frames."""
    goal = app.pace.frames + count
    await until(lambda: app.pace.frames >= goal)


def text_of(app: EosApp) -> str:
    """The screen as text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def notified(app: EosApp) -> str:
    """What the notifications on the screen say."""
    return "\n".join(f"{each.title} {each.message}" for each in app._notifications)
