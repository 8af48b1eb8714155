"""How many inputs a property is tried on: some in the usual suite, EOS_FUZZ times as many where a night is to be spent on it."""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("EOS_FUZZ", "1"))


def fuzz(examples: int) -> settings:
    """So many examples, times EOS_FUZZ; a busy machine is no failure."""
    return settings(max_examples=examples * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
