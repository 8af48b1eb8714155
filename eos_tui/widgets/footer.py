"""The foot of the screen: the keys that matter most here, as many as fit; `?` shows the others."""

from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.widget import Widget

from eos_tui.keys import Key, Place, footer, offered

GAP = "  "
STEERING = 2
"""The last rank of the keys that go before all others: to leave, and to let the engine or a replay go on or stand."""


def labelled(key: Key, labels: Mapping[str, str]) -> str:
    """What a key is called where some have other `labels`, by their id or by their method."""
    return labels.get(key.id, labels.get(key.method, key.label))


def fitting(
    place: Place, width: int, idle: Collection[str] = (), labels: Mapping[str, str] | None = None, first: Sequence[str] = ()
) -> list[Key]:
    """The keys of this place that fit, by their rank; help and detach always do, those that are idle never. Some of them may
    have other `labels` now, and those labelled as in `first` come before the rest.
    """
    ranked = footer(place)
    begins = [key for label in first for key in offered(place) if key.label == label]
    steering = [key for key in ranked if key.rank <= STEERING]
    keys = [key for key in dict.fromkeys([*steering, *begins, *ranked]) if key.method not in idle]
    widths = {key: cell_len(f"{key.shown} {labelled(key, labels or {})}{GAP}") for key in keys}
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
        self._first: tuple[str, ...] = ()
        self._hits: list[tuple[range, str]] = []

    def adapt(self, idle: Collection[str] = (), labels: Mapping[str, str] | None = None, first: Sequence[str] = ()) -> None:
        """Leave out the actions that would do nothing now, call some by another name, and put those with these labels first."""
        if (frozenset(idle), dict(labels or {}), tuple(first)) != (self._idle, self._labels, self._first):
            self._idle, self._labels, self._first = frozenset(idle), dict(labels or {}), tuple(first)
            self.refresh()

    def render(self) -> Content:
        parts, self._hits, at = [], [], 1
        for key in fitting(self.place, self.size.width, self._idle, self._labels, self._first):
            part = Content.assemble((key.shown.split()[0], "bold $primary"), f" {labelled(key, self._labels)}")
            self._hits.append((range(at, at + part.cell_length), key.action))
            at += part.cell_length + len(GAP)
            parts.append(part)
        return Content(" ") + Content(GAP).join(parts)

    async def on_click(self, event: events.Click) -> None:
        for cells, action in self._hits:
            if event.x in cells:
                await self.app.run_action(action)
