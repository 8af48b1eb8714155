"""The clock that draws, and the time axis, apart from any widget."""

import asyncio
from itertools import pairwise

import pytest

from eos_tui.model.timeline import Timeline
from eos_tui.terminal.pace import Pace

from piloting import until


async def test_the_clock_waits_for_the_terminal_and_goes_on_without_one():
    drawn, questions = [], []
    pace = Pace(fps=10)

    async def draw() -> bool:
        drawn.append(len(questions))
        return True

    def ask() -> bool:
        questions.append(True)
        return True

    task = asyncio.create_task(pace.run(draw, ask))
    await asyncio.sleep(0.35)
    assert len(drawn) == 1  # no answer: the next frame waits
    pace.answered()
    await until(lambda: len(drawn) == 2)
    pace.answered()
    await until(lambda: len(drawn) == 3)
    task.cancel()
    free = Pace(fps=10)
    task = asyncio.create_task(free.run(draw, lambda: False))
    await until(lambda: free.frames >= 3, seconds=2)
    task.cancel()


async def test_a_terminal_that_never_answers_is_drawn_once_a_second(monkeypatch):
    monkeypatch.setattr("eos_tui.terminal.pace.PATIENCE_SECONDS", 0.05)
    pace = Pace(fps=10)

    async def draw() -> bool:
        return True

    task = asyncio.create_task(pace.run(draw, lambda: True))
    await until(lambda: pace.slow)
    before = pace.frames
    await asyncio.sleep(0.5)
    assert pace.frames - before <= 1
    pace.hurry()  # a key is answered at once all the same
    await until(lambda: pace.frames > before, seconds=0.5)
    task.cancel()


async def test_behind_a_frame_with_nothing_new_the_terminal_is_asked_once_a_second():
    asked = []
    pace = Pace(fps=10)

    async def draw() -> bool:
        return False

    def ask() -> bool:
        asked.append(pace.frames)
        pace.answered()
        return True

    task = asyncio.create_task(pace.run(draw, ask))
    await until(lambda: len(asked) == 3)
    task.cancel()
    assert asked[0] == 1
    assert min(b - a for a, b in pairwise(asked)) >= 5


@pytest.mark.parametrize(("fps", "moving", "spacing"), [(4, False, 1 / 4), (4, True, 1 / 12), (10, True, 1 / 12), (2, True, 1 / 2)])
def test_what_moves_is_drawn_twelve_times_a_second_unless_fewer_frames_are_asked_for(fps, moving, spacing):
    pace = Pace(fps)
    pace.moving = moving
    assert pace.spacing == pytest.approx(spacing)
    pace.slow = True
    assert pace.spacing == 1.0


async def test_a_frame_knows_whether_it_was_asked_for():
    hurried = []
    pace = Pace(fps=10)

    async def draw() -> bool:
        hurried.append(pace.hurried)
        if len(hurried) == 3:
            pace.hurry()
        return False

    task = asyncio.create_task(pace.run(draw, lambda: False))
    await until(lambda: len(hurried) >= 5)
    task.cancel()
    assert hurried[:5] == [True, False, False, True, False]


def test_the_axis_grows_in_strides():
    line, limits = Timeline(), set()
    for step in range(5000):
        line.reach(step)
        limits.add(line.window()[1])
        assert line.window()[1] >= step
    assert len(limits) < 25


def test_zooming_about_the_cursor_keeps_it_where_it_stands():
    line = Timeline()
    line.reach(1000, final=True)
    line.cursor = 250
    line.zoom(0.5)
    start, stop = line.window()
    assert stop - start == pytest.approx(500)
    assert (250 - start) / (stop - start) == pytest.approx(0.25)


def test_a_zoomed_view_follows_until_it_is_moved_and_again_at_the_end():
    line = Timeline()
    line.reach(1000)
    line.zoom(0.1)
    line.reach(1200)
    assert 1200 <= line.window()[1] <= 1200 + 100 / 16  # in strides
    line.pan(-1)
    line.reach(1300)
    assert line.window()[1] < 1200
    for _ in range(20):
        line.pan(1)
    line.reach(1400)
    assert 1400 <= line.window()[1] <= 1400 + 100 / 16


def test_after_the_edge_a_run_that_goes_on_is_followed_over_its_last_bursts():
    line = Timeline()
    line.edge = 100.0
    line.expect(20.0)
    for step in range(1, 100):
        line.reach(step)
        assert not line.follows
    spans, starts = set(), list[float]()
    for step in range(101, 1000):
        line.reach(step)
        start, stop = line.window()
        assert stop >= step
        starts.append(start)
        spans.add(stop - start)
    assert spans == {100.0}
    assert starts == sorted(starts)
    assert len(set(starts)) <= 1 + 900 / (100 // 8)  # in strides
    line.expect(25.0)
    assert line.window()[1] - line.window()[0] == 100  # near enough: another span would redraw every cell
    line.expect(50.0)
    assert line.window()[1] - line.window()[0] == 250
    assert line.window(from_edge=True)[0] == 100  # of pages that show the run since the edge
    line.toggle_whole()
    assert line.window()[0] == 0
    line.toggle_whole()
    assert line.window()[0] > 700
    line.reach(1000, final=True)
    assert line.window() == (0, 1000)  # there is nothing to follow
    line.head = 600
    assert 350 <= line.window()[0] <= 350 + 250 / 8


def test_the_cursor_stays_on_the_run_and_in_view():
    line = Timeline()
    line.reach(100, final=True)
    line.toggle_cursor()
    for _ in range(300):
        line.move_cursor(1)
    assert line.cursor == 100
    line.zoom(0.1)
    for _ in range(300):
        line.move_cursor(-1, single=True)
        start, stop = line.window()
        assert start <= line.cursor <= stop
    assert line.cursor == 0


def test_in_a_replay_the_cursor_goes_no_further_than_what_has_been_played():
    line = Timeline()
    line.head = 30.0
    line.reach(1000, final=False)
    line.toggle_cursor()
    assert line.cursor == 30
    line.move_cursor(1)
    line.point(700.0)
    assert line.cursor == 30
    line.head = 12.0
    line.reach(1000)
    assert line.cursor == 12  # played again from before it
