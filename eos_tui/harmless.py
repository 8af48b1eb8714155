"""Text of others, made harmless: what a run directory or a preset says must not steer the terminal that shows it."""

import unicodedata

STAND_IN = "\N{REPLACEMENT CHARACTER}"
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of characters that move, turn round or break a line instead of being seen."""


def harmless(text: str) -> str:
    """The text in one line: white space is a blank, and whatever else steers a terminal is replaced by �."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        " " if character in "\t\n\r" else STAND_IN if unicodedata.category(character) in _STEERING else character
        for character in text
    )
