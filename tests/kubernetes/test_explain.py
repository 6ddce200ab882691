"""`install-cni explain pod` and `install-cni trace` with the node agent's own rights at a real API server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node

PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts"


def install_cni(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "installer", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_pod_of_the_cluster_is_explained_by_its_status_too(node: Node, kubeconfig: Path) -> None:
    node.start_pod("explained", {PORTS: "5432"})
    addresses = {"podIP": "fd00::7", "podIPs": [{"ip": "fd00::7"}, {"ip": "10.0.0.7"}]}
    node.cluster.core.patch_namespaced_pod_status("explained", "default", {"status": addresses})
    done = install_cni("explain", "pod", "default/explained", "--kubeconfig", kubeconfig, "-o", "json")
    assert done.returncode == 0, done.stderr
    (explained,) = json.loads(done.stdout)
    assert (explained["decision"], explained["kind"]) == ("redirect", "Pod")
    values = {each["name"]: (each["value"], each["origin"]) for each in explained["parameters"]}
    assert values["families"] == (["IPv4", "IPv6"], "addresses")
    assert values["exclude_outbound_ports"] == ([5432], "annotation")


def test_a_packet_to_a_pod_of_the_cluster_is_traced(node: Node, kubeconfig: Path) -> None:
    node.start_pod("traced", {"traffic.sidecar.istio.io/includeInboundPorts": "8080"})
    node.cluster.core.patch_namespaced_pod_status("traced", "default", {"status": {"podIPs": [{"ip": "10.0.0.8"}]}})
    done = install_cni("trace", "default/traced", "--to", "10.0.0.8:8080", "--kubeconfig", kubeconfig)
    assert done.returncode == 0, done.stderr
    assert "from outside by eth0" in done.stdout
    assert "The packet arrives at port 15006 of the sidecar" in done.stdout


def test_a_pod_that_is_not_there_is_an_error_in_a_line(kubeconfig: Path) -> None:
    done = install_cni("explain", "pod", "default/nobody", "--kubeconfig", kubeconfig)
    assert (done.returncode, done.stderr) == (1, "Error: the cluster has no pod default/nobody\n")
