"""Each platform has what its nodes need, and what a user says wins over it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.cniconfig import conflist
from installer.config.settings import build_entry, declarations, parse_settings
from tests.chart.helm import CHART, PLATFORMS, read_schema

if TYPE_CHECKING:
    from tests.chart.conftest import Render

pytestmark = pytest.mark.apiserver

USUAL = ("/opt/cni/bin", "/etc/cni/net.d")
DIRECTORIES = {
    "gke": ("/home/kubernetes/bin", "/etc/cni/net.d"),  # the 2019 guide's table, and so are the next five
    "iks": USUAL,
    "eks": USUAL,
    "aks": USUAL,
    "openshift-3.10": USUAL,
    "openshift-4": ("/var/lib/cni/bin", "/etc/cni/multus/net.d"),  # its bin; where Multus looks
    "k3s": ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
    "k3d": ("/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
    "microk8s": ("/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network"),
    "minikube": USUAL,
    "kind": USUAL,
    "talos": USUAL,
    "bottlerocket": USUAL,
}
PRIVATE = {"k3d", "k3s", "microk8s"}  # whose nodes' mounts may be so
IN_KUBE_SYSTEM = ("openshift-4", "talos")
LABELLED = {"openshift-3.10": "spc_t", "openshift-4": "spc_t", "bottlerocket": "super_t"}
ALWAYS = [
    "ClusterRole", "ClusterRoleBinding", "DaemonSet", "ServiceAccount",
    *["ValidatingAdmissionPolicy"] * 2, *["ValidatingAdmissionPolicyBinding"] * 2,
]  # fmt: skip
BESIDES = {"gke": ["ResourceQuota", "ResourceQuota"], "openshift-4": ["NetworkAttachmentDefinition", "RoleBinding"]}


def test_every_platform_preset_is_covered() -> None:
    assert sorted(DIRECTORIES) == PLATFORMS


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_preset_sets_directories_namespace_and_label(render: Render, platform: str) -> None:
    rendered = render({"platform": platform, "cni": {"controller": {"enabled": False}}})
    mounts = {each["name"]: each["mountPath"] for each in rendered.container["volumeMounts"]}
    volumes = {each["name"]: each["hostPath"]["path"] for each in rendered.pod["volumes"]}
    assert (volumes["cni-bin-dir"], volumes["cni-conf-dir"]) == DIRECTORIES[platform]
    assert (mounts["cni-bin-dir"], mounts["cni-conf-dir"]) == ("/host/cni-bin-dir", "/host/cni-conf-dir")
    propagation = {
        each["mountPropagation"] for each in rendered.container["volumeMounts"] if "mountPropagation" in each
    }
    assert propagation == {"None" if platform in PRIVATE else "HostToContainer"}
    assert rendered.settings["MOUNTS"] == "/host"
    assert rendered.settings["CNI_BIN_DIR"] == volumes["cni-bin-dir"]
    assert rendered.settings["CNI_CONF_DIR"] == volumes["cni-conf-dir"]
    namespaces = {
        each["metadata"].get("namespace")
        for each in rendered.objects
        if each["kind"] != "NetworkAttachmentDefinition" and not each["metadata"]["name"].endswith("-events")
    }
    assert namespaces == {None, "kube-system" if platform in IN_KUBE_SYSTEM else "istio-system"}
    assert rendered.pod["securityContext"].get("seLinuxOptions", {}).get("type") == LABELLED.get(platform)
    assert rendered.kinds == sorted(ALWAYS + BESIDES.get(platform, []))


@pytest.mark.parametrize("name", [*PLATFORMS, "default"])
def test_a_preset_names_its_source_and_sets_known_values_only(name: str) -> None:
    text = (CHART / "platforms" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    content = yaml.safe_load(text)
    assert content.keys() <= {"cni", "notes"}
    left_to_it = set(yaml.safe_load((CHART / "platforms" / "default.yaml").read_text())["cni"])
    assert content["cni"].keys() <= left_to_it, "values.yaml would win over it"
    assert left_to_it <= read_schema()["properties"]["cni"]["properties"].keys()


GIVEN: list[tuple[str, dict[str, Any]]] = [
    ("gke", {"cniBinDir": "/opt/cni/bin", "resourceQuota": {"enabled": False}}),
    (
        "openshift-4",
        {"chained": True, "psp_cluster_role": "", "multus": {"enabled": False}, "namespace": "", "seLinuxOptions": {}},
    ),
]


@pytest.mark.parametrize(("platform", "given"), GIVEN)
def test_explicit_values_override_the_preset_even_if_default_or_empty(
    render: Render, platform: str, given: dict[str, Any]
) -> None:
    rendered = render({"platform": platform, "cni": given | {"controller": {"enabled": False}}})
    assert rendered.kinds == ALWAYS
    assert rendered["DaemonSet"]["metadata"]["namespace"] == "istio-system"
    assert "seLinuxOptions" not in rendered.pod["securityContext"]
    expected = given.get("cniBinDir", DIRECTORIES[platform][0])
    assert rendered.settings["CNI_BIN_DIR"] == expected


def test_the_quota_is_rendered_outside_kube_system_only(render: Render) -> None:
    scope = {
        "scopeName": "PriorityClass",
        "operator": "In",
        "values": ["system-node-critical"],
    }
    rendered = render({"platform": "gke", "cni": {"resourceQuota": {"enabled": True, "pods": 1000000}}})
    assert rendered["ResourceQuota"]["spec"] == {
        "hard": {"pods": "1000000"},
        "scopeSelector": {"matchExpressions": [scope]},
    }
    of_controller = rendered.of_controller("ResourceQuota")["spec"]
    assert of_controller["scopeSelector"]["matchExpressions"] == [scope | {"values": ["system-cluster-critical"]}]
    assert "ResourceQuota" not in render({"platform": "gke", "cni": {"namespace": "kube-system"}}).kinds


def test_the_network_attachment_names_the_configuration_that_the_agent_writes(render: Render) -> None:
    rendered = render({"platform": "openshift-4", "cni": {"logLevel": "info"}})
    attachment = rendered["NetworkAttachmentDefinition"]
    assert (attachment["metadata"]["namespace"], attachment["metadata"]["name"]) == ("default", "istio-cni")
    assert "spec" not in attachment, "else Multus would take the configuration from there, and not the one that is kept"
    names = {each.variable: each.name for each in declarations()}
    agent = parse_settings({names[variable]: text for variable, text in rendered.settings.items()})
    assert not agent.chained
    written = json.loads(conflist.standalone(build_entry(agent)))
    assert (written["name"], written["type"], written["plugin_log_level"]) == ("istio-cni", "istio-cni", "info")
    assert min(written) == next(iter(written)) == "agentSocket"


def test_openshift_4_admits_the_agent(render: Render) -> None:
    binding = render({"platform": "openshift-4"})["RoleBinding"]
    assert binding["roleRef"]["name"] == "system:openshift:scc:privileged"
    account = {"kind": "ServiceAccount", "name": "istio-cni-node", "namespace": "kube-system"}
    assert binding["subjects"] == [account]
