"""`install-cni takeover --check` beside Istio's own chart, as helm renders it, on a real API server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.chart.helm import CHART, helm
from tests.chart.istio_chart import IstiosChart
from tests.kubernetes.conftest import Node, apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

NAMESPACE = "istio-system"


class Check(Protocol):
    """Applies Istio's chart with some values, and runs the command."""

    def __call__(self, values: Mapping[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        """Run it."""


@pytest.fixture
def check(tmp_path: Path, cluster: Cluster) -> Iterator[Check]:
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    where = ("--all-namespaces", "--field-selector=metadata.name=istio-cni-node")  # other tests leave ours there
    cluster.kubectl("delete", "daemonsets", *where)

    def run(values: Mapping[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        for each in IstiosChart(tmp_path, values).objects:
            if each["kind"] == "DaemonSet":
                each["metadata"]["annotations"] = {"meta.helm.sh/release-name": "istio-cni"}  # `template` leaves it out
            if each["kind"] in ("DaemonSet", "ConfigMap"):
                apply(cluster, each)
        command = [
            sys.executable,
            "-m",
            "installer",
            "takeover",
            "--check",
            f"--kubeconfig={cluster.folder}/admin.kubeconfig",
        ]
        return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)

    yield run
    for kind in ("daemonset/istio-cni-node", "configmap/istio-cni-config"):
        cluster.kubectl("delete", kind, f"--namespace={NAMESPACE}", "--ignore-not-found")


def test_the_commands_carry_the_settings_of_istios_release_over(check: Check, node: Node, tmp_path: Path) -> None:
    for name, init in (("before", "istio-init"), ("young", "istio-validation")):
        node.start_pod(name, spec={"initContainers": [{"name": init, "image": "none"}]})
        node.cluster.kubectl("label", "pod", name, "security.istio.io/tlsMode=istio")
    values = {"cniBinDir": "/home/kubernetes/bin", "cniConfFileName": "10-calico.conflist", "excludeNamespaces": ["a", "b"],
              "repair": {"deletePods": True, "repairPods": False}, "global": {"nativeNftables": True}}  # fmt: skip
    done = check(values, "--output=json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    (agent,) = found["agents"]
    assert agent["namespace"] == NAMESPACE
    assert agent["installer"] == "helm, as release istio-cni"
    expected = {
        "cniBinDir": "/home/kubernetes/bin",
        "cniConfFileName": "10-calico.conflist",
        "excludeNamespaces": ["a", "b"],
        "redirectBackend": "nft",
        "inboundPortsDefault": "*",
        "repairMode": "delete",
        "logLevel": "info",
    }
    assert agent["values"] == expected
    assert found["pods"] == {"istioInit": {"default": 1}, "others": 1}
    taken = helm("template", "istio-cni", str(CHART), values={"cni": agent["values"]}, home=tmp_path)
    assert taken.returncode == 0, taken.stderr


def test_ambient_mode_stands_in_the_way(check: Check) -> None:
    done = check({"ambient": {"enabled": True}})
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("Something stands in the way of a take-over.\n")
    assert "this agent supports sidecar mode only" in done.stdout
    assert "helm upgrade" not in done.stdout


def test_without_check_nothing_is_done() -> None:
    done = subprocess.run([sys.executable, "-m", "installer", "takeover"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "saw no --check, expected it" in done.stderr


def test_a_cluster_that_cannot_be_reached_is_another_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "installer", "takeover", "--check"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "expected a kubeconfig" in done.stderr
