"""Bounds on what anybody can make an agent log or record, through repetition or ever new pods (F37).

What exceeds its limit is suppressed and counted; the next of its kind that passes carries the count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from installer.ratelimit.limiter import Limits, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

MOST = 1024  # tracked kinds; the least recently passed is evicted first

# Log lines. One message about one pod: the kubelet retries a pod with invalid annotations for ever.
SAME_LINES = Limits(sustained=1 / 600, burst=5.0, first_pause=60.0, longest_pause=600.0, cooldown=3600.0)
# One message about the pods of one namespace: tenants use up only their own lines. A node may start 110 pods at once.
LINES = Limits(sustained=1.0, burst=256.0, first_pause=1.0, longest_pause=10.0, cooldown=60.0)
# One level about all pods of a node, in however many namespaces.
ALL_LINES = Limits(sustained=5.0, burst=1024.0, first_pause=0.25, longest_pause=0.5, cooldown=10.0)
# Events of one reason about objects of one kind in one namespace, and about all objects of one kind.
EVENTS = Limits(sustained=1 / 12, burst=60.0, first_pause=12.0, longest_pause=60.0, cooldown=300.0)
ALL_EVENTS = Limits(sustained=1.0, burst=256.0, first_pause=1.0, longest_pause=5.0, cooldown=60.0)


class RateLimiters:
    """A rate limiter for each kind of action."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._limiters: dict[Hashable, RateLimiter] = {}  # least recently passed first

    def is_due(self, kind: Hashable, now: float) -> bool:
        """Whether one more may pass now."""
        limiter = self._limiters.get(kind)
        return limiter is None or not limiter.wait(now)

    def done(self, kind: Hashable, now: float) -> None:
        """Count one that has passed."""
        limiter = self._limiters.pop(kind, None) or RateLimiter(self._limits)
        limiter.done(now)
        self._limiters[kind] = limiter
        if len(self._limiters) > MOST:
            del self._limiters[next(iter(self._limiters))]


class Gate(NamedTuple):
    """One bound that an action has to pass: a set of limiters, and the action's kind in it."""

    limiters: RateLimiters
    kind: Hashable


class SuppressedCounts:
    """Counts per kind of what was suppressed since the last of that kind passed."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self.total = 0

    def add(self, kind: Hashable, count: int = 1) -> None:
        """Count a suppressed action; kinds beyond the tracked ones share the key None."""
        kept = kind if kind in self._counts or len(self._counts) < MOST else None
        self._counts[kept] = self._counts.get(kept, 0) + count
        self.total += count

    def take(self, kind: Hashable) -> int:
        """Return how many of a kind were suppressed, and reset its count."""
        return self._counts.pop(kind, 0)

    def take_all(self) -> Iterator[tuple[Hashable, int]]:
        """Return all counts, and reset them."""
        counts, self._counts = self._counts, {}
        yield from counts.items()


def passes(gates: Iterable[Gate], now: float) -> bool:
    """Whether an action passes all of its bounds now; `done` counts it."""
    return all(gate.limiters.is_due(gate.kind, now) for gate in gates)


def done(gates: Iterable[Gate], now: float) -> None:
    """Count an action that was done."""
    for gate in gates:
        gate.limiters.done(gate.kind, now)
