"""Keys that are typed ahead of what they are meant for, as a terminal has them that gives out several at once: pasted, or over a slow link.

Textual gives a key to what has the focus when it comes, and when nothing there takes it asks the bindings of what has the focus by then. Of
a number that came at once with the key that asks for it the digits were lost, and Enter accepted what stood there.
"""

from textual import events
from textual.app import App, ReturnType

KEPT = 32
"""Keys of which it is known whom they were given to: more are not typed before the first is answered."""


class TypedAhead(App[ReturnType], inherit_bindings=False):
    """An app that gives such a key to what has come on top meanwhile, or has the focus now."""

    _given: tuple[tuple[events.Key, object], ...] = ()

    async def on_event(self, event: events.Event) -> None:
        """As Textual's. Of a key it is kept whom it is given to."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            self._given = (*self._given, (event, self.focused or self.screen))[-KEPT:]
        await super().on_event(event)

    async def _on_key(self, event: events.Key) -> None:
        """What nobody has taken, and was given to something else than it would be now, is given on."""
        given = next((each for key, each in self._given if key is event), None)
        if given is not None and given is not (self.focused or self.screen):
            event.prevent_default()
            await self.on_event(events.Key(event.key, event.character))
