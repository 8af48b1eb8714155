"""Topics as HTML: a page for each with a list of all, for whoever wants them on a site."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from engine.base.atomic import output
from engine.base.errors import UserError
from engine.help.catalog import Topic, contents

REFERENCE = re.compile(r"(?:(?:eos|python -m engine) )?help ((?:[a-z-]+ )?)([\w.-]+)")
"""A command that tells of a topic, or of a part of one."""
STYLE = """\
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
nav { line-height: 2; } nav a { margin-right: 0.75rem; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid #8886; }
table { border-collapse: collapse; } td, th { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
"""


def write(folder: Path, topics: Sequence[Topic]) -> list[Path]:
    """Write a page for each topic, and `index.html` that lists them; the files. Pages that are there are written anew."""
    pages = {"index": ("Topics", contents(topics))} | {topic.name: (topic.title, topic.markdown()) for topic in topics}
    places = {part: f"{topic.name}.html#{part}" for topic in topics for part in topic.parts()}
    places |= {topic.name: f"{topic.name}.html" for topic in topics}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (title, text) in pages.items():
            path = folder / f"{name}.html"
            with output(path, anew=True) as handle:
                handle.write(html(title, text, [topic.name for topic in topics], places).encode())
            written.append(path)
    except OSError as error:
        raise UserError(f"{folder}: pages cannot be written there ({error.strerror})") from None
    return written


def html(title: str, text: str, names: Sequence[str], places: Mapping[str, str]) -> str:
    """One page, with links to all. `eos help TOPIC` in the text leads to the place of that topic or part; what is listed has an anchor."""
    parser = MarkdownIt().enable("table")

    def code(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        words = tokens[at].content
        reference = REFERENCE.fullmatch(words)
        place = places.get(reference[2]) if reference else None
        return f'<a href="{place}"><code>{escape(words)}</code></a>' if place else f"<code>{escape(words)}</code>"

    parser.add_render_rule("code_inline", code)
    tokens = parser.parse(text)
    _anchor(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    links = "\n".join(f'<a href="{name}.html">{name}</a>' for name in ("index", *names))
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>eos: {escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en">\n{head}\n<style>\n{STYLE}</style>\n<nav>\n{links}\n</nav>\n<main>\n{body}</main>\n</html>\n'


def _anchor(tokens: Sequence[Token]) -> None:
    """Give headings, and entries that begin with a name in code, that name as their `id`; the first of a name has it."""
    seen: set[str] = set()
    for k, token in enumerate(tokens):
        inline = next((one for one in tokens[k : k + 3] if one.type == "inline"), None)
        first = inline.children[0] if inline is not None and inline.children else None
        if first is None or token.type not in ("heading_open", "list_item_open"):
            continue
        name = first.content.strip("[]") if first.type == "code_inline" else "-".join(re.findall(r"\w+", first.content.lower()))
        if name and name not in seen and (token.type == "heading_open" or first.type == "code_inline"):
            seen.add(name)
            token.attrSet("id", name)
