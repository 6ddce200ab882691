"""This node's pods, from the cluster: an informer caches them; a pod it has not observed yet is requested by name."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from installer.kube.api_error import ApiError
from installer.kube.client import PODS_PATIENCE, ApiClient
from installer.kube.informer import LIST_EVERY, Informer, Selection
from installer.kube.operator import ApiResource
from plugin.pod import ManifestError, Pod, PodsUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")

_log = logging.getLogger(__name__)


class NodePods:
    """The pods of one node; `plugin.pod.PodSource`."""

    def __init__(
        self,
        node_name: str,
        kubeconfig: Path | None,
        on_change: Callable[[], None] = lambda: None,
        *,
        list_every: float = LIST_EVERY,
    ) -> None:
        """Prepare; `run` begins. `on_change` is called when all pods are known, and after each change of one."""
        self._node_name = node_name
        self._kubeconfig = kubeconfig
        self._api = ApiClient(kubeconfig)
        selection = Selection(ApiResource("", "v1", "pods"), _selector(node_name), in_lists=False)
        self._informer = Informer(self._api, kubeconfig, selection, _trim, on_change, list_every=list_every)
        self._warned_of_node = False

    @property
    def known(self) -> bool:
        """Whether all of this node's pods have been observed once; an outage of the API server does not reset it (F30)."""
        return self._informer.known

    @property
    def reason(self) -> str:
        """Why they have not been observed; empty if they have."""
        return "" if self.known else self._informer.reason

    @property
    def count(self) -> int:
        """The number of pods."""
        return len(self._informer.objects)

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""
        return iter([pod for pod in self._informer.objects.values() if pod])

    async def run(self, stop: asyncio.Event) -> None:
        """Observe the pods until `stop` is set. No failure of the API server ends it."""
        try:
            await self._informer.run(stop)
        finally:
            await self._api.close()

    async def find(self, namespace: str, name: str, uid: str | None, *, fresh: bool = False) -> Pod | None:
        """Find one pod, as `plugin.pod.PodSource` specifies.

        Without a uid the cached pod may be an earlier one of that name, so the API server is queried first. The
        cached pod counts only in an outage (F30), marked as maybe stale; a refusal is not an outage, nor is a silent
        connection.
        """
        cached = self.cached(namespace, name, uid)
        if cached and uid is not None and not fresh:
            return cached
        try:
            pod = await self._request(namespace, name)
        except ApiError as error:
            if cached and uid is None and not fresh and error.is_outage:
                return replace(cached, maybe_stale=True)
            raise
        if pod is None or not pod.has_uid(uid):
            return None  # another pod of that name exists now: names are unique, so this one is gone
        self._check_node_name(pod)
        return pod

    def cached(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return the cached pod, as `plugin.pod.PodSource` specifies."""
        if uid and (pod := self._informer.objects.get(uid)) and (pod.namespace, pod.name) == (namespace, name):
            return pod
        matching = [pod for pod in self if (pod.namespace, pod.name) == (namespace, name) and pod.has_uid(uid)]
        return max(reversed(matching), key=lambda pod: pod.is_injected, default=None)

    async def _request(self, namespace: str, name: str) -> Pod | None:
        if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
            return None  # the API server would accept no such pod
        manifest = await self._get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        try:
            return Pod.from_manifest(manifest) if manifest else None
        except ManifestError as error:
            raise PodsUnavailable(f"the API server's {namespace}/{name} cannot be parsed: {error}") from error

    async def _get(self, path: str) -> Any | None:
        """Request an object. An outage is certain only once a new connection has failed, too: open ones may be silent."""
        try:
            return await self._api.get(path, patience=PODS_PATIENCE)
        except ApiError as error:
            if error.status or not error.is_outage:
                raise
        api = ApiClient(self._kubeconfig)
        try:
            return await api.get(path, patience=PODS_PATIENCE)
        finally:
            await api.close()

    def _check_node_name(self, pod: Pod) -> None:
        """Log once that this runtime starts pods of another node: the informer then observes the wrong ones."""
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


def _selector(node_name: str) -> str:
    """Select the node's pods that have not ended: an ended pod needs no network, and stays until it is deleted."""
    return f"spec.nodeName={node_name},status.phase!=Succeeded,status.phase!=Failed"


def _trim(manifest: Mapping[str, Any]) -> Pod | None:
    """Reduce a pod to what decisions need; None if it cannot be parsed: a request for it by name returns the reason."""
    try:
        return Pod.from_manifest(manifest).trimmed()
    except ManifestError as error:
        extra = {"pod": manifest["metadata"]["name"], "reason": str(error)}
        _log.warning("cannot parse a pod of the API server", extra=extra)
        return None
