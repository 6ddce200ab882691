"""A node with containerd, our agent on it, and pods as the mesh's injector leaves them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tests.support.agent import AgentProcess
from tests.support.containerd import Node
from tests.support.images import APP, compiled

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.support.cri import Container, Pod

INJECTED = {
    "sidecar.istio.io/status": "{}",
    "traffic.sidecar.istio.io/includeInboundPorts": "*",  # as injectors write it
}
PORT = 8080


class Mesh:
    """The node and its agent, which takes the pods from a folder of manifests."""

    def __init__(self, folder: Path) -> None:
        """Prepare; the folder may not be below /run or /var/lib."""
        self.node = Node(folder / "node")
        self._pods = folder / "pods"
        self._pods.mkdir(parents=True)
        self.agent = AgentProcess(
            folder,
            conf_dir=self.node.conf_dir,
            bin_dir=self.node.bin_dir,
            options={"pods-from": self._pods},
        )
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        self._ending.enter_context(self.node)
        self._ending.callback(self.agent.stop)
        self.agent.set("netns-dir", self.node.seen("/var/run/netns"))
        self.agent.set("cni-cache-dir", self.node.seen("/var/lib/cni"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def create(self, name: str, namespace: str = "shop", *, injected: bool) -> Pod:
        """Write a pod's manifest and bring its sandbox up; an error is `Runtime.run_sandbox`'s."""
        annotations = INJECTED if injected else {}
        sidecar = {"name": "istio-proxy", "env": [{"name": "ISTIO_DUAL_STACK", "value": "true"}]}
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
            "spec": {"containers": [{"name": "app"}, *([sidecar] if injected else [])]},
        }
        (self._pods / f"{namespace}-{name}.json").write_text(json.dumps(manifest))
        return self.node.run_sandbox(namespace, name, annotations=annotations)

    def get(self, pod: Pod, family: int = 0) -> str:
        """Ask a pod's application from the node, over its first (v4) or second (v6) address."""
        return self.node.run([str(compiled("get")), url(pod, family)]).stdout.strip()


def serve(pod: Pod) -> Container:
    """Run the application in a pod: it answers with its name and with who asked."""
    container = pod.run("app", APP, ["/web", "app", str(PORT)], uid=1000, gid=1000)
    container.wait_for_log(f"serves on port {PORT}")
    return container


def url(pod: Pod, family: int = 0) -> str:
    """Name a pod's application."""
    address = pod.ips[family]
    return f"http://[{address}]:{PORT}" if ":" in address else f"http://{address}:{PORT}"


def rules(pod: Pod) -> str:
    """List the rules in a pod's netns."""
    return pod.inside(["/usr/sbin/nft", "list", "ruleset"]).stdout
