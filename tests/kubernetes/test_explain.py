"""`install-cni explain pod` and `install-cni trace` with the node agent's own rights at a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.control_plane import GROUP, KIND, PLURAL, VERSION
from installer.kube.credentials import SERVICE_ACCOUNT
from tests.kubernetes.conftest import CHART, DAEMONSET, NAMESPACE, apply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

MESH = "IstioControlPlane default/mesh"
CHARTS = {  # as an agent's pod has them in its environment
    "DAEMONSET": f"{NAMESPACE}/istio-cni-node",
    "EXCLUDE_NAMESPACES": "istio-system,kube-system",
    "REDIRECT_BACKEND": "auto",
    "INBOUND_PORTS_DEFAULT": "containerPorts",
    "IPV6": "never",
}
PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts"


def install_cni(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it without a kubeconfig of somebody's own."""
    command = [sys.executable, "-m", "installer", *map(str, words)]
    own = {name: text for name, text in os.environ.items() if name != "KUBECONFIG"}
    environment = {**own, "HOME": "/nowhere", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_explain_reads_the_pods_status(node: Node, kubeconfig: Path) -> None:
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


def test_trace_follows_a_packet_to_a_pod_of_the_cluster(node: Node, kubeconfig: Path) -> None:
    node.start_pod("traced", {"traffic.sidecar.istio.io/includeInboundPorts": "8080"})
    node.cluster.core.patch_namespaced_pod_status("traced", "default", {"status": {"podIPs": [{"ip": "10.0.0.8"}]}})
    done = install_cni("trace", "default/traced", "--to", "10.0.0.8:8080", "--kubeconfig", kubeconfig)
    assert done.returncode == 0, done.stderr
    assert "from outside by eth0" in done.stdout
    assert "The packet arrives at port 15006 of the sidecar" in done.stdout


def test_a_missing_pod_is_a_one_line_error(kubeconfig: Path) -> None:
    done = install_cni("explain", "pod", "default/nobody", "--kubeconfig", kubeconfig)
    assert (done.returncode, done.stderr) == (1, "Error: the cluster has no pod default/nobody\n")


def test_a_namespace_may_be_given_by_itself(node: Node, kubeconfig: Path) -> None:
    node.start_pod("named")
    for words in (("explain", "pod", "named"), ("trace", "named", "--to", "10.96.0.1:443")):
        done = install_cni(*words, "-n", "default", "--kubeconfig", kubeconfig)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("default/named: ")


def test_login_works_as_with_kubectl(tmp_path: Path, cluster: Cluster, node: Node, kubeconfig: Path) -> None:
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


def test_a_missing_right_is_named(cluster: Cluster, node: Node) -> None:
    cluster.service_account("default", "no-rights")
    stranger = cluster.kubeconfig("no-rights", token=cluster.token("default", "no-rights"))
    done = install_cni("explain", "pod", "default/any", "--kubeconfig", stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        'pod default/any: 403: pods "any" is forbidden: User "system:serviceaccount:default:no-rights"' in done.stderr
    )
    assert "expected the right to get pods" in done.stderr


def test_an_unreachable_api_server_is_a_one_line_error(cluster: Cluster) -> None:
    nobody = cluster.kubeconfig("nobody", token="none", port=1)  # noqa: S106
    done = install_cni("explain", "pod", "default/any", "--kubeconfig", nobody)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: https://127.0.0.1:1 (")


@pytest.fixture
def pod(node: Node) -> str:
    """A meshed pod."""
    node.start_pod("meshed")
    return "default/meshed"


@pytest.fixture
def planes(cluster: Cluster, served: Path) -> Iterator[Path]:
    """The agent's rights in a cluster where this test's IstioControlPlanes are the only ones."""
    yield served
    cluster.kubectl("delete", "icp", "--all", "--namespace=default")


def control_plane(cluster: Cluster, name: str = "mesh", *, enabled: bool = True, **cni: Any) -> None:
    spec = {"cni": {"enabled": enabled}, "values": {"cni": cni}}
    metadata = {"name": name, "namespace": "default"}
    apply(cluster, {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec})


def explained(pod: str, kubeconfig: Path, *words: str, **environment: str) -> dict[str, Any]:
    done = install_cni("explain", "pod", pod, "--kubeconfig", kubeconfig, "-o", "json", *words, **environment)
    assert done.returncode == 0, done.stderr
    (explanation,) = json.loads(done.stdout)
    assert isinstance(explanation, dict)
    return explanation


def by_whom(explanation: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {each["key"]: (each["value"], each["by"]) for each in explanation["settings"]}


def test_a_namespace_that_the_resource_excludes_is_excluded_by_it(cluster: Cluster, pod: str, planes: Path) -> None:
    control_plane(cluster, excludeNamespaces=["istio-system", "default"])
    told = explained(pod, planes, **CHARTS)
    assert (told["decision"], told["row"]) == ("pass", "excluded")
    assert told["reason"] == f"namespace default is excluded by {MESH}"
    assert by_whom(told)["excludeNamespaces"] == (["istio-system", "default"], MESH)
    assert by_whom(told)["ipv6"] == ("never", "the environment")
    assert by_whom(told)["redirectBackend"] == ("auto", "default")
    warning, *_ = told["warnings"]
    assert "its sidecar gets no traffic" in warning
    done = install_cni("trace", pod, "--to", "10.96.0.1:443", "--kubeconfig", planes, **CHARTS)
    assert done.stdout.startswith(f"{pod}: PASS: namespace default is excluded by {MESH}\n")


def test_inbound_ports_and_backend_of_the_resource_are_in_force(cluster: Cluster, pod: str, planes: Path) -> None:
    control_plane(cluster, inboundPortsDefault="*", redirectBackend="iptables-legacy")
    done = install_cni("explain", "pod", pod, "--kubeconfig", planes, **CHARTS)
    assert "includeInboundPorts      * (setting)\n" in done.stdout
    assert f"  * (by {MESH})\n" in done.stdout
    rules = install_cni("explain", "pod", pod, "--kubeconfig", planes, "-o", "rules", **CHARTS).stdout
    assert "# iptables-restore --noflush" in rules
    assert f"# redirectBackend  iptables-legacy (by {MESH})\n" in rules
    to = ("--to", "10.0.0.9:9090", "--inbound")
    walked = install_cni("trace", pod, *to, "--kubeconfig", planes, **CHARTS).stdout
    assert "arrives at port 15006" in walked
    assert f"  inboundPortsDefault  * (by {MESH})\n" in walked


def test_command_line_options_override_and_are_named(cluster: Cluster, pod: str, planes: Path) -> None:
    control_plane(cluster, excludeNamespaces=["default"], inboundPortsDefault="*")
    told = explained(pod, planes, "--exclude-namespaces", "", "--ipv6", "auto", **CHARTS)
    assert told["decision"] == "redirect"
    said = by_whom(told)
    assert (said["excludeNamespaces"], said["ipv6"]) == (([], "--exclude-namespaces"), ("auto", "--ipv6"))
    assert said["inboundPortsDefault"] == ("*", MESH)


def test_a_removed_plugin_redirects_nothing(cluster: Cluster, pod: str, planes: Path) -> None:
    control_plane(cluster, enabled=False)
    told = explained(pod, planes, **CHARTS)
    assert (told["decision"], told["row"], told["parameters"]) == ("pass", "not-installed", [])
    assert told["reason"] == (f"the plugin is not installed, so nothing is redirected: {MESH} says enabled: false")
    assert "its sidecar gets no traffic" in told["warnings"][0]
    done = install_cni("trace", pod, "--to", "10.96.0.1:443", "--kubeconfig", planes, **CHARTS)
    assert "the plugin is not installed" in done.stdout
    assert "The packet passes unchanged" in done.stdout


def test_the_oldest_resource_takes_precedence_and_an_invalid_one_is_named(
    cluster: Cluster, pod: str, planes: Path
) -> None:
    path = cluster.folder / "wrong.json"
    spec = {"cni": {"enabled": True}, "unvalidatedValues": {"cni": {"ipv6": "sometimes"}}}
    metadata = {"name": "mesh", "namespace": "default"}
    path.write_text(json.dumps({"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec}))
    cluster.kubectl("apply", "--server-side", "--filename", str(path))
    control_plane(cluster, "younger", excludeNamespaces=["default"])
    told = explained(pod, planes, **CHARTS)
    assert told["decision"] == "redirect"
    warning, *_ = told["warnings"]
    assert warning.startswith(f"{MESH} is invalid, spec.unvalidatedValues.cni.ipv6: saw 'sometimes'")


def test_without_the_kind_the_charts_settings_apply_with_a_warning(cluster: Cluster, pod: str, served: Path) -> None:
    cluster.kubectl("delete", "crd", f"{PLURAL}.{GROUP}")
    try:
        told = explained(pod, served, **CHARTS)
        done = install_cni("trace", pod, "--to", "10.96.0.1:443", "--kubeconfig", served, **CHARTS)
    finally:
        cluster.kubectl("apply", "--server-side", "--filename", str(CHART / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}", "--timeout=30s")
    assert told["decision"] == "redirect"
    warning, *_ = told["warnings"]
    assert warning.startswith(f"the cluster has no definition of {PLURAL}.{GROUP}")
    assert (done.returncode, done.stderr) == (0, f"warning: {warning}\n")


def test_without_the_right_to_list_resources_the_warning_names_it(cluster: Cluster, pod: str, planes: Path) -> None:
    control_plane(cluster, excludeNamespaces=["default"])
    cluster.service_account("default", "gets-pods", verbs="get", resource="pods")
    kubeconfig = cluster.kubeconfig("gets-pods", token=cluster.token("default", "gets-pods"))
    told = explained(pod, kubeconfig, **CHARTS)
    assert told["decision"] == "redirect"
    warning, *_ = told["warnings"]
    assert "cannot list the IstioControlPlanes" in warning
    assert f"--resource={PLURAL}.{GROUP}" in warning
    assert "--serviceaccount=default:gets-pods" in warning


def test_the_charts_settings_are_read_from_its_daemonset(cluster: Cluster, pod: str, planes: Path) -> None:
    alone = explained(pod, planes)  # an agent's rights, and not in its pod
    warning, *_ = alone["warnings"]
    assert "cannot read the chart's settings" in warning
    assert "assuming the defaults" in warning
    options = (
        "--exclude-namespaces",
        "",
        "--redirect-backend",
        "nft",
        "--inbound-ports-default",
        "*",
        "--ipv6",
        "auto",
    )
    assert explained(pod, planes, *options)["warnings"] == []  # nothing of the chart's is needed then
    daemonset = deepcopy(DAEMONSET)
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    data = {**CHARTS, "INBOUND_PORTS_DEFAULT": "*"}
    container["env"] = [{"name": name, "value": value} for name, value in data.items()]
    apply(cluster, daemonset)
    control_plane(cluster, ipv6="always")
    try:
        told = explained(pod, cluster.folder / "admin.kubeconfig")
    finally:
        apply(cluster, DAEMONSET)
    assert told["warnings"] == []
    said = by_whom(told)
    assert said["inboundPortsDefault"] == ("*", f"DaemonSet {NAMESPACE}/istio-cni-node")
    assert said["ipv6"] == ("always", MESH)
    assert said["excludeNamespaces"][1] == "default"


def test_explain_runs_in_an_agents_pod(tmp_path: Path, cluster: Cluster, pod: str, planes: Path) -> None:
    """By what the kubelet puts there, and with the agent's own rights: nothing has to be given."""
    control_plane(cluster, inboundPortsDefault="*")
    (user,) = json.loads(planes.read_text())["users"]
    (tmp_path / "token").write_text(user["user"]["token"])
    (tmp_path / "ca.crt").write_bytes(cluster.certificate.read_bytes())
    mounted = 'mount -t tmpfs none /run && mkdir -p $1 && cp $2/token $2/ca.crt $1 && shift 2 && exec "$@"'
    inside = ["/usr/bin/unshare", "--mount", "/bin/sh", "-ec", mounted, "sh", str(SERVICE_ACCOUNT), str(tmp_path)]
    command = [*inside, sys.executable, "-m", "installer", "explain", "pod", pod, "-o", "json"]
    server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **server, **CHARTS}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["decision"], told["warnings"]) == ("redirect", [])
    assert by_whom(told)["inboundPortsDefault"] == ("*", MESH)
