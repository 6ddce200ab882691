"""A cluster for many agents: its nodes, their pods, and a token for each node's agent, all at a real API server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import yaml

from installer.kube.credentials import credentials
from tests.chart.helm import CHART, helm
from tests.controller.stage import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from tests.support.cluster import Cluster

_T = TypeVar("_T")
_LINUX = {"kubernetes.io/os": "linux"}  # what the chart selects nodes by

ACCOUNT = "istio-cni-node"  # the chart's
DAEMONSET = f"{NAMESPACE}/istio-cni-node"
USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
AT_ONCE = 16  # requests, while the cluster is being made
MANIFEST = Path(__file__).parents[1] / "manifests" / "dual-stack.yaml"


@dataclass(frozen=True)
class Place:
    """A node, and what its agent is given."""

    node: str
    token: str


class Site:
    """The admin's hand on the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        info = credentials(cluster.folder / "admin.kubeconfig")
        self.url = info.server
        self.tls = info.as_ssl_context()
        self._headers = dict(info.as_http_headers())

    def install(self) -> None:
        """Install the chart: its definitions and its rights."""
        where = (
            f"--namespace={NAMESPACE}",
            "--create-namespace",
            f"--kubeconfig={self.cluster.folder}/admin.kubeconfig",
        )
        done = helm("install", "istio-cni", str(CHART), *where, home=self.cluster.folder)
        assert done.returncode == 0, done.stderr

    async def places(self, nodes: Iterable[str], pods: int) -> list[Place]:
        """Make nodes with so many pods each, besides their agents'."""
        async with self._session() as session:
            await _all(lambda name: self._workload(session, name, pods), nodes)
            return await _all(lambda name: self._place(session, name), nodes)

    async def _place(self, session: aiohttp.ClientSession, name: str) -> Place:
        await self._post(session, "/api/v1/nodes", {"metadata": {"name": name, "labels": _LINUX}})
        pod = await self._post(session, f"/api/v1/namespaces/{NAMESPACE}/pods", _agents_pod(name))
        await self._well(session, pod["metadata"]["name"])
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        asked = {"spec": {"audiences": ["https://kubernetes.default.svc"], "boundObjectRef": bound}}
        issued = await self._post(session, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token", asked)
        return Place(name, issued["status"]["token"])

    async def _well(self, session: aiohttp.ClientSession, pod: str) -> None:
        """Have an agent's pod run, as the kubelet would say."""
        path = f"{self.url}/api/v1/namespaces/{NAMESPACE}/pods/{pod}/status"
        written = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        merge = {"Content-Type": "application/merge-patch+json"}
        async with session.patch(path, data=json.dumps(written), headers=merge) as answer:
            assert answer.status == 200, await answer.text()

    async def _workload(self, session: aiohttp.ClientSession, node: str, pods: int) -> None:
        for number in range(pods):
            await self._post(session, "/api/v1/namespaces/default/pods", meshed_pod(node, number))

    async def _post(self, session: aiohttp.ClientSession, path: str, manifest: dict[str, Any]) -> Any:
        async with session.post(self.url + path, json=manifest) as answer:
            assert answer.status == 201, f"{path}: {answer.status} {await answer.text()}"
            return await answer.json()

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=self.tls)
        return aiohttp.ClientSession(connector=connector, headers=self._headers)

    async def settings(self, log_level: str) -> int:
        """Write the resource, as `kubectl apply --server-side` does, and return its generation."""
        manifest = {
            "apiVersion": "install.istio.io/v1alpha2",
            "kind": "IstioControlPlane",
            "metadata": {"name": "istio"},
            "spec": {"cni": {"enabled": True}, "values": {"cni": {"logLevel": log_level}}},
        }
        path = f"{self.url}/apis/install.istio.io/v1alpha2/namespaces/{NAMESPACE}/istiocontrolplanes/istio"
        query = {"fieldManager": "kubectl", "force": "true"}
        apply = {"Content-Type": "application/apply-patch+yaml"}
        async with (
            self._session() as session,
            session.patch(path, params=query, headers=apply, data=json.dumps(manifest)) as answer,
        ):
            assert answer.status in (200, 201), await answer.text()
            generation: int = (await answer.json())["metadata"]["generation"]
            return generation

    async def reported(self, node: str) -> int:
        """Return the resource's generation that a node has reported; 0 if it has not."""
        path = f"{self.url}/apis/cni.istio.io/v1alpha1/istiocninodes/{node}"
        async with self._session() as session, session.get(path) as answer:
            if answer.status == 404:
                return 0
            found = await answer.json()
            generation: int = found.get("status", {}).get("controlPlane", {}).get("generation", 0)
            return generation

    async def metrics(self) -> str:
        """Return what the API server says at /metrics."""
        async with self._session() as session, session.get(f"{self.url}/metrics") as answer:
            assert answer.status == 200, answer.status
            return await answer.text()

    def requests(self) -> dict[str, list[dict[str, Any]]]:
        """Return the audit log's entry of each request of an agent, oldest first, by the node that its token names."""
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in self.cluster.requests_of(USER):
            (node,) = entry["user"]["extra"]["authentication.kubernetes.io/node-name"]
            found.setdefault(node, []).append(entry)
        return found


def _agents_pod(node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"istio-cni-node-{node}", "labels": {"k8s-app": ACCOUNT, "pod-template-generation": "1"}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": ACCOUNT,
            "containers": [{"name": "install-cni", "image": "install-cni"}],
        },
    }


def meshed_pod(node: str, number: int) -> dict[str, Any]:
    """Return a pod as an injector leaves it, 5 KB of JSON."""
    template = _TEMPLATE["metadata"]
    metadata = {"name": f"{node}-{number}", "labels": template["labels"], "annotations": template["annotations"]}
    return {"metadata": metadata, "spec": {"serviceAccountName": "default"} | _TEMPLATE["spec"] | {"nodeName": node}}


async def _all(make: Callable[[str], Coroutine[Any, Any, _T]], names: Iterable[str]) -> list[_T]:
    """Make what belongs to each name, a few at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> _T:
        async with slots:
            return await make(name)

    return await asyncio.gather(*(one(name) for name in names))


_TEMPLATE: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
