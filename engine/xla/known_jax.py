"""What eos takes of jax that jax does not promise to keep, and of which versions that is known. Each use of it says where jax lacks it."""

import jax

from engine.base.errors import UserError

KNOWN = "0.10 to 0.12"
"""Versions of jax that have all of it, as far as they were tried."""


def unknown(error: Exception, what: str) -> UserError:
    """The error for a jax in which something of this is missing."""
    return UserError(f"{what}: not as eos knows it in jax {jax.__version__} ({error}); expected a jax of {KNOWN}")
