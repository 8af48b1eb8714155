"""Random keys at random sizes raise nothing, and every row is exactly as wide as the screen."""

import random

import numpy as np
import pytest

from eos_tui import keys
from eos_tui.screens.dashboard import Dashboard

from piloting import frames, opened
from synthetic import FakeEngine, make_run, rows_of

LEAVING = {"q", "ctrl+c"}
TYPED = [*"0123456789.-eE=_", "backspace", "home", "end"]
SMALLEST, LARGEST = (20, 6), (250, 70)


def pressable() -> list[str]:
    """Every key of the table but those that leave, what can be typed into a prompt, and a key that does nothing."""
    named = [name for key in keys.TABLE for name in key.keys.split(",") if name not in LEAVING]
    return [*named, *TYPED, "f5"]


async def press_at_random(runs, monkeypatch, seed: int, count: int) -> None:
    """So many keys on a run that goes on and has a companion, with the terminal resized now and then."""
    rng = random.Random(seed)
    run = make_run(runs, finished=False)
    make_run(runs, steps=250, name="other")
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: 1)
    bad = rows_of(run, 400, 440)
    for start in range(0, 40, 5):
        bad[start : start + 5, 3 + rng.randrange(20) :] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300])
    with FakeEngine(run) as engine:
        engine.writer.append(bad)
        engine.writer.checkpoint(200, {"state": np.array(1)}, keep=3)
        size = rng.randint(SMALLEST[0], LARGEST[0]), rng.randint(SMALLEST[1], LARGEST[1])
        async with opened(run, size) as (app, pilot):
            for k in range(count):
                if k % 12 == 11:
                    size = rng.randint(SMALLEST[0], LARGEST[0]), rng.randint(SMALLEST[1], LARGEST[1])
                    await pilot.resize_terminal(*size)
                key = rng.choice(pressable())
                await pilot.press(key)
                if k % 6 == 0:
                    await frames(app)
                    await pilot.pause()
                    strips = app.screen._compositor.render_strips()
                    assert [strip.cell_length for strip in strips] == [size[0]] * size[1], (k, key, size)
                    if not isinstance(app.screen, Dashboard) and k % 30 == 0:
                        await pilot.press("escape")
            assert app._exception is None


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_random_keys_and_sizes_raise_nothing_and_keep_every_row_exact(runs, monkeypatch, seed):
    await press_at_random(runs, monkeypatch, seed, 48)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
async def test_thousands_of_random_keys_raise_nothing(runs, monkeypatch, seed):
    """Combinations that a few dozen keys do not reach: prompts within prompts, forks of forks, pages of every size."""
    await press_at_random(runs, monkeypatch, seed, 500)
