"""Axes: limits that stay put, round ticks, and numbers with honest digits.

A frame whose limits have not moved redraws only what is new in it, so limits move seldom: they are taken wider than the
data, kept while the data fit, and given up only when little of them is used.
"""

import math
from functools import lru_cache
from typing import NamedTuple

PAD = 0.10
"""Room beyond the data on either side, as a fraction of their range."""
USED = 0.40
"""Fraction of the axis that the data must fill for it to be kept."""
FLATTEST = 4e-3
"""Smallest range of an axis relative to its values: below it, six cells cannot tell the ticks apart."""
EXACT = 17
"""Digits that stand for as many as it takes to read the stored number again."""
LABEL = 6
"""Cells a tick label may take."""
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Limits(NamedTuple):
    """The ends of an axis."""

    lo: float
    hi: float

    @property
    def span(self) -> float:
        return self.hi - self.lo


class Ticks(NamedTuple):
    """Where an axis is marked, and with what; every label is times 10^exponent."""

    values: tuple[float, ...]
    labels: tuple[str, ...]
    exponent: int = 0


def settle(previous: Limits | None, lo: float, hi: float, log: bool = False) -> Limits:
    """Limits for data between lo and hi: the previous ones while the data fit and fill enough of them, else padded anew.

    Data that never go below zero get an axis that does not either. With `log`, everything is a power of ten.
    """
    smallest = 0.5 if log else FLATTEST * max(abs(lo), abs(hi), 1e-300)
    spare = max(smallest - (hi - lo), 0.0) / 2
    wanted_lo, wanted_hi = lo - spare, hi + spare
    fits = previous is not None and previous.lo <= lo and hi <= previous.hi
    if previous is not None and fits and wanted_hi - wanted_lo >= USED * previous.span:
        return previous
    pad = PAD * (wanted_hi - wanted_lo)
    floor = 0.0 if lo >= 0 and not log else -math.inf
    return Limits(max(wanted_lo - pad, floor), wanted_hi + pad)


@lru_cache(maxsize=64)
def ticks(limits: Limits, count: int) -> Ticks:
    """About `count` round values within the limits, labelled alike; a common power of ten is set apart where it saves room."""
    step = _round_step(limits.span / max(count, 1))
    if limits.hi // step - -(-limits.lo // step) < 1:  # one tick tells nothing of the scale
        step = _round_step(limits.span / (2 * max(count, 1)))
    first, last = math.ceil(limits.lo / step - 1e-9), math.floor(limits.hi / step + 1e-9)
    values = tuple(k * step for k in range(first, last + 1))
    largest = max((abs(value) for value in values), default=0.0)
    labels = _labels(values, step)
    if not largest or (largest >= 0.01 and all(len(label) <= LABEL for label in labels)):
        return Ticks(values, labels)
    exponent = math.floor(math.log10(largest) + 1e-9)
    scale = 10.0**exponent
    return Ticks(values, _labels(tuple(value / scale for value in values), step / scale), exponent)


@lru_cache(maxsize=64)
def log_ticks(limits: Limits, count: int) -> Ticks:
    """Ticks of an axis whose limits are powers of ten: decades, or round values where it spans less than one."""
    first, last = math.ceil(limits.lo - 1e-9), math.floor(limits.hi + 1e-9)
    if last - first < 1:
        inner = ticks(Limits(10**limits.lo, 10**limits.hi), count)
        kept = [(math.log10(v), label) for v, label in zip(inner.values, inner.labels, strict=True) if v > 0]
        return Ticks(tuple(v for v, _ in kept), tuple(label for _, label in kept), inner.exponent)
    stride = max(1, math.ceil((last - first) / max(count, 1)))
    powers = range(stride * math.ceil(first / stride), last + 1, stride)
    return Ticks(tuple(float(k) for k in powers), tuple(_power(k) for k in powers))


@lru_cache(maxsize=64)
def step_ticks(start: float, stop: float, count: int) -> Ticks:
    """Ticks of the axis of steps: whole numbers, with k, M, G for thousands and up."""
    step = max(1.0, _round_step((stop - start) / max(count, 1)))
    values = tuple(k * step for k in range(math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9) + 1))
    return Ticks(values, tuple(short_step(value) for value in values))


def short_step(value: float) -> str:
    """A step in few characters, exact: 1.25k for 1250, but 1251 for 1251."""
    for size, suffix in _SI:
        if abs(value) >= size:
            text = f"{value / size:.6g}"
            if float(text) * size == value and len(text) < 5:
                return text + suffix
    return f"{value:.0f}"


def number(value: float, digits: int = 4) -> str:
    """A value with this many significant digits, trailing zeros kept: 40.00, 0.06713, 1.234e-5; EXACT ones drop them."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if digits == EXACT:
        return repr(float(value))
    if value == 0:
        return f"{0:.{digits - 1}f}"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    if -3 < exponent < max(digits, 5):
        return f"{value:.{max(digits - 1 - exponent, 0)}f}"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def superscript(exponent: int, ascii: bool = False) -> str:
    """×10⁻³, or x1e-3 in ASCII."""
    if ascii:
        return f"x1e{exponent}"
    return "×10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _round_step(raw: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if not raw > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(lead * power for lead in (1, 2, 5, 10) if lead * power >= raw * (1 - 1e-9))


def _labels(values: tuple[float, ...], step: float) -> tuple[str, ...]:
    """All with the decimals the step needs; zero plain."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple("0" if abs(value) < step / 2 else f"{value:.{decimals}f}" for value in values)


def _power(exponent: int) -> str:
    return {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1000"}.get(exponent, f"1e{exponent}")
