"""Words that a user puts on a run, to find it by: `tags.json` beside the record, which no engine reads."""

import re
from collections.abc import Iterable
from pathlib import Path

from engine.base.errors import UserError
from engine.record.identity import read_facts, write_facts

FILE = "tags.json"
FORMAT = 1
MOST = 10
"""Tags of a run: so many fit into the bytes that are read of such a file."""
TAG = re.compile(r"[^\W_][\w.+-]{0,31}\Z")


def tags_of(run: Path) -> tuple[str, ...]:
    """The tags of a run, in the order in which they were given; none where nothing but tags is to be read there."""
    given = read_facts(run / FILE).get("tags")
    words = given if isinstance(given, list) else []
    return tuple(dict.fromkeys(word for word in words if isinstance(word, str) and TAG.match(word)))[:MOST]


def checked(words: Iterable[str]) -> tuple[str, ...]:
    """The words as tags. Raises UserError where one of them can be none."""
    words = tuple(words)
    for word in words:
        if not (isinstance(word, str) and TAG.match(word)):
            expected = "use up to 32 letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
            raise UserError(f"tag {str(word)[:100]!a}: {expected}")
    return words


def write_tags(run: Path, words: Iterable[str]) -> tuple[str, ...]:
    """Give a run these tags in place of those it has, and return them. Raises UserError where one can be none, there are too many, or they
    cannot be written.
    """
    tags = tuple(dict.fromkeys(checked(words)))
    if len(tags) > MOST:
        raise UserError(f"{len(tags)} tags: a run has {MOST} at most")
    try:
        write_facts(run / FILE, {"format": FORMAT, "tags": tags})
    except OSError as error:
        raise UserError(f"{run / FILE}: cannot be written ({error.strerror})") from None
    return tags
