"""The latest warning Events of agents' pods that do not start and whose status does not say why (a missing directory)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from installer.controller.client import Api
    from installer.fleet.objects import AgentPod
    from installer.fleet.pod_diagnosis import PodWarning

READ_EVERY = timedelta(seconds=10)  # for each pod
AT_ONCE = 10  # pods


class PodWarnings:
    """Reads the Events again and again for as long as such a pod waits."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._read: dict[str, tuple[datetime, PodWarning | None]] = {}  # by the pod's uid: when, and what

    @property
    def by_uid(self) -> Mapping[str, PodWarning]:
        """The warnings, by the pod's uid."""
        return {uid: warning for uid, (_, warning) in self._read.items() if warning}

    async def update(self, pods: Iterable[AgentPod], now: datetime) -> None:
        """Read those that are due, the longest unread first, and forget those of other pods."""
        waiting = {pod.uid for pod in pods if pod.node and not pod.ready and pod.is_mute}
        read_at = {uid: self._read[uid][0] if uid in self._read else now - READ_EVERY for uid in waiting}
        due = [uid for uid in sorted(waiting, key=read_at.__getitem__) if now - read_at[uid] >= READ_EVERY]
        for uid in due[:AT_ONCE]:
            self._read[uid] = (now, await self._api.latest_warning(uid))
        for uid in self._read.keys() - waiting:
            del self._read[uid]
