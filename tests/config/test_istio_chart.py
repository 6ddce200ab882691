"""What Istio's own chart gives its container, as our settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.istio_chart import ALWAYS_LEFT_OUT, MOUNTS, PROC, IstioChart, is_istios, translate
from installer.config.kinds import SettingError
from installer.config.value_types import DaemonSet, HostPort, LogLevel, RepairMode
from plugin.backend import Backend
from plugin.parameters import InboundPorts

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.pure

DEFAULT = {  # of its ConfigMap and its container, with default values
    "CURRENT_AGENT_VERSION": "latest",
    "AMBIENT_ENABLED": "false",
    "ISTIO_OWNED_CNI_CONFIG": "false",
    "CHAINED_CNI_PLUGIN": "true",
    "EXCLUDE_NAMESPACES": "kube-system",
    "REPAIR_ENABLED": "true",
    "REPAIR_LABEL_PODS": "false",
    "REPAIR_DELETE_PODS": "false",
    "REPAIR_REPAIR_PODS": "true",
    "NATIVE_NFTABLES": "false",
    "REPAIR_NODE_NAME": "worker-1",
    "REPAIR_RUN_AS_DAEMON": "true",
    "REPAIR_SIDECAR_ANNOTATION": "sidecar.istio.io/status",
    "NODE_NAME": "worker-1",
    "POD_NAME": "istio-cni-node-x7k2p",
    "POD_NAMESPACE": "istio-system",
}


def translated(
    *arguments: str, mounted: frozenset[str] = frozenset(MOUNTS), variables: Mapping[str, str] = {}
) -> IstioChart:
    """Translate its defaults with these changes."""
    return translate(arguments, {**DEFAULT, **variables}, mounted)


def test_defaults_are_istios() -> None:
    found = translated("--log_output_level=info")
    settings = found.settings
    assert (settings.node_name, settings.exclude_namespaces) == ("worker-1", ("kube-system",))
    assert settings.inbound_ports_default is InboundPorts.ALL
    assert (settings.chained, settings.istio_owned_cni_config, settings.cni_conf_file_name) == (True, False, None)
    assert (settings.repair_mode, settings.redirect_backend) == (RepairMode.REDIRECT, None)
    assert settings.daemonset == DaemonSet("istio-system", "istio-cni-node")
    assert settings.agent_socket == Path("/var/run/istio-cni/agent.sock")
    assert settings.cni_bin_dir == settings.bin_dir_mount == Path("/host/opt/cni/bin")
    assert settings.cni_conf_dir == settings.conf_dir_mount == Path("/host/etc/cni/net.d")
    assert (settings.health_address, found.ready) == (HostPort("", 15014), HostPort("", 8000))
    assert (found.inspects, found.writes_events, found.left_out) == (True, True, ALWAYS_LEFT_OUT)


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"CNI_CONF_NAME": "10-calico.conflist"}, "cni_conf_file_name", "10-calico.conflist"),
        ({"CHAINED_CNI_PLUGIN": "false"}, "cni_conf_file_name", "YYY-istio-cni.conf"),
        ({"CHAINED_CNI_PLUGIN": "false", "CNI_CONF_NAME": "istio-cni.conf"}, "cni_conf_file_name", "istio-cni.conf"),
        ({"CHAINED_CNI_PLUGIN": "0"}, "chained", False),
        ({"ISTIO_OWNED_CNI_CONFIG": "true"}, "istio_owned_cni_config", True),
        ({"ISTIO_OWNED_CNI_CONF_FILENAME": ""}, "istio_owned_cni_config_file_name", "02-istio-cni.conflist"),
        ({"ISTIO_OWNED_CNI_CONF_FILENAME": "01-a.conflist"}, "istio_owned_cni_config_file_name", "01-a.conflist"),
        ({"ISTIO_OWNED_CNI_CONFIG_FILENAME": "01-b.conflist"}, "istio_owned_cni_config_file_name", "01-b.conflist"),
        ({"EXCLUDE_NAMESPACES": " a, b,"}, "exclude_namespaces", ("a", "b")),
        ({"EXCLUDE_NAMESPACES": ""}, "exclude_namespaces", ()),
        ({"REPAIR_ENABLED": "false"}, "repair_mode", RepairMode.NONE),
        ({"REPAIR_REPAIR_PODS": "false", "REPAIR_DELETE_PODS": "true"}, "repair_mode", RepairMode.DELETE),
        ({"REPAIR_DELETE_PODS": "true"}, "repair_mode", RepairMode.REDIRECT),
        ({"REPAIR_REPAIR_PODS": "false", "REPAIR_LABEL_PODS": "True"}, "repair_mode", RepairMode.REPORT),
        ({"REPAIR_REPAIR_PODS": "false"}, "repair_mode", RepairMode.NONE),
        ({"NATIVE_NFTABLES": "true"}, "redirect_backend", Backend.NFT),
        ({"NATIVE_NFTABLES": "true", "FORCE_IPTABLES_BINARY": "legacy"}, "redirect_backend", Backend.NFT),
        ({"FORCE_IPTABLES_BINARY": "legacy"}, "redirect_backend", Backend.IPTABLES_LEGACY),
        ({"FORCE_IPTABLES_BINARY": "nft"}, "redirect_backend", Backend.IPTABLES_NFT),
        ({"MONITORING_PORT": "15999"}, "health_address", HostPort("", 15999)),
        ({"CNI_AGENT_RUN_DIR": "/run/x/istio-cni"}, "agent_socket", Path("/run/x/istio-cni/agent.sock")),
        ({"MOUNTED_CNI_NET_DIR": "/host/net.d"}, "cni_conf_dir", Path("/host/net.d")),
        ({"POD_NAME": "by-hand"}, "daemonset", None),
        ({"IPV6": "never"}, "ipv6", "never"),  # a variable of ours, which the chart's value `env` sets
        ({"REDIRECT_BACKEND": "iptables-nft", "NATIVE_NFTABLES": "true"}, "redirect_backend", Backend.IPTABLES_NFT),
        ({"HEALTH_ADDRESS": "127.0.0.1:15014"}, "health_address", HostPort("127.0.0.1", 15014)),
        ({"LOG_LEVEL": "debug"}, "log_level", LogLevel.DEBUG),
    ],
)
def test_each_variable_reaches_its_setting(variables: dict[str, str], name: str, value: Any) -> None:
    found = getattr(translated(variables=variables).settings, name)
    assert getattr(found, "value", found) == value or found == value


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ([], LogLevel.INFO),
        (["--log_as_json"], LogLevel.INFO),
        (["--log_output_level=warn", "--log_as_json"], LogLevel.WARN),
        (["--log_output_level=default:warn,cni-plugin:debug"], LogLevel.DEBUG),
        (["--log_output_level=all:error, cni:fatal"], LogLevel.ERROR),
        (["--log_output_level=none"], LogLevel.FATAL),
    ],
)
def test_the_most_verbose_level_counts(arguments: list[str], level: LogLevel) -> None:
    assert translated(*arguments).settings.log_level is level


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (
            [],
            {"AMBIENT_ENABLED": "true"},
            "AMBIENT_ENABLED: saw true, expected false: this agent supports sidecar mode only",
        ),
        (["--log_output_level=loud"], {}, "--log_output_level: saw 'loud', expected [scope:]level,… of none, fatal"),
        (["--log_target=x"], {}, "saw '--log_target=x', expected one of --log_output_level, --log_as_json"),
        (["--log_as_json", "run"], {}, "saw 'run', expected one of"),
        ([], {"CHAINED_CNI_PLUGIN": "maybe"}, "CHAINED_CNI_PLUGIN: saw 'maybe', expected true or false"),
        ([], {"REPAIR_ENABLED": "x"}, "REPAIR_ENABLED: saw 'x', expected true or false"),
        ([], {"EXCLUDE_NAMESPACES": "A"}, "--exclude-namespaces (EXCLUDE_NAMESPACES): saw 'A'"),
        ([], {"MONITORING_PORT": "99999"}, "saw '0.0.0.0:99999', expected HOST:PORT"),
        ([], {"FORCE_IPTABLES_BINARY": "x"}, "FORCE_IPTABLES_BINARY: saw 'x', expected one of legacy, nft"),
        ([], {"CNI_CONF_NAME": "../x.conf"}, "(CNI_CONF_FILE_NAME): saw '../x.conf'"),
    ],
)
def test_what_cannot_be_translated_is_refused(arguments: list[str], variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        translated(*arguments, variables=variables)
    assert said in str(caught.value)


def test_what_has_no_effect_is_named_with_the_reason() -> None:
    found = translated(
        variables={"REPAIR_LABEL_SELECTORS": "a=b", "REPAIR_REPAIR_PODS": "false", "REPAIR_LABEL_PODS": "true"}
    )
    assert found.left_out[len(ALWAYS_LEFT_OUT) :] == (
        "REPAIR_LABEL_SELECTORS=a=b: each mesh pod of the node is inspected",
        "repair: it would label pods; set repair.repairPods=true",
    )


@pytest.mark.parametrize("wish", ["REPAIR_DELETE_PODS", "REPAIR_LABEL_PODS"])
def test_without_a_mount_of_proc_nothing_is_repaired(wish: str) -> None:
    found = translated(mounted=frozenset(MOUNTS) - {PROC}, variables={"REPAIR_REPAIR_PODS": "false", wish: "true"})
    assert (found.inspects, found.settings.repair_mode) == (False, RepairMode.NONE)
    assert found.left_out[-1].startswith("repair: ")


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([], DEFAULT, True),
        ([], {}, False),  # somebody at a terminal
        (["--log_output_level=info"], {}, True),
        (["--log_as_json"], DEFAULT, True),
        (["--help"], DEFAULT, False),
        (["status"], DEFAULT, False),  # kubectl exec
        (["run", "--log-level", "info"], DEFAULT, False),
    ],
)
def test_its_command_line_is_recognized(arguments: list[str], environ: dict[str, str], *, expected: bool) -> None:
    assert is_istios(arguments, environ) is expected
