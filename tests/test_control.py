"""Commands and events: a protocol of small files, and no way in."""

import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import control, store
from engine.errors import UserError

from small import toy_spec


@pytest.fixture
def inbox():
    return store.create(toy_spec(), "run").path


COMMANDS = [control.Pause(), control.Resume(), control.Advance(steps=3), control.Checkpoint(), control.Stop(),
            control.SetLearningRate(learning_rate=0.5), control.Anchor(), control.Anchor(every=7)]


def test_commands_arrive_once_and_in_order(inbox):
    for command in COMMANDS:
        control.send(inbox, command)
    assert control.receive(inbox).commands == COMMANDS
    assert control.receive(inbox).commands == []


def test_every_event_survives_its_line():
    samples = {"sharpness": 1.5, "stage": 2, "forms": ("code",), "form": "code", "assumption": 1, "learning_rate": 0.1, "outcome": "x"}
    for kind in typing.get_args(control.AnyEvent):
        extra = {name: samples[name] for name in kind.__struct_fields__ if name in samples}
        event = kind(step=3, text="θ† starts here", **extra)
        assert control.decode_event(control.encode(event)) == event


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"command": "explode"}', b'{"command": "advance", "steps": -1}', b'{"command": "advance", "steps": 1, "x": 1}',
     b'{"command": "set_learning_rate", "learning_rate": 1e999}', b"[" * 100_000, b"\xff" * 10],
)
def test_what_is_no_command_is_refused_and_removed(inbox, body):
    (inbox / "inbox" / "1.json").write_bytes(body)
    received = control.receive(inbox)
    assert received.commands == []
    assert len(received.refusals) == 1
    assert "is no command" in received.refusals[0]
    assert not list((inbox / "inbox").iterdir())


def test_links_are_not_followed_and_control_characters_are_shown_harmless(inbox, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(control.encode(control.Stop()))
    (inbox / "inbox" / "1.json").symlink_to(target)
    (inbox / "inbox" / "2\x1b[2J.json").write_bytes(b"x")
    received = control.receive(inbox)
    assert received.commands == []
    assert target.exists()
    assert all("\x1b" not in refusal for refusal in received.refusals)


def test_an_inbox_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match="could not be left there"):
        control.send(tmp_path / "gone", control.Pause())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_harm_an_inbox_or_a_journal(inbox, body):
    (inbox / "inbox" / "1.json").write_bytes(body)
    control.receive(inbox)
    (inbox / "events.jsonl").write_bytes(body + b"\n")
    store.Run(inbox).events()
    assert control.decode_event(body) is None
