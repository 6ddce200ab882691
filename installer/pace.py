"""How fast repairs may follow one another when another program keeps undoing them (F9)."""

from dataclasses import dataclass


@dataclass
class Pace:
    """Lets repairs through at once up to a sustained rate, and spaces them further and further apart beyond it.

    Times are seconds of a monotonic clock.

    Attributes:
        sustained: repairs a second that are no fight.
        burst: repairs that may come at once.
        first_pause: seconds between two repairs when a fight begins; it doubles.
        longest_pause: seconds between two repairs at most.
        peace: seconds without a repair that end a fight; more than the longest pause.
    """

    sustained: float = 5.0
    burst: float = 10.0
    first_pause: float = 0.2
    longest_pause: float = 5.0
    peace: float = 10.0

    def __post_init__(self) -> None:
        self._allowance, self._last, self._pause = self.burst, 0.0, 0.0

    @property
    def fight(self) -> bool:
        """Whether somebody keeps undoing our repairs."""
        return self._pause > 0

    def wait(self, now: float) -> float:
        """Return how long the next repair has to wait, in seconds; 0: it may be made now."""
        self._settle(now)
        return max(0.0, self._last + self._pause - now)

    def repaired(self, now: float) -> None:
        """Take note of a repair."""
        self._settle(now)
        self._allowance = min(self.burst, self._allowance + (now - self._last) * self.sustained) - 1
        self._last = now
        if self.fight:
            self._pause = min(2 * self._pause, self.longest_pause)
        elif self._allowance < 0:
            self._pause = self.first_pause

    def _settle(self, now: float) -> None:
        if self.fight and now - self._last >= self.peace:
            self._pause, self._allowance = 0.0, self.burst
