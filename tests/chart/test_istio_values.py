"""A values file of Istio's own chart, given to ours as it is: each value is translated, or refused with ours for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from installer.config.istio_values import DEFAULTS, ISTIO_VALUES
from tests.chart.helm import CHART as OURS
from tests.chart.istio_chart import CHART

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.chart.conftest import Refuse, Release, Render

pytestmark = pytest.mark.apiserver

FILES = sorted(CHART.glob("files/profile-platform-*.yaml"))
NOT_OF_CNI = {
    "pilot",
    "ztunnel",
    "gateways",
    "meshConfig",
    "trustedZtunnelNamespace",
}  # in presets of all of Istio's charts


def theirs() -> dict[str, Any]:
    """Their defaults."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())[DEFAULTS]
    return found


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    known = {each.path for each in ISTIO_VALUES}
    for key, each in value.items():
        path = f"{prefix}{key}"
        if path not in known and isinstance(each, dict) and each:
            yield from leaves(each, f"{path}.")
        else:
            yield path


def at(path: str, value: Any) -> dict[str, Any]:
    """Make the values that have a value at a path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    made: dict[str, Any] = value
    return made


def test_every_value_of_theirs_is_declared() -> None:
    besides = {
        "global.platform",
        "global.profile",
        "profile",
        "compatibilityVersion",
    }  # that their templates read besides
    declared = {each.path for each in ISTIO_VALUES}
    parts = {"updateStrategy.rollingUpdate.maxSurge"}  # of a value that is an object of Kubernetes
    assert {*leaves(theirs())} == declared - besides - parts


def test_their_values_file_is_taken_as_it_is(render: Render) -> None:
    made = render(yaml.safe_load((CHART / "values.yaml").read_text()))
    assert made.settings["EXCLUDE_NAMESPACES"] == "kube-system"
    assert made.settings["LOG_LEVEL"] == "info"
    assert made["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
    assert made.container["resources"] == {"requests": {"cpu": "100m", "memory": "100Mi"}}
    assert made.container["image"].startswith("install-cni:"), "their images are not taken"


PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "top": lambda values: values,
    "cni": lambda values: {"cni": values},
    "defaults": lambda values: {DEFAULTS: values},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("path", "value", "setting"),
    [
        ("logging.level", "debug", {"LOG_LEVEL": "debug"}),
        ("logging.level", "default:warn,cni-plugin:info", {"LOG_LEVEL": "info"}),
        ("logging.level", "none", {"LOG_LEVEL": "fatal"}),
        ("logging.level", "", {"LOG_LEVEL": "warn"}),
        ("repair.enabled", False, {"REPAIR_MODE": "none"}),
        ("repair.repairPods", False, {"REPAIR_MODE": "none"}),
        ("repair", {"repairPods": False, "deletePods": True}, {"REPAIR_MODE": "delete"}),
        ("repair.deletePods", True, {"REPAIR_MODE": "redirect"}),
        ("cniNetnsDir", "/var/run/docker/netns", {"NETNS_DIR": "/var/run/docker/netns"}),
        ("istioOwnedCNIConfig", True, {"ISTIO_OWNED_CNI_CONFIG": "true"}),
        ("chained", False, {"CHAINED": "false"}),
        ("excludeNamespaces", ["a", "b"], {"EXCLUDE_NAMESPACES": "a,b"}),
        ("excludeNamespaces", [], {"EXCLUDE_NAMESPACES": ""}),
    ],
)
def test_a_value_may_stand_in_each_place(
    render: Render, place: str, path: str, value: Any, setting: dict[str, str]
) -> None:
    assert setting.items() <= render(PLACES[place](at(path, value))).settings.items()


def test_what_istios_charts_share_is_translated(render: Render) -> None:
    shared = {
        "logging": {"level": "default:error"},
        "nativeNftables": True,
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecrets": ["key"],
        "networkPolicy": {"enabled": True},
        "platform": "openshift",
        "meshID": "of another chart",
        "hub": "docker.io/istio",
        "tag": "1.30.0",
    }
    made = render({"global": shared})
    assert (made.settings["LOG_LEVEL"], made.settings["REDIRECT_BACKEND"]) == ("error", "nft")
    assert made.settings["CHAINED"] == "false", "the preset of openshift-4"
    assert (made.container["imagePullPolicy"], made.pod["imagePullSecrets"]) == ("IfNotPresent", [{"name": "key"}])
    assert "NetworkPolicy" in made.kinds
    assert made.container["image"].startswith("install-cni:")


def test_what_is_of_the_pod_is_translated(render: Render) -> None:
    affinity: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    tolerations = [{"key": "a", "operator": "Exists"}]
    values = {
        "affinity": affinity,
        "tolerations": tolerations,
        "podLabels": {"team": "mesh", "k8s-app": "other"},
        "podAnnotations": {"a": "b"},
        "seLinuxOptions": {"type": "spc_t"},
        "resources": {"limits": {"memory": "1Gi"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}},
        "resourceQuotas": {"enabled": True, "pods": 7},
        "provider": "multus",
        "cniNetnsDir": "/var/run/docker/netns",
        "hub": "registry.example.org/mesh",
        "tag": "0.1.0",
    }
    made = render(values)
    labels = made["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["k8s-app"]) == ("mesh", "istio-cni-node"), "the selector's label is not changed"
    assert made.pod["affinity"] == affinity
    assert made.pod["tolerations"] == [{"operator": "Exists"}, *tolerations]
    assert made.pod["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    assert made["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "10%"
    assert made.container["resources"] == {"limits": {"memory": "1Gi"}}
    assert made.container["image"] == "registry.example.org/mesh/install-cni:0.1.0"
    volumes = {each["name"]: each["hostPath"]["path"] for each in made.pod["volumes"]}
    assert volumes["netns-dir"] == "/var/run/docker/netns"
    assert "NetworkAttachmentDefinition" in made.kinds
    (quota,) = [
        each
        for each in made.objects
        if each["kind"] == "ResourceQuota" and each["metadata"]["name"] == "istio-cni-node"
    ]
    assert quota["spec"]["hard"] == {"pods": "7"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("ambient.enabled", True, "ambient.enabled, a value of Istio's chart: saw true: ambient mode is not supported"),
        ("cni.ambient.enabled", True, "cni.ambient.enabled, a value"),
        ("profile", "ambient", "ambient mode is not supported"),
        ("global.profile", "ambient", "ambient mode is not supported"),
        ("repair", {"repairPods": False, "labelPods": True}, "set cni.repairMode=report"),
        ("updateStrategy.type", "OnDelete", "set cni.maxUnavailable"),
        ("updateStrategy.rollingUpdate.maxSurge", 1, "set cni.maxUnavailable"),
        ("env", {"A": "b"}, 'saw {"A":"b"}: set the value behind the variable'),
        ("daemonSetLabels", {"a": "b"}, "set cni.podLabels"),
        ("seccompProfile", {"type": "Unconfined"}, "the agents always have RuntimeDefault"),
        ("global.resourceScope", "cluster", "install all objects with one release"),
        ("global.platform", "aix", 'global.platform, a value of Istio\'s chart: saw "aix": set platform to one of'),
        ("image", "proxyv2", "set cni.hub"),
        ("logging.level", "loud", "expected [scope:]level,…"),
        ("repair.foo", True, "'foo' not allowed"),
        ("loging", {}, "'loging' not allowed"),
    ],
)
def test_what_has_no_equivalent_is_refused_with_what_we_have(refuse: Refuse, path: str, value: Any, said: str) -> None:
    assert said in refuse(at(path, value))


@pytest.mark.parametrize(
    "values",
    [
        {"logging": {"level": "debug"}, "cni": {"logLevel": "error"}},
        {"repair": {"enabled": False}, "cni": {"repairMode": "report"}},
        {"chained": False, "cni": {"chained": True}},
        {"platform": "gke", "global": {"platform": "k3s"}},
    ],
)
def test_two_values_for_the_same_are_refused(refuse: Refuse, values: dict[str, Any]) -> None:
    assert "expected one of the two" in refuse(values)


@pytest.mark.parametrize("values", [{"logging": {"level": "debug"}, "cni": {"logLevel": "debug"}}])
def test_the_same_value_twice_is_taken(render: Render, values: dict[str, Any]) -> None:
    assert render(values).settings["LOG_LEVEL"] == "debug"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_each_of_their_platforms_presets_is_taken(render: Render, file: Path) -> None:
    preset = {key: each for key, each in yaml.safe_load(file.read_text()).items() if key not in NOT_OF_CNI}
    preset["cni"] = {key: each for key, each in preset["cni"].items() if each != ""}  # which only unsets their default
    made = render(preset)
    volumes = {each["name"]: each["hostPath"]["path"] for each in made.pod["volumes"]}
    for key, name in (("cniBinDir", "cni-bin-dir"), ("cniConfDir", "cni-conf-dir"), ("cniNetnsDir", "netns-dir")):
        if asked := preset["cni"].get(key):
            assert volumes[name] == asked


def test_notes_name_what_has_no_effect(release: Release) -> None:
    values = {"global": {"hub": "docker.io/istio"}, "cni": {"controller": {"enabled": False}}}
    told = release.helm("install", "istio-cni", str(OURS), values=values)
    assert "- global.hub: it names Istio's images: set cni.hub and cni.tag" in told


def test_istios_plugin_may_read_pods_until_all_agents_are_replaced(release: Release) -> None:
    release.helm("install", "istio-cni", str(CHART))
    where, daemonset = f"--namespace={release.namespace}", "daemonset/istio-cni-node"

    def upgrade(*, seen: bool = True, **status: int) -> tuple[list[str], str]:
        """Upgrade when the DaemonSet says this; return what the account of Istio's plugin may do with pods, and the account.

        `seen` is whether the DaemonSet's controller has seen the upgrade before.
        """
        counts = dict.fromkeys(
            ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 2
        )
        generation = int(release.cluster.kubectl("get", daemonset, where, "--output=jsonpath={.metadata.generation}"))
        counts["observedGeneration"] = generation if seen else generation - 1
        told = json.dumps({"status": counts | status})
        release.cluster.kubectl("patch", daemonset, where, "--subresource=status", "--type=merge", f"--patch={told}")
        release.helm("upgrade", "istio-cni", str(OURS), "--set=cni.controller.enabled=false")
        asked = ("auth", "can-i", "--list", "--no-headers", f"--as=system:serviceaccount:{release.namespace}:istio-cni")
        rights = [line.split()[-1] for line in release.cluster.kubectl(*asked).splitlines() if line.startswith("pods ")]
        account = release.cluster.kubectl(
            "get", "serviceaccount", "istio-cni", where, "--ignore-not-found", "--output=name"
        )
        return rights, account.strip()

    stays = (["[get]"], "serviceaccount/istio-cni")
    assert upgrade(updatedNumberScheduled=2) == stays, "these are Istio's"
    assert upgrade(updatedNumberScheduled=2, seen=False) == stays, "so are these"
    assert upgrade(updatedNumberScheduled=1) == stays
    assert upgrade(updatedNumberScheduled=2, numberReady=1) == stays, "that of one node has not started"
    assert upgrade(updatedNumberScheduled=2) == ([], "")


def test_an_upgrade_from_istios_release_may_keep_its_values(release: Release) -> None:
    values = {"logging": {"level": "debug"}, "excludeNamespaces": ["a"], "global": {"hub": "docker.io/istio"}}
    release.helm("install", "istio-cni", str(CHART), values=values)
    options = ("--reset-then-reuse-values", "--set=cni.controller.enabled=false")
    said = release.helm("upgrade", "istio-cni", str(OURS), *options)
    assert f"helm rollback istio-cni --namespace {release.namespace}" in said
    where = f"--namespace={release.namespace}"
    daemonset = json.loads(release.cluster.kubectl("get", "daemonset", "istio-cni-node", where, "--output=json"))
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    data = {each["name"]: each.get("value") for each in container["env"]}
    assert (data["LOG_LEVEL"], data["EXCLUDE_NAMESPACES"]) == ("debug", "a")
