"""A node with containerd, our agent on it, and pods as the mesh's injector leaves them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tests.support.agent import AgentProcess
from tests.support.containerd import Node
from tests.support.images import APP, compiled

if TYPE_CHECKING:
    from collections.abc import Mapping
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
        self._mounts = (
            folder / "mounts"
        )  # as a container has the node's directories, some of which are the machine's own
        self._mounts.mkdir()
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
        self.agent.set("mounts", self._mounts)
        for name, there in (
            ("cni-bin-dir", self.node.bin_dir),
            ("cni-conf-dir", self.node.conf_dir),
            ("netns-dir", self.node.seen("/var/run/netns")),
            ("cni-cache-dir", self.node.seen("/var/lib/cni")),
        ):
            self.mount(name, there)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def mount(self, name: str, there: Path) -> None:
        """Have the agent find one of the node's directories in another place."""
        (self._mounts / name).unlink(missing_ok=True)
        (self._mounts / name).symlink_to(there)

    def create(
        self,
        name: str,
        namespace: str = "shop",
        *,
        injected: bool,
        annotations: Mapping[str, str] | None = None,
    ) -> Pod:
        """Write a pod's manifest and bring its sandbox up; an error is `Runtime.run_sandbox`'s.

        Args:
            name: the pod's.
            namespace: the pod's.
            injected: whether it has a sidecar, and the annotations that go with it.
            annotations: further ones.
        """
        annotations = (INJECTED if injected else {}) | dict(annotations or {})
        self.declare(name, namespace, injected=injected, annotations=annotations)
        return self.node.run_sandbox(namespace, name, annotations=annotations)

    def declare(
        self,
        name: str,
        namespace: str = "shop",
        *,
        injected: bool = True,
        annotations: Mapping[str, str] = INJECTED,
        spec: Mapping[str, Any] | None = None,
        status: Mapping[str, Any] | None = None,
    ) -> None:
        """Write or rewrite a pod's manifest."""
        sidecar = {"name": "istio-proxy", "env": [{"name": "ISTIO_DUAL_STACK", "value": "true"}]}
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
            "spec": {"containers": [{"name": "app"}, *([sidecar] if injected else [])]} | dict(spec or {}),
            "status": dict(status or {}),
        }
        (self._pods / f"{namespace}-{name}.json").write_text(json.dumps(manifest))

    def forget(self) -> None:
        """Delete all manifests."""
        for file in self._pods.iterdir():
            file.unlink()

    def runs(self, pod: Pod, *, known_addresses: bool = True) -> None:
        """Have a pod's manifest say that it runs, as the kubelet does, and at which addresses."""
        ips = [{"ip": ip} for ip in pod.ips] if known_addresses else []
        metadata = pod.config.metadata
        annotations = dict(pod.config.annotations)
        status = {"phase": "Running", "podIPs": ips}
        self.declare(metadata.name, metadata.namespace, annotations=annotations, status=status)

    def result_file(self, pod: Pod) -> Path:
        """Return the file in which libcni saves the result of a pod's network."""
        return self.node.seen(f"/var/lib/cni/results/k8s-{pod.id}-eth0")

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
