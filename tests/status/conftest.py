"""An API server with the chart's definitions, and a cluster on it as agents, controller and Kubernetes would write it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.status.objects import NAMESPACE, report
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

CRDS = Path(__file__).parents[2] / "charts" / "istio-cni" / "crds"
LABELS = {"k8s-app": "istio-cni-node"}
COMMAND = (sys.executable, "-m", "installer", "status")

_KINDS = {  # the collections of what the tests write
    "istiocontrolplane": "/apis/install.istio.io/v1alpha2/{}istiocontrolplanes",
    "istiocninode": "/apis/cni.istio.io/v1alpha1/istiocninodes",
    "daemonset": "/apis/apps/v1/{}daemonsets",
    "pod": "/api/v1/{}pods",
    "node": "/api/v1/nodes",
}


def environment(**more: str) -> dict[str, str]:
    """Return what a command has of the environment: nothing by which it would find a cluster or colours."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent", **more}


class World:
    """A cluster's objects, kept by the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubeconfig = cluster.folder / "admin.kubeconfig"

    def status(self, *options: str, kubeconfig: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `install-cni status` once, its output in pipes."""
        command = [*COMMAND, f"--kubeconfig={kubeconfig or self.kubeconfig}", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment(**more))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects, without their status."""
        self.cluster.admin.apply(*objects)

    def patch_status(self, kind: str, name: str, status: Mapping[str, Any], namespace: str = NAMESPACE) -> None:
        """Write the status of an object."""
        collection = _KINDS[kind].format(f"namespaces/{namespace}/")
        self.cluster.admin.merge(f"{collection}/{name}/status", {"status": status})

    def add_nodes(self, *names: str) -> None:
        """Add nodes whose agents run, and have reported."""
        self.apply(*(make(name) for name in names for make in (_node, _pod, _report)))
        for name in names:
            self.patch_status("node", name, {"conditions": [_condition("True")]})
            self.pod_is(name, ready=True)
            self.report(name)

    def pod_is(self, node: str, *, ready: bool, waiting: str = "") -> None:
        """Write how the agent's pod on a node is, as its kubelet does."""
        state = {"waiting": {"reason": waiting}} if waiting else {"running": {"startedAt": _now()}}
        container = {
            "name": "install-cni",
            "ready": ready,
            "restartCount": 0,
            "image": "",
            "imageID": "",
            "state": state,
        }
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _now()}
        phase = "Pending" if waiting else "Running"
        status = {"phase": phase, "conditions": [condition], "containerStatuses": [container]}
        self.patch_status("pod", f"istio-cni-node-{node}", status)

    def report(self, node: str, **reported: Any) -> None:
        """Write a node's IstioCNINode, as its agent does."""
        self.patch_status("istiocninode", node, report(node, **{"settings": None, **reported})["status"])

    def add_daemonset(self, nodes: int, **of_pods: Any) -> None:
        """Add the agents' DaemonSet, whose pods run on so many nodes; or change what is in their spec."""
        tolerations = [{"operator": "Exists"}]  # as the chart has it: the API server taints each new node
        spec = {
            "containers": [{"name": "install-cni", "image": "install-cni:0.1.0"}],
            "tolerations": tolerations,
        } | of_pods
        template = {"metadata": {"labels": LABELS}, "spec": spec | {"nodeSelector": {"kubernetes.io/os": "linux"}}}
        metadata = {"name": "istio-cni-node", "namespace": NAMESPACE}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": metadata,
                "spec": {"selector": {"matchLabels": LABELS}, "template": template},
            }
        )
        counts = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
        self.patch_status(
            "daemonset",
            "istio-cni-node",
            dict.fromkeys(counts, nodes) | {"numberMisscheduled": 0, "observedGeneration": 1},
        )

    def clear(self) -> None:
        """Take all of it away."""
        admin = self.cluster.admin
        for collection in _KINDS.values():
            for each in admin.read(collection.format(""))["items"]:
                namespace = each["metadata"].get("namespace")
                within = collection.format(f"namespaces/{namespace}/")
                admin.delete(f"{within}/{each['metadata']['name']}")


def _node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}}


def _pod(node: str) -> dict[str, Any]:
    labels = LABELS | {"pod-template-generation": "1"}
    metadata = {"name": f"istio-cni-node-{node}", "namespace": NAMESPACE, "labels": labels}
    spec = {"nodeName": node, "containers": [{"name": "install-cni", "image": "install-cni"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _report(node: str) -> dict[str, Any]:
    return {"apiVersion": "cni.istio.io/v1alpha1", "kind": "IstioCNINode", "metadata": {"name": node}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(status: str) -> dict[str, str]:
    return {"type": "Ready", "status": status, "reason": "KubeletReady", "lastTransitionTime": _now()}


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running API server with the chart's definitions."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        running.kubectl("create", "namespace", NAMESPACE)
        running.kubectl("apply", "--server-side", f"--filename={CRDS}")
        running.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield running


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[World]:
    """A cluster without nodes and agents."""
    made = World(cluster)
    yield made
    made.clear()


@pytest.fixture
def world(empty: World) -> World:
    """A cluster of two nodes, on which all is well, by the chart's settings."""
    empty.add_daemonset(2)
    empty.add_nodes("node-1", "node-2")
    return empty


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    outcome = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if outcome.failed and isinstance(running, Cluster):
        outcome.sections.append(("the API server and etcd", running.logs()))
    return outcome
