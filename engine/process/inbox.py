"""What a run is asked to do: by files in its inbox, by signals, and by whoever has its runner in hand."""

from collections import deque
from collections.abc import Iterator

from engine.process.recorder import Recorder
from engine.record import messages
from engine.record.messages import AnyCommand
from engine.record.writer import Writer


class Inbox:
    """The commands for a run at work, in the order in which they came."""

    def __init__(self, writer: Writer, recorder: Recorder):
        self.writer, self.recorder = writer, recorder
        self._asked: deque[AnyCommand] = deque()
        self._refused: set[str] = set()  # reported once: a file that cannot be removed is there again at every step

    def ask(self, command: AnyCommand) -> None:
        """Hand in a command from inside the process; signal handlers use it."""
        self._asked.append(command)

    def commands(self, step: int) -> Iterator[AnyCommand]:
        """The commands that are there now, each to be carried out before the next one. What cannot be carried out is refused."""
        received = messages.receive(self.writer.run.path)
        fresh = [refusal for refusal in received.refusals if refusal not in self._refused]
        self._refused.update(fresh)
        self.recorder.emit([messages.Refused(step=step, text=refusal) for refusal in fresh])
        for command, written in zip(received.commands, received.written, strict=True):
            if self._is_stale(command, written):
                kind = type(command).__name__
                text = f"{kind}: left for an engine of this run that is gone, so not carried out; give it again if it still holds"
                self.recorder.emit([messages.Refused(step=step, text=text, answers=command.id)])
            else:
                yield command
        while self._asked:
            yield self._asked.popleft()

    def _is_stale(self, command: AnyCommand, written: float) -> bool:
        """Whether a command was for another engine. One that names none is for whichever comes; but nobody asks an engine to stop that is
        not there yet.
        """
        if command.engine:
            return command.engine != self.writer.engine
        return isinstance(command, messages.Stop) and written < self.writer.began
