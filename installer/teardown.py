"""Stops all agents in order: deletes the DaemonSet while agents still have the rights to learn why they are stopped (D7).

`helm uninstall` and `kubectl delete -f` delete rights while agents stop, and an agent without them leaves the plugin in place
(F36). So the chart's pre-delete hook deletes the DaemonSet before everything else, and waits until its pods are gone. It does
not wait for nodes that are down.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.kube.api_error import ApiError
from installer.kube.backoff import Backoff
from installer.kube.client import METADATA, ApiClient
from installer.kube.names import DAEMONSET
from installer.terminal.printable import say
from installer.terminal.words import counted

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

LOOK_EVERY = 2.0  # seconds between two lists of the pods
PODS_PER_SECOND = 500  # to list: with more pods, lists are less frequent
NAMED = 20  # nodes, in a message
OURS = {"labelSelector": f"k8s-app={DAEMONSET}"}


class AgentPod(NamedTuple):
    """An agent's pod that still exists."""

    name: str
    uid: str
    is_terminating: bool


class Progress:
    """Decides how long to wait for pods: as long as they make progress. Pure."""

    def __init__(self, deadline: float, now: float) -> None:
        """Begin; `deadline` is in seconds without any change, `now` of a monotonic clock, as all times here."""
        self._deadline = deadline
        self._changed_at = now
        self._last: frozenset[AgentPod] = frozenset()

    def stalled(self, pods: Collection[AgentPod], now: float) -> bool:
        """Observe the current pods; True if they have not changed for too long."""
        current = frozenset(pods)
        if current != self._last:
            self._last, self._changed_at = current, now
        return now - self._changed_at >= self._deadline


async def teardown(namespace: str, kubeconfig: Path | None, deadline: float) -> int:
    """Delete the DaemonSet and wait until its pods are gone.

    `deadline` is in seconds without progress, after which it gives up.

    Returns:
        The exit status: 0 if all are gone except those on nodes whose kubelet does not answer; the output names these.
    """
    api = ApiClient(kubeconfig)
    try:
        return await _teardown(api, namespace, deadline)
    finally:
        await api.close()


async def _teardown(api: ApiClient, namespace: str, deadline: float) -> int:
    progress, count, is_deleted = Progress(deadline, time.monotonic()), -1, False
    pods: list[AgentPod] = []
    reason = ""
    backoff = Backoff(LOOK_EVERY)
    while True:
        try:
            is_deleted = is_deleted or await _delete(api, namespace)
            pods, reason = await _pods(api, namespace), ""
            backoff.reset()
            pause = max(LOOK_EVERY, len(pods) / PODS_PER_SECOND)
            if not pods:
                say("all agents have ended")
                return 0
            if len(pods) != count:
                count = len(pods)
                say(f"waiting for {counted(count, 'agent')} to remove the plugin and exit")
        except ApiError as error:
            pause = backoff.next(error.retry_after)
            if str(error) != reason:
                reason = str(error)
                say(f"trying again: {reason}", err=True)
        if progress.stalled(pods, time.monotonic()):
            state = f"nothing has changed for {deadline:g} s"
            if reason:
                say(f"{state}: {reason}", err=True)
                return 1
            return await _give_up(api, namespace, pods, state)
        await asyncio.sleep(pause)


async def _delete(api: ApiClient, namespace: str) -> bool:
    """Delete the DaemonSet in the foreground, so that it stays until its pods are gone."""
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{DAEMONSET}"
    found = await api.get(path)
    if found is None:
        say(f"DaemonSet {namespace}/{DAEMONSET} does not exist")
        return True
    if not found["metadata"].get("deletionTimestamp"):
        await api.delete(path, found["metadata"]["uid"], propagation="Foreground")
        say(f"DaemonSet {namespace}/{DAEMONSET} is being deleted")
    return True


async def _pods(api: ApiClient, namespace: str) -> list[AgentPod]:
    listed = api.list_objects(_pods_of(namespace), OURS, METADATA)
    metadata = [each["metadata"] async for each in listed]
    return [AgentPod(each["name"], each["uid"], bool(each.get("deletionTimestamp"))) for each in metadata]


async def _give_up(api: ApiClient, namespace: str, pods: list[AgentPod], state: str) -> int:
    """Report the remaining pods, and return whether the uninstall may continue without them."""
    running = sum(not each.is_terminating for each in pods)
    if running:
        say(
            f"{state}, and agents were not told to exit ({running} of {len(pods)}): does the kube-controller-manager run, and "
            "does nothing create the DaemonSet again? helm uninstall --no-hooks does not wait; install-cni status then names "
            "the nodes that still have the plugin",
            err=True,
        )
        return 1
    nodes = await _nodes(api, namespace, pods)
    say(
        f"{state}: continuing without {counted(len(pods), 'agent')} whose nodes do not answer: {nodes}. The plugin stays "
        "there; install-cni status says how to remove it",
        err=True,
    )
    return 0


async def _nodes(api: ApiClient, namespace: str, pods: list[AgentPod]) -> str:
    """Name the nodes of pods; if they cannot be listed, the pods."""
    try:
        found: Any = await api.get(_pods_of(namespace), OURS | {"limit": str(NAMED)})
        names = sorted(each["spec"].get("nodeName") or each["metadata"]["name"] for each in found["items"] or ())
    except ApiError:
        names = sorted(each.name for each in pods)
    more = [f"and {len(pods) - NAMED} more"] if len(pods) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
