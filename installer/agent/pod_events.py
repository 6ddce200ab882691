"""Events for those whose pods do not come up for a reason that only this agent sees (F21, F22)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from installer.aio import wait
from installer.pods.warnings import of_early, of_excluded
from plugin.prefilter import outside_mesh

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Iterator

    from installer.pods.verdicts import Verdict, Verdicts
    from plugin.pod import Pod

LOOK_EVERY = 10.0  # seconds

_log = logging.getLogger(__name__)


class Cluster(Protocol):
    """Where it is told."""

    async def tell(self, pod: Pod, reason: str, note: str, *, warning: bool) -> str:
        """Write an Event about a pod; returns why that was not done."""


class PodWarning(NamedTuple):
    """What is wrong with a pod: in a word, and for people with what helps."""

    reason: str
    note: str


def pod_warnings(pod: Pod, excluded: Collection[str], verdict: Verdict) -> Iterator[PodWarning]:
    """Find what keeps a pod from coming up, or its sidecar from being of use.

    Args:
        pod: as the API server has it.
        excluded: the namespaces whose pods are left alone.
        verdict: what is decided of it.
    """
    if not verdict.is_redirected:
        return
    if outside_mesh(pod.namespace, pod.name, excluded, None):
        yield PodWarning("InjectedButExcluded", of_excluded(pod))
        return
    for name in verdict.early:
        if name in pod.failing:
            yield PodWarning("InitContainerBeforeSidecar", of_early(name, verdict.uid))


class PodEvents:
    """Tells of each pod once."""

    def __init__(
        self,
        pods: Iterable[Pod],
        cluster: Cluster,
        *,
        excluded: Callable[[], Collection[str]],
        verdicts: Verdicts,
        is_known: Callable[[], bool],
    ) -> None:
        """Wire it.

        Args:
            pods: those of the node.
            cluster: where it is told.
            excluded: the namespaces whose pods are left alone, now.
            verdicts: what is decided of the pods.
            is_known: whether the settings are known to be what is asked for, now.
        """
        self._pods = pods
        self._cluster = cluster
        self._excluded = excluded
        self._verdicts = verdicts
        self._is_known = is_known
        self._told: set[tuple[str, PodWarning]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop."""
        while not stop.is_set():
            if self._is_known():
                await self._look()
            await wait(stop, LOOK_EVERY)

    async def _look(self) -> None:
        found = {
            (pod.uid, each): pod
            for pod in self._pods
            for each in pod_warnings(pod, self._excluded(), self._verdicts.of(pod))
        }
        self._told &= found.keys()
        for (uid, each), pod in found.items():
            if (uid, each) in self._told:
                continue
            if why := await self._cluster.tell(pod, *each, warning=True):
                _log.warning("an Event could not be written", extra={"reason": why})
                return  # the next look tries again
            self._told.add((uid, each))
            _log.warning(each.reason, extra={"namespace": pod.namespace, "pod": pod.name, "reason": each.note})
