"""Istio's own chart, unchanged, with this image, by helm; and all that the page tells users of istioctl, on a whole node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from installer.version import RELEASE
from tests.chart.istio_chart import CHART
from tests.docs.istio_page import Shell, commands, without_settings
from tests.e2e.helm import Helm
from tests.e2e.istios_agent import AGENTS, NAMESPACE, VALUES, agents_hub, all_in_the_mesh, meaning, prepare, rolled_out
from tests.e2e.shop import ENVOY, from_node, removed, started, url
from tests.e2e.test_chart import SOCKETS, all_files
from tests.image.build import HUB
from tests.programs.lots import KUBE
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FILE = {  # what was given to istioctl
    "apiVersion": "install.istio.io/v1alpha1",
    "kind": "IstioOperator",
    "spec": {"profile": "empty", "components": {"cni": {"enabled": True}}, "values": {"cni": VALUES}},
}


@pytest.fixture
def shell(node: KubernetesNode, tmp_path: Path) -> Iterator[Shell]:
    """A shell on the node; in the end nothing of either agent is in the cluster."""
    prepare(node, tmp_path)
    (tmp_path / "FILE").write_text(json.dumps(FILE))
    made = Shell(tmp_path, node.kubeconfig, enter=node.enter)
    yield made
    made(f"helm uninstall istio-cni --namespace {NAMESPACE} --ignore-not-found --wait")
    made("istioctl uninstall --purge --skip-confirmation")


def gone(node: KubernetesNode) -> None:
    """Wait until no agent is left."""
    node.kubectl("wait", "--for=delete", "pod", *AGENTS, "--timeout=240s", within=250)


def test_with_nothing_but_the_image_ours_pods_are_redirected(node: KubernetesNode, shell: Shell) -> None:
    before = all_files(node)
    early = started(node, "early", injected=True)
    assert from_node(node, url(early)).startswith("early 10.244.1."), "no agent is there yet"
    for command in commands("Istio's own chart with this image", "helm upgrade"):
        shell(command)
    rolled_out(node)
    assert agents_hub(node) == HUB
    until(lambda: from_node(node, url(early)) == f"early {ENVOY}", 30, "a pod that ran before is redirected")
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded the entry")
    young = started(node, "young", injected=True)
    assert from_node(node, url(young)) == f"young {ENVOY}"

    node.kubectl("rollout", "restart", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}")
    rolled_out(node)  # the new agent's own pod has passed the plugin while no agent was there
    assert node.plugins_loaded()[-1] == "istio-cni"
    late = started(node, "late", injected=True)
    assert from_node(node, url(late)) == f"late {ENVOY}"

    shell(f"helm uninstall istio-cni --namespace {NAMESPACE}")
    gone(node)
    removed(node, "early", "young", "late")
    assert all_files(node) == before
    assert [*node.seen(SOCKETS).iterdir()] == []


def test_istioctls_agent_is_replaced_and_brought_back_and_runs_with_this_image(
    node: KubernetesNode, shell: Shell
) -> None:
    before = meaning(node)
    uninstall, install = commands("Back again", "istioctl install")
    shell(install)
    rolled_out(node)
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded Istio's entry")
    all_in_the_mesh(node, ["early"])

    *_, printed = [shell(command) for command in commands("From Istio's own CNI", "install-cni takeover")]
    replace = commands("From Istio's own CNI", "istioctl install")
    assert [*map(without_settings, printed.splitlines())] == [*map(without_settings, replace)][:-1]
    for command in replace:
        shell(command)
    assert agents_hub(node) == HUB
    all_in_the_mesh(node, ["early", "young"])

    for command in (uninstall, install):
        shell(command)
    rolled_out(node)
    assert agents_hub(node) == VALUES["hub"]
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has Istio's entry again")
    all_in_the_mesh(node, ["early", "young", "late"])

    for command in commands("Istio's own chart with this image", "istioctl install"):
        shell(command)
    rolled_out(node)
    assert agents_hub(node) == HUB
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded the entry")
    all_in_the_mesh(node, ["early", "young", "late", "last"])

    shell("istioctl uninstall --purge --skip-confirmation")
    gone(node)
    removed(node, "early", "young", "late", "last")
    assert meaning(node) == before
    assert {each.name for each in node.seen(SOCKETS).iterdir()} <= {"istio-cni.log"}


def test_ambient_mode_is_refused_in_the_containers_log(node: KubernetesNode, shell: Shell) -> None:
    helm = Helm(KUBE.folder / "helm", node, shell.folder, NAMESPACE)
    values = VALUES | {"hub": HUB, "tag": RELEASE, "ambient": {"enabled": True}}
    helm("install", "istio-cni", str(CHART), "--values=-", values=values)
    logs = ("logs", *AGENTS)
    until(lambda: "this agent supports sidecar mode only" in node.kubectl(*logs, check=False), 60, "its log says so")
    assert node.plugins_loaded()[-1] != "istio-cni"
