"""Repairs of what others undo: counted, rate-limited, and reported as a conflict if another program keeps undoing it (F9)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from installer.fleet.state import Repair
from installer.ratelimit.limiter import REPAIRS, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)


class NotNowError(Exception):
    """The desired state cannot be reached until something else happens; the message says why."""


class ConflictError(NotNowError):
    """Another program keeps undoing the installation: it is repaired in `wait` seconds, not before."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Repairs:
    """The repairs of one node.

    Attributes:
        was_installed: the installation was complete, so that a change from now on is a repair.
        count: repairs, so far.
        last: the time of the last repair; None: never.
    """

    def __init__(self) -> None:
        self.was_installed = False
        self.count = 0
        self.last: Repair | None = None
        self._limiter = RateLimiter(REPAIRS)
        self._conflict = ""

    def change(self, path: Path, act: Callable[[], None], undone: Callable[[], str]) -> None:
        """Make a change to a file, now or when the rate limit allows it.

        `undone` describes what others do to the file; it is called only in a conflict.

        Raises:
            ConflictError: if it has to wait.
        """
        now = time.monotonic()
        if self.was_installed and (wait := self._limiter.wait(now)):
            self._conflict = self._conflict or (
                f"{path}: another program keeps undoing the installation: it {undone()}. It is repaired repeatedly, and "
                f"pods that start in between bypass the mesh: find the program with auditctl -w {path} -p wa, "
                "and stop that"
            )
            raise ConflictError(self._conflict, wait)
        act()
        if self.was_installed:
            self._limiter.done(now)
            self.count, self.last = self.count + 1, Repair(time.time(), str(path))
            _log.warning("repaired: another program had undone the installation", extra={"file": str(path)})
        else:
            _log.info("installed", extra={"file": str(path)})

    @property
    def conflict(self) -> str:
        """Describe the conflict; empty: there is none.

        The text stays the same from the first repair that had to wait to the end of the cooldown: what is restored between two
        foreign writes lasts only a moment, and the runtime may start pods without it.
        """
        if not self.cooldown_left:
            self._conflict = ""
        return self._conflict

    @property
    def cooldown_left(self) -> float:
        """Return the seconds until the conflict is over if the other program stops now; 0: it is over, or there was none."""
        return self._limiter.cooldown_left(time.monotonic()) if self._conflict else 0.0

    def end_conflict(self) -> None:
        """Clear the conflict: nothing has to be installed."""
        self._conflict = ""
