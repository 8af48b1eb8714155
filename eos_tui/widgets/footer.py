"""The foot of the screen: the keys that matter most here, as many as fit; `?` shows the others."""

from collections.abc import Collection, Mapping

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.widget import Widget

from eos_tui.keys import Key, Place, footer

GAP = "  "


def fitting(place: Place, width: int, idle: Collection[str] = (), labels: Mapping[str, str] | None = None) -> list[Key]:
    """The keys of this place that fit, by their rank; help and detach always do, those that are idle never. Some of them may
    have other `labels` now.
    """
    keys = [key for key in footer(place) if key.method not in idle]
    widths = {key: cell_len(f"{key.shown} {(labels or {}).get(key.method, key.label)}{GAP}") for key in keys}
    kept = [key for key in keys if key.method in ("detach", "keys")]
    room = width - 1 - sum(widths[key] for key in kept)
    for key in keys:
        if key not in kept and room >= widths[key]:
            kept.append(key)
            room -= widths[key]
    return [key for key in keys if key in kept]


class Footer(Widget):
    """Keys and what they do; a click does it too."""

    DEFAULT_CSS = "Footer { dock: bottom; height: 1; width: 1fr; color: $text-muted; }"

    def __init__(self, place: Place):
        super().__init__()
        self.place: Place = place
        self._idle: frozenset[str] = frozenset()
        self._labels: dict[str, str] = {}
        self._hits: list[tuple[range, str]] = []

    def adapt(self, idle: Collection[str] = (), labels: Mapping[str, str] | None = None) -> None:
        """Leave out the actions that would do nothing now, and call some by another name."""
        if (frozenset(idle), dict(labels or {})) != (self._idle, self._labels):
            self._idle, self._labels = frozenset(idle), dict(labels or {})
            self.refresh()

    def render(self) -> Content:
        parts, self._hits, at = [], [], 1
        for key in fitting(self.place, self.size.width, self._idle, self._labels):
            part = Content.assemble((key.shown.split()[0], "bold $primary"), f" {self._labels.get(key.method, key.label)}")
            self._hits.append((range(at, at + part.cell_length), key.action))
            at += part.cell_length + len(GAP)
            parts.append(part)
        return Content(" ") + Content(GAP).join(parts)

    async def on_click(self, event: events.Click) -> None:
        for cells, action in self._hits:
            if event.x in cells:
                await self.app.run_action(action)
