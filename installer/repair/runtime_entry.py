"""Keeps the check whether the runtime loads the plugin's entry up to date, and logs changes of its result (F23)."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from installer.aio import HangingCalls
from installer.host.unanswered import waiting_for
from installer.repair.runtime_check import RuntimeCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.host.in_force import InForce
    from installer.repair.runtime_check import Setup

PATIENCE = 2.0  # seconds to look at one file

_log = logging.getLogger(__name__)


class RuntimeEntry:
    """The check of one node."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._check = RuntimeCheck()
        self._calls = HangingCalls(PATIENCE)
        self._seen: tuple[object, object] = (
            None,
            None,
        )  # sandboxes and state that were examined, of which nothing has changed

    @property
    def reason(self) -> str | None:
        """The evidence that the runtime does not load the entry; None without any."""
        return self._check.reason(str(self._in_force.settings.cni_conf_dir / (self._in_force.state.conflist or "")))

    @property
    def is_missed(self) -> bool:
        """Whether a sandbox was set up without the entry, and none with it since."""
        return bool(self._check.without_entry)

    async def update(self, setups: Sequence[Setup]) -> None:
        """Record the node's sandboxes; while the directory of the entry does not answer, nothing is known of it (F48)."""
        before, state = self.reason, self._in_force.state
        if setups is self._seen[0] and state is self._seen[1]:
            return
        if self._in_force.settings.chained:  # otherwise others decide where the entry goes
            with suppress(TimeoutError):
                written = await self._calls(self._written)
                self._check.update(setups, state, written, time.time())
                if written is not None or not state.installed:
                    self._seen = setups, state
        now = self.reason
        if now and not before:
            _log.error("the container runtime does not load the plugin's entry", extra={"reason": now})
        elif before and not now:
            _log.warning("the container runtime is no longer known to ignore the plugin's entry")

    def _written(self) -> float | None:
        """Return when the file with the entry was last written or renamed into place, in seconds since 1970."""
        conflist = self._in_force.state.conflist
        if not conflist:
            return None
        settings = self._in_force.settings
        try:
            with waiting_for(settings.cni_conf_dir):
                return (settings.conf_dir_mount / conflist).stat().st_ctime
        except OSError:
            return None
