"""Events on pods that do not start for a reason that only this agent can see (F21, F22)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from installer.aio import either, until_next, wait
from installer.fleet.pod_diagnosis import PodWarning
from installer.pods.warnings import describe_early, describe_excluded, early_containers
from plugin.redirect import Redirect

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from installer.agent.cluster import Cluster
    from installer.aio import Changes
    from installer.host.in_force import InForce
    from installer.pods.verdicts import Judged, Verdicts

CHECK_EVERY = 10.0  # seconds between two checks, at least
RESYNC = 60.0  # seconds between two checks while nothing changes

_log = logging.getLogger(__name__)


def pod_warnings(judged: Judged) -> Iterator[PodWarning]:
    """Find what prevents a pod from starting, or its sidecar from receiving traffic."""
    pod = judged.pod
    if judged.only_excluded:
        yield PodWarning("InjectedButExcluded", describe_excluded(pod))
    if not isinstance(judged.verdict, Redirect) or not pod.failing:
        return
    for name in early_containers(pod, judged.verdict):
        if name in pod.failing:
            yield PodWarning("InitContainerBeforeSidecar", describe_early(name, judged.verdict.uid))


class PodEvents:
    """Writes each Event once."""

    def __init__(self, verdicts: Verdicts, in_force: InForce, cluster: Cluster, changes: Changes) -> None:
        """Prepare; `run` begins, once what is in force is known."""
        self._verdicts = verdicts
        self._in_force = in_force
        self._cluster = cluster
        self._changed = changes.listen()
        self._written: set[tuple[str, PodWarning]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Check the pods after each change, until told to stop."""
        while not stop.is_set():
            self._changed.clear()
            if self._in_force.is_known:
                await self._verdicts.update()
                self._write()
            await wait(stop, CHECK_EVERY)
            await either(stop, self._changed, until_next(RESYNC))

    def _write(self) -> None:
        found = {(each.pod.uid, one): each.pod for each in self._verdicts for one in pod_warnings(each)}
        self._written &= found.keys()
        for key in found.keys() - self._written:
            pod, (_, each) = found[key], key
            self._cluster.record(pod, *each, warning=True)
            self._written.add(key)
            _log.warning(each.reason, extra={"namespace": pod.namespace, "pod": pod.name, "reason": each.message})
