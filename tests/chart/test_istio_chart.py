"""Each line of the DaemonSet and the ConfigMap of Istio's own chart is one that this image knows; a new one fails here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.config.istio_chart import (
    COMBINED,
    EXPECTED,
    FLAGS,
    MOUNTS,
    READY_PORT,
    SIGN,
    VARIABLES,
    WITHOUT_EFFECT,
    is_istios,
    translate,
)  # fmt: skip
from installer.config.kinds import SettingError
from tests.chart.istio_chart import CHART, IstiosChart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.apiserver

FIELDS = {
    "spec.nodeName": "worker-1",
    "metadata.name": "istio-cni-node-x7k2p",
    "metadata.namespace": "istio-system",
    "limits.memory": "1073741824",
    "limits.cpu": "2",
}
PROFILES = sorted(each.stem.removeprefix("profile-") for each in CHART.glob("files/profile-*.yaml"))
_PLATFORM, _VERSION = "platform-", "compatibility-version-"
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "not chained": {"chained": False, "cniConfFileName": "istio-cni.conf", "provider": "multus"},
    "own list": {"istioOwnedCNIConfig": True, "istioOwnedCNIConfigFileName": "01-x.conflist"},
    "own list, no name": {"istioOwnedCNIConfig": True},
    "no repair": {"repair": {"enabled": False}},
    "delete": {"repair": {"repairPods": False, "deletePods": True}},
    "label": {"repair": {"repairPods": False, "labelPods": True}},
    "nothing": {"repair": {"repairPods": False}},
    "logs": {"logging": {"level": "default:debug,cni-plugin:warn"}, "global": {"logAsJson": True}},
    "no level": {"global": {"logging": {"level": ""}}},
    "nftables": {"global": {"nativeNftables": True}},
    "none excluded": {"excludeNamespaces": []},
    "env": {"env": {"IPV6": "never", "MONITORING_PORT": "15999"}},
    "scheduling": {
        "affinity": {"nodeAffinity": {}},
        "podLabels": {"a": "b"},
        "daemonSetLabels": {"a": "b"},
        "podAnnotations": {"a": "b"},
        "terminationGracePeriodSeconds": 60,
        "updateStrategy": {"type": "OnDelete"},
    },
    "security": {
        "seLinuxOptions": {"type": "spc_t"},
        "seccompProfile": {"type": "RuntimeDefault"},
        "useAppArmorAnnotation": False,
        "pullPolicy": "Always",
        "resources": {"limits": {"memory": "1Gi"}},
    },
    "ambient": {"ambient": {"enabled": True, "shareHostNetworkNamespace": True}},
    **{each: {"global": {"platform": each.removeprefix(_PLATFORM)}} for each in PROFILES if _PLATFORM in each},
    **{each: {"compatibilityVersion": each.removeprefix(_VERSION)} for each in PROFILES if _VERSION in each},
    **{each: {"profile": each} for each in PROFILES if _PLATFORM not in each and _VERSION not in each},
}
AMBIENT_MOUNTS = {"/host/var/run/netns", "/var/run/ztunnel"}
# The pod's specification as far as it is not in the tables of the translation: what each line means for this image.
POD = {
    "nodeSelector.kubernetes.io/os=linux": "",
    "priorityClassName=system-node-critical": "",
    "serviceAccountName=istio-cni": "its rights are enough, see tests/kubernetes/test_istio_chart.py",
    "terminationGracePeriodSeconds": "the agent exits within 25 s",
    "affinity": "",
    "tolerations": "",
    "volumes": "see MOUNTS",
    "hostNetwork=True": "ambient mode",
    "dnsPolicy=ClusterFirstWithHostNet": "ambient mode",
}
CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN", "DAC_OVERRIDE"]
CONTAINER = {
    "name=install-cni": "",
    "image": "ours",
    "imagePullPolicy": "",
    "resources": "",
    "command=['install-cni']": "it is on the default PATH of a container",
    "args": "see FLAGS",
    "env": "see VARIABLES",
    "envFrom=[{'configMapRef': {'name': 'istio-cni-config'}}]": "see VARIABLES",
    "volumeMounts": "see MOUNTS",
    "ports=[{'containerPort': 15014, 'name': 'metrics', 'protocol': 'TCP'}]": "the health address",
    "readinessProbe.httpGet.path=/readyz": "",
    f"readinessProbe.httpGet.port={READY_PORT}": "",
    "securityContext.privileged=False": "",
    "securityContext.runAsGroup=0": "",
    "securityContext.runAsUser=0": "",
    "securityContext.runAsNonRoot=False": "",
    "securityContext.capabilities.drop=['ALL']": "",
    f"securityContext.capabilities.add={CAPABILITIES}": "all but CHOWN and FOWNER of ours",
    "securityContext.appArmorProfile.type=Unconfined": "",
    "securityContext.seLinuxOptions": "",
    "securityContext.seccompProfile": "",
}


@pytest.fixture(params=VALUES)
def chart(request: pytest.FixtureRequest, tmp_path: Path) -> IstiosChart:
    return IstiosChart(tmp_path, VALUES[request.param])


def lines(value: Any, known: dict[str, str], prefix: str = "") -> Iterator[str]:
    """Yield the lines of a specification that are not known: neither the path, nor the path with its value."""
    for key, each in value.items():
        path = f"{prefix}{key}"
        if path in known or f"{path}={each}" in known:
            continue
        if isinstance(each, dict):
            yield from lines(each, known, f"{path}.")
        else:
            yield f"{path}={each}"


def is_ambient(chart: IstiosChart) -> bool:
    return chart["ConfigMap"]["data"]["AMBIENT_ENABLED"] == "true"  # type: ignore[no-any-return]


def test_each_line_is_known(chart: IstiosChart) -> None:
    variables = {*VARIABLES, *COMBINED, *EXPECTED, *WITHOUT_EFFECT}
    assert chart.environment(FIELDS).keys() - variables - {"IPV6"} == set()
    assert {each.partition("=")[0] for each in chart.container["args"] or ()} <= FLAGS.keys()
    mounted = {path for path, _, _ in chart.mounts()}
    assert mounted - MOUNTS.keys() <= (AMBIENT_MOUNTS if is_ambient(chart) else set())
    assert [*lines(chart.pod, POD | {"containers": ""})] == []
    assert [*lines(chart.container, CONTAINER)] == []
    assert len(chart.pod["containers"]) == 1


def test_each_rendering_is_translated_or_is_ambient_and_refused(chart: IstiosChart) -> None:
    environ, arguments = chart.environment(FIELDS), chart.container["args"] or []
    assert SIGN in environ
    assert is_istios(arguments, environ)
    mounted = {path for path, _, _ in chart.mounts()}
    if is_ambient(chart):
        with pytest.raises(SettingError, match="supports sidecar mode only"):
            translate(arguments, environ, mounted)
        return
    found = translate(arguments, environ, mounted)
    assert found.settings.node_name == "worker-1"
    assert found.ready.port == chart.container["readinessProbe"]["httpGet"]["port"]
    assert found.settings.daemonset == ("istio-system", chart["DaemonSet"]["metadata"]["name"])


def test_no_table_names_what_is_not_theirs(tmp_path: Path) -> None:
    rendered = [IstiosChart(tmp_path, values) for values in VALUES.values()]
    seen = {name for each in rendered for name in each.environment(FIELDS)}
    of_the_program = {*VARIABLES, *COMBINED, *EXPECTED, *WITHOUT_EFFECT} - seen
    assert of_the_program == {  # variables of Istio's agent that only the value `env` can set
        "CNI_AGENT_RUN_DIR", "CNI_CONF_GROUP_READ", "CNI_NETWORK_CONFIG", "CNI_NETWORK_CONFIG_FILE",
        "FORCE_IPTABLES_BINARY", "ISTIO_OWNED_CNI_CONFIG_FILENAME", "KUBECONFIG_MODE", "KUBE_CA_FILE",
        "MOUNTED_CNI_NET_DIR", "REPAIR_FIELD_SELECTORS", "REPAIR_INIT_CONTAINER_EXIT_CODE",
        "REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE", "REPAIR_LABEL_SELECTORS", "SKIP_TLS_VERIFY", "ZTUNNEL_UDS_ADDRESS",
        "AMBIENT_DISABLE_SAFE_UPGRADE",
    }  # fmt: skip
    assert {path for each in rendered for path, _, _ in each.mounts()} == MOUNTS.keys() | AMBIENT_MOUNTS
    assert {flag.partition("=")[0] for each in rendered for flag in each.container["args"] or ()} == FLAGS.keys()
