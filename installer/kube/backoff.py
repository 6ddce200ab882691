"""The delay before the next attempt after a failed request to the API server. Pure, except for randomness."""

from __future__ import annotations

import random

FIRST, LONGEST = 0.5, 15.0  # seconds

_chance = random.SystemRandom()


class Backoff:
    """Delays that double, each with random jitter up to twofold, because other nodes wait as well.

    A delay is never shorter than the server's Retry-After (429, 503).
    """

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        """Start with the shortest delay; both are in seconds, and `longest` is the bound before jitter."""
        self._first = self._following = first
        self._longest = longest

    def next(self, retry_after: float = 0.0) -> float:
        """Return the seconds to wait after one more failure."""
        pause, self._following = self._following, min(2 * self._following, self._longest)
        return spread(max(pause, retry_after))

    def reset(self) -> None:
        """Return to the shortest delay, after a success."""
        self._following = self._first


def spread(seconds: float) -> float:
    """Return a random time between this one and twice as long, so that not all nodes act at once."""
    return seconds * _chance.uniform(1, 2)


def up_to(seconds: float) -> float:
    """Return a random time between none and this one, to spread over it what all nodes would do at once."""
    return _chance.uniform(0, seconds)
