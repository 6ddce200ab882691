"""What the controller asks of the API server, and writes there, by the `kubernetes` client: synchronous, in threads.

The client is given plain mappings and gives them back: its models would cost more than all the rest, with thousands of nodes.
"""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubernetes import client, config

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.controller.events import LONGEST
from installer.documents import check_file
from installer.fleet.node_health import PodWarning
from installer.fleet.objects import agent_pod
from installer.kube.names import CONTROLLER, DAEMONSET, NODES, NODES_KIND, NODES_VERSION, OWN_ROLE_BINDING
from installer.kube.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from installer.controller.events import Event
    from installer.controller.node_lifecycle import ConditionPatch
    from installer.controller.pod_template import Wish
    from installer.fleet.objects import AgentPod

PATIENCE = 10.0  # seconds for one request
AT_ONCE = 500  # objects in a page of a list
POD_LABELS = f"k8s-app={DAEMONSET}"

_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class NotLeadingError(Exception):
    """The lease may have run out: another controller may act, so this one must not."""


def connect(kubeconfig: Path | None) -> client.ApiClient:
    """Make a client with the credentials of a kubeconfig, or of the pod that we run in, read anew each minute (F4)."""
    settings = client.Configuration()
    if kubeconfig:
        check_file(str(kubeconfig))
        config.load_kube_config(str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    settings.retries = False  # a try of ours is one request, or it would outlast its time
    return client.ApiClient(settings)


class Api:
    """Requests, each of at most PATIENCE seconds; its methods are called from threads.

    All raise `kubernetes.client.ApiException` for an answer that is no success, and urllib3's errors for none. What changes
    an object holds the version that it was decided upon, so that what is outdated, as of a controller that leads no more, is
    refused.
    """

    def __init__(self, connection: client.ApiClient, namespace: str, leads: Callable[[], bool]) -> None:
        """Wire it.

        Args:
            connection: from `connect`.
            namespace: where the DaemonSet is, and the controller.
            leads: whether this controller may write.
        """
        self._namespace = namespace
        self._leads = leads
        self._core, self._apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        self._rbac, self._custom = client.RbacAuthorizationV1Api(connection), client.CustomObjectsApi(connection)

    def resources(self) -> Iterator[dict[str, Any]]:
        """List the IstioControlPlanes of all namespaces."""
        return _pages(lambda **page: self._custom.list_cluster_custom_object(GROUP, VERSION, PLURAL, **page))

    def reports(self) -> Iterator[dict[str, Any]]:
        """List the IstioCNINodes."""
        return _pages(lambda **page: self._custom.list_cluster_custom_object(*NODES, **page))

    def nodes(self) -> Iterator[dict[str, Any]]:
        """List the Nodes."""
        return _pages(self._core.list_node)

    def pods(self, node: str = "") -> Iterator[dict[str, Any]]:
        """List the agents' pods, of all nodes or of one."""
        which: dict[str, Any] = {"label_selector": POD_LABELS}
        if node:
            which["field_selector"] = f"spec.nodeName={node}"
        return _pages(lambda **page: self._core.list_namespaced_pod(self._namespace, **which, **page))

    def daemonset(self) -> Iterator[dict[str, Any]]:
        """Get the DaemonSet; nothing if it is not there."""
        name = f"metadata.name={DAEMONSET}"
        return _pages(
            lambda **page: self._apps.list_namespaced_daemon_set(self._namespace, field_selector=name, **page)
        )

    def latest_warning(self, pod_uid: str) -> PodWarning | None:
        """Get the latest warning Event about a pod."""
        about = f"involvedObject.uid={pod_uid},type=Warning"
        events = _pages(lambda **page: self._core.list_namespaced_event(self._namespace, field_selector=about, **page))
        latest = max(events, key=_time_of, default=None)
        return PodWarning(latest.get("reason", ""), latest.get("message", "")) if latest else None

    def rolebinding(self, name: str) -> dict[str, Any] | None:
        """Get a RoleBinding; None if it is not there."""
        try:
            return _parsed(
                self._rbac.read_namespaced_role_binding(
                    name, self._namespace, _preload_content=False, _request_timeout=PATIENCE
                )
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def bind(self, binding: Mapping[str, Any]) -> None:
        """Create a RoleBinding."""
        self._may_write()
        self._rbac.create_namespaced_role_binding(
            self._namespace,
            dict(binding),  # type: ignore[arg-type] # a mapping does
            field_manager=CONTROLLER,
            _preload_content=False,
            _request_timeout=PATIENCE,
        )

    def unbind(self) -> None:
        """Delete the RoleBinding of ours."""
        self._may_write()
        try:
            self._rbac.delete_namespaced_role_binding(
                OWN_ROLE_BINDING, self._namespace, _preload_content=False, _request_timeout=PATIENCE
            )
        except client.ApiException as error:
            if error.status != 404:
                raise

    def apply_daemonset(self, wished: Wish, seen: Mapping[str, Any]) -> dict[str, Any]:
        """Apply our fields of the DaemonSet, if it is still as it was seen, hand over others, and return it as it is then."""
        written = self._patch_daemonset(wished.manifest(seen), seen, _APPLY, force=True)
        if not wished.returned:
            return written
        return self._patch_daemonset({"metadata": {"managedFields": wished.handed_over(written)}}, written, _MERGE)

    def _patch_daemonset(
        self, patch: Mapping[str, Any], seen: Mapping[str, Any], kind: str, **how: Any
    ) -> dict[str, Any]:
        self._may_write()
        version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        return _parsed(
            self._apps.patch_namespaced_daemon_set(
                DAEMONSET,
                self._namespace,
                dict(patch) | {"metadata": patch["metadata"] | version},
                field_manager=CONTROLLER,
                _content_type=kind,
                _preload_content=False,
                _request_timeout=PATIENCE,
                **how,
            )
        )

    def replace(self, pod: AgentPod) -> dict[str, Any] | None:
        """Delete the pod of an agent, for its DaemonSet to make another, and return it while it ends; None if it is gone."""
        self._may_write()
        seen = _parsed(
            self._core.delete_namespaced_pod(
                pod.name,
                self._namespace,
                body=client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=pod.uid)),
                _preload_content=False,
                _request_timeout=PATIENCE,
            )
        )
        return seen if seen.get("kind") == "Pod" and "deletionTimestamp" in seen["metadata"] else None

    def write_status(self, resource: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any] | None:
        """Patch the status of a resource, if it is still as it was read, and return it as it is then; None if it is gone."""
        self._may_write()
        metadata = resource["metadata"]
        try:
            written: dict[str, Any] = self._custom.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                metadata["namespace"],
                PLURAL,
                metadata["name"],
                {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": dict(patch)},
                field_manager=CONTROLLER,
                _content_type=_MERGE,
                _request_timeout=PATIENCE,
            )  # type: ignore[assignment] # it is parsed JSON
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return written

    def speak(self, words: ConditionPatch) -> dict[str, Any] | None:
        """Write a condition into an IstioCNINode, which is made if need be, and return that as it is then.

        Returns:
            None if nothing was written, as the agent runs after all: its pod was known as it was before.
        """
        self._may_write()
        name, version, status = words.node.name, words.version, {"conditions": [words.condition]}
        if words.contradicts and any(agent_pod(each).runs for each in self.pods(name)):
            return None
        of = {"apiVersion": NODES_VERSION, "kind": NODES_KIND}
        if not version:
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": words.node.uid}
            new = of | {"metadata": {"name": name, "ownerReferences": [owner]}}
            made: Any = self._custom.create_cluster_custom_object(
                *NODES, new, field_manager=CONTROLLER, _request_timeout=PATIENCE
            )
            version = made["metadata"]["resourceVersion"]
        written: dict[str, Any] = self._custom.patch_cluster_custom_object_status(
            *NODES,
            name,
            of | {"metadata": {"name": name, "resourceVersion": version}, "status": status},
            field_manager=CONTROLLER,
            force=True,
            _content_type=_APPLY,
            _request_timeout=PATIENCE,
        )  # type: ignore[assignment] # it is parsed JSON
        return written

    def taint(self, node: str, version: str, taints: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace the taints of a node, if it is still as it was at `version`, and return it as it is then."""
        self._may_write()
        return _parsed(
            self._core.patch_node(
                node,
                {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}},
                field_manager=CONTROLLER,
                _content_type=_MERGE,
                _preload_content=False,
                _request_timeout=PATIENCE,
            )
        )

    def tell(self, about: Mapping[str, Any], news: Event) -> None:
        """Create an Event about an object, which is given by kind, apiVersion, name, uid and, where it has one, namespace."""
        self._may_write()
        now = rfc3339(datetime.now(UTC))
        namespace = about.get("namespace", "default")
        message = news.message if len(news.message) <= LONGEST else news.message[: LONGEST - 1] + "…"
        self._core.create_namespaced_event(
            namespace,
            {  # type: ignore[arg-type] # a mapping does
                "metadata": {"generateName": f"{about['name'][:200]}.", "namespace": namespace},
                "involvedObject": dict(about),
                "type": "Warning" if news.warning else "Normal",
                "reason": news.reason,
                "message": message,
                "source": {"component": CONTROLLER},
                "reportingComponent": CONTROLLER,
                "reportingInstance": socket.gethostname(),
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            },
            field_manager=CONTROLLER,
            _preload_content=False,
            _request_timeout=PATIENCE,
        )

    def _may_write(self) -> None:
        if not self._leads():
            raise NotLeadingError


def _pages(ask: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """List everything, a page at a time: of 5,000 Nodes at once a list is hundreds of megabytes."""
    proceed: str | None = None
    while True:
        page = _parsed(ask(limit=AT_ONCE, _continue=proceed, _preload_content=False, _request_timeout=PATIENCE))
        yield from page.get("items") or ()
        proceed = page["metadata"].get("continue")
        if not proceed:
            return


def _parsed(response: Any) -> dict[str, Any]:
    with response:
        parsed: dict[str, Any] = json.loads(response.data)
        return parsed


def _time_of(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
