"""What to paint of a column, before joining: its extremes in each pixel column, a line where rows are few, a running mean."""

import numpy as np

from eos_tui.draw.plot_spec import Span
from eos_tui.draw.raster import beside, polyline
from eos_tui.model.history import Envelope, History


def trace(history: History, name: str, span: Span, bins: int, log: bool, strand: int | None = None) -> Envelope:
    """A line through the rows where they are few, else their extremes; of one `strand`, every other row alone."""
    if not history.has(name) or not len(history) or not span.stop > span.start:
        return _nothing(bins)
    edges = history.edges(span.start, span.stop, bins, span.axis.along)
    first, last = int(edges[0]), int(edges[-1])
    if last - first > 2 * bins:
        lo, hi = history.envelope(name, span.start, span.stop, bins, span.axis.along, strand)
        if log:
            with np.errstate(divide="ignore", invalid="ignore"):
                hi = np.log10(np.where(hi > 0, hi, np.nan))
                lo = np.where(lo > 0, np.log10(lo), hi)
        return Envelope(lo, hi)
    start = max(first - 64, 0)  # lines come in from outside, and sparse rows show their stride
    values = _logarithm(history.values(name, start, last + 64), log)
    known = np.flatnonzero(np.isfinite(values))
    if strand is not None:
        known = known[(start + known) % 2 == strand]
    if not len(known):
        return _nothing(bins)
    gaps = np.diff(known)
    joined = (gaps == 1) | (gaps <= 1.5 * beside(gaps))
    x = (history.positions(start + known, span.axis.along) - span.start) / (span.stop - span.start) * bins
    return Envelope(*polyline(x, values[known], joined, bins))


def mean(history: History, name: str, span: Span, bins: int, log: bool, rows: int) -> Envelope:
    """The mean of so many rows about the middle of each pixel column, or of all those in it where they are more.

    An even number of rows takes the period-2 oscillation out.
    """
    if not history.has(name) or not len(history) or not span.stop > span.start:
        return _nothing(bins)
    edges = history.edges(span.start, span.stop, 2 * bins, span.axis.along)
    first, middle, last = edges[:-1:2], edges[1::2], edges[2::2]
    means = history.means(name, np.maximum(np.minimum(first, middle - rows // 2), 0), np.minimum(
        np.maximum(last, middle + rows - rows // 2), len(history)))
    means[(first >= len(history)) | (last <= 0)] = np.nan  # beyond the rows there are
    level = _logarithm(means, log)
    return Envelope(level, level)


def threshold(history: History, span: Span, bins: int, log: bool) -> Envelope | None:
    """2/η in each pixel column; where no row has come yet, that of the last row before."""
    if not history.has("learning_rate") or not history.last("learning_rate") > 0:
        return None
    start, stop, along = span.start, max(span.stop, span.start + 1e-9), span.axis.along
    rates = history.envelope("learning_rate", start, stop, 1, along)
    if rates.lo[0] == rates.hi[0]:  # one rate throughout, as almost always
        level = np.full(bins, np.log10(2 / rates.lo[0]) if log else 2 / rates.lo[0])
        return Envelope(level, level)
    rates = history.envelope("learning_rate", start, stop, bins, along)
    rate = (rates.lo + rates.hi) / 2
    known = np.flatnonzero(~np.isnan(rate))
    held = rate[known[np.clip(np.searchsorted(known, np.arange(bins), "right") - 1, 0, None)]] if len(known) else np.full(
        bins, history.last("learning_rate"))
    level = np.log10(2 / held) if log else 2 / held
    return Envelope(level, level)


def _logarithm(values: np.ndarray, log: bool) -> np.ndarray:
    """The values, or their powers of ten; NaN where they have none."""
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(values > 0, values, np.nan))


def _nothing(bins: int) -> Envelope:
    return Envelope(np.full(bins, np.nan), np.full(bins, np.nan))
