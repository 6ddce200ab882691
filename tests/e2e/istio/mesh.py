"""Istio from its own charts, as its documentation installs it beside a CNI plugin, and applications that it injects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e import workloads
from tests.e2e.helm import Helm
from tests.e2e.istio import coredns
from tests.e2e.istio.images import HUB, TAG
from tests.programs.lots import ISTIO, KUBE
from tests.support.images import compiled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.node import TwoNodes, Worker

SYSTEM = "istio-system"
MESHED, PLAIN = "meshed", "plain"  # namespaces: one whose pods istiod injects, and one where it does not
SLOWEST = 90.0  # seconds that a part may take to become ready

# PyPI's Envoy is the upstream one, without the filters that Istio's own build has.
_VALUES: dict[str, Any] = {
    "global": {
        "hub": HUB,
        "tag": TAG,
        "imagePullPolicy": "Never",
        "proxy": {
            "seccompProfile": {"type": "RuntimeDefault"},  # Pod Security `restricted` asks for it
            "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}},
            "readinessPeriodSeconds": 1,
        },
    },
    "pilot": {
        "cni": {"enabled": True},
        "autoscaleEnabled": False,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "env": {"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"},
    },
    "telemetry": {"enabled": False},
    "meshConfig": {"accessLogFile": "/dev/stdout", "defaultProviders": {"metrics": []}},
}
_STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": SYSTEM},
    "spec": {"mtls": {"mode": "STRICT"}},
}


class Mesh:
    """Istio on two nodes, STRICT everywhere, and a namespace under Pod Security `restricted` whose pods are injected."""

    def __init__(self, cluster: TwoNodes, home: Path) -> None:
        """Prepare.

        Args:
            cluster: where it is to be; its nodes have the images.
            home: a folder for what helm keeps for itself.
        """
        self.cluster, self.node = cluster, cluster.first
        self._helm = Helm(KUBE.folder / "helm", cluster.first, home, SYSTEM)

    def install(self) -> None:
        """Install DNS and Istio, and wait until both are ready."""
        self.node.apply(*coredns.objects())
        charts = ISTIO.folder / "charts"
        self._helm("upgrade", "--install", "--create-namespace", "istio-base", str(charts / "base"))
        istiod = str(charts / "istio-control" / "istio-discovery")
        self._helm("upgrade", "--install", "istiod", istiod, "--values=-", values=_VALUES)
        for name, where in (("coredns", coredns.NAMESPACE), ("istiod", SYSTEM)):
            self.node.wait("condition=Available", f"deployment/{name}", f"--namespace={where}", within=SLOWEST)
        injected = workloads.namespace(MESHED)
        injected["metadata"]["labels"]["istio-injection"] = "enabled"
        self.node.apply(_STRICT, injected, workloads.namespace(PLAIN))

    def start(
        self, name: str, on: Worker, *, where: str = MESHED, annotations: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Deploy an application with its Service onto a node, wait until it is available, and return its pod."""
        made = workloads.deployment(name, where, injected=False)
        template = made["spec"]["template"]
        template["metadata"]["annotations"] |= annotations or {}
        template["spec"]["nodeSelector"] = {"kubernetes.io/hostname": on.place.name}
        self.node.apply(made, workloads.service(name, where))
        self.node.wait("condition=Available", f"deployment/{name}", f"--namespace={where}", within=SLOWEST)
        return self.pod(name, where)

    def pod(self, name: str, where: str = MESHED) -> dict[str, Any]:
        """Return the pod of an application."""
        told = self.node.kubectl("get", "pods", f"--namespace={where}", f"--selector=app={name}", "--output=json")
        (pod,) = [each for each in json.loads(told)["items"] if "deletionTimestamp" not in each["metadata"]]
        found: dict[str, Any] = pod
        return found

    def service(self, name: str, where: str = MESHED) -> str:
        """Say where an application's Service answers."""
        told = ("get", f"service/{name}", f"--namespace={where}", "--output=jsonpath={.spec.clusterIP}")
        return f"http://{self.node.kubectl(*told)}"

    def ask(self, name: str, url: str, *, where: str = MESHED, container: str = "app") -> str:
        """Have an application, or the container beside it, ask a URL, and return the answer."""
        told = ("exec", f"deployment/{name}", f"--namespace={where}", f"--container={container}", "--", "/get", url)
        return self.node.kubectl(*told).strip()

    def ask_from(self, node: Worker, url: str) -> str:
        """Ask a URL from a node."""
        return node.run([str(compiled("get")), url]).strip()

    def log(self, name: str, container: str) -> str:
        """Return what a container of an application has logged."""
        return self.node.kubectl("logs", f"deployment/{name}", f"--namespace={MESHED}", f"--container={container}")

    def handshakes(self, name: str) -> int:
        """Count the TLS handshakes that an application's sidecar has accepted for it."""
        asked = "stats?filter=^listener.0.0.0.0_15006.ssl.handshake$"
        told = ("exec", f"deployment/{name}", f"--namespace={MESHED}", "--container=istio-proxy", "--")
        return int(self.node.kubectl(*told, "pilot-agent", "request", "GET", asked).rpartition(":")[2])

    def stop(self, *names: str, where: str = MESHED) -> None:
        """Take applications away, and wait until their pods are gone."""
        what = [f"{kind}/{name}" for name in names for kind in ("service", "deployment")]
        self.node.kubectl("delete", *what, f"--namespace={where}", "--cascade=foreground")
