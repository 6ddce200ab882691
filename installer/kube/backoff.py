"""How long to wait before the next try at an API server that does not do what it is asked. Pure, but for chance."""

from __future__ import annotations

import random

FIRST, LONGEST = 0.5, 15.0  # seconds


class Backoff:
    """Pauses that double, each stretched by chance up to twofold, as other nodes wait as well.

    A pause is never shorter than the server asks for in Retry-After (429, 503).
    """

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        """Start with the shortest pause.

        Args:
            first: seconds after the first failure.
            longest: seconds that no pause exceeds before it is stretched.
        """
        self._first = self._following = first
        self._longest = longest

    def next(self, retry_after: float = 0.0) -> float:
        """Return the seconds to wait after one more failure."""
        pause, self._following = self._following, min(2 * self._following, self._longest)
        return spread(max(pause, retry_after))

    def reset(self) -> None:
        """Start again with the shortest pause, after a success."""
        self._following = self._first


def spread(seconds: float) -> float:
    """Return a time by chance between this one and twice as long, so that not all nodes act at once."""
    return seconds * random.uniform(1, 2)  # noqa: S311 - not for secrets
