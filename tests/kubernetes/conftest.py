"""One API server for all these tests; each test has a node of its own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.kube.names import NODES as REPORTS
from installer.pods.cluster import NodePods
from tests.support.agent import AgentProcess
from tests.support.cluster import Cluster
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Mapping

NAMESPACE = "kube-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:istio-cni"
CHART = Path(__file__).parents[2] / "charts" / "istio-cni"
SOON = 90.0  # seconds: much longer than anything here takes

PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'
NODES = "istiocninodes.cni.istio.io"
DAEMONSET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "istio-cni-node", "namespace": NAMESPACE},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "containers": [{"name": "install-cni", "image": "none"}],
            },
        },
    },
}

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running API server."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="package")
def kubeconfig(cluster: Cluster) -> Path:
    """The credentials of the node agent."""
    return node_credentials(cluster)


def node_credentials(cluster: Cluster) -> Path:
    """Make the account of the node agents, with the rights that the chart gives it, and return its kubeconfig."""
    cluster.service_account(NAMESPACE, "istio-cni")
    cluster.kubectl("apply", "--filename", str(CHART / "templates" / "clusterrole.yaml"))
    cluster.kubectl(
        "create", "clusterrolebinding", "istio-cni-node", "--clusterrole=istio-cni-node", f"--user={ACCOUNT}"
    )
    return cluster.kubeconfig("istio-cni", token=cluster.token(NAMESPACE, "istio-cni"))


@dataclass
class Node:
    """A node as the API server has it: a name in its pods' specs."""

    cluster: Cluster
    name: str

    def __post_init__(self) -> None:
        self._started: set[tuple[str, str]] = set()

    def start_pod(
        self,
        name: str,
        annotations: dict[str, str] | None = None,
        node: str = "",
        spec: Mapping[str, object] | None = None,
        namespace: str = "default",
        *,
        owner: Mapping[str, object] | None = None,
    ) -> str:
        """Create a meshed pod on this node, or another, and return its uid; `owner` is what has made it."""
        manifest = {
            "metadata": {
                "name": name,
                "annotations": {"sidecar.istio.io/status": "{}"} | (annotations or {}),
                "ownerReferences": [dict(owner)] if owner else [],
            },
            "spec": {
                "nodeName": node or self.name,
                "containers": [{"name": each, "image": "none"} for each in ("app", "istio-proxy")],
            }
            | dict(spec or {}),
        }
        uid: str = self.cluster.core.create_namespaced_pod(namespace, manifest).metadata.uid  # type: ignore[arg-type, union-attr, assignment]
        self._started.add((namespace, name))
        return uid

    def started(self, name: str) -> None:
        """Remember a pod that was created otherwise, so that it ends with the test."""
        self._started.add(("default", name))

    def ended(self, name: str) -> None:
        """Forget a pod that is deleted otherwise."""
        self._started.discard(("default", name))

    def annotate(self, name: str, annotations: dict[str, str]) -> None:
        """Change annotations of a pod."""
        self.cluster.core.patch_namespaced_pod(name, "default", {"metadata": {"annotations": annotations}})

    def end_pod(self, name: str, namespace: str = "default") -> None:
        """Delete a pod, as the kubelet does once it has ended."""
        self.cluster.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        self._started.discard((namespace, name))

    def end_all(self) -> None:
        """Delete all pods that were started by this."""
        for namespace, name in [*self._started]:
            self.end_pod(name, namespace)

    def pod(self, name: str) -> Any:  # its type depends on the client's release
        """Read a pod."""
        return self.cluster.core.read_namespaced_pod(name, "default")


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Node]:
    """A node of this test's own, without pods."""
    made = Node(cluster, f"node-{next(_numbers)}")
    yield made
    made.end_all()


class Agent(Protocol):
    """Starts the part of an agent that knows the pods, and ends it with the block."""

    def __call__(
        self, node: Node, kubeconfig: Path, *, known: bool = True, list_every: float = 600
    ) -> AbstractAsyncContextManager[NodePods]:
        """Start; `known`: wait until it knows its pods."""


