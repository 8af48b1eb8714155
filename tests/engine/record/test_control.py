"""Commands and events: a protocol of small files, and no way in."""

import os
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import UserError
from engine.record import messages, store
from engine.record.reader import Run

from fuzzing import fuzz
from small import toy_spec


@pytest.fixture
def inbox():
    return store.create(toy_spec(), "run").path


COMMANDS = [messages.Pause(), messages.Resume(), messages.Advance(steps=3), messages.AdvanceTo(what="stage"), messages.Checkpoint(),
            messages.Stop(), messages.SetLearningRate(learning_rate=0.5), messages.Anchor(), messages.Anchor(every=7),
            messages.Density(probes=2)]


def test_commands_arrive_once_and_in_order(inbox):
    for command in COMMANDS:
        messages.send(inbox, command)
    assert messages.receive(inbox).commands == COMMANDS
    assert messages.receive(inbox).commands == []


def test_every_kind_of_command_is_among_them_and_has_an_id_of_its_own():
    assert {type(command) for command in COMMANDS} == set(typing.get_args(messages.AnyCommand))
    assert len({command.id for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_small_line_and_its_id_is_returned(inbox, command):
    assert messages.send(inbox, command) == command.id
    (path,) = (inbox / "inbox").iterdir()
    assert path.read_bytes() == messages.encode(command)
    assert b"\n" not in path.read_bytes()
    assert path.stat().st_size < messages.MAX_COMMAND_BYTES


def test_a_command_half_written_waits(inbox, monkeypatch):
    """Whoever looks just before the draft takes its place finds nothing, and takes nothing away."""
    looked = []

    def move(draft, final):
        looked.append(messages.receive(inbox))
        draft.rename(final)

    monkeypatch.setattr("engine.base.atomic.os.replace", move)
    command = messages.Stop()
    messages.send(inbox, command)
    assert looked == [messages.Received([], [])]
    assert messages.receive(inbox).commands == [command]


def test_a_run_without_an_inbox_is_sent_nothing(tmp_path):
    assert messages.receive(tmp_path) == messages.Received([], [])


def test_every_event_survives_its_line():
    samples = {"sharpness": 1.5, "stage": 2, "forms": ("code",), "form": "code", "assumption": 1,
               "learning_rate": 0.1, "outcome": "x", "parent": "y", "number": 2, "count": 4, "metric": "norm"}
    for kind in typing.get_args(messages.AnyEvent):
        extra = {name: samples[name] for name in kind.__struct_fields__ if name in samples}
        event = kind(step=3, text="θ† starts here", **extra)
        assert messages.decode_event(messages.encode(event)) == event


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"command": "explode"}', b'{"command": "advance", "steps": -1}', b'{"command": "advance", "steps": 1, "x": 1}',
     b'{"command": "set_learning_rate", "learning_rate": 1e999}', b'{"command": "set_learning_rate", "learning_rate": 0}',
     b'{"command": "set_learning_rate", "learning_rate": NaN}', b'{"command": "set_learning_rate", "learning_rate": "0.1"}',
     b'{"command": "pause", "id": "../../x"}', b'{"command": "pause", "id": "ab\\n"}', b'{"command": "pause", "id": "\xff"}',
     b'{"command": "anchor", "every": -1}', b'{"command": ["pause"]}', b"[" * 4096, b"[" * 100_000, b"\xff" * 10],
)
def test_what_is_no_command_is_refused_and_removed(inbox, body):
    (inbox / "inbox" / "1.json").write_bytes(body)
    received = messages.receive(inbox)
    assert received.commands == []
    assert len(received.refusals) == 1
    assert "is no command" in received.refusals[0]
    assert not list((inbox / "inbox").iterdir())


def test_a_refusal_names_the_file_and_the_reason(inbox):
    (inbox / "inbox" / "1.json").write_bytes(b'{"command": "advance", "steps": 0}')
    (inbox / "inbox" / "2.json").write_bytes(b" " * (messages.MAX_COMMAND_BYTES + 1))
    assert messages.receive(inbox).refusals == [
        "'1.json' in the inbox is no command (Expected `int` >= 1 - at `$.steps`); it was removed",
        "'2.json' in the inbox is no command (a link, or too large); it was removed",
    ]


