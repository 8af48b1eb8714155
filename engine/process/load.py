"""What the engine takes of its host: CPU and memory, and GPUs where NVIDIA's library tells of them. Read every few seconds."""

import time
from contextlib import suppress
from typing import Any

import psutil

from engine.record.reader import Gpu, HostLoad

EVERY_SECONDS = 2.0
MOST_GPUS = 16


class Meter:
    """Reads the load of this process and its host."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # from here on
        psutil.cpu_percent()
        self._nvml, self._gpus = _nvml()
        self._last: HostLoad | None = None
        self._read_at = time.monotonic()

    def load(self) -> HostLoad | None:
        """The load over the last seconds; None before there is a reading, and where the system tells of none."""
        now = time.monotonic()
        if now - self._read_at >= EVERY_SECONDS:
            self._read_at = now
            with suppress(psutil.Error, OSError):
                self._last = self._read()
        return self._last

    def _read(self) -> HostLoad:
        memory = psutil.virtual_memory()
        return HostLoad(
            cpu=self._process.cpu_percent(), host_cpu=psutil.cpu_percent(), cores=psutil.cpu_count() or 1,
            memory=self._process.memory_info().rss, host_memory=memory.total - memory.available,
            host_memory_total=memory.total, gpus=tuple(map(self._gpu, self._gpus)),
        )  # fmt: skip

    def _gpu(self, handle: Any) -> Gpu:
        nvml = self._nvml
        name = nvml.nvmlDeviceGetName(handle)
        load, memory = None, None
        with suppress(nvml.NVMLError):  # a part of a GPU tells of no load
            load = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        with suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return Gpu(
            name=name.decode(errors="replace") if isinstance(name, bytes) else str(name), load=load,
            memory=memory.used if memory else 0, memory_total=memory.total if memory else 0,
        )  # fmt: skip


def _nvml() -> tuple[Any, list[Any]]:
    """NVIDIA's library and its GPUs; none where the package or the library is not there."""
    try:
        import pynvml
    except ImportError:
        return None, []
    try:
        pynvml.nvmlInit()
        count = min(pynvml.nvmlDeviceGetCount(), MOST_GPUS)
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(count)]
    except pynvml.NVMLError:
        return None, []
