"""Istio's own chart, unchanged, with this image: by helm and by istioctl, on a whole node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from installer.version import RELEASE
from tests.chart.istio_chart import CHART
from tests.e2e.helm import Helm
from tests.e2e.shop import ENVOY, from_node, removed, started, url
from tests.e2e.test_chart import SOCKETS, all_files
from tests.image.build import HUB, archive
from tests.programs.build import is_built
from tests.programs.lots import ISTIO, KUBE
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAMESPACE = "istio-system"
AGENTS = f"--namespace={NAMESPACE}", "--selector=k8s-app=istio-cni-node"
VALUES = {"hub": HUB, "tag": RELEASE, "pullPolicy": "Never", "resources": {"requests": {"cpu": "10m"}}}


class Installer(Protocol):
    """Installs Istio's CNI component with this image, and uninstalls it."""

    def install(self) -> None:
        """Install it."""

    def uninstall(self) -> None:
        """Uninstall it."""


class _Helm:
    def __init__(self, node: KubernetesNode, home: Path) -> None:
        self._helm = Helm(KUBE.folder / "helm", node, home, NAMESPACE)

    def install(self) -> None:
        self._helm("install", "istio-cni", str(CHART), "--values=-", values=VALUES)

    def uninstall(self) -> None:
        self._helm("uninstall", "istio-cni", "--ignore-not-found")


class _Istioctl:
    def __init__(self, node: KubernetesNode, home: Path) -> None:
        self._node = node
        self._values = home / "values.yaml"
        spec = {"profile": "empty", "components": {"cni": {"enabled": True}}, "values": {"cni": VALUES}}
        self._values.write_text(
            json.dumps({"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec})
        )

    def install(self) -> None:
        self._run("install", f"--filename={self._values}", "--skip-confirmation")

    def uninstall(self) -> None:
        self._run("uninstall", "--purge", "--skip-confirmation")

    def _run(self, *arguments: str) -> None:
        self._node.run([str(ISTIO.folder / "istioctl"), *arguments, f"--kubeconfig={self._node.kubeconfig}"])


@pytest.fixture(params=[_Helm, _Istioctl], ids=["helm", "istioctl"])
def installer(request: pytest.FixtureRequest, node: KubernetesNode, tmp_path: Path) -> Iterator[Installer]:
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    node.import_images(archive())
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    made: Installer = request.param(node, tmp_path)
    yield made
    made.uninstall()


def rolled_out(node: KubernetesNode) -> None:
    told = ("rollout", "status", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}", "--timeout=240s")
    node.kubectl(*told, within=250)


def test_with_nothing_but_the_image_ours_pods_are_redirected(node: KubernetesNode, installer: Installer) -> None:
    before: dict[Path, Any] = all_files(node)
    early = started(node, "early", injected=True)
    assert from_node(node, url(early)).startswith("early 10.244.1."), "no agent is there yet"
    installer.install()
    rolled_out(node)
    until(lambda: from_node(node, url(early)) == f"early {ENVOY}", 30, "a pod that ran before is redirected")
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded the entry")
    young = started(node, "young", injected=True)
    assert from_node(node, url(young)) == f"young {ENVOY}"

    node.kubectl("rollout", "restart", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}")
    rolled_out(node)  # the new agent's own pod has passed the plugin while no agent was there
    assert node.plugins_loaded()[-1] == "istio-cni"
    late = started(node, "late", injected=True)
    assert from_node(node, url(late)) == f"late {ENVOY}"

    installer.uninstall()
    node.kubectl("wait", "--for=delete", "pod", *AGENTS, "--timeout=240s", within=250)
    removed(node, "early", "young", "late")
    assert all_files(node) == before
    assert [*node.seen(SOCKETS).iterdir()] == []


def test_ambient_mode_is_refused_in_the_containers_log(node: KubernetesNode, tmp_path: Path) -> None:
    node.import_images(archive())
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    helm = Helm(KUBE.folder / "helm", node, tmp_path, NAMESPACE)
    helm("install", "istio-cni", str(CHART), "--values=-", values=VALUES | {"ambient": {"enabled": True}})
    try:
        logs = ("logs", *AGENTS)
        until(
            lambda: "this agent supports sidecar mode only" in node.kubectl(*logs, check=False), 60, "its log says so"
        )
        assert node.plugins_loaded()[-1] != "istio-cni"
    finally:
        helm("uninstall", "istio-cni", "--wait")
