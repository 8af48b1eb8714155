"""The topics of `help`: each has a name, a title and its Markdown. Texts lie in `text/`; what the code can tell is made from the code.

A topic that lists many things, such as settings or columns, has sections of entries: each section and each entry can be asked for alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

from engine.base.errors import UserError, meant

HOW = "`help TOPIC` tells of one, and `help settings tracking`, `help tracking.anchor_every` or `help gd.x` of a part of one."
MARKER = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)
"""A line of a text that stands for what is made from the code."""


class Section(NamedTuple):
    """Entries under a heading."""

    name: str
    heading: str
    words: str
    entries: tuple[tuple[str, str], ...]
    """The name of each entry, and what is said of it."""

    def markdown(self, only: Sequence[str] | None = None) -> str:
        """The heading, what is said under it, and a line for each entry: of all, or only of those named."""
        lines = [f"- `{name}`{words}" for name, words in self.entries if only is None or name in only]
        return "\n\n".join(filter(None, (f"## {self.heading}", self.words, "\n".join(lines))))


class Topic(NamedTuple):
    """One thing that `help` tells of."""

    name: str
    title: str
    render: Callable[[], str]
    """Its Markdown, under the title."""
    sections: Callable[[], Sequence[Section]] = tuple
    """What it lists, where it lists much."""

    def markdown(self) -> str:
        """The whole page."""
        return f"# {self.title}\n\n{self.render().strip()}\n"

    def part(self, word: str) -> str | None:
        """The sections of this name, else the entries of this name, or whose last part it is; None where there is no such thing."""
        sections = self.sections()
        if named := [section.markdown() for section in sections if section.name == word]:
            return "\n\n".join(named) + "\n"
        parts = [(section, [name for name, _ in section.entries if name == word or name.endswith(f".{word}")]) for section in sections]
        return "\n\n".join(section.markdown(only) for section, only in parts if only) + "\n" if any(only for _, only in parts) else None

    def parts(self) -> Iterator[str]:
        """The names of its sections and entries."""
        for section in self.sections():
            yield from (section.name, *(name for name, _ in section.entries))


def written(package: str, name: str, made: Mapping[str, Callable[[], str]] | None = None) -> str:
    """The text of a topic in a package's folder `text`, with what is made from the code in the place of each marker."""
    text = files(package).joinpath("text", f"{name}.md").read_text(encoding="utf-8")
    return MARKER.sub(lambda marker: (made or {})[marker[1]](), text)


def listed(sections: Sequence[Section]) -> str:
    """Sections one after the other."""
    return "\n\n".join(section.markdown() for section in sections)


def contents(topics: Sequence[Topic]) -> str:
    """The list of topics as Markdown."""
    lines = "\n".join(f"- `{topic.name}`: {topic.title}" for topic in topics)
    return f"# Topics\n\n{lines}\n\n{HOW}\n"


class Answer(NamedTuple):
    """What was asked for: a whole topic, or a part of one."""

    topic: str
    title: str
    text: str
    """Markdown."""


def page(topics: Sequence[Topic], words: Sequence[str]) -> Answer:
    """What these words ask for: a topic, a part of it, or a part of whichever topic has it. Raises UserError with the nearest name where
    there is none.
    """
    by_name = {topic.name: topic for topic in topics}
    if len(words) > 2:
        raise UserError(f'"{" ".join(words)[:80]}": expected a topic, or a topic and one part of it')
    named = by_name.get(words[0])
    if named is not None and len(words) == 1:
        return Answer(named.name, named.title, named.markdown())
    if named is not None or len(words) == 1:
        for topic in topics if named is None else (named,):
            if (text := topic.part(words[-1])) is not None:
                return Answer(topic.name, topic.title, text)
    if named is not None:
        near = meant(words[1], tuple(named.parts()))
        raise UserError(f'"{words[1][:80]}": not in the topic {named.name}{near or f"; `help {named.name}` tells what is"}')
    near = meant(words[0], tuple(by_name)) or meant(words[0], [name for topic in topics for name in topic.parts() if "." in name])
    raise UserError(f'"{words[0][:80]}": no such topic{near or "."} Topics: {", ".join(by_name)}')
