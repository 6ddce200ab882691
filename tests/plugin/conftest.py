"""A served agent in this process, pods as values, and the three forms of the plugin."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from plugin.backend import Backend, Capability
from plugin.decision import Policy
from plugin.handler import Handler, Outcome
from plugin.pod import Pod, PodsUnavailable
from plugin.server import Server
from plugin.workers import Workers
from tests.support.call import Plugin, frozen, reference, unaccelerated
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

STATUS = {"sidecar.istio.io/status": "{}"}


def manifest(name: str = "web", namespace: str = "shop", **annotations: str) -> dict[str, Any]:
    """A pod as the injector leaves it: an application and a sidecar."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-of-{name}",
            "annotations": STATUS | annotations,
        },
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}, {"name": "istio-proxy"}]},
    }


class KnownPods:
    """The pods of a test, by namespace and name."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Pod] = {}
        self.unavailable = ""

    def add(self, given: dict[str, Any]) -> None:
        """Make a pod known."""
        pod = Pod.from_manifest(given)
        self.pods[pod.namespace, pod.name] = pod

    async def find(self, namespace: str, name: str, uid: str | None, *, fresh: bool = False) -> Pod | None:  # noqa: ARG002 - it is
        """Find it, as `PodSource` specifies."""
        if self.unavailable:
            raise PodsUnavailable(self.unavailable)
        return self.cached(namespace, name, uid)

    def cached(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return it, even if the source is unavailable."""
        pod = self.pods.get((namespace, name))
        return pod if pod and pod.has_uid(uid) else None


class Agent:
    """The server half of the node agent, on a socket of its own."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.pods = KnownPods()
        self.pods.add(manifest())
        self.outcomes: list[Outcome] = []
        self.policy = Policy(excluded=("istio-system",))
        self.capability = Capability(Backend.NFT)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        """Serve while the body runs."""
        with (
            ThreadPoolExecutor(1, "freeing") as freeing,
            ThreadPoolExecutor(4, "netns") as workers,
            ThreadPoolExecutor(1, "large") as large,
        ):
            handler = Handler(self.pods, Workers(workers, large, freeing), in_force=self, observe=self.outcomes.append)
            server = Server(self.socket, handler)
            await server.start()
            try:
                yield server
            finally:
                await server.stop()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "run" / "agent.sock")


FORMS_OF_THE_PLUGIN = (reference, unaccelerated, frozen)


@pytest.fixture(params=FORMS_OF_THE_PLUGIN, ids=lambda made: made.__name__)
def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> Plugin:
    made: Plugin = request.param(tmp_path)
    return made


@pytest.fixture
def pod_netns(tmp_path: Path) -> Iterator[Netns]:
    """A pod's network namespace, with the file that names it below the plugin's root."""
    with Netns(tmp_path / "netns") as netns:
        yield netns


def calls(plugin: Plugin, agent: Agent, netns: Path | None, command: str = "ADD", **more: str) -> dict[str, str]:
    """The variables of a call by containerd for the pod shop/web."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "0123456789abcdef",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_UID=uid-of-web",
        "CNI_PATH": "/opt/cni/bin",
    }
    if netns:
        environment["CNI_NETNS"] = plugin.seen(netns)
    return {key: value for key, value in (environment | more).items() if value}


def config(plugin: Plugin, agent: Agent, **more: Any) -> dict[str, Any]:
    """The plugin's stdin from libcni."""
    return {
        "agentSocket": plugin.seen(agent.socket),
        "cniVersion": "1.0.0",
        "exclude_namespaces": ["istio-system"],
        "name": "k8s",
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}], "interfaces": []},
        "type": "istio-cni",
    } | more


def handed_over(**given: str) -> dict[str, Any]:
    """RuntimeConfig with the pod's annotations, as containerd hands them over."""
    return {"io.kubernetes.cri.pod-annotations": given or None}


def rules(netns: Netns) -> str:
    """All nft rules in a netns."""
    command = ["/usr/bin/nsenter", f"--net={netns.path}", "/usr/sbin/nft", "list", "ruleset"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
