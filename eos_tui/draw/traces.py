"""What to paint of a column, before joining: its extremes in each pixel column, a line where rows are few, a running mean."""

from functools import lru_cache

import numpy as np

from engine.record.threshold import column_of, read_threshold
from eos_tui.draw.plot_spec import Span
from eos_tui.draw.raster import beside, polyline
from eos_tui.model.envelopes import Envelope
from eos_tui.model.history import History

OUTSIDE = 64
"""Rows beyond a window that are looked at: lines come in from there, and sparse rows show their stride."""


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
    start = max(first - OUTSIDE, 0)
    values = _logarithm(history.values(name, start, last + OUTSIDE), log)
    known = np.flatnonzero(np.isfinite(values))
    if strand is not None:
        known = known[(start + known) % 2 == strand]
    if not len(known):
        return _nothing(bins)
    gaps = np.diff(known)
    joined = (gaps == 1) | (gaps <= 1.5 * beside(gaps))
    x = (history.positions(start + known, span.axis.along) - span.start) / (span.stop - span.start) * bins
    return Envelope(*polyline(x, values[known], joined, bins))


def bars(history: History, name: str, error: str, span: Span, bins: int, log: bool) -> Envelope:
    """A bar of two standard errors either way of each value that has one, from the least to the most of those in a pixel column."""
    if not (history.has(name) and history.has(error)) or not len(history) or not span.stop > span.start:
        return _nothing(bins)
    values, errors = (history.envelope(column, span.start, span.stop, bins, span.axis.along) for column in (name, error))
    return Envelope(_logarithm(values.lo - 2 * errors.hi, log), _logarithm(values.hi + 2 * errors.hi, log))


def lengthening(history: History, name: str, onto: str, span: Span, bins: int, log: bool) -> Envelope:
    """A line through readings that are taken now and then, each joined to the next however far apart, and the last of them to the line
    of the column that they lengthen.
    """
    if not history.has(name) or not history.has(onto) or not len(history) or not span.stop > span.start:
        return trace(history, name, span, bins, log)
    edges = history.edges(span.start, span.stop, bins, span.axis.along)
    first, last = int(edges[0]), int(edges[-1])
    if last - first > 2 * bins:
        readings, line = (trace(history, column, span, bins, log) for column in (name, onto))
        read = ~np.isnan(readings.lo)
        lo, hi = np.where(read, readings.lo, line.lo), np.where(read, readings.hi, line.hi)
        known, middle = np.flatnonzero(~np.isnan(lo)), (lo + hi) / 2
        joined = read[known[:-1]] | read[known[1:]]
        for a, b in zip(known[:-1][joined].tolist(), known[1:][joined].tolist(), strict=True):
            lo[a + 1 : b] = hi[a + 1 : b] = np.interp(np.arange(a + 1, b), (a, b), (middle[a], middle[b]))
        return Envelope(lo, hi)
    start = max(first - OUTSIDE, 0)
    own, other = (_logarithm(history.values(column, start, last + OUTSIDE), log) for column in (name, onto))
    read = np.isfinite(own)
    values = np.where(read, own, other)
    known = np.flatnonzero(np.isfinite(values))
    if not read.any():
        return _nothing(bins)
    x = (history.positions(start + known, span.axis.along) - span.start) / (span.stop - span.start) * bins
    return Envelope(*polyline(x, values[known], read[known[:-1]] | read[known[1:]], bins))


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


@lru_cache(maxsize=64)
def at_one(bins: int, log: bool) -> Envelope:
    """The line at 1, in each pixel column."""
    level = np.full(bins, 0.0 if log else 1.0)
    return Envelope(level, level)


def threshold(history: History, span: Span, bins: int, log: bool) -> Envelope | None:
    """The stability threshold in each pixel column; where no row has come yet, that of the last row before."""
    column = column_of(history.has)
    if column is None or not (newest := read_threshold(history.last, history.has)) > 0:
        return None
    start, stop, along = span.start, max(span.stop, span.start + 1e-9), span.axis.along

    def middles(parts: int) -> np.ndarray:
        def read(name: str) -> np.ndarray:
            lo, hi = history.envelope(name, start, stop, parts, along)
            return (lo + hi) / 2

        return read_threshold(read, history.has)

    whole = history.envelope(column, start, stop, 1, along)
    if whole.lo[0] == whole.hi[0]:  # one threshold throughout, as almost always
        level = np.full(bins, middles(1)[0])
    else:
        level = middles(bins)
        known = np.flatnonzero(~np.isnan(level))
        held = known[np.clip(np.searchsorted(known, np.arange(bins), "right") - 1, 0, None)] if len(known) else None
        level = np.full(bins, newest) if held is None else level[held]
    level = _logarithm(level, log)
    return Envelope(level, level)


def _logarithm(values: np.ndarray, log: bool) -> np.ndarray:
    """The values, or their powers of ten; NaN where they have none."""
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(values > 0, values, np.nan))


def _nothing(bins: int) -> Envelope:
    return Envelope(np.full(bins, np.nan), np.full(bins, np.nan))