@pytest.fixture
def agent() -> Agent:
    """The part of the agent that knows the pods."""

    @asynccontextmanager
    async def run(
        node: Node, kubeconfig: Path, *, known: bool = True, list_every: float = 600
    ) -> AsyncIterator[NodePods]:
        pods, stop = NodePods(node.name, kubeconfig, list_every=list_every), asyncio.Event()
        running = asyncio.create_task(pods.run(stop))
        try:
            if known:
                await eventually(lambda: pods.known, SOON, "the agent knows its pods")
            yield pods
        finally:
            stop.set()
            async with asyncio.timeout(SOON):
                await running

    return run


@pytest.fixture(scope="module")
def served(cluster: Cluster, kubeconfig: Path) -> Iterator[Path]:
    """The kinds are there."""
    define_kinds(cluster)
    yield kubeconfig
    cluster.kubectl("delete", "icp", "--all", "--all-namespaces")


@pytest.fixture
def running(tmp_path: Path, cluster: Cluster, node: Node, served: Path) -> Iterator[AgentProcess]:
    """An agent on a node that is registered, run by a DaemonSet."""
    with node_agent(tmp_path, cluster, node.name, served) as agent:
        agent.ready()
        yield agent
    cluster.admin.delete(f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}")


def define_kinds(cluster: Cluster) -> None:
    """Have the API server know the kinds of the chart."""
    cluster.kubectl("apply", "--server-side", "--filename", str(CHART / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}", f"crd/{NODES}", "--timeout=30s")


def node_agent(folder: Path, cluster: Cluster, node: str, kubeconfig: Path) -> AgentProcess:
    """Register a node and its DaemonSet, and prepare the agent of both; its conflist is there."""
    apply(cluster, DAEMONSET)
    labels = {"kubernetes.io/os": "linux", "pool": "a"}
    apply(cluster, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}})
    conf_dir, bin_dir = folder / "conf", folder / "bin"
    for each in (conf_dir, bin_dir):
        each.mkdir()
    (conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {
        "node-name": node,
        "kubeconfig": kubeconfig,
        "daemonset": f"{NAMESPACE}/istio-cni-node",
    }
    return AgentProcess(folder, conf_dir=conf_dir, bin_dir=bin_dir, options=options)


def entry(agent: AgentProcess) -> dict[str, Any]:
    """Return the plugin's entry in the conflist; empty if it has none."""
    plugins = json.loads((agent.conf_dir / "10-k8s.conflist").read_bytes())["plugins"]
    return next((each for each in plugins if each["type"] == "istio-cni"), {})


def untouched(agent: AgentProcess) -> bool:
    """Say whether the node's directories are as they were before the agent."""
    there = [*agent.bin_dir.iterdir()]
    return not there and (agent.conf_dir / "10-k8s.conflist").read_text() == PRIMARY


def apply(cluster: Cluster, what: dict[str, Any]) -> None:
    """Have an object be so."""
    cluster.admin.apply(what)


def report(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Read the status of a node's IstioCNINode; empty if there is none."""
    found: dict[str, Any] = cluster.admin.read(resource(node)).get("status", {})
    return found


def resource(node: Node) -> str:
    """Return the path of a node's IstioCNINode."""
    return f"/apis/{'/'.join(REPORTS)}/{node.name}"


def ready(cluster: Cluster, node: Node) -> tuple[str, str]:
    """Read its condition Ready: status and reason."""
    (found,) = report(cluster, node).get("conditions", [{"status": "", "reason": ""}])
    return found["status"], found["reason"]


def events(cluster: Cluster, about: str, namespace: str = "default") -> list[tuple[str, str]]:
    """Read the Events about an object of this name, in order: reason and note."""
    found = cluster.admin.read(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    mine = [each for each in found if each["regarding"].get("name") == about]  # tests beside write what they like
    return [(each["reason"], each["note"]) for each in sorted(mine, key=lambda each: str(each["eventTime"]))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(running, Cluster):
        report.sections.append(("the API server and etcd", running.logs()))
    return report


@pytest.fixture(autouse=True)
def _no_connection_is_left_to_others() -> Iterator[None]:
    """Collect what kopf leaves to the garbage collector while the test that made it is still the one to be blamed."""
    yield
    gc.collect()
