"""The list of keys, made from the table of keys, and beside it the topics of `eos help`."""

from functools import cache
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static
from textual.widgets.option_list import Option

from engine.help.catalog import Topic
from engine.help.drawn import Drawn
from eos_tui.keys import MOUSE, PLACES, Place, bindings, closing, groups, offered, shown
from eos_tui.screens.live import Page
from eos_tui.topics.topics import TOPICS
from eos_tui.widgets.filter import Filter, matches
from eos_tui.widgets.options import Options


def key_list(place: Place, words: str = "") -> Group:
    """The keys that work in a place, by group; only those that have these words."""
    parts: list[RenderableType] = []
    passing = [key for key in offered(place) if matches(f"{key.shown} {key.label} {key.help} {key.group}", words)]
    for title, keys in groups(passing):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=11, style="bold")
        table.add_column(width=17)
        table.add_column()
        for key in keys:
            table.add_row(Text(key.shown), Text(key.label), Text(key.help))
        parts += [Text(title, "underline"), table, Text()]
    mouse = [(shown, said) for shown, said in MOUSE if matches(f"{shown} {said} mouse", words)] if place == "dashboard" else []
    if mouse:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=13, style="bold")
        table.add_column()
        for shown, said in mouse:
            table.add_row(Text(shown), Text(said))
        parts += [Text("Mouse", "underline"), table, Text()]
    return Group(*(parts[:-1] or [Text("No key has all of these words.")]))


@cache
def _markdown(topic: Topic) -> str:
    """The page of a topic, made once."""
    return topic.markdown()


class Help(Page):
    """Every key of the place it was opened from; then, in turn with it, the topics: a list of them, and the text of the chosen one."""

    place = "help"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("help"), closing("anywhere.help")]
    CSS = """
    Help #both { height: 100%; align: center middle; }
    Help Filter.open { width: 108; max-width: 98%; }
    Help #topics { height: 96%; width: 120; padding: 0; display: none; }
    Help #topics Options { width: 16; max-width: 40%; height: 100%; border: none; padding: 0; background: $surface; }
    Help #topics Options { scrollbar-size-vertical: 0; }
    Help #text { width: 1fr; height: 100%; padding: 0 1; scrollbar-size-vertical: 1; }
    """

    def __init__(self, of: Place):
        super().__init__()
        self._of: Place = of
        self._filter = Filter("keys and topics")
        self._topics = [*TOPICS]
        """The topics listed."""

    @property
    def hint(self) -> str:
        return f"{shown('help.topics')} topics · {shown('help.filter')} filter · {super().hint}"

    def compose(self) -> ComposeResult:
        with Vertical(id="both"):
            yield self._filter
            with VerticalScroll(classes="page", id="keys") as page:
                page.border_title = f"keys {PLACES[self._of]}"
                page.border_subtitle = self.hint
                yield Static(key_list(self._of))
            with Horizontal(classes="page", id="topics") as page:
                page.border_subtitle = (f"{shown('help.into_the_text')} into the text · {shown('help.topics')} keys · "
                                        f"{shown('help.filter')} filter · {super().hint}")
                yield Options(*(Option(topic.name, id=topic.name) for topic in TOPICS))
                with VerticalScroll(id="text"):
                    yield Static()

    def on_mount(self) -> None:
        self.query_one("#keys").focus()

    def action_filter(self) -> None:
        """Take the words by which keys and topics are narrowed down."""
        keys = self.query_one("#keys")
        self._filter.begin(keys if keys.display else self.query_one(Options))

    def on_filter_narrowed(self) -> None:
        """Show the keys and the topics that have these words."""
        words, topics = self._filter.words, self.query_one(Options)
        self.query_one("#keys Static", Static).update(key_list(self._of, words))
        self._topics = [topic for topic in TOPICS if matches(f"{topic.name} {_markdown(topic)}", words)]
        topics.clear_options()
        topics.add_options(Option(topic.name, id=topic.name) for topic in self._topics)
        if self._topics:
            topics.highlighted = 0
        else:
            self.query_one("#topics").border_title = "no topic has all of these words"
            self.query_one("#text Static", Static).update("")

    def on_option_list_option_highlighted(self, event: Options.OptionHighlighted) -> None:
        """Show the topic."""
        topic = self._topics[event.option_index]
        self.query_one("#topics").border_title = topic.title
        self.query_one("#text Static", Static).update(Drawn(topic.render()))
        self.query_one("#text").scroll_home(animate=False)

    def on_option_list_option_selected(self) -> None:
        self.action_into(True)

    def action_topics(self) -> None:
        """From the keys to the topics, and back."""
        keys, topics = self.query_one("#keys"), self.query_one("#topics")
        keys.display, topics.display = not keys.display, keys.display
        self.set_focus(self.query_one(Options) if topics.display else keys)

    def action_into(self, text: bool) -> None:
        """Focus the text of the topic, or the list of topics."""
        self.set_focus(self.query_one("#text" if text else Options))
