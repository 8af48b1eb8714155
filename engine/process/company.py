"""The other processes of a run, as process 0 knows them; there are none where it works alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from engine.base.errors import first_line
from engine.jobs.groups import Group
from engine.phases.experiment import Experiment
from engine.process.recorder import log
from engine.record.columns import Column
from engine.spec import RunSpec

if TYPE_CHECKING:
    from engine.process.rendezvous import Heartbeat


class Company:
    """The group that a run is shared out to."""

    def __init__(self, group: Group | None):
        self.group = group
        self.deserted = False
        """The other processes are gone, or do not listen any more."""
        self._heartbeat: Heartbeat | None = None

    def join(self, give_up: Callable[[str], None]) -> None:
        """Meet the others. Where they do not come, or one falls silent later, `give_up` is to end this process."""
        if self.group is not None:
            from engine.process.rendezvous import join

            self._heartbeat = join(self.group, give_up)

    def experiment(self, spec: RunSpec, columns: Sequence[Column], begins: bool, ask_to_stop: Callable[[], None]) -> Experiment:
        """The experiment that this process carries out, alone or in front of the others, tested where the run begins."""
        if self.group is None:
            experiment = Experiment(spec, columns)
            if begins:
                experiment.test_optimizer()
            return experiment
        from engine.process.lockstep import Leader

        return cast(Experiment, Leader(spec, ask_to_stop, columns, begins))

    def loss_in(self, error: Exception) -> str:
        """Who is gone, in words, where an error says that another process is; empty for any other error."""
        if self.group is None:
            return ""
        from engine.process import lockstep

        self.deserted = lockstep.is_lost(error)
        if not self.deserted:
            return ""
        return self._heartbeat.who_is_gone() if self._heartbeat is not None else "another process is gone"

    def dismiss(self, experiment: Experiment | None) -> None:
        """Have the others end, and listen to them no more."""
        if experiment is not None:
            try:
                experiment.end()
            except Exception as error:
                log(f"the other processes could not be told of the end ({first_line(error)})")
                self.deserted = True
            self.deserted = self.deserted or experiment.engaged
        if self._heartbeat is not None:
            self._heartbeat.stop()
