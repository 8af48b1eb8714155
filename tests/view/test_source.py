"""One run followed: what its directory says, and nothing else."""

import math

import numpy as np
import pytest

from engine.base.text import harmless
from engine.record import messages
from engine.record.reader import Outcome, State
from engine.record.writer import Writer
from engine.report.narrative import sentence
from eos_tui.model.source import Source

from synthetic import EDGE, make_run, rows_of


def test_a_torn_last_row_is_not_shown_and_comes_when_it_is_whole(runs):
    run = make_run(runs, steps=200)
    body = rows_of(run, 200, 201).tobytes()
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[:100])
    source = Source(run)
    source.take(source.read())
    assert len(source.history) == 200
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[100:])
    source.take(source.read())
    assert len(source.history) == 201


def test_values_of_the_approach_are_not_shown_as_those_of_the_edge(runs):
    source = Source(make_run(runs, steps=EDGE - 10))
    source.take(source.read())
    row = source.row()
    assert math.isnan(row["gd.x"])
    assert row["gd.sharpness"] == pytest.approx(20 + 0.8 * (EDGE - 11))


def test_a_prediction_lost_in_the_newest_row_is_said_to_be_lost(runs):
    run = make_run(runs, finished=False)
    rows = rows_of(run, 400, 440)
    rows[:, run.index["generalized.since_anchor"]] = np.arange(300, 340)
    rows[10:, [run.index[f"generalized.{name}"] for name in ("x", "y", "loss", "sharpness")]] = math.nan
    with Writer(run) as writer:
        writer.append(rows)
    source = Source(run)
    source.take(source.read())
    assert math.isnan(source.row()["generalized.x"])
    assert "prediction is lost" in sentence(source.state, source.row())


def test_words_that_would_steer_the_terminal_are_shown_instead(runs):
    run = make_run(runs, finished=False)
    nasty = "a\x1b]0;title\x07b\x9b2J\u202ec\nd\ud800"
    with Writer(run) as writer:
        writer.event(messages.Refused(step=1, text=nasty[:-1]))
        outcome = Outcome(kind="failed", step=1, text=nasty[:-1])
        writer.state(State(status="finished", outcome=outcome, device="\x1b[31m", host="\x00"))
    source = Source(run)
    source.take(source.read())
    said = source.events[-1].text, source.state.outcome.text, source.state.device, source.state.host, harmless(nasty)
    assert said[0] == said[1] == "a\\x1b]0;title\\x07b\\x9b2J\\u202ec\\nd"
    assert all(character.isprintable() for text in said for character in text)
    assert harmless("δ = √(2α/β), |x⋆| ≫ δ, 字") == "δ = √(2α/β), |x⋆| ≫ δ, 字"


def test_a_long_record_is_read_in_blocks_until_nothing_is_left(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.model.source.BLOCK", 150)
    source, more = Source(make_run(runs)), []
    while not more or more[-1]:
        news = source.read()
        source.take(news)
        more.append(news.more)
    assert more == [True, True, False]
    assert len(source.history) == 400


def test_the_rest_of_a_long_record_is_read_without_looking_at_all_else_again(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.model.source.BLOCK", 150)
    source = Source(make_run(runs))
    source.take(news := source.read())
    known = source.journal[:]
    while news.more:
        source.take(news := source.read_on(news))
    assert len(source.history) == 400
    assert source.journal == known
    assert source.condition == "finished"


def test_a_record_that_is_being_read_tells_how_many_rows_are_left(runs, monkeypatch):
    monkeypatch.setattr("eos_tui.model.source.BLOCK", 100)
    source = Source(make_run(runs, steps=400))
    left = []
    news = source.read()
    while True:
        source.take(news)
        left.append(source.left)
        if not news.more:
            break
        news = source.read_on(news)
    assert left == [300, 200, 100, 0, 0]
