"""TOML that anyone may have written, read in a time that grows with its length alone.

The standard library takes a minute and a half for a quarter of a megabyte that is one key of a hundred thousand parts: it looks each
part up with all those before it. No file of eos has a key of more than four.
"""

import re
import tomllib
from typing import Any

DEEPEST = 16
"""Parts of a dotted key."""
_TOKEN = re.compile(
    r'(?s:"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?)'  # texts of several lines, to their end or that of the file: no keys in them
    r"|(?s:'''(?:[^']++|'(?!''))*+(?:''')?)"
    r"|\#[^\n]*+"
    r"""|(?P<part>[\w-]++|"(?:[^"\\\n]++|\\.)*+"?|'[^'\n]*+'?)"""
    r"|(?P<dot>\.)"
    r"|(?P<blank>[ \t]++)"
    r"|(?s:.)"
)
"""Read from left to right and never back: a pattern that is looked for from every place takes as long as what it is to prevent."""


def loads(text: str) -> dict[str, Any]:
    """The table in a text. Raises ValueError where it is no TOML, RecursionError where it is nested too deeply."""
    parts, joined = 0, False
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "part":
            parts, joined = parts + 1 if joined else 1, False
            if parts > DEEPEST:
                raise ValueError(f"a key of more than {DEEPEST} parts")
        elif token.lastgroup == "dot":
            joined = parts > 0
        elif token.lastgroup is None:
            parts, joined = 0, False
    return tomllib.loads(text)
