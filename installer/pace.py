"""How fast repairs may follow one another when another program keeps undoing them (F9)."""

from dataclasses import dataclass

SUSTAINED = 5.0  # repairs a second that are no fight
BURST = 10.0  # repairs that may come at once
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two repairs in a fight
PEACE = 10.0  # seconds without a repair that end a fight


@dataclass
class Pace:
    """Lets repairs through at once up to a sustained rate, and spaces them further and further apart beyond it.

    Times are seconds of a monotonic clock.
    """

    _allowance: float = BURST
    _last: float = 0.0
    _pause: float = 0.0

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
        self._allowance = min(BURST, self._allowance + (now - self._last) * SUSTAINED) - 1
        self._last = now
        if self.fight:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif self._allowance < 0:
            self._pause = FIRST_PAUSE

    def _settle(self, now: float) -> None:
        if self.fight and now - self._last >= PEACE:
            self._pause, self._allowance = 0.0, BURST
