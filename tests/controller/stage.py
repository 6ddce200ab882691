"""A cluster for the controller: what nodes, agents and people would write there is written by the test."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from kubernetes import client
from kubernetes.config import new_client_from_config

from installer.config.control_plane import GROUP, KIND, PLURAL, VERSION
from installer.controller.finalizer import FINALIZER
from installer.kube.names import CONTROLLER as LEASE
from installer.kube.names import DAEMONSET
from tests.chart.helm import CHART, Rendered, helm
from tests.support.agent import ask
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.support.cluster import Cluster

NAMESPACE = "mesh"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:istio-cni-controller"
SOON = 90.0  # seconds: much longer than anything here takes
CREDENTIAL = "authentication.kubernetes.io/credential-id"  # of the token that a request came with
REPORTS = ("cni.istio.io", "v1alpha1", "istiocninodes")
RESOURCES = (GROUP, VERSION)


class Stage:
    """The objects of the cluster, as the admin sees and changes them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Take a cluster that runs."""
        self.cluster = cluster
        self.folder = folder
        api = new_client_from_config(str(cluster.folder / "admin.kubeconfig"))  # type: ignore[no-untyped-call]
        self.core, self.apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self.custom, self.rbac = client.CustomObjectsApi(api), client.RbacAuthorizationV1Api(api)
        self.leases = client.CoordinationV1Api(api)

    def install_chart(self, values: Mapping[str, Any] | None = None) -> Rendered:
        """Apply what the chart makes of values."""
        given = {"cni": {"hub": "registry.example/mesh"} | dict(values or {})}
        done = helm("template", "release", str(CHART), f"--namespace={NAMESPACE}", values=given, home=self.folder)
        assert done.returncode == 0, done.stderr
        rendered = Rendered(done.stdout)
        self.cluster.apply(rendered.objects)
        return rendered

    def add_node(
        self,
        name: str,
        *,
        linux: bool = True,
        taints: Sequence[Mapping[str, str]] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Create a Node."""
        labels = {"kubernetes.io/os": "linux" if linux else "windows"} | dict(labels or {})
        self.core.create_node({"metadata": {"name": name, "labels": labels}, "spec": {"taints": list(taints)}})  # type: ignore[arg-type]

    def taints(self, node: str) -> list[str]:
        """Return the keys of a node's taints."""
        spec: Any = self.core.read_node(node).spec
        return sorted(each.key for each in spec.taints or ())

    def add_agent(
        self, node: str, *, ready: bool = True, waiting: Mapping[str, str] | None = None, name: str = ""
    ) -> str:
        """Create the pod of a node's agent, of the template that the DaemonSet has now, and return its uid."""
        generation = (self.daemonset()["metadata"]["annotations"])["deprecated.daemonset.template.generation"]
        name = name or f"{DAEMONSET}-{node}"
        manifest: Any = {
            "metadata": {"name": name, "labels": {"k8s-app": DAEMONSET, "pod-template-generation": generation}},
            "spec": {"nodeName": node, "containers": [{"name": "install-cni", "image": "none"}]},
        }
        uid: Any = self.core.create_namespaced_pod(NAMESPACE, manifest).metadata
        self.set_agent(node, ready=ready, waiting=waiting, name=name)
        return str(uid.uid)

    def set_agent(
        self, node: str, *, ready: bool = True, waiting: Mapping[str, str] | None = None, name: str = ""
    ) -> None:
        """Have the pod of a node's agent be ready, or wait for something."""
        state: dict[str, Any] = {"waiting": dict(waiting)} if waiting else {"running": {}}
        container = {
            "name": "install-cni",
            "image": "none",
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }
        conditions = [{"type": "Ready", "status": str(ready)}]
        status: Any = {"status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}}
        self.core.patch_namespaced_pod_status(name or f"{DAEMONSET}-{node}", NAMESPACE, status)

    def end_agent(self, node: str) -> None:
        """Have the pod of a node's agent be gone."""
        self.core.delete_namespaced_pod(f"{DAEMONSET}-{node}", NAMESPACE, grace_period_seconds=0)

    def report(
        self, node: str, resource: Mapping[str, Any] | None = None, *, state: str = "Installed", problem: str = ""
    ) -> None:
        """Write an IstioCNINode as the node's agent would.

        Args:
            node: its name.
            resource: whose settings are in force there.
            state: as in its status.
            problem: why it is not ready; empty: it is.
        """
        try:
            self.custom.create_cluster_custom_object(
                *REPORTS,
                {"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": node}},
            )
        except client.ApiException as error:
            if error.status != 409:
                raise
        ready = "True" if state == "Installed" and not problem else "False"
        condition = {
            "type": "Ready", "status": ready, "reason": "NotInstalled" if problem else "Redirecting",
            "message": problem or "well", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        status: dict[str, Any] = {"state": state, "version": "0.1.0", "conditions": [condition]}
        status["conflist"] = {"file": "10-k8s.conflist", "form": "Chained"}
        if resource:
            metadata = resource["metadata"]
            status["controlPlane"] = {key: metadata[key] for key in ("namespace", "name", "uid", "generation")}
        self.custom.patch_cluster_custom_object_status(*REPORTS, node, {"status": status}, _content_type=MERGE)

    def istiocninode(self, node: str) -> dict[str, Any]:
        """Read the IstioCNINode of a node."""
        found: Any = self.custom.get_cluster_custom_object(*REPORTS, node)
        return dict(found)

    def ready(self, node: str) -> tuple[str, str]:
        """Return status and reason of the condition Ready of a node's IstioCNINode; empty while there is none."""
        try:
            conditions = self.istiocninode(node).get("status", {}).get("conditions", [])
        except client.ApiException as error:
            if error.status != 404:
                raise
            conditions = []
        return next(((each["status"], each["reason"]) for each in conditions), ("", ""))

    def apply(self, spec: Mapping[str, Any], name: str = "mesh", namespace: str = NAMESPACE) -> dict[str, Any]:
        """Create an IstioControlPlane or replace its spec, as the admin, and return it."""
        manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": dict(spec),
        }
        return self.cluster.admin.replace(manifest, "spec")

    def resource(self, name: str = "mesh", namespace: str = NAMESPACE) -> dict[str, Any]:
        """Read an IstioControlPlane."""
        found: Any = self.custom.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        return dict(found)

    def delete(self, name: str = "mesh", namespace: str = NAMESPACE) -> None:
        """Delete an IstioControlPlane, without waiting for it to be gone."""
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)

    def is_gone(self, name: str = "mesh") -> bool:
        """Whether an IstioControlPlane is not there any more."""
        try:
            self.resource(name)
        except client.ApiException as error:
            return bool(error.status == 404)
        return False

    def cni(self, name: str = "mesh") -> dict[str, str]:
        """Return the status of the component cni; empty while there is none."""
        found: dict[str, str] = self.resource(name).get("status", {}).get("status", {}).get("cni", {})
        return found

    def nodes(self, name: str = "mesh") -> dict[str, int]:
        """Return how many nodes are how, by the status; empty while there is none."""
        found: dict[str, int] = self.resource(name).get("status", {}).get("nodes", {})
        return found

    def condition(self, kind: str, name: str = "mesh") -> tuple[str, str]:
        """Return status and reason of a condition of an IstioControlPlane's."""
        conditions = self.resource(name).get("status", {}).get("conditions", [])
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == kind), ("", ""))

    def becomes(self, status: str, name: str = "mesh", within: float = SOON) -> dict[str, str]:
        """Wait until the component cni has this status, and return it."""
        until(lambda: self.cni(name).get("status") == status, within, f"{name} is {status}; it is {self.cni(name)}")
        return self.cni(name)

    def daemonset(self) -> dict[str, Any]:
        """Read the DaemonSet."""
        return self.cluster.admin.read(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}")

    def image(self) -> str:
        """Return the image that the DaemonSet asks for."""
        return str(self.daemonset()["spec"]["template"]["spec"]["containers"][0]["image"])

    def roll_out_stands(self, *, nodes: int, replaced: int) -> None:
        """Write a status of the DaemonSet: so many agents are of the new template, and none of these is ready."""
        status = {
            "desiredNumberScheduled": nodes, "currentNumberScheduled": nodes, "updatedNumberScheduled": replaced,
            "numberUnavailable": replaced, "numberReady": nodes - replaced, "numberMisscheduled": 0,
        }  # fmt: skip
        self.apps.patch_namespaced_daemon_set_status(DAEMONSET, NAMESPACE, {"status": status})

    def events(self, about: str, namespace: str = NAMESPACE) -> list[tuple[str, str]]:
        """Return reason and message of the controller's Events about an object, oldest first."""
        found = self.core.list_namespaced_event(namespace, field_selector=f"involvedObject.name={about}")
        ours: list[Any] = [each for each in found.items if each.reporting_component == LEASE]
        return [
            (each.reason, each.message) for each in sorted(ours, key=lambda each: int(each.metadata.resource_version))
        ]

    def holder(self) -> str:
        """Return who has the lease; empty: nobody."""
        try:
            spec: Any = self.leases.read_namespaced_lease(LEASE, NAMESPACE).spec
        except client.ApiException:
            return ""
        return str(spec.holder_identity or "")

    def writes(self, since: int = 0) -> list[str]:
        """Return what the controller has written, but for its lease, as `verb resource/name`, from the audit log."""
        return [
            f"{each['verb']} {each['objectRef']['resource']}/{each['objectRef'].get('name', '')}"
            for each in self.requests()[since:]
            if each["verb"] not in ("get", "list", "watch") and each["objectRef"]["resource"] != "leases"
        ]

    def requests(self) -> list[dict[str, Any]]:
        """Return all requests of the controller's, from the audit log."""
        return [each for each in self.cluster.requests_of(ACCOUNT) if "objectRef" in each]

    def clear(self) -> None:
        """Take away what a test has left."""
        for each in self._resources():
            metadata = each["metadata"]
            where = (GROUP, VERSION, metadata["namespace"], PLURAL, metadata["name"])
            self.custom.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": []}}, _content_type=MERGE)
            if "deletionTimestamp" not in metadata:
                self.custom.delete_namespaced_custom_object(*where)
        self.custom.delete_collection_cluster_custom_object(*REPORTS)
        self.core.delete_collection_node()
        self.core.delete_collection_namespaced_pod(NAMESPACE, grace_period_seconds=0)
        self.core.delete_collection_namespaced_event(NAMESPACE)
        self.apps.delete_collection_namespaced_daemon_set(NAMESPACE)
        self.leases.delete_collection_namespaced_lease(NAMESPACE)
        self.rbac.delete_collection_namespaced_role_binding(NAMESPACE)

    def _resources(self) -> Iterator[dict[str, Any]]:
        found: Any = self.custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)
        yield from found["items"]


