"""The command `help`: topics on a terminal, in a pipe, as JSON and as HTML."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.completion import CompletionContext

from engine.base.errors import UserError
from engine.base.text import print_json
from engine.commands.options import Switch
from engine.help import catalog, scripts
from engine.help.catalog import Topic


def command(topics: Sequence[Topic]) -> Callable[..., int]:
    """The command that tells of these topics."""

    def words(context: CompletionContext) -> dict[str, str]:
        """Topics with their titles, then the parts of the topic that was given."""
        given = [token.value for argument in context.arguments for token in argument.tokens if argument.parameter.completer is words]
        named = next((topic for topic in topics if given and topic.name == given[0]), None)
        return dict.fromkeys(named.parts(), named.title) if named else {topic.name: topic.title for topic in topics}

    def help(
        topic: Annotated[tuple[str, ...], Parameter(completer=words)] = (), /, *, html: Path | None = None, copy: Path | None = None,
        json: Switch = False,
    ) -> int:
        """Tell of a topic, paged on a terminal and as Markdown in a pipe. Without one, list the topics.

        Args:
            topic: A topic, or one part of it: `settings tracking`, `tracking.anchor_every`, `gd.x`.
            html: Write all topics as HTML into this folder instead.
            copy: Write the example scripts, or the one that is named, into this folder: `help examples --copy FOLDER`.
            json: Print one JSON object; an array where topics are listed, or pages written.
        """
        if html is not None:
            return _write(html, topics, topic, json)
        if copy is not None:
            return _copy(copy, topic, json)
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
    return _tell(pages.write(folder, topics), json)


def _copy(folder: Path, words: Sequence[str], json: bool) -> int:
    if words[:1] != ("examples",) or len(words) > 2:
        raise UserError(f'--copy with "{" ".join(words)[:80]}": expected `help examples --copy FOLDER`, or the name of one before it')
    return _tell(scripts.copy(folder, *words[1:]), json)


def _tell(files: Iterable[Path], json: bool) -> int:
    if json:
        print_json([str(path) for path in files])
    else:
        print("\n".join(map(str, files)))
    return 0
