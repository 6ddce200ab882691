"""`install-cni explain pod` and `install-cni trace` with the node agent's own rights at a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts"


def install_cni(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it without a kubeconfig of somebody's own."""
    command = [sys.executable, "-m", "installer", *map(str, words)]
    own = {name: text for name, text in os.environ.items() if name != "KUBECONFIG"}
    environment = {**own, "HOME": "/nowhere", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


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


def test_a_namespace_may_be_given_by_itself(node: Node, kubeconfig: Path) -> None:
    node.start_pod("named")
    for words in (("explain", "pod", "named"), ("trace", "named", "--to", "10.96.0.1:443")):
        done = install_cni(*words, "-n", "default", "--kubeconfig", kubeconfig)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("default/named: ")


def test_it_logs_in_as_kubectl_does(tmp_path: Path, cluster: Cluster, node: Node, kubeconfig: Path) -> None:
    """A program that logs in (GKE, EKS), a context that is not the current one, KUBECONFIG of two files, ~/.kube/config."""
    node.start_pod("seen")
    config = json.loads(kubeconfig.read_text())
    (user,) = config["users"]
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": user["user"]["token"]},
    }
    program = {"apiVersion": credential["apiVersion"], "command": "/bin/echo", "args": [json.dumps(credential)]}
    user["user"] = {"exec": {**program, "interactiveMode": "Never"}}
    contexts = tmp_path / "contexts"
    contexts.write_text(json.dumps({**config, "users": [], "current-context": ""}))
    users = tmp_path / ".kube" / "config"
    users.parent.mkdir()
    users.write_text(json.dumps({**config, "contexts": [], "clusters": []}))
    several = f"{contexts}:{users}"
    done = install_cni("explain", "pod", "default/seen", "--context", "tests", KUBECONFIG=several)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "default/seen"), done.stderr
    users.write_text(json.dumps(config))
    done = install_cni("trace", "default/seen", "--to", "10.96.0.1:443", HOME=str(tmp_path))
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "default/seen"), done.stderr


def test_a_right_that_is_missing_is_named(cluster: Cluster, node: Node) -> None:
    cluster.service_account("default", "no-rights")
    stranger = cluster.kubeconfig("no-rights", token=cluster.token("default", "no-rights"))
    done = install_cni("explain", "pod", "default/any", "--kubeconfig", stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        'pod default/any: 403: pods "any" is forbidden: User "system:serviceaccount:default:no-rights"' in done.stderr
    )
    assert "expected the right to get pods" in done.stderr


def test_an_api_server_that_is_not_there_is_an_error_in_a_line(cluster: Cluster) -> None:
    nobody = cluster.kubeconfig("nobody", token="none", port=1)  # noqa: S106
    done = install_cni("explain", "pod", "default/any", "--kubeconfig", nobody)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: https://127.0.0.1:1 (")
