"""The commands that a running engine obeys at its next step, from anywhere that shares its folder, and waiting for its answer."""

import time
from typing import Any

import msgspec
from cyclopts import App

from engine.base.errors import BAD_INPUT, UserError
from engine.base.text import print_json, print_line
from engine.commands.options import RunName, Switch, Trust
from engine.jobs.launch import LIVE, RESUMABLE
from engine.process import worker
from engine.record import messages, trust
from engine.record.messages import AnyCommand, AnyEvent
from engine.record.reader import EventTail
from engine.record.store import resolve

ANSWER_SECONDS = 10.0
"""Wait for an engine's answer to a command. It answers between two steps, and a step may take seconds."""


def pause(name: RunName, /, *, json: Switch = False) -> int:
    """Pause a run at its next step.

    Args:
        name: A run's name, or the path of a run directory.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, messages.Pause(), json)


def go(name: RunName, /, *, json: Switch = False) -> int:
    """Let a paused run go on.

    Args:
        name: A run's name, or the path of a run directory.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, messages.Resume(), json)


def advance(name: RunName, steps: int, /, *, json: Switch = False) -> int:
    """Let a run take exactly this many steps, then pause.

    Args:
        name: A run's name, or the path of a run directory.
        steps: How many.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, _checked(messages.Advance, steps=steps), json)


def checkpoint(name: RunName, /, *, json: Switch = False) -> int:
    """Have a run write a checkpoint now.

    Args:
        name: A run's name, or the path of a run directory.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, messages.Checkpoint(), json)


def stop(name: RunName, /, *, json: Switch = False) -> int:
    """Stop a run: its engine writes a checkpoint and ends. `resume` goes on from there.

    Args:
        name: A run's name, or the path of a run directory.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, messages.Stop(), json)


def anchor(name: RunName, /, *, every: int | None = None, json: Switch = False) -> int:
    """Set every prediction to the true displacement now.

    Args:
        name: A run's name, or the path of a run directory.
        every: Also every so many steps from here; 0 for no more by themselves.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, _checked(messages.Anchor, every=every), json)


def eta(name: RunName, learning_rate: float, /, *, json: Switch = False) -> int:
    """Change the learning rate of a run; θ† and the predictions restart at the new threshold.

    Args:
        name: A run's name, or the path of a run directory.
        learning_rate: The new η.
        json: Print the answering event as one JSON object.
    """
    return _tell(name, _checked(messages.SetLearningRate, learning_rate=learning_rate), json)


def density(
    name: RunName, /, *, probes: int = 8, steps: int = 40, json: Switch = False, trusted: Trust = False
) -> int:
    """Read the whole spectrum of a run at its present θ: density, Gauss–Newton shares, sharpness by layer. Of a run that is over, at the
    θ of its last checkpoint, here.

    The density is that of stochastic Lanczos quadrature, from probes × steps Hessian–vector products. The run's engine takes no step
    meanwhile, and keeps what it reads in `curves/` as density-N.npz.

    Args:
        name: A run's name, or the path of a run directory.
        probes: Random vectors: more of them, and the share of few eigenvalues is more certain.
        steps: Lanczos steps from each: more of them, and more of the spectrum is told apart. Each keeps a vector as long as θ.
        json: Print the answering event as one JSON object.
    """
    command, run = _checked(messages.Density, probes=probes, steps=steps), resolve(name)
    assert isinstance(command, messages.Density)
    if run.liveness() not in ("finished", "crashed"):
        return _tell(name, command, json)
    trust.asking(lambda: trust.need(run.path, run.spec), trusted)
    _print(worker.density(run, command, lambda part: print_line(part, error=True)), json)
    return 0


def _tell(name: str, command: AnyCommand, json: bool) -> int:
    """Leave a command for a run's engine, wait for its answer and print it. Returns the exit status."""
    named = resolve(name)
    liveness = named.liveness()
    if liveness not in LIVE:
        how = "has finished" if liveness == "finished" else f"is {liveness}"
        outcome = named.state().outcome
        on = f"`resume {named.name}` starts one" if outcome is None or outcome.kind in RESUMABLE else f"it is over ({outcome.text})"
        raise UserError(f"run {named.name} {how}: no engine takes commands; {on}")
    run = named.held()  # a command goes to this one, whatever has its name in a moment
    journal = EventTail(run)
    journal.poll()  # what happened before
    engine = run.engine()
    messages.send(run.path, command, engine)
    end, announced = time.monotonic() + ANSWER_SECONDS, ""
    while time.monotonic() < end:
        replaced = bool(engine) and run.engine() != engine  # before its last words are read
        for event in journal.poll():
            if _answers(event, command):
                _print(event, json)
                return BAD_INPUT if isinstance(event, messages.Refused) else 0
        if replaced:
            raise UserError(f"run {named.name}: the engine that this was for ended before it came to it; the next does not carry it out")
        if (task := run.state().task) and run.liveness() in LIVE:  # it is at work between two steps, and says at what
            end = time.monotonic() + ANSWER_SECONDS
            if task != announced and isinstance(command, messages.Density):
                print_line(task, error=True)
            announced = task
        time.sleep(0.05)
    moved = f" ({run.displaced})" if run.displaced else ""
    print_line(f"run {named.name}: not answered yet{moved}; the command waits for the end of the step", error=True)
    return 0


def _print(event: AnyEvent, json: bool) -> None:
    """The event that answers a command; a refusal goes to stderr."""
    if json:
        print_json(event)
    else:
        print_line(event.text, error=isinstance(event, messages.Refused))


def _answers(event: AnyEvent, command: AnyCommand) -> bool:
    return event.answers == command.id or (isinstance(command, messages.Stop) and isinstance(event, messages.Finished))


def _checked(kind: type, **fields: Any) -> AnyCommand:
    """A command with its numbers checked against their limits, as the engine would."""
    try:
        return msgspec.convert({"command": kind.__struct_config__.tag, **fields}, kind)  # type: ignore[attr-defined]
    except msgspec.ValidationError as error:
        shown = ", ".join(f"{name} = {value}" for name, value in fields.items())
        problem = str(error).partition(" - at ")[0]
        raise UserError(f"{shown}: {problem[:1].lower()}{problem[1:]}") from None


def add_to(app: App) -> None:
    """Add the commands of this module to a command line."""
    for command in (pause, go, advance, checkpoint, stop, anchor, eta, density):
        app.command(command)
