"""What is decided of the node's pods, for counts and Events: once for each pod and setting, beside the event loop.

A tenant's annotations may take tens of milliseconds to parse, and a node has a hundred pods whose status changes all the time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from installer.aio import wait
from installer.pods.warnings import early_containers
from plugin.decision import decide
from plugin.prefilter import Pass
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from plugin.parameters import Defaults
    from plugin.pod import Pod

LOOK_EVERY = 1.0  # seconds between two looks for pods that are new or changed


class Verdict(NamedTuple):
    """What is kept of a decision.

    `uid` is that by which the sidecar's own traffic is known; `early` names the application's init containers that run
    before the sidecar is up.
    """

    is_redirected: bool = False
    uid: int = 0
    early: tuple[str, ...] = ()


LEFT_ALONE = Verdict()  # also for what does not validate: it does not start, and the runtime says why


class _Made(NamedTuple):
    pod: Pod
    defaults: Defaults
    verdict: Verdict


def judge(pod: Pod, defaults: Defaults) -> Verdict:
    """Decide about a pod, but for its namespace and addresses."""
    try:
        decided = decide(pod, (), defaults)
    except InvalidValue:
        return LEFT_ALONE
    if isinstance(decided, Pass):
        return LEFT_ALONE
    return Verdict(is_redirected=True, uid=decided.uid, early=tuple(early_containers(pod, decided)))


class Verdicts:
    """Those of one node; belongs to one event loop."""

    def __init__(self, pods: Iterable[Pod], defaults: Callable[[], Defaults]) -> None:
        """Prepare.

        Args:
            pods: those of the node, now.
            defaults: for what pods do not say, now.
        """
        self._pods = pods
        self._defaults = defaults
        self._made: dict[str, _Made] = {}  # by uid
        self.count = 0  # decisions, so far

    async def run(self, stop: asyncio.Event) -> None:
        """Judge the pods that come and change until told to stop."""
        while not stop.is_set():
            await self.look()
            await wait(stop, LOOK_EVERY)

    async def look(self) -> None:
        """Judge those that have not been judged as they are, one at a time, and forget those that are gone."""
        for pod in self._pods:
            if not pod.is_injected:
                continue
            defaults, known = self._defaults(), self._made.get(pod.uid)
            if known is None or known.defaults != defaults or not known.pod.is_decided_like(pod):
                self.count += 1
                self._made[pod.uid] = _Made(pod, defaults, await asyncio.to_thread(judge, pod, defaults))
            elif known.pod is not pod:
                self._made[pod.uid] = known._replace(pod=pod)
        there = {pod.uid for pod in self._pods if pod.is_injected}
        self._made = {uid: made for uid, made in self._made.items() if uid in there}

    def of(self, pod: Pod) -> Verdict:
        """Return what was decided of a pod last; of one that has not been judged yet that it is left alone."""
        made = self._made.get(pod.uid)
        return made.verdict if made else LEFT_ALONE
