"""The verdicts on the node's mesh pods, for Events, counts and repair: each reached once for a pod and policy.

Runs beside the event loop: a tenant's annotations may take tens of milliseconds to parse (F37), and a node has 100 pods whose
status changes all the time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import operator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from plugin.decision import Policy, verdict
from plugin.prefilter import Pass
from plugin.redirect import Redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from plugin.decision import Verdict
    from plugin.pod import Pod
    from plugin.values import Address

Key = tuple[str, str, str]  # a pod's namespace, name and uid


class Judged(NamedTuple):
    """A pod, the policy and the verdict; `only_excluded`: only its excluded namespace prevents its redirect."""

    pod: Pod
    policy: Policy
    verdict: Verdict
    only_excluded: bool = False


class Verdicts:
    """The verdicts on one node's mesh pods; bound to one event loop."""

    def __init__(self, pods: Iterable[Pod], policy: Callable[[], Policy]) -> None:
        """Prepare; `pods` yields the current pods, `policy` returns what is in force."""
        self._pods = pods
        self._policy = policy
        self._judged: dict[Key, Judged] = {}
        self._updating = asyncio.Lock()
        self.count = 0  # verdicts reached, so far
        self.version = 0  # updates so far that found a pod or a verdict changed

    def __iter__(self) -> Iterator[Judged]:
        """Iterate over the mesh pods as of the last update."""
        return iter(self._judged.values())

    async def update(self) -> None:
        """Judge new and changed pods, one at a time, and drop deleted ones."""
        async with self._updating:
            before, judged = self._judged, {}
            for pod in self._pods:
                if pod.is_injected:
                    key = key_of(pod)
                    judged[key] = await self._judge(pod, before.get(key))
            if len(judged) != len(before) or any(map(operator.is_not, judged.values(), before.values())):
                self._judged = judged
                self.version += 1

    async def _judge(self, pod: Pod, known: Judged | None) -> Judged:
        policy = self._policy()
        if known and known.pod is pod and known.policy is policy:
            return known
        if known and known.policy == policy and known.pod.ips == pod.ips and known.pod.is_decided_like(pod):
            return known if known.pod is pod else known._replace(pod=pod)
        self.count += 1
        return await asyncio.to_thread(judge, pod, policy)


def judge(pod: Pod, policy: Policy) -> Judged:
    """Reach the verdict on a pod with the addresses that the API server reports."""
    addresses = tuple(addresses_of(pod))
    reached = verdict(pod, addresses, policy)
    if not isinstance(reached, Pass) or not reached.is_excluded:
        return Judged(pod, policy, reached)
    unexcluded = verdict(pod, addresses, replace(policy, excluded=()))
    return Judged(pod, policy, reached, only_excluded=isinstance(unexcluded, Redirect))


def addresses_of(pod: Pod) -> Iterator[Address]:
    """Read the pod's addresses from its status; skip anything that is no address."""
    for text in pod.ips:
        with suppress(ValueError):
            yield ipaddress.ip_address(text)


def key_of(pod: Pod) -> Key:
    """Return the key that identifies a pod."""
    return pod.namespace, pod.name, pod.uid
