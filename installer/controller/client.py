"""The controller's requests to the API server: paths, field managers and preconditions."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.fleet.objects import read_agent_pod
from installer.fleet.pod_diagnosis import PodWarning
from installer.kube.api_error import ApiError
from installer.kube.client import ApiClient
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import (
    CONTROLLER,
    DAEMONSET,
    NODES,
    NODES_KIND,
    NODES_VERSION,
    OWN_ROLE_BINDING,
    node_reference,
)
from installer.ratelimit.limiter import SPACED_EVENTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from installer.controller.control_plane_events import Event
    from installer.controller.node_lifecycle import ConditionPatch
    from installer.controller.pod_template import Wish
    from installer.fleet.objects import AgentPod

PATIENCE = 10.0  # seconds for one request
POD_LABELS = f"k8s-app={DAEMONSET}"

_NODES = f"/apis/{'/'.join(NODES)}"
_RESOURCES = f"/apis/{GROUP}/{VERSION}"

_log = logging.getLogger(__name__)


class NotLeadingError(Exception):
    """The lease may have expired: another controller may act, so this one must not."""


class Api:
    """The controller's requests, each of at most PATIENCE seconds.

    All raise `ApiError` on failure. A change carries the version of the object that it is based on, so that the
    API server refuses an outdated one, such as from a controller that has lost leadership.
    """

    def __init__(self, kubeconfig: Path | None, namespace: str, leads: Callable[[], bool]) -> None:
        """Prepare; `leads` returns whether this controller may write."""
        self._client = ApiClient(kubeconfig, field_manager=CONTROLLER, patience=PATIENCE)
        self._leads = leads
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._events = f"/api/v1/namespaces/{namespace}/events"
        self._daemonsets = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        self._bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
        self._recorder = EventRecorder(self._client, CONTROLLER, socket.gethostname(), same=SPACED_EVENTS)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def resources(self) -> AsyncIterator[dict[str, Any]]:
        """List the IstioControlPlanes of all namespaces."""
        return self._client.list_objects(f"{_RESOURCES}/{PLURAL}")

    def reports(self) -> AsyncIterator[dict[str, Any]]:
        """List the IstioCNINodes."""
        return self._client.list_objects(_NODES)

    def nodes(self) -> AsyncIterator[dict[str, Any]]:
        """List the Nodes."""
        return self._client.list_objects("/api/v1/nodes")

    def pods(self, node: str = "") -> AsyncIterator[dict[str, Any]]:
        """List the agents' pods, of all nodes or of one."""
        selector = {"fieldSelector": f"spec.nodeName={node}"} if node else {}
        return self._client.list_objects(self._pods, {"labelSelector": POD_LABELS} | selector)

    def daemonset(self) -> AsyncIterator[dict[str, Any]]:
        """List the DaemonSet; empty if it does not exist."""
        return self._client.list_objects(self._daemonsets, {"fieldSelector": f"metadata.name={DAEMONSET}"})

    async def latest_warning(self, pod_uid: str) -> PodWarning | None:
        """Read the latest warning Event about a pod: the kubelet's, in the core API."""
        query = {"fieldSelector": f"involvedObject.uid={pod_uid},type=Warning"}
        events = [each async for each in self._client.list_objects(self._events, query)]
        latest = max(events, key=_time_of, default=None)
        return PodWarning(latest.get("reason", ""), latest.get("message", "")) if latest else None

    async def rolebinding(self, name: str) -> dict[str, Any] | None:
        """Read a RoleBinding; None if it does not exist."""
        return await self._client.get(f"{self._bindings}/{name}")

    async def bind(self, binding: Mapping[str, Any]) -> None:
        """Create a RoleBinding."""
        self._require_leadership()
        await self._client.create(self._bindings, binding)

    async def unbind(self) -> None:
        """Delete our RoleBinding."""
        self._require_leadership()
        try:
            await self._client.delete(f"{self._bindings}/{OWN_ROLE_BINDING}")
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def apply_daemonset(self, wish: Wish, observed: Mapping[str, Any]) -> dict[str, Any]:
        """Apply our fields of the DaemonSet if it is unchanged, hand over others, and return the result."""
        self._require_leadership()
        path, version = f"{self._daemonsets}/{DAEMONSET}", observed["metadata"]["resourceVersion"]
        applied = await self._client.apply(path, _at(version, wish.manifest(observed)))
        if not wish.returned:
            return applied
        self._require_leadership()
        patch = {"metadata": {"managedFields": wish.handed_over(applied)}}
        return await self._client.merge(path, _at(applied["metadata"]["resourceVersion"], patch))

    async def replace(self, pod: AgentPod) -> dict[str, Any] | None:
        """Delete an agent's pod, which its DaemonSet replaces, and return the terminating pod; None if it is gone."""
        self._require_leadership()
        pod_manifest = await self._client.delete(f"{self._pods}/{pod.name}", pod.uid)
        return (
            pod_manifest
            if pod_manifest.get("kind") == "Pod" and "deletionTimestamp" in pod_manifest["metadata"]
            else None
        )

    async def write_status(self, resource: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any] | None:
        """Patch the status of a resource if it is unchanged, and return the result; None if it is gone."""
        self._require_leadership()
        metadata = resource["metadata"]
        path = f"{_RESOURCES}/namespaces/{metadata['namespace']}/{PLURAL}/{metadata['name']}/status"
        try:
            return await self._client.merge(
                path, _at(metadata["resourceVersion"], {"metadata": {}, "status": dict(patch)})
            )
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def patch_condition(self, patch: ConditionPatch) -> dict[str, Any] | None:
        """Write a condition into an IstioCNINode, creating it if necessary, and return the result.

        Returns:
            None if nothing was written because the agent runs after all: the observed pod was outdated.
        """
        self._require_leadership()
        name, version = patch.node.name, patch.version
        if patch.contradicts and any([read_agent_pod(each).runs async for each in self.pods(name)]):
            return None
        head: dict[str, Any] = {"apiVersion": NODES_VERSION, "kind": NODES_KIND, "metadata": {"name": name}}
        if not version:
            owner = node_reference(name, patch.node.uid)
            created = await self._client.create(_NODES, head | {"metadata": {"name": name, "ownerReferences": [owner]}})
            version = created["metadata"]["resourceVersion"]
        status = {"status": {"conditions": [patch.condition]}}
        return await self._client.apply(f"{_NODES}/{name}/status", _at(version, head | status))

    async def taint(self, node: str, version: str, taints: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace the taints of a node if it is still at `version`, and return the result."""
        self._require_leadership()
        patch = _at(version, {"metadata": {}, "spec": {"taints": taints}})
        return await self._client.merge(f"/api/v1/nodes/{node}", patch)

    async def record(self, regarding: Mapping[str, str], event: Event) -> None:
        """Write an Event and log it, unless the same one was written recently.

        A refused Event delays nothing. `regarding` is the object: apiVersion, kind, name, uid and, where it has one,
        namespace.
        """
        self._require_leadership()
        try:
            if await self._recorder.record(regarding, event.reason, event.message, warning=event.warning):
                level = logging.WARNING if event.warning else logging.INFO
                _log.log(level, event.reason, extra={"object": regarding["name"], "reason": event.message})
        except ApiError as error:
            _log.warning(
                "an Event was refused", extra={"event": event.reason, "note": event.message, "reason": str(error)}
            )

    def _require_leadership(self) -> None:
        if not self._leads():
            raise NotLeadingError


def _at(version: str, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Restrict a patch to this version of the object."""
    return dict(patch) | {"metadata": patch["metadata"] | {"resourceVersion": version}}


def _time_of(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
