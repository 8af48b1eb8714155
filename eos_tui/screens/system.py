"""The host of the engine: what it takes of CPU, memory and GPUs, as its last word says, wherever it runs."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.record.columns import Column
from engine.record.reader import HostLoad, State
from eos_tui.keys import closing
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula, apart
from eos_tui.screens.live import LivePage

CELLS = 24
"""Of a bar."""
NAME = 22
GIGA = 1024**3
READ = (
    Column("cpu", "CPU", "computing time of the engine, and of all there is on its host", "cores", "seconds computed, over seconds gone by",
           "psutil"),
    Column("memory", "memory", "memory that the engine holds, and what of the host's is not available", "bytes",
           "resident set; total less available", "psutil"),
    Column("gpu", "GPU", "share of the time in which a GPU computed, and its memory that is taken, by whomever", "%",
           "over the last second or less", "NVIDIA's management library"),
)  # fmt: skip
"""What is read, every two seconds, by the engine's own process."""


class System(LivePage):
    """CPU, memory and GPUs of the engine's host."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.system")]

    def __init__(self, source: Source, ascii: bool = False):
        super().__init__(source, ascii)
        self._page, self._text = VerticalScroll(classes="page"), Static(markup=False)

    def compose(self) -> ComposeResult:
        self._page.border_title, self._page.border_subtitle = "the engine's host", self.hint
        with self._page:
            yield self._text

    def action_formula(self) -> None:
        self.app.push_screen(Formula("the engine's host", [], self.source.row(), others=[apart(column, "state.json") for column in READ]))

    def paint(self) -> None:
        if self._text.is_attached:
            self._text.update(Content("\n").join(self.lines(self.source.engine)))

    def lines(self, state: State) -> list[Content]:
        """The page, line by line."""
        where = f"{state.host or 'host not told'} · {state.device or 'device not told'} · process {state.pid or '–'}"
        head = [Content.assemble((where, "bold")), Content("")]
        load = state.load
        if load is None:
            why = ("the engine tells its load some seconds after its start" if self.source.live and not state.heartbeat else
                   "its engine told nothing of its load: it is of an earlier version, or ended before its first reading")
            return [*head, Content(f"No reading: {why}.")]
        if not self.source.live:
            head.insert(1, Content.assemble(("The engine is not at work; this is its last reading.", self.color("warn"))))
        return [*head, *self._host(load), *self._gpus(load, state.device)]

    def _host(self, load: HostLoad) -> list[Content]:
        cores = load.cpu / 100
        return [
            self._bar("CPU of the engine", cores / load.cores, f"{cores:.1f} of {load.cores} cores"),
            self._bar("CPU of the host", load.host_cpu / 100, f"{load.host_cpu:.0f} %"),
            self._bar("memory of the engine", load.memory / max(load.host_memory_total, 1), f"{load.memory / GIGA:.2f} GiB"),
            self._bar("memory of the host", load.host_memory / max(load.host_memory_total, 1),
                      f"{load.host_memory / GIGA:.1f} of {load.host_memory_total / GIGA:.1f} GiB"),
        ]  # fmt: skip

    def _gpus(self, load: HostLoad, device: str) -> list[Content]:
        lines: list[Content] = []
        for number, gpu in enumerate(load.gpus):
            lines += [Content(""), Content.assemble((f"GPU {number}: {gpu.name}", "bold"))]
            lines.append(self._bar("load", gpu.load / 100, f"{gpu.load:.0f} %") if gpu.load is not None else Content("  load not told"))
            lines.append(self._bar("memory", gpu.memory / max(gpu.memory_total, 1),
                                   f"{gpu.memory / GIGA:.1f} of {gpu.memory_total / GIGA:.1f} GiB"))  # fmt: skip
        if not lines and "CPU" not in device:
            return [Content(""), Content("No GPU is told of: that takes the package nvidia-ml-py where the engine runs, which the extras "
                                         "cuda12 and cuda13 bring.")]  # fmt: skip
        return lines

    def _bar(self, name: str, share: float, words: str) -> Content:
        full, rest = ("=", ".") if self.ascii else ("━", "─")
        cells = round(min(max(share, 0.0), 1.0) * CELLS)
        return Content.assemble(
            f"  {name:<{NAME}} ", (full * cells, self.color("warn" if share > 0.9 else "gd")),
            (rest * (CELLS - cells), self.color("muted")), (f"  {words}", "bold"),
        )
