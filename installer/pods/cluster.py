"""This node's pods, from the cluster: heard of by the watch, asked for by name where they were not heard of yet."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from installer.aio import wait
from installer.kube.api_error import ApiError
from installer.kube.client import METADATA, PODS_PATIENCE, ApiClient
from installer.kube.informer import ClusterWatch, Watched, pause
from plugin.pod import ManifestError, Pod, PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from installer.kube.kopf import kopf

AT_ONCE = 25  # in a page of a list of metadata
COMPARE_EVERY = 600.0  # seconds between two looks whether what we know is what there is
CATCH_UP = 5.0  # seconds for the watch to tell what a list has shown

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")

_log = logging.getLogger(__name__)


class NodePods:
    """The pods of one node; `plugin.pod.PodSource`."""

    def __init__(self, node_name: str, kubeconfig: Path | None, *, compare_every: float = COMPARE_EVERY) -> None:
        """Prepare; `run` begins.

        Args:
            node_name: the node.
            kubeconfig: how to reach the API server; None for the service account of the pod that we run in.
            compare_every: seconds between two comparisons with a list of the API server's.
        """
        self._node_name = node_name
        self._compare_every = compare_every
        self._api = ApiClient(kubeconfig)
        watched = Watched("", "v1", "pods", _selector(node_name))
        self._watch = ClusterWatch(watched, kubeconfig, _trimmed, self._hear)
        self._pods: dict[
            tuple[str, str], dict[str, Pod]
        ] = {}  # by name, then uid: two live while one replaces the other
        self._heard = asyncio.Event()
        self._compare_now = asyncio.Event()
        self._known = False
        self._reason = "the API server has not answered yet"
        self._warned_of_node = False

    @property
    def known(self) -> bool:
        """Whether all of this node's pods have been heard of, once; it stays so when the API server is gone (F30)."""
        return self._known

    @property
    def reason(self) -> str:
        """Why they have not; empty if they have."""
        return "" if self._known else self._reason

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(same_name) for same_name in self._pods.values())

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""
        return (pod for same_name in [*self._pods.values()] for pod in [*same_name.values()])

    async def run(self, stop: asyncio.Event) -> None:
        """Hear of the pods until told to stop. Nothing that the API server does or does not do ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                comparing = tasks.create_task(self._keep_comparing())
                await self._watch.keep_running(stop)
                comparing.cancel()
        finally:
            await self._api.close()

    async def find(self, namespace: str, name: str, uid: str | None, *, anew: bool = False) -> Pod | None:
        """Find one pod, as `plugin.pod.PodSource` says.

        Without a uid the pod that we know may be an earlier one of the name, so that the API server is asked first. What
        we know counts instead in an outage alone (F30), and says so; a server that refuses us is none.
        """
        known = self.recall(namespace, name, uid)
        if known and uid is not None and not anew:
            return known
        try:
            pod = await self._ask_for(namespace, name)
        except ApiError as error:
            if known and uid is None and not anew and error.is_outage:
                return replace(known, remembered=True)
            raise
        if pod is None or not pod.has_uid(uid):
            return None  # another of its name is there by now: names are unique, so this one is gone
        self._doubt_node_name(pod)
        return pod

    def recall(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return what is known of a pod, as `plugin.pod.PodSource` says."""
        known = [pod for pod in self._pods.get((namespace, name), {}).values() if pod.has_uid(uid)]
        return max(reversed(known), key=lambda pod: pod.is_injected, default=None)

    async def _ask_for(self, namespace: str, name: str) -> Pod | None:
        if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
            return None  # the API server would accept no such pod
        manifest = await self._api.get(f"/api/v1/namespaces/{namespace}/pods/{name}", patience=PODS_PATIENCE)
        try:
            return Pod.from_manifest(manifest) if manifest else None
        except ManifestError as error:
            raise PodsUnavailable(f"the API server's {namespace}/{name} is not understood: {error}") from error

    def _doubt_node_name(self, pod: Pod) -> None:
        """Say once that the runtime here runs pods that are another node's: then we hear of the wrong ones."""
        if pod.node_name != self._node_name and not self._warned_of_node:
            self._warned_of_node = True
            _log.error(
                "a pod that starts here belongs to another node: is --node-name this node's name in the cluster?",
                extra={
                    "namespace": pod.namespace,
                    "pod": pod.name,
                    "reason": f"saw {pod.node_name}, expected {self._node_name}",
                },
            )

    def _hear(self, heard: _Heard) -> None:
        same_name = self._pods.setdefault((heard.namespace, heard.name), {})
        if heard.pod:
            same_name[heard.uid] = heard.pod
        else:
            same_name.pop(heard.uid, None)
        if not same_name:
            del self._pods[heard.namespace, heard.name]
        if heard.listed and self._known:
            self._compare_now.set()  # a new list follows a gap, and does not tell who has gone in it
        self._heard.set()

    async def _keep_comparing(self) -> None:
        """Compare what was heard with what there is.

        It tells when all was heard, also on a node without pods, and forgets what was deleted while nobody heard.
        """
        tries, after = 0, 0.0
        while True:
            try:
                missing, after = await self._compare(), 0.0
                self._reason = f"{missing} pods of this node have not been heard of. {self._watch.ended}"
                if missing and self._known:
                    self._watch.end()  # its connection leads nowhere, or it has lost something: start anew
                self._known |= not missing
            except PodsUnavailable as error:
                missing, after = 1, error.retry_after if isinstance(error, ApiError) else 0.0
                self._reason = str(error)
            tries = tries + 1 if missing else 0
            await wait(self._compare_now, max(pause(tries), after) if missing else self._compare_every)
            self._compare_now.clear()

    async def _compare(self) -> int:
        """Compare once, and forget what is gone.

        Returns:
            How many pods of those that there were have not been heard of.

        Raises:
            PodsUnavailable: if the API server cannot be asked.
        """
        before, listed = self._uids(), await self._list()
        self._forget(before - listed)  # a uid never comes back
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                while not listed <= self._uids():
                    self._heard.clear()
                    await self._heard.wait()
        return len(listed - self._uids())

    async def _list(self) -> set[str]:
        """Ask for the uids of all pods of this node, as they are now."""
        query = {"fieldSelector": _selector(self._node_name)}
        listed = self._api.list_objects("/api/v1/pods", query, METADATA, page=AT_ONCE)
        return {each["metadata"]["uid"] async for each in listed}

    def _uids(self) -> set[str]:
        return {uid for same_name in self._pods.values() for uid in same_name}

    def _forget(self, uids: set[str]) -> None:
        for name, same_name in [*self._pods.items()]:
            left = {uid: pod for uid, pod in same_name.items() if uid not in uids}
            if left:
                self._pods[name] = left
            else:
                del self._pods[name]


class _Heard(NamedTuple):
    """What the API server said of one pod: as it is, or None if it is gone; `listed` if it said so when asked for all."""

    namespace: str
    name: str
    uid: str
    pod: Pod | None
    listed: bool


def _selector(node_name: str) -> str:
    """Select the pods of a node that have not ended: one that has needs no network, and stays until somebody deletes it."""
    return f"spec.nodeName={node_name},status.phase!=Succeeded,status.phase!=Failed"


def _trimmed(event: kopf.RawEvent) -> _Heard:
    manifest = event["object"]
    metadata = manifest["metadata"]
    pod: Pod | None = None
    if event["type"] != "DELETED":
        try:
            pod = Pod.from_manifest(manifest).trimmed()
        except ManifestError as error:  # forgotten: who asks for it is told why
            _log.warning(
                "a pod of the API server's is not understood", extra={"pod": metadata["name"], "reason": str(error)}
            )
    return _Heard(metadata["namespace"], metadata["name"], metadata["uid"], pod, listed=event["type"] is None)