MERGE = "application/merge-patch+json"


class Controller:
    """`install-cni controller` as a process, with a token of the chart's ServiceAccount; what it logs is kept."""

    def __init__(self, stage: Stage, name: str, *, deadline: int = 300, taint: bool = False) -> None:
        """Prepare."""
        self.stage = stage
        self.log = stage.folder / f"{name}.log"
        self.name = name
        token = stage.cluster.token(NAMESPACE, "istio-cni-controller")
        self._credential = f"JTI={_claims(token)['jti']}"
        self.kubeconfig = stage.cluster.kubeconfig(f"controller-{name}", token=token)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.options = [
            f"--namespace={NAMESPACE}", f"--kubeconfig={self.kubeconfig}", f"--deadline={deadline}",
            f"--health-address=127.0.0.1:{self.port}", "--log-level=info",
        ]  # fmt: skip
        self.options += ["--taint-new-nodes"] if taint else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait for nothing. It runs as a uid that has no name, without capabilities, as in its pod."""
        as_nobody = [
            "/usr/bin/setpriv",
            "--reuid=65532",
            "--regid=65532",
            "--clear-groups",
            "--bounding-set=-all",
            "--no-new-privs",
        ]
        command = [*as_nobody, sys.executable, "-I", "-m", "installer", "controller", *self.options]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env={"PATH": "/usr/bin:/bin"})
        return self

    def leads(self) -> bool:
        """Whether it says that it leads, and knows all that it needs to know."""
        return "leading" in self.get("/readyz")[1] and self.get("/readyz")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Ask /healthz, /readyz or /metrics."""
        return ask(self.port, path)

    def made(self, request: Mapping[str, Any]) -> bool:
        """Whether a request, from the audit log, came with the token of this one: others have the same account."""
        return self._credential in request["user"].get("extra", {}).get(CREDENTIAL, ())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def logged(self, level: str = "error") -> list[dict[str, Any]]:
        """Return what it has logged at a level."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [each for each in lines if each["level"] == level]

    def __enter__(self) -> Self:
        self.start()
        until(lambda: self.leads() or (self.process and self.process.poll() is not None), SOON, "it leads")
        assert self.leads(), self.log.read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _claims(token: str) -> dict[str, Any]:
    """Read what a token says (RFC 7519)."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def now() -> str:
    """Return the time as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["FINALIZER", "NAMESPACE", "SOON", "Controller", "Stage", "now"]
