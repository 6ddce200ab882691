"""Events: the same is told once of the same object, and one that is refused holds up nothing."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from installer.controller.api_errors import NO_SUCCESS, explain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from installer.controller.client import Api
    from installer.controller.events import Event

QUIET = timedelta(minutes=10)  # before the same is told again of the same object

_log = logging.getLogger(__name__)


class Teller:
    """Writes Events, and the same into the log."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: dict[tuple[str, str, str], datetime] = {}

    async def tell(self, about: Mapping[str, str], what: Event, now: datetime) -> None:
        """Create an Event, unless the same was told a short time ago.

        Args:
            about: the object: apiVersion, kind, name, uid and, where it has one, namespace.
            what: is told.
            now: the time.
        """
        key = (about["uid"], what.reason, what.message)
        self._told = {each: told for each, told in self._told.items() if now - told < QUIET}
        if key in self._told:
            return
        self._told[key] = now
        extra = {"object": about["name"], "reason": what.message}
        _log.log(logging.WARNING if what.warning else logging.INFO, what.reason, extra=extra)
        try:
            await asyncio.to_thread(self._api.tell, about, what)
        except NO_SUCCESS as error:
            _log.warning("an Event was not taken", extra={"reason": explain(error)})
