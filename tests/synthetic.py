"""A run as an engine would write it, made in an instant, and an engine that only answers commands."""

import os
import socket
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from engine.record import messages, store
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer
from engine.spec import RunSpec, load_spec_text
from engine.theory import delta, stage

LEARNING_RATE = 0.02
THRESHOLD = 2 / LEARNING_RATE
EDGE = 100
ALPHA, BETA = 25.0, 100.0

SPEC = f"""
name = "synthetic"
title = "made by a test"
[problem]
kind = "network"
[problem.data]
name = "fashion"
[problem.model]
kind = "mlp"
[optimizer]
learning_rate = {LEARNING_RATE}
"""


def rows_of(run: Run, start: int, stop: int) -> np.ndarray:
    """Rows of the steps start to stop: a sharpness that rises to the edge, then a cycle that the predictions follow."""
    table = np.full((stop - start, len(run.columns)), np.nan)

    def put(name: str, values) -> None:
        table[:, run.index[name]] = values

    step = np.arange(start, stop, dtype=float)
    since = step - EDGE
    d = delta(ALPHA, BETA)
    phase = 2 * np.pi * since / 60
    at_edge = since >= 0
    x = np.where(at_edge, (-1) ** since * d * np.exp(0.8 * np.cos(phase)), np.nan)
    y = np.where(at_edge, -4 * np.sin(phase), np.nan)
    put("step", step)
    put("time", LEARNING_RATE * step)
    put("learning_rate", LEARNING_RATE)
    put("threshold", THRESHOLD)
    put("gd.loss", 0.5 * np.exp(-step / 400) + np.where(at_edge, 0.02 * np.nan_to_num(x) ** 2, 0))
    put("gd.sharpness", np.where(at_edge, THRESHOLD + np.nan_to_num(y), np.minimum(20 + 0.8 * step, THRESHOLD)))
    put("gd.lambda2", 30.0)
    for name, values in {
        "gd.x": x, "gd.y": y, "gd.distance": np.abs(x) + 0.1, "generalized.x": 0.97 * x, "generalized.y": 0.95 * y,
        "generalized.loss": 0.5 * np.exp(-step / 400), "generalized.sharpness": THRESHOLD + 0.95 * y,
        "transported.x": 1.2 * x, "transported.y": 1.1 * y, "constrained.loss": 0.5 * np.exp(-step / 400),
        "constrained.sharpness": THRESHOLD, "constrained.alpha": ALPHA, "constrained.beta": BETA, "constrained.delta": d,
        "constrained.epsilon": LEARNING_RATE * np.sqrt(ALPHA), "flow.loss": 0.4 * np.exp(-step / 400),
        "flow.sharpness": THRESHOLD + 0.2 * np.maximum(since, 0), "flow.distance": 0.01 * np.maximum(since, 0),
        "stage": [stage(a, b, d) for a, b in zip(x, y, strict=True)],
    }.items():
        put(name, np.where(at_edge, values, np.nan))
    return table


def make_run(where: Path, steps: int = 400, name: str = "made", finished: bool = True, spec: RunSpec | None = None) -> Run:
    """A run of so many steps, ended unless an engine is to go on with it."""
    run = store.create(spec or load_spec_text(SPEC, "a test"), name, where)
    with Writer(run) as writer:
        writer.append(rows_of(run, 0, steps))
        writer.event(messages.Started(step=0, text="the engine took up the run"))
        if steps > EDGE:
            writer.event(messages.EdgeReached(step=EDGE, text=f"the sharpness reached 2/η = {THRESHOLD:g}", sharpness=THRESHOLD))
        state = State(status="paused", phase="edge" if steps > EDGE else "approach", step=steps - 1, rate=170.0,
                      learning_rate=LEARNING_RATE, device="cpu", precision="float64", pid=os.getpid(),
                      host=socket.gethostname(), heartbeat=time.time(), seconds=3.0)
        if finished:
            outcome = Outcome(kind="completed", step=steps - 1, text=f"completed {steps - 1} steps")
            writer.event(messages.Finished(step=steps - 1, text=outcome.text, outcome="completed"))
            state = msgspec.structs.replace(state, status="finished", outcome=outcome)
        writer.state(state)
    return run


class FakeEngine(threading.Thread):
    """Holds a run, answers its commands, and takes the steps it is asked for. `commands` keeps what it was sent."""

    def __init__(self, run: Run):
        super().__init__(daemon=True)
        self.run_directory = run
        self.commands: list[messages.AnyCommand] = []
        self.failed: list[str] = []
        self.task = ""
        """What it says that it computes between two steps."""
        self.more: dict = {}
        """What else its state has."""
        self._over = threading.Event()
        self._status, self._learning_rate = "running", LEARNING_RATE

    def __enter__(self) -> "FakeEngine":
        self.writer = Writer(self.run_directory)
        self.say()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(timeout=5)
        self.writer.__exit__()

    def say(self) -> None:
        self.writer.state(State(
            status=self._status, phase="edge", step=self.writer.last_step, rate=170.0, learning_rate=self._learning_rate,
            device="cpu", precision="float64", pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time(), task=self.task,
            **self.more,
        ))

    def run(self) -> None:
        while not self._over.wait(0.02):
            for command in messages.receive(self.writer.run.path).commands:
                self.commands.append(command)
                self._answer(command)
                self.say()

    def _answer(self, command: messages.AnyCommand) -> None:
        at, answer = self.writer.last_step, {"answers": command.id}
        match command:
            case messages.Pause():
                self._status = "paused"
                event: messages.Event = messages.Paused(step=at, text=f"paused at step {at}", **answer)
            case messages.Resume():
                self._status = "running"
                event = messages.Resumed(step=at, text=f"resumed at step {at}", **answer)
            case messages.Advance(steps=steps):
                self.writer.append(rows_of(self.run_directory, at + 1, at + 1 + steps))
                self._status = "paused"
                event = messages.Paused(step=at + steps, text=f"took {steps} steps, paused at step {at + steps}", **answer)
            case messages.AdvanceTo(what=what):
                self._status = "paused"
                event = messages.Paused(step=at, text=f"paused at the next {what}", **answer)
            case messages.SetLearningRate(learning_rate=value):
                self._learning_rate = value
                event = messages.LearningRateChanged(step=at, text=f"η is now {value:g}", learning_rate=value, **answer)
            case messages.Anchor():
                event = messages.Anchored(step=at, text="re-anchored", forms=("generalized",), **answer)
            case messages.Checkpoint():
                event = messages.Checkpointed(step=at, text=f"checkpoint at step {at}", **answer)
            case messages.Density():
                event = messages.DensityTaken(step=at, text=f"spectral density at step {at}", **answer)
            case messages.Stop():
                self._status = "finished"
                event = messages.Finished(step=at, text=f"stopped at step {at}", outcome="stopped", **answer)
        self.writer.event(event)
