"""Dots as solid eighths of a cell: the block octants of Unicode 16, for a terminal that draws them.

A cell of braille has the same 2×4 places. Of the 256 patterns 230 are the octants, in the order of their patterns read by rows; the
others were in Unicode before.
"""

from collections.abc import Mapping

BRAILLE, FIRST = 0x2800, 0x1CD00
PLACES = (1, 8, 2, 16, 4, 32, 64, 128)
"""The bit of braille in each place, by rows."""
_BEFORE = {
    "": " ", "13": "▘", "24": "▝", "57": "▖", "68": "▗", "1234": "▀", "5678": "▄", "1357": "▌", "2468": "▐", "1368": "▚", "2457": "▞",
    "123457": "▛", "123468": "▜", "135678": "▙", "245678": "▟", "12345678": "█", "78": "▂", "345678": "▆",
    "12": "\U0001fb82", "123456": "\U0001fb85", "35": "\U0001fbe6", "46": "\U0001fbe7",
    "1": "\U0001cea8", "2": "\U0001ceab", "7": "\U0001cea3", "8": "\U0001cea0",
}  # fmt: skip
"""Signs of before, by the places that they fill, counted from 1."""


def _signs() -> dict[int, str]:
    signs, octant = dict[int, str](), FIRST
    for pattern in range(256):
        filled = [place for place in range(8) if pattern >> place & 1]
        before = _BEFORE.get("".join(str(place + 1) for place in filled))
        signs[BRAILLE + sum(PLACES[place] for place in filled)] = before or chr(octant)
        octant += before is None
    return signs


SIGNS: Mapping[int, str] = _signs()
"""What stands for each pattern of braille: a table for `str.translate`."""
DOTS: Mapping[int, str] = {ord(sign): chr(dots) for dots, sign in SIGNS.items() if ord(sign) > 0xFFFF}
"""The braille that each octant stands for, for what has no font with octants."""
SHAPES: Mapping[str, list[tuple[float, float, float, float]]] = {
    chr(sign): [(k % 2 / 2, k // 2 / 4, 0.5, 0.25) for k, bit in enumerate(PLACES) if ord(dots) - BRAILLE & bit]
    for sign, dots in DOTS.items()
}
"""Left, top, width and height of the rectangles that an octant is made of, as shares of its cell."""
