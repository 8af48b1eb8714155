"""How long ago something was, in a few letters."""

from datetime import datetime

DAY = 86400
SINCE = ((60, 1, "s"), (3600, 60, "min"), (DAY, 3600, "h"), (14 * DAY, DAY, "d"))
"""Seconds up to which an age is told in a unit, the seconds of that unit, and its sign."""


def ago(seconds: float, now: float) -> str:
    """The age at `now`, both in seconds since 1970; the day where it is two weeks or more."""
    age = max(now - seconds, 0)
    for below, unit, sign in SINCE:
        if age < below:
            return f"{age // unit:.0f} {sign} ago"
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d}"
