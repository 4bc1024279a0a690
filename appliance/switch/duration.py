"""How long something has been there, as OpenFlow's messages say it."""

from __future__ import annotations

from typing import NamedTuple


class Duration(NamedTuple):
    """``duration_sec`` and ``duration_nsec``."""

    seconds: int
    nanoseconds: int


def duration(since: float, now: float) -> Duration:
    """Times are seconds of one clock. Not below 0."""
    return Duration(*divmod(nanoseconds(since, now), 1_000_000_000))


def nanoseconds(since: float, now: float) -> int:
    """The same as one number."""
    return max(0, round((now - since) * 1_000_000_000))
