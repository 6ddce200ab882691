"""What the DaemonSet asks of a node, and what users can have besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chart.references import IMAGES

if TYPE_CHECKING:
    from tests.chart.conftest import Refuse, Render

pytestmark = pytest.mark.apiserver

CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_ADMIN", "NET_RAW", "SYS_ADMIN"]


def test_agent_tolerates_every_taint_and_has_a_critical_priority_class(render: Render) -> None:
    pod = render().pod
    assert pod["hostNetwork"] is True
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


OF_NODES = "requiredDuringSchedulingIgnoredDuringExecution"
NOT_FARGATE = {"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate"]}
NOT_VIRTUAL = {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}


def requires(*expressions: dict[str, Any]) -> dict[str, Any]:
    """Make the required node affinity of one term."""
    return {OF_NODES: {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}}


def test_node_selector_tolerations_and_affinity_reach_the_daemonset(render: Render, refuse: Refuse) -> None:
    toleration = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    affinity = {"nodeAffinity": requires({"key": "zone", "operator": "Exists"}), "podAntiAffinity": {}}
    given = {"nodeSelector": {"pool": "mesh"}, "tolerations": [toleration], "affinity": affinity}
    pod = render({"cni": given}).pod
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "mesh"}
    assert pod["tolerations"] == [{"operator": "Exists"}, toleration]
    assert pod["affinity"] == affinity
    assert "at '/cni/nodeSelector" in refuse({"cni": {"nodeSelector": {"cni.istio.io/parked": "true"}}})
    assert "at '/cni/affinity'" in refuse({"cni": {"affinity": {"nodeAfinity": {}}}})


@pytest.mark.parametrize(
    ("platform", "left_out"), [("eks", NOT_FARGATE), ("bottlerocket", NOT_FARGATE), ("aks", NOT_VIRTUAL), ("gke", None)]
)
def test_a_preset_excludes_nodes_that_run_no_daemonset_unless_affinity_is_given(
    render: Render, platform: str, left_out: dict[str, Any] | None
) -> None:
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    own, required = requires({"key": "a", "operator": "Exists"}), requires(left_out) if left_out else {}
    given: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"nodeAffinity": required} if required else {}),
        ({"nodeAffinity": preferred}, {"nodeAffinity": preferred | required}),
        ({"podAffinity": {"a": []}}, {"podAffinity": {"a": []}} | ({"nodeAffinity": required} if required else {})),
        ({"nodeAffinity": own}, {"nodeAffinity": own}),
    ]
    assert render({"platform": platform}).pod.get("affinity", {}) == given[0][1]
    for affinity, expected in given:
        pod = render({"platform": platform, "cni": {"affinity": affinity}}).pod
        assert pod.get("affinity", {}) == expected, affinity


def test_agent_has_only_the_privileges_that_it_needs(render: Render) -> None:
    rendered = render()
    security = rendered.container["securityContext"]
    assert security["capabilities"].keys() == {"drop", "add"}
    assert security["capabilities"]["drop"] == ["ALL"]
    assert sorted(security["capabilities"]["add"]) == CAPABILITIES
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["privileged"] is False
    assert rendered.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not rendered.pod.keys() & {"hostPID", "hostIPC", "shareProcessNamespace"}
    mounted = [each["hostPath"] for each in rendered.pod["volumes"]]
    assert mounted == [
        {"path": "/opt/cni/bin", "type": "Directory"},
        {"path": "/etc/cni/net.d", "type": "Directory"},
        {"path": "/var/run/netns", "type": "DirectoryOrCreate"},
        {"path": "/var/lib/cni", "type": "DirectoryOrCreate"},
        {"path": "/var/run/istio-cni", "type": "DirectoryOrCreate"},
    ]


@pytest.mark.parametrize("asked", [None, "HostToContainer"])
def test_agent_requires_shared_mounts_only_with_host_to_container_propagation(
    render: Render, asked: str | None
) -> None:
    values = {"cni": {"mountPropagation": asked}} if asked else {}
    mounts = {each["name"]: each for each in render(values).container["volumeMounts"]}
    propagations = {name: each["mountPropagation"] for name, each in mounts.items() if "mountPropagation" in each}
    assert propagations == dict.fromkeys(("netns-dir", "cni-bin-dir", "cni-conf-dir"), asked or "None")
    assert mounts["netns-dir"]["readOnly"] is mounts["cni-cache-dir"]["readOnly"] is True


def test_socket_path_matches_the_plugins_entry(render: Render) -> None:
    rendered = render({"cni": {"agentSocket": "/run/mesh/node/agent.sock"}})
    mounts = {each["name"]: each["mountPath"] for each in rendered.container["volumeMounts"]}
    volumes = {each["name"]: each["hostPath"]["path"] for each in rendered.pod["volumes"]}
    assert mounts["agent-socket"] == volumes["agent-socket"] == "/run/mesh/node"
    assert rendered.settings["AGENT_SOCKET"] == "/run/mesh/node/agent.sock"


PROBES = {"readinessProbe": "/readyz"}  # no other: who listens there before the agent must not have it killed


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:15014", "127.0.0.1", 15014),
        ("[::1]:1", "::1", 1),
        ("[::]:15014", None, 15014),
        ("0.0.0.0:8", None, 8),
    ],
)
def test_probes_use_the_address_where_the_agent_listens(
    render: Render, address: str, host: str | None, port: int
) -> None:
    container = render({"cni": {"healthAddress": address}}).container
    (named,) = container["ports"]
    assert named == {"name": "health", "containerPort": port}
    assert {each for each in container if each.endswith("Probe")} == {*PROBES}
    for probe, path in PROBES.items():
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"], asked.get("host")) == (path, "health", host)


def test_empty_health_address_renders_no_probes(render: Render) -> None:
    assert not render({"cni": {"healthAddress": ""}}).container.keys() & {*PROBES, "ports"}


@pytest.mark.parametrize(("hub", "tag"), IMAGES)
def test_agents_controller_and_hook_run_the_image_of_hub_and_tag(render: Render, hub: str, tag: str | int) -> None:
    rendered = render({"cni": {"hub": hub, "tag": tag}})
    (job,) = [each for each in rendered.hooks if each["kind"] == "Job"]
    (hook,) = job["spec"]["template"]["spec"]["containers"]
    (controller,) = rendered.controller["containers"]
    assert [each["image"] for each in (rendered.container, controller, hook)] == [IMAGES[hub, tag]] * 3


def test_the_default_image_has_the_charts_version_and_no_registry(render: Render) -> None:
    assert render().container["image"] == "install-cni:0.1.0"


def test_user_values_reach_their_fields_of_the_daemonset(render: Render) -> None:
    given = {
        "pullPolicy": "Never",
        "imagePullSecrets": ["a", "b"],
        "podAnnotations": {"a.example/b": "true"},
        "resources": {"limits": {"memory": "1Gi"}, "claims": [{"name": "of-a-device"}]},
        "seLinuxOptions": {"user": "u", "role": "r", "type": "t", "level": "s0"},
        "maxUnavailable": "10%",
        "psp_cluster_role": "lenient",
    }
    rendered = render({"cni": given})
    assert rendered.container["imagePullPolicy"] == "Never"
    assert rendered.pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert rendered["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]["a.example/b"] == "true"
    assert rendered.container["resources"]["limits"] == {"memory": "1Gi"}
    assert rendered.container["resources"]["claims"] == [{"name": "of-a-device"}]
    assert rendered.pod["securityContext"]["seLinuxOptions"] == given["seLinuxOptions"]
    assert rendered["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    assert rendered["RoleBinding"]["roleRef"]["name"] == "lenient"


def test_a_changed_setting_restarts_agents_and_an_equal_upgrade_does_not(render: Render) -> None:
    template = render()["DaemonSet"]["spec"]["template"]
    assert render({"cni": {"logLevel": "info"}})["DaemonSet"]["spec"]["template"] != template
    assert template["metadata"]["labels"].keys() == {"k8s-app", "app.kubernetes.io/name", "sidecar.istio.io/inject"}


def test_pod_monitors_need_a_reachable_health_address(render: Render, refuse: Refuse) -> None:
    monitor: dict[str, Any] = {"enabled": True, "labels": {"release": "prometheus"}}
    said = refuse({"cni": {"podMonitor": monitor}})
    assert "cni.podMonitor.enabled" in said
    assert "127.0.0.1:15014" in said
    rendered = render({"cni": {"podMonitor": monitor, "healthAddress": "0.0.0.0:15014"}})
    assert rendered["PodMonitor"]["metadata"]["labels"]["release"] == "prometheus"
    spec = rendered["PodMonitor"]["spec"]
    assert spec["podMetricsEndpoints"] == [{"port": "health", "path": "/metrics", "interval": "30s"}]
    assert spec["selector"] == rendered["DaemonSet"]["spec"]["selector"]
    assert [
        each["spec"]["selector"]["matchLabels"]["k8s-app"] for each in rendered.objects if each["kind"] == "PodMonitor"
    ] == ["istio-cni-node", "istio-cni-controller"]
    often = render({"cni": {"podMonitor": monitor | {"interval": "1m30s"}, "healthAddress": "0.0.0.0:15014"}})
    assert often["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["interval"] == "1m30s"
    assert "PodMonitor" not in render({"cni": {"healthAddress": "0.0.0.0:15014"}}).kinds


def test_a_network_policy_admits_the_configured_scrapers(render: Render) -> None:
    collectors = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
    policy = {"enabled": True, "from": collectors}
    given = {"networkPolicy": policy, "healthAddress": "[::]:15014"}
    (rule,) = render({"cni": given})["NetworkPolicy"]["spec"]["ingress"]
    assert rule == {"ports": [{"port": 15014, "protocol": "TCP"}], "from": collectors}
    assert render({"cni": {"networkPolicy": policy}})["NetworkPolicy"]["spec"]["ingress"] == []
