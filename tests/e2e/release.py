"""The chart on the node, by helm, with the image as it was built, and an IstioControlPlane."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.chart.helm import CHART
from tests.e2e.helm import Helm
from tests.image.build import HUB
from tests.programs.lots import KUBE
from tests.support.conditions import is_rolled_out
from tests.support.machine import ENVIRONMENT
from tests.support.node import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.node import KubernetesNode, Worker

NAMESPACE = "istio-system"
NAME_OF_RELEASE = "istio-cni"
RESOURCE = "mesh"
EXCLUDED = ("istio-system", "kube-system")
SLOWEST = 240.0  # seconds that helm, or a roll-out, may take

# What anybody has to say for an image that comes from no registry.
VALUES = {"cni": {"hub": HUB, "pullPolicy": "Never", "logLevel": "info"}}
DAEMONSET = "daemonset/istio-cni-node"
PARTS = (DAEMONSET, "deployment/istio-cni-controller")
AGENT = {"k8s-app": "istio-cni-node"}  # the label of the agents' pods


class Release:
    """A release of the chart, and the resource that steers it."""

    def __init__(
        self, node: KubernetesNode, home: Path, *, names: Sequence[str] = (NAME,), program: Path = KUBE.folder / "helm"
    ) -> None:
        """Prepare.

        Args:
            node: where it is to be.
            home: a folder for what helm keeps for itself.
            names: of all nodes.
            program: which helm.
        """
        self.node = node
        self.is_restored = False
        self._reports = [f"istiocninode/{name}" for name in names]
        self._helm = Helm(program, node, home, NAMESPACE)

    def restore(self) -> None:
        """Install it, and let the resource say nothing but the usual, unless nobody has changed that since."""
        if not self.is_restored:
            self.install()
            self.ready()
            self.steer()
            self.ready()
            self.node.wait("jsonpath={.status.state}=Installed", *self._reports)  # an agent reports after it is ready
            self.is_restored = True

    def install(self, *options: str) -> None:
        """Install it, unless that is done; or install it anew with the same values, and what options of helm's say."""
        shared = "--set=cni.mountPropagation=HostToContainer"  # as most platforms' presets have it
        self.helm(
            "upgrade", "--install", "--create-namespace", NAME_OF_RELEASE, str(CHART), "--values=-", shared, *options
        )

    def ready(self) -> None:
        """Wait until all of its pods are ready."""
        for part in PARTS:
            self.node.rolled_out(part, NAMESPACE, SLOWEST)

    def uninstall(self, *options: str) -> None:
        """Take it away, unless that is done, with further options of helm's, and wait until its pods have ended."""
        self.helm("uninstall", NAME_OF_RELEASE, "--ignore-not-found", "--wait", *options)
        where = (f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/name=istio-cni")
        self.node.kubectl("wait", "--for=delete", "pod", *where, "--timeout=240s", within=250)

    def rollback(self) -> None:
        """Go back to the revision before."""
        self.helm("rollback", NAME_OF_RELEASE)

    def helm(self, *arguments: str) -> str:
        """Run helm on the node as the admin, and return its stdout; it must succeed."""
        self.is_restored = False
        return self._helm(*arguments, values=VALUES)

    def steer(self, *excluded: str, **values: object) -> None:
        """Say in the resource which namespaces are excluded, and more, and wait until that is in force on every node."""
        self.ask_for(*excluded, **values)
        generation = self.get(f"istiocontrolplane/{RESOURCE}")["metadata"]["generation"]
        self.node.wait(f"jsonpath={{.status.controlPlane.generation}}={generation}", *self._reports)

    def ask_for(self, *excluded: str, **values: object) -> None:
        """Say in the resource which namespaces are excluded, and more."""
        self.is_restored = False
        cni = {"excludeNamespaces": [*EXCLUDED, *excluded]} | values
        self.node.apply(
            {
                "apiVersion": "install.istio.io/v1alpha2",
                "kind": "IstioControlPlane",
                "metadata": {"name": RESOURCE, "namespace": NAMESPACE},
                "spec": {"cni": {"enabled": True}, "values": {"cni": cni}},
            }
        )

    def status(self) -> str:
        """Return what `install-cni status` says."""
        command = [
            *self.node.enter,
            sys.executable,
            "-m",
            "installer",
            "status",
            f"--kubeconfig={self.node.kubeconfig}",
        ]
        ended = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=SLOWEST, check=False, cwd=CHART.parents[1]
        )
        assert ended.returncode in (0, 1), ended.stderr
        return ended.stdout

    def agents(self) -> list[dict[str, Any]]:
        """Return the agents' pods."""
        found: list[dict[str, Any]] = self.get("pods", **AGENT)["items"]
        return found

    def rolled_out(self) -> bool:
        """Tell whether the DaemonSet has replaced all of its pods, and each is ready."""
        return is_rolled_out(self.get(DAEMONSET))

    def logs(self) -> str:
        """Return what the resources say; the logs of its pods are among the node's."""
        kinds = "istiocontrolplanes,istiocninodes,daemonsets,leases"
        return self.node.kubectl("get", kinds, f"--namespace={NAMESPACE}", "--output=yaml", check=False)

    def get(self, what: str, **labels: str) -> dict[str, Any]:
        """Return an object of its namespace, or a list of them; arguments are those of the node's `read`."""
        return self.node.read(what, NAMESPACE, **labels)


def agent_on(node: Worker) -> int:
    """Return the process id of a node's agent, on that node."""
    (pid,) = [
        pid for pid, command in node.processes.all().items() if command[-2:] == ["/usr/local/bin/install-cni", "run"]
    ]
    return pid
