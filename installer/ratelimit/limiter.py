"""A rate limiter for what repeats: repairs that others keep undoing (F9), reports and Events of a state that flaps."""

from dataclasses import dataclass
from typing import NamedTuple


class Limits(NamedTuple):
    """Rates and times, in seconds.

    Attributes:
        sustained: actions per second that never wait.
        burst: actions that pass at once before the first pause.
        first_pause: between two actions beyond the burst; each pause is twice the previous one.
        longest_pause: the longest pause between two actions.
        cooldown: the time without an action after which actions pass at once again.
    """

    sustained: float
    burst: float
    first_pause: float
    longest_pause: float
    cooldown: float


REPAIRS = Limits(sustained=5.0, burst=10.0, first_pause=0.2, longest_pause=5.0, cooldown=10.0)
# Eventually one in two minutes: 5,000 nodes with a flapping state write 42 per second.
REPORTS = Limits(sustained=1 / 60, burst=5.0, first_pause=10.0, longest_pause=120.0, cooldown=300.0)
# Each rollout replaces all agents: the third within ten minutes waits.
ROLLOUTS = Limits(sustained=1 / 600, burst=2.0, first_pause=10.0, longest_pause=120.0, cooldown=300.0)
# Events with the same text about the same object: three, then one in ten minutes; and one in ten minutes from the start.
EVENTS = Limits(sustained=1 / 600, burst=2.0, first_pause=600.0, longest_pause=600.0, cooldown=3600.0)
SPACED_EVENTS = EVENTS._replace(burst=0.0, cooldown=600.0)


@dataclass
class RateLimiter:
    """Passes actions at once up to a sustained rate, and spaces them further and further apart beyond it.

    Times are seconds of a monotonic clock.
    """

    limits: Limits

    def __post_init__(self) -> None:
        self._allowance = self.limits.burst
        self._last = self._pause = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds that the next action has to wait; 0: none."""
        self._settle(now)
        return max(0.0, self._last + self._pause - now)

    def cooldown_left(self, now: float) -> float:
        """Return the seconds without an action after which the spacing ends; 0: there is none."""
        self._settle(now)
        return self._last + self.limits.cooldown - now if self._pause else 0.0

    def is_over(self, now: float) -> bool:
        """Whether it has been idle for so long that it behaves like a new one."""
        return now - self._last >= self.limits.cooldown

    def done(self, now: float) -> None:
        """Count an act."""
        self._settle(now)
        limits = self.limits
        self._allowance = min(limits.burst, self._allowance + (now - self._last) * limits.sustained) - 1
        self._last = now
        if self._pause:
            self._pause = min(2 * self._pause, limits.longest_pause)
        elif self._allowance < 0:
            self._pause = limits.first_pause

    def _settle(self, now: float) -> None:
        if self._pause and self.is_over(now):
            self._pause, self._allowance = 0.0, self.limits.burst
