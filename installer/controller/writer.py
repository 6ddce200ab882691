"""The controller's writes of single objects: a bounded number at a time, and a refused one is retried later."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from installer.kube.api_error import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from datetime import datetime

Write: TypeAlias = "Callable[[], Awaitable[dict[str, Any] | None]]"
"""A request; it returns the written object, or None if no write was needed after all."""

AT_ONCE = 50  # writes before the next look at everything
REFUSED_AGAIN = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class Writer:
    """Writes objects, and remembers what the API server refuses, so that it holds up no other write."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Prepare; `wake` is called when writes are left for the next round."""
        self._wake = wake
        self._refused: dict[
            tuple[str, str], datetime
        ] = {}  # names of the write and the object: the time of the next attempt

    def is_refused(self, what: str, name: str) -> bool:
        """Return whether the API server refused this write lately."""
        return (what, name) in self._refused

    async def write(
        self, what: str, writes: Iterable[tuple[str, Write]], now: datetime
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Write some objects now, and the others in the next rounds.

        `what` is the name of the write, for the log; `writes` has the name of the object, or of its node, with each.

        Yields:
            The written object, by that name.

        Raises:
            ApiError: if the API server cannot be reached, or is overloaded.
        """
        tried, self._refused = 0, {each: until for each, until in self._refused.items() if until > now}
        for name, send in writes:
            if self.is_refused(what, name):
                continue
            tried += 1
            if tried > AT_ONCE:
                self._wake()
                return
            try:
                result = await send()
            except ApiError as error:
                if error.is_transient:
                    raise
                if error.status not in (404, 409):  # then it has changed meanwhile, and the watch wakes the controller
                    self._refused[what, name] = now + REFUSED_AGAIN
                    _log.warning("the API server refused: %s", what, extra={"object": name, "reason": str(error)})
                continue
            if result is not None:
                yield name, result
