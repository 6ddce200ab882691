"""What the chart makes of the controller: its pod has no rights on the node, runs where nothing else can, and can be ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from installer import main as cli
from installer.controller.taints import KEY
from tests.chart.helm import CHART

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.chart.conftest import Applied, Refuse, Release, Render
    from tests.chart.helm import Rendered

pytestmark = pytest.mark.apiserver

PROBES = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


def container(rendered: Rendered) -> dict[str, Any]:
    (only,) = rendered.controller["containers"]
    found: dict[str, Any] = only
    return found


def settings(rendered: Rendered) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(rendered)["env"] if "value" in each}


def test_controller_runs_as_nobody_without_host_access(render: Render) -> None:
    rendered = render()
    assert rendered.controller["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(rendered)["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not rendered.controller.keys() & {"hostNetwork", "hostPID", "hostIPC", "volumes", "shareProcessNamespace"}
    assert "volumeMounts" not in container(rendered)


@pytest.mark.parametrize(("whose", "refused"), [("Deployment", ""), ("DaemonSet", "violates PodSecurity")])
def test_restricted_pod_security_admits_the_controller_and_rejects_the_agent(
    release: Release, render: Render, apply: Applied, whose: str, refused: str
) -> None:
    labels = [f"{key}={value}" for key, value in RESTRICTED.items()]
    release.cluster.kubectl("label", "namespace", release.namespace, *labels)
    done = apply(pod(render({}, f"--namespace={release.namespace}"), whose), "--dry-run=server", "--validate=strict")
    assert (done.returncode == 0) is not bool(refused)
    assert refused in done.stderr


def pod(rendered: Rendered, whose: str) -> dict[str, Any]:
    """Make a pod as the controller of a Deployment or DaemonSet does."""
    (of,) = [each for each in rendered.objects if each["kind"] == whose]
    metadata = {"name": "a-pod", "namespace": of["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": of["spec"]["template"]["spec"]}


def test_controller_tolerates_its_taints_and_prefers_control_plane_nodes(render: Render) -> None:
    spec = render().controller
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    tolerated = [KEY, "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"]
    assert spec["tolerations"] == [{"key": key, "operator": "Exists"} for key in tolerated]
    (only,) = spec["affinity"]
    preferred = spec["affinity"][only]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert only == "nodeAffinity"
    assert [each["preference"]["matchExpressions"] for each in preferred] == [
        [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]
    ]


def test_the_api_server_accepts_the_placement_of_the_controller(release: Release) -> None:
    expression = {"key": "pool", "operator": "In", "values": ["trusted"]}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}
    toleration = {"key": "trusted", "operator": "Exists", "effect": "NoExecute"}
    placed = {"nodeSelector": {"a": "b"}, "affinity": affinity, "tolerations": [toleration]}
    release.helm("install", "istio-cni", str(CHART), values={"cni": {"controller": placed}})
    where = f"--namespace={release.namespace}"
    found = json.loads(release.cluster.kubectl("get", "deployment", "istio-cni-controller", where, "--output=json"))
    spec = found["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "a": "b"}
    assert spec["affinity"] == affinity, "in place of its own"
    assert [each["key"] for each in spec["tolerations"]][-1] == "trusted"
    assert len(spec["tolerations"]) == 4


def test_controller_uses_its_own_service_account_and_is_never_injected(render: Render) -> None:
    rendered = render()
    assert rendered.controller["serviceAccountName"] == rendered.of_controller("ServiceAccount")["metadata"]["name"]
    assert rendered.controller["automountServiceAccountToken"] is True
    assert rendered.of_controller("ServiceAccount")["automountServiceAccountToken"] is False
    labels = rendered.of_controller("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["sidecar.istio.io/inject"] == "false"
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        binding = rendered.of_controller(kind)
        assert binding["roleRef"]["name"] == "istio-cni-controller"
        account = {"kind": "ServiceAccount", "name": "istio-cni-controller", "namespace": "istio-system"}
        assert binding["subjects"] == [account]


@pytest.mark.parametrize(("address", "port"), [(None, 15014), ("[::]:1234", 1234), ("0.0.0.0:8", 8)])
def test_probes_use_the_address_where_the_controller_listens(render: Render, address: str | None, port: int) -> None:
    given = {"healthAddress": address} if address else {}
    rendered = render({"cni": {"controller": given, "networkPolicy": {"enabled": True}}})
    of = container(rendered)
    assert settings(rendered)["HEALTH_ADDRESS"] == (address or "0.0.0.0:15014")
    assert of["ports"] == [{"name": "health", "containerPort": port}]
    assert {name: of[name]["httpGet"] for name in PROBES} == {
        name: {"path": path, "port": "health"} for name, path in PROBES.items()
    }
    (rule,) = rendered.of_controller("NetworkPolicy")["spec"]["ingress"]
    assert rule == {"ports": [{"port": port, "protocol": "TCP"}]}


def test_probes_allow_a_minute_to_start_and_one_slow_answer(render: Render) -> None:
    of = container(render())
    assert of["startupProbe"]["periodSeconds"] * of["startupProbe"]["failureThreshold"] >= 60
    assert of["livenessProbe"]["failureThreshold"] > 1
    assert of["livenessProbe"]["timeoutSeconds"] == of["readinessProbe"]["timeoutSeconds"] == 5


def test_disruption_budget_allows_eviction_of_the_controller(render: Render) -> None:
    rendered = render()
    deployment, budget = rendered.of_controller("Deployment"), rendered.of_controller("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] >= deployment["spec"]["replicas"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not is_selected(rendered["DaemonSet"], budget["spec"]["selector"]), "agents are not in its budget"


def is_selected(workload: Mapping[str, Any], selector: Mapping[str, Any]) -> bool:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return bool(selector["matchLabels"].items() <= labels.items())


def test_network_policies_select_their_own_pods_and_allow_the_configured_peers(render: Render) -> None:
    collectors = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]
    given = {"networkPolicy": {"enabled": True, "from": collectors}, "healthAddress": "0.0.0.0:15015"}
    rendered = render({"cni": given})
    policies = [(rendered["NetworkPolicy"], 15015), (rendered.of_controller("NetworkPolicy"), 15014)]
    own = [rendered["DaemonSet"], rendered.of_controller("Deployment")]
    for (policy, port), workload in zip(policies, own, strict=True):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert policy["spec"]["ingress"] == [{"ports": [{"port": port, "protocol": "TCP"}], "from": collectors}]
        assert [is_selected(each, policy["spec"]["podSelector"]) for each in own] == [each is workload for each in own]


def test_the_api_server_accepts_both_network_policies(release: Release) -> None:
    given = {"networkPolicy": {"enabled": True, "from": [{"podSelector": {}}]}, "healthAddress": "0.0.0.0:15014"}
    release.helm("install", "istio-cni", str(CHART), values={"cni": given})
    found = release.cluster.kubectl("get", "networkpolicies", f"--namespace={release.namespace}", "--output=name")
    assert [each.rpartition("/")[2] for each in found.split()] == ["istio-cni-controller", "istio-cni-node"]


def test_network_policies_are_off_by_default(render: Render) -> None:
    assert "NetworkPolicy" not in render().kinds
    alone = render({"cni": {"networkPolicy": {"enabled": True}, "controller": {"enabled": False}}})
    assert alone.kinds.count("NetworkPolicy") == 1


def test_disabled_controller_renders_none_of_its_objects(render: Render) -> None:
    rendered = render({"cni": {"controller": {"enabled": False}, "taint": {"enabled": True}}})
    assert "istio-cni-controller" not in {each["metadata"]["name"] for each in rendered.objects}
    assert "Deployment" not in rendered.kinds


GIVEN: list[tuple[dict[str, Any], str, str]] = [
    ({}, "DEADLINE", "300"),
    ({"controller": {"deadline": 0}}, "DEADLINE", "0"),
    ({"controller": {"deadline": 1000000}}, "DEADLINE", "1000000"),
    ({}, "TAINT_NEW_NODES", "false"),
    ({"taint": {"enabled": True}}, "TAINT_NEW_NODES", "true"),
    ({"logLevel": "debug"}, "LOG_LEVEL", "debug"),
]


@pytest.mark.parametrize(("given", "variable", "text"), GIVEN)
def test_controller_settings_come_from_the_values(
    render: Render, given: dict[str, Any], variable: str, text: str
) -> None:
    assert settings(render({"cni": given}))[variable] == text


def test_controller_gets_each_setting_in_the_variable_that_it_reads(render: Render) -> None:
    (command,) = container(render())["args"]
    read = {each.envvar: each for each in cli.main.commands[command].params if isinstance(each.envvar, str)}
    told = settings(render({"cni": {"taint": {"enabled": True}}}))
    names = {each["name"] for each in container(render())["env"]}
    assert names == read.keys() - {"KUBECONFIG"}
    assert read["TAINT_NEW_NODES"].type.convert(told["TAINT_NEW_NODES"], None, None) is True
    assert read["DEADLINE"].type.convert(told["DEADLINE"], None, None) == 300


def test_controller_image_and_resources_come_from_the_values(render: Render) -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    given = {
        "hub": "h",
        "tag": 5,
        "pullPolicy": "Never",
        "imagePullSecrets": ["a"],
        "controller": {"resources": resources},
    }
    rendered = render({"cni": given})
    of = container(rendered)
    assert (of["image"], of["imagePullPolicy"], of["resources"]) == ("h/install-cni:5", "Never", resources)
    assert rendered.controller["imagePullSecrets"] == [{"name": "a"}]
    assert container(render())["resources"] == {"requests": {"cpu": "20m", "memory": "128Mi"}}


@pytest.mark.parametrize(
    ("given", "may_bind"),
    [
        ({}, None),
        ({"psp_cluster_role": "a"}, ["a"]),
        ({"controller": {"mayBind": ["b", "a"]}, "psp_cluster_role": "a"}, ["b", "a"]),
    ],
)
def test_controller_may_bind_only_the_configured_roles(
    render: Render, given: dict[str, Any], may_bind: list[str] | None
) -> None:
    rules = render({"cni": given}).of_controller("Role")["rules"]
    bind = [rule for rule in rules if "bind" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in bind] == ([may_bind] if may_bind else [])
    creates = [rule for rule in rules if rule["resources"] == ["rolebindings"] and "create" in rule["verbs"]]
    assert len(creates) == len(bind)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"healthAddress": ""}, "at '/cni/controller/healthAddress'"),
        ({"healthAddress": "0.0.0.0:0"}, "at '/cni/controller/healthAddress'"),
        ({"healthAddress": "127.0.0.1:15014"}, "which the kubelet cannot reach in a pod"),
        ({"deadline": -1}, "at '/cni/controller/deadline'"),
        ({"replicas": 2}, "'replicas'"),
        ({"mayBind": "a"}, "at '/cni/controller/mayBind'"),
        ({"allowedHubs": "a"}, "at '/cni/controller/allowedHubs'"),
        ({"allowedHubs": [""]}, "at '/cni/controller/allowedHubs/0'"),
        ({"allowedDirectories": ["/"]}, "at '/cni/controller/allowedDirectories/0'"),
        ({"nodeSelector": {"a": True}}, "at '/cni/controller/nodeSelector/a'"),
        ({"tolerations": {}}, "at '/cni/controller/tolerations'"),
    ],
)
def test_invalid_controller_value_is_rejected(refuse: Refuse, wrong: dict[str, Any], said: str) -> None:
    assert said in refuse({"cni": {"controller": wrong}})
