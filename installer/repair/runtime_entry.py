"""Keeps the check whether the runtime loads the plugin's entry up to date, and logs changes of its result (F23)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from installer.repair.runtime_check import RuntimeCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.host.in_force import InForce
    from installer.repair.runtime_check import Setup

_log = logging.getLogger(__name__)


class RuntimeEntry:
    """The check of one node."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._check = RuntimeCheck()

    @property
    def reason(self) -> str | None:
        """The evidence that the runtime does not load the entry; None without any."""
        return self._check.reason(str(self._in_force.settings.cni_conf_dir / (self._in_force.state.conflist or "")))

    @property
    def is_missed(self) -> bool:
        """Whether a sandbox was set up without the entry, and none with it since."""
        return bool(self._check.without_entry)

    def update(self, setups: Sequence[Setup]) -> None:
        """Record the node's sandboxes."""
        before = self.reason
        if self._in_force.settings.chained:  # otherwise others decide where the entry goes
            self._check.update(setups, self._in_force.state, self._written(), time.time())
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
        try:
            return (self._in_force.settings.conf_dir_mount / conflist).stat().st_ctime
        except OSError:
            return None