def test_a_refused_file_does_not_hold_up_the_commands_around_it(inbox):
    messages.send(inbox, COMMANDS[0])
    (inbox / "inbox" / "1.json").write_bytes(b"x")
    (inbox / "inbox" / "z.json").write_bytes(b"x")
    received = messages.receive(inbox)
    assert received.commands == COMMANDS[:1]
    assert len(received.refusals) == 2


def test_what_cannot_be_taken_is_reported_and_not_carried_out(inbox):
    (inbox / "inbox" / "1.json").mkdir()
    for _ in range(2):
        received = messages.receive(inbox)
        assert received.commands == []
        assert len(received.refusals) == 1
        assert received.refusals[0].startswith("'1.json' in the inbox cannot be taken (")
        assert received.refusals[0].endswith("); it is not carried out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_command_that_cannot_be_read_is_reported(inbox):
    path = inbox / "inbox" / "1.json"
    path.write_bytes(messages.encode(messages.Stop()))
    path.chmod(0)
    received = messages.receive(inbox)
    assert received.commands == []
    assert received.refusals == ["'1.json' in the inbox cannot be taken (Permission denied); it is not carried out"]


def test_an_inbox_that_may_not_be_emptied_carries_nothing_out(inbox, monkeypatch):
    messages.send(inbox, messages.Stop())
    monkeypatch.setattr(type(inbox), "unlink", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    received = messages.receive(inbox)
    assert received.commands == []
    assert "cannot be taken (Permission denied)" in received.refusals[0]


def test_links_are_not_followed_and_control_characters_are_shown_harmless(inbox, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(messages.encode(messages.Stop()))
    (inbox / "inbox" / "1.json").symlink_to(target)
    (inbox / "inbox" / "2\x1b[2J.json").write_bytes(b"x")
    received = messages.receive(inbox)
    assert received.commands == []
    assert target.exists()
    assert all("\x1b" not in refusal for refusal in received.refusals)


def test_an_inbox_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(UserError) as caught:
        messages.send(tmp_path, messages.Pause())
    assert str(caught.value) == f"{tmp_path / 'inbox'}: the command could not be left there (No such file or directory)"


@fuzz(70)
@given(st.binary(max_size=200))
def test_no_bytes_harm_an_inbox_or_a_journal(inbox, body):
    (inbox / "inbox" / "1.json").write_bytes(body)
    messages.receive(inbox)
    (inbox / "events.jsonl").write_bytes(body + b"\n")
    Run(inbox).events()
    assert messages.decode_event(body) is None


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b'{"event": "unheard_of", "step": 1, "text": ""}', b'{"event": "paused", "text": "no step"}',
     b'{"event": "paused", "step": "1", "text": ""}', b'{"event": "paused", "step": 1, "text": "\xff"}',
     b'{"event": "paused", "step": 1, "text": "' + b"x" * 2001 + b'"}',
     b'{"event": "edge_reached", "step": 1, "text": "", "sharpness": NaN}',
     b'{"event": "paused", "step": 1, "text": "", "answers": "\\u001b[2J"}', b"[" * 100_000],
)
def test_a_line_that_is_no_event_is_passed_over(inbox, line):
    good = messages.Paused(step=1, text="paused")
    (inbox / "events.jsonl").write_bytes(line + b"\n" + messages.encode(good) + b"\n")
    assert messages.decode_event(line) is None
    assert Run(inbox).events() == [good]


ODD = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6) | st.just([])
TAGS = st.sampled_from([kind.__struct_config__.tag for kind in typing.get_args(messages.AnyCommand | messages.AnyEvent)])
FIELDS = ("id", "steps", "learning_rate", "every", "step", "text", "at", "answers", "sharpness", "stage", "forms", "outcome")


@fuzz(100)
@given(st.fixed_dictionaries({}, optional={"command": TAGS | ODD, "event": TAGS | ODD} | dict.fromkeys(FIELDS, ODD)))
def test_a_message_of_odd_fields_is_what_it_says_or_is_refused(inbox, fields):
    body = msgspec.json.encode(fields)
    (inbox / "inbox" / "1.json").write_bytes(body)
    received = messages.receive(inbox)
    assert len(received.commands) + len(received.refusals) == 1
    for command in received.commands:
        assert messages.encode(command) == messages.encode(messages.COMMANDS.decode(messages.encode(command)))
        assert type(command).__struct_config__.tag == fields["command"]
    event = messages.decode_event(body)
    assert event is None or type(event).__struct_config__.tag == fields["event"]
