"""The order and speed in which a recording is played: half a minute, slow where there is something to see in every step.

On the way to the edge steps run by; the first burst goes step by step, so that the eye can follow x from side to side; the next two
a little faster; and the rest of the run closes the picture.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from engine import theory
from eos_tui.model.recording import Recording

APPROACH, QUIET, REST, HOLD, ALONE = 5.0, 2.5, 4.0, 2.5, 20.0
"""Seconds for the way to the edge, for the first growth that nobody sees, for all that follows the bursts shown one by one, for the last
picture; and for a whole run without a swing to show.
"""
FIRST, NEXT = (5.0, 2.2, 3.5, 12.0), (16.0, 1.0, 1.8, 9.0)
"""Of the first burst, and of those after it that are shown one by one: steps a second, the least and the most seconds of a stage, and the
most seconds of all.
"""
BURSTS = 2
"""Bursts shown one by one after the first."""
VISIBLE = 0.05
"""|x|/δ from which a swing is seen."""
CAPTION_SECONDS = 0.8
"""A caption that would stand for less is left out."""
WORDS = {
    "narrows": "Training makes the valley narrower: the sharpness climbs",
    "crosses": "Too sharp now: each step overshoots, a little farther every time",
    2: "Too sharp: each step overshoots, farther and farther",
    3: "The overshoot pushes the sharpness down",
    4: "Flat enough again: the swing dies out",
    1: "Calm, so the sharpness climbs once more",
    "again": "Again and again: training steadies itself at the edge of stability",
    "alone": "The sharpness over its edge: above 1, steps overshoot",
}
"""The captions: by stage of the cycle, and of what is before and after."""
Caption = str | int


class Act(NamedTuple):
    """A stretch of rows played at one speed."""

    start: int
    stop: int
    """The row after the last."""
    seconds: float
    window: tuple[int, int]
    """The rows that the plots span meanwhile."""
    kind: str


class Schedule(NamedTuple):
    """When each row is shown, and what is said of it."""

    acts: tuple[Act, ...]
    captions: tuple[tuple[int, Caption], ...]
    """From which row on which caption stands."""

    @property
    def seconds(self) -> float:
        """How long it takes, with the last picture."""
        return sum(act.seconds for act in self.acts) + HOLD

    def place(self, seconds: float) -> float:
        """The row at a time, with what has passed of the step to the next one."""
        for act in self.acts:
            if seconds < act.seconds:
                return act.start + seconds / act.seconds * (act.stop - act.start)
            seconds -= act.seconds
        return float(self.acts[-1].stop - 1)

    def time_of(self, place: float) -> float:
        """When a place is reached."""
        passed = 0.0
        for act in self.acts:
            if place < act.stop:
                return passed + act.seconds * max(place - act.start, 0) / (act.stop - act.start)
            passed += act.seconds
        return passed

    def act_at(self, place: float) -> Act:
        """The act that a place is in."""
        return next((act for act in self.acts if place < act.stop), self.acts[-1])

    def caption(self, place: float) -> Caption:
        """The caption at a place."""
        return [kind for row, kind in self.captions if row <= place][-1]


def schedule(recording: Recording) -> Schedule:
    """The schedule of a recording of two rows or more."""
    rows, swing = recording.rows, np.abs(recording.x)
    known = np.flatnonzero(np.isfinite(swing))
    if not len(known):
        return Schedule((Act(0, rows, ALONE, (0, rows - 1), "alone"),), ((0, "alone"),))
    edge = int(known[0])
    large = np.flatnonzero(swing[edge:] > 1)
    burst = edge + int(large[0]) if len(large) else rows
    unseen = np.flatnonzero(swing[edge:burst] < VISIBLE)
    quiet = edge + int(unseen[-1]) + 1 if len(unseen) else edge
    ends = _ends(recording, burst)
    first = ends[0] if ends else rows
    last = ends[min(BURSTS, len(ends) - 1)] if ends else rows
    if rows - last < (last - quiet) / 4:  # too few are left for an act of their own
        last = rows
    window = max(edge - (last - edge) // 12, 0), last - 1
    runs = _stage_runs(recording, quiet, last)
    acts = [
        Act(0, edge, APPROACH, (0, edge), "approach"), Act(edge, quiet, min(QUIET, (quiet - edge) / 12), window, "quiet"),
        *_one_by_one([run for run in runs if run[0] < first], min(first, last), window, *FIRST),
        *_one_by_one([run for run in runs if run[0] >= first], last, window, *NEXT),
        Act(last, rows, REST, (0, rows - 1), "rest"),
    ]
    by_stage = [(row, stage) for row, stage in runs if stage]
    captions: list[tuple[int, Caption]] = [(0, "narrows"), (edge, "crosses"), *by_stage, (last, "again")]
    return _captioned(tuple(act for act in acts if act.stop > act.start), captions)


def _stage_runs(recording: Recording, start: int, stop: int) -> list[tuple[int, int]]:
    """The stages that rows start to stop go through: where each begins, and which it is."""
    ones = np.ones(stop - start)
    stages = theory.stages(recording.x[start:stop], recording.y[start:stop], ones, ones)
    begins = np.flatnonzero(np.diff(stages, prepend=-1))
    return [(start + int(k), int(stages[k])) for k in begins]


def _one_by_one(runs: list[tuple[int, int]], stop: int, window: tuple[int, int], speed: float, least: float, most: float,
                total: float) -> list[Act]:
    """An act for each stage up to row `stop`."""
    begins = [*(row for row, _ in runs), stop]
    seconds = [min(max((after - row) / speed, least), most) for row, after in pairwise(begins)]
    slower = min(1.0, total / sum(seconds)) if seconds else 1.0
    return [Act(row, after, slower * each, window, "burst") for (row, after), each in zip(pairwise(begins), seconds, strict=True)]


def _captioned(acts: tuple[Act, ...], captions: list[tuple[int, Caption]]) -> Schedule:
    """The schedule of these acts, with the captions that stand long enough to be read."""
    last = acts[-1].stop
    captions = [each for k, each in enumerate(captions) if each[0] < last and not any(each[0] == row for row, _ in captions[k + 1 :])]
    timer = Schedule(acts, ())
    times = [timer.time_of(row) for row, _ in captions] + [timer.seconds]
    kept = [each for k, each in enumerate(captions) if not k or times[k + 1] - times[k] >= CAPTION_SECONDS]
    return Schedule(acts, tuple(each for k, each in enumerate(kept) if not k or each[1] != kept[k - 1][1]))


def _ends(recording: Recording, burst: int) -> list[int]:
    """The rows where a burst is over: the sharpness is above its edge again after it was below."""
    above = recording.y[burst:] > 0
    small = np.abs(recording.x[burst:]) < 1
    ends, below = [], False
    for row in np.flatnonzero(np.diff(above.astype(int), prepend=int(above[:1].any())) != 0).tolist():
        if above[row] and below and small[row]:
            ends.append(burst + row)
            below = False
        elif not above[row]:
            below = True
    return ends
