"""What `eos play` shows: half a minute in the order of the cycle, at every size, without an engine; and the same as a file."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyte
import pytest

from engine import theory
from engine.base.errors import UserError
from engine.record import store
from engine.record.writer import Writer
from engine.spec import load_spec
from eos_tui import cli, opening, presenting
from eos_tui.app import EosApp
from eos_tui.draw import play, valley
from eos_tui.draw.play import Shot
from eos_tui.draw.raster import Canvas
from eos_tui.draw.valley import Section
from eos_tui.model import acts, recording
from eos_tui.model.acts import WORDS, schedule
from eos_tui.screens.launcher import Launcher
from eos_tui.screens.play import Play, Player
from eos_tui.terminal.cast import lines

from piloting import frames, text_of, until
from places import ROOT
from synthetic import EDGE, make_run

BUNDLED = recording.bundled()


def shot_at(seconds: float, picture=None, of=BUNDLED) -> Shot:
    plan = schedule(of)
    return Shot(of, plan, play.extent(of), plan.place(seconds), picture)


# -- the recording and its order


def test_the_recording_that_comes_with_eos_is_small_and_of_a_run_at_its_edge():
    assert (ROOT / "eos_tui" / "model" / recording.BUNDLED).stat().st_size < 300_000
    assert BUNDLED.swings
    at_edge = np.isfinite(BUNDLED.x)
    assert np.abs(BUNDLED.x).max(where=at_edge, initial=0) > 1
    assert 0.9 < np.median(BUNDLED.ratio[at_edge]) < 1.1


def test_a_run_is_recorded_as_its_columns_say(runs):
    run = make_run(runs, 400)
    shown, table = recording.of_run(run), run.table()
    np.testing.assert_allclose(shown.ratio[EDGE:], (table["gd.sharpness"] / table["threshold"])[EDGE:])
    np.testing.assert_allclose(shown.x[EDGE:], (table["gd.x"] / table["constrained.delta"])[EDGE:])
    np.testing.assert_allclose(shown.y[EDGE:], (table["gd.y"] / table["threshold"])[EDGE:])
    assert not np.isfinite(shown.x[:EDGE]).any()


def test_a_recording_is_that_of_the_run_it_was_made_of(runs, tmp_path, monkeypatch):
    run, file = make_run(runs, 400), tmp_path / "made.npz"
    assert cli.main(["play", str(run.path), "--record", str(file)]) == 0
    monkeypatch.setattr(recording, "files", lambda package: tmp_path)
    monkeypatch.setattr(recording, "BUNDLED", file.name)
    for one, other in zip(recording.bundled(), recording.of_run(run), strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_simplified_system_is_played_as_steps_of_gradient_descent(runs):
    spec = load_spec("phase")
    run = store.create(spec, "portrait", runs)
    rows = np.full((3, len(run.columns)), np.nan)
    for name, values in {"step": [0, 1, 2], "learning_rate": 0.02, "threshold": 100.0, "map1.x": [1, -2, 3], "map1.y": [0, 5, -5]}.items():
        rows[:, run.index[name]] = values
    with Writer(run) as writer:
        writer.append(rows)
    shown = recording.of_run(run)
    np.testing.assert_allclose(shown.x, np.array([1, -2, 3]) / theory.delta(spec.problem.alpha, spec.problem.beta))
    np.testing.assert_allclose(shown.ratio, [1, 1.05, 0.95])


def test_a_run_without_rows_is_refused(runs):
    with pytest.raises(UserError, match="no rows to play yet"):
        recording.of_run(store.create(load_spec("toy"), "empty", runs))


def test_the_recording_takes_half_a_minute_and_tells_the_stages_in_their_order():
    plan = schedule(BUNDLED)
    assert 25 < plan.seconds < 36
    stages = [kind for _, kind in plan.captions]
    assert stages[:6] == ["narrows", "crosses", 2, 3, 4, 1]
    assert stages[-1] == "again"
    assert all(then == now % 4 + 1 for now, then in pairwise(stages[2:-1]))


def test_every_row_has_its_time_and_none_comes_before_another():
    plan = schedule(BUNDLED)
    times = np.array([plan.time_of(row) for row in range(BUNDLED.rows)])
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose([plan.place(time + 1e-9) for time in times[:-1]], np.arange(BUNDLED.rows - 1), atol=1e-4)
    assert plan.place(plan.seconds - 0.01) == BUNDLED.rows - 1


@pytest.mark.parametrize("rows", [2, EDGE, EDGE + 2, EDGE + 30, EDGE + 900])
def test_a_run_of_any_length_is_played(runs, rows):
    shown = recording.of_run(make_run(runs, rows, finished=False))
    plan = schedule(shown)
    assert 5 < plan.seconds < 45
    assert plan.acts[0].start == 0
    assert plan.acts[-1].stop == rows
    assert all(one.stop == other.start for one, other in pairwise(plan.acts))
    for seconds in np.linspace(0, plan.seconds, 9):
        assert len(play.frame(shot_at(seconds, of=shown), 80, 24, ascii=False, theme="eos-dark")) == 24


def test_a_run_that_follows_no_swing_shows_its_sharpness_and_loss():
    step = np.arange(50.0)
    columns = {"step": step, "learning_rate": step * 0 + 0.01, "threshold_ratio": step / 50, "gd.loss": 1 / (1 + step)}
    shown = recording.of_table("adam", columns)
    assert not shown.swings
    text = "\n".join(strip.text for strip in play.frame(shot_at(10, of=shown), 100, 30, ascii=False, theme="eos-dark"))
    assert "training loss" in text
    assert WORDS["alone"] in text
    assert "2/η" not in text


# -- the frames


@pytest.mark.parametrize("size", [(44, 14), (80, 24), (100, 30), (120, 40), (200, 50), (250, 70)])
@pytest.mark.parametrize("seconds", [1.0, 10.0, 24.5, 33.0])
def test_a_frame_fills_its_rows_and_says_one_thing(size, seconds):
    shot = shot_at(seconds)
    strips = play.frame(shot, *size, ascii=False, theme="eos-dark")
    assert [strip.cell_length for strip in strips] == [size[0]] * size[1]
    caption = WORDS[shot.schedule.caption(shot.place)]
    shown = [strip.text.strip() for strip in strips if strip.text.strip() in (caption, caption.partition(":")[0].partition(",")[0])]
    assert len(shown) == 1


def test_what_is_too_small_says_so():
    assert any("too small" in strip.text for strip in play.frame(shot_at(1), 40, 12, ascii=False, theme="eos-dark"))


@pytest.mark.parametrize("picture", ["orbit", "valley"])
@pytest.mark.parametrize("seconds", [1.0, 10.0, 24.5])
def test_without_unicode_everything_is_ascii(picture, seconds):
    for width, height in ((80, 24), (120, 40)):
        strips = play.frame(shot_at(seconds, picture), width, height, ascii=True, theme="eos-ansi")
        assert all(strip.text.isascii() for strip in strips)


# -- the valley


def drawn(section: Section, width: int = 60, height: int = 20) -> list[str]:
    canvas = Canvas(width, height, ascii=True)
    valley.paint(canvas, section, 0, 0, height, width, "eos-dark")
    return [strip.text for strip in canvas.strips()]


def test_the_valley_is_narrower_where_it_is_sharper():
    free = [sum(row[:44].count(" ") for row in drawn(Section(ratio))) for ratio in (0.5, 1.0, 1.5)]
    assert free[0] > free[1] > free[2]


@pytest.mark.parametrize(("x", "words"), [(0.3, "drifts up"), (2.0, "pushed down")])
def test_beyond_delta_the_swing_pushes_the_sharpness_down(x, words):
    """dy/dt = α − βx²/2 = α(1 − x²/δ²)."""
    section = Section(1.15, x, abs(x))
    assert section.force == 1 - x**2
    assert words in "\n".join(drawn(section))


def test_the_ball_jumps_from_wall_to_wall():
    left, right = (next(row.index("/_\\") for row in drawn(Section(1.0, x, 2.0)) if "/_\\" in row) for x in (-2.0, 2.0))
    assert left + right == pytest.approx(44 - 3, abs=1)


# -- on the screen


async def test_it_plays_and_obeys_its_keys(runs):
    app = EosApp(recording=BUNDLED, fps=10)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: isinstance(app.screen, Play) and app.pace.frames >= 2)
        player = app.screen.player
        await until(lambda: player.seconds > 0.2)
        assert app.pace.spacing == pytest.approx(1 / 12)
        await pilot.press("space")
        stands = player.place
        await frames(app, 2)
        assert player.place == stands
        await pilot.press("right", "right")
        assert player.place == pytest.approx(int(stands) + 2)
        await pilot.press("left")
        assert player.place == pytest.approx(int(stands) + 1)
        await frames(app, 2)
        assert WORDS["narrows"] in text_of(app)
        await pilot.press("tab")
        await frames(app, 2)
        assert "the cycle begins at the edge" in text_of(app)
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Launcher))


def test_it_goes_round_and_round():
    now = [0.0]
    player = Player(schedule(BUNDLED), lambda: now[0])
    now[0] = player.schedule.seconds + 1
    player.tick()
    assert player.seconds == pytest.approx(1)


@pytest.mark.parametrize("line", ["play", "play made", "play --fps 2", "play made --theme light"])
def test_it_opens_without_the_whole_command_line(line, monkeypatch):
    seen: list = []
    for module in ("eos_tui.cli", "eos_tui.opening"):
        monkeypatch.setattr(f"{module}.played", lambda *names, given: seen.append((names, dict(given))) or 0)
    asked = opening.ViewCommand.of(line.split())
    assert asked is not None
    assert asked.open() == cli.main(line.split()) == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize("line", ["play made other", "play --cast file", "play --at 3"])
def test_what_it_does_besides_is_left_to_the_whole_command_line(line):
    assert opening.ViewCommand.of(line.split()) is None


# -- as a file


def test_a_cast_is_the_frames_of_the_recording_for_any_player(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(presenting, "FPS", 1)
    file = tmp_path / "play.cast"
    assert cli.main(["play", "--cast", str(file), "--columns", "80", "--rows", "24"]) == 0
    header, *events = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert {name: header[name] for name in ("version", "width", "height")} == {"version": 2, "width": 80, "height": 24}
    assert all(len(event) == 3 and event[1] == "o" for event in events)
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert times[-1] == header["duration"] == pytest.approx(schedule(BUNDLED).seconds, abs=1e-3)
    screen = pyte.Screen(80, 24)
    stream = pyte.Stream(screen)
    for _, _, text in events:
        stream.feed(text)
    last = play.frame(shot_at(int(times[-1])), 80, 24, ascii=False, theme="eos-dark")
    assert [row.rstrip() for row in screen.display] == [strip.text.rstrip() for strip in last]


def test_a_frame_that_does_not_differ_takes_no_line():
    still = [Canvas(4, 1).strips()] * 3
    assert len(list(lines(zip((0.0, 1.0, 2.0), still, strict=True), 4, 1, "still", 3.0))) == 3  # header, first frame, end


def test_it_takes_no_engine_and_no_jax(tmp_path):
    code = ("import sys\nfrom eos_tui import presenting\n"
            "shown = presenting.Presentation.of(None, 100, 30, False, 'eos-dark')\nassert len(shown.frame(10)) == 30\n"
            "import eos_tui.app, eos_tui.screens.play\n"
            "heavy = ('jax', 'jaxlib', 'flax', 'engine.process')\nprint(*[name for name in sys.modules if name.startswith(heavy)])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("words", "why"), [
    (["--record", "x.npz"], "--record: of which run?"), (["--cast", "x.cast", "--columns", "20"], "too small"),
    (["--png", "x.png", "--at", "99"], "it is over after"), (["nowhere", "--cast", "x.cast"], "nowhere"),
])
def test_what_cannot_be_saved_says_why(words, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "runs"))
    assert cli.main(["play", *words]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_the_captions_are_plain():
    assert all(len(words) <= 76 and not set(words) & set("ηαβδθ∇λ") for words in WORDS.values())
    assert set(WORDS) == set(play.ROLES)
    assert acts.BURSTS >= 1
