"""The command `help`: topics on a terminal, in a pipe, as JSON and as HTML."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.completion import CompletionContext

from engine.base.errors import UserError
from engine.base.text import print_json
from engine.commands.options import Switch
from engine.help import catalog
from engine.help.catalog import Topic


def command(topics: Sequence[Topic]) -> Callable[..., int]:
    """The command that tells of these topics."""

    def words(context: CompletionContext) -> dict[str, str]:
        """Topics with their titles, then the parts of the topic that was given."""
        given = [token.value for argument in context.arguments for token in argument.tokens if argument.parameter.completer is words]
        named = next((topic for topic in topics if given and topic.name == given[0]), None)
        return dict.fromkeys(named.parts(), named.title) if named else {topic.name: topic.title for topic in topics}

    def help(
        topic: Annotated[tuple[str, ...], Parameter(completer=words)] = (), /, *, html: Path | None = None, json: Switch = False
    ) -> int:
        """Tell of a topic, paged on a terminal and as Markdown in a pipe. Without one, list the topics.

        Args:
            topic: A topic, or one part of it: `settings tracking`, `tracking.anchor_every`, `gd.x`.
            html: Write all topics as HTML into this folder instead.
            json: Print one JSON object; an array where topics are listed, or pages written.
        """
        if html is not None:
            return _write(html, topics, topic, json)
        page = catalog.page(topics, topic) if topic else None
        if json:
            print_json(page._asdict() if page else [{"topic": one.name, "title": one.title} for one in topics])
        else:
            from engine.help import drawn

            drawn.show(page.text if page else catalog.contents(topics))
        return 0

    return help


def _write(folder: Path, topics: Sequence[Topic], words: Sequence[str], json: bool) -> int:
    from engine.help import pages

    if words:
        raise UserError(f'--html with "{words[0][:80]}": the pages of all topics are written together, for they lead to each other')
    files = [str(path) for path in pages.write(folder, topics)]
    if json:
        print_json(files)
    else:
        print("\n".join(files))
    return 0
