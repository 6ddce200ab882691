"""Istio's own chart `istio-cni` with this image: its command line, environment and mounts, as our settings. Pure.

The tables name everything that the chart gives its container; a test renders that chart and fails on a name that they lack.
The facts are those of Istio 1.32 (`manifests/charts/istio-cni`, `cni/pkg/cmd/root.go`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from installer.config.kinds import SettingError, saw
from installer.config.settings import Settings, declarations, parse_settings
from installer.config.value_types import HostPort, LogLevel, RepairMode
from plugin.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

SIGN = "CHAINED_CNI_PLUGIN"  # its ConfigMap always has this variable, and no chart of ours
READY_PORT = 8000  # of its readiness probe
PROC = "/host/proc"
MOUNTS = {
    "/host/opt/cni/bin": "cni_bin_dir",
    "/host/etc/cni/net.d": "cni_conf_dir",
    "/var/run/istio-cni": "agent_socket",
    PROC: "netns_dir",
}
VARIABLES = {  # by the setting whose value they are
    "REPAIR_NODE_NAME": "node_name",
    "NODE_NAME": "node_name",
    "MOUNTED_CNI_NET_DIR": "cni_conf_dir",
    "CNI_CONF_NAME": "cni_conf_file_name",
    SIGN: "chained",
    "ISTIO_OWNED_CNI_CONFIG": "istio_owned_cni_config",
    "ISTIO_OWNED_CNI_CONF_FILENAME": "istio_owned_cni_config_file_name",  # the chart's spelling
    "ISTIO_OWNED_CNI_CONFIG_FILENAME": "istio_owned_cni_config_file_name",  # the spelling of Istio's agent
    "EXCLUDE_NAMESPACES": "exclude_namespaces",
}
COMBINED = {  # read by the functions below
    "CNI_AGENT_RUN_DIR",
    "MONITORING_PORT",
    "POD_NAME",
    "POD_NAMESPACE",
    "NATIVE_NFTABLES",
    "FORCE_IPTABLES_BINARY",
    "AMBIENT_ENABLED",
    "REPAIR_ENABLED",
    "REPAIR_REPAIR_PODS",
    "REPAIR_DELETE_PODS",
    "REPAIR_LABEL_PODS",
}
EXPECTED = {  # values that ask for nothing; for any other, the reason why it has no effect
    "REPAIR_SIDECAR_ANNOTATION": ("sidecar.istio.io/status", "pods of the mesh are known by sidecar.istio.io/status"),
    "REPAIR_RUN_AS_DAEMON": ("true", "repair always runs beside the installation"),
    "REPAIR_LABEL_SELECTORS": ("", "each mesh pod of the node is inspected"),
    "REPAIR_FIELD_SELECTORS": ("", "each mesh pod of the node is inspected"),
    "CNI_NETWORK_CONFIG": ("", "the agent writes the plugin's entry itself"),
    "CNI_NETWORK_CONFIG_FILE": ("", "the agent writes the plugin's entry itself"),
    "CNI_CONF_GROUP_READ": ("false", "a configuration keeps its permissions"),
}
WITHOUT_EFFECT = {
    "CURRENT_AGENT_VERSION": "the image says its own version",
    "ALLOW_SWITCH_TO_HOST_NS": "the agent enters the network namespaces of pods alone",
    "GOMEMLIMIT": "of Go",
    "GOMAXPROCS": "of Go",
    "REPAIR_INIT_CONTAINER_NAME": "this agent judges by rules, not by the state of containers",
    "REPAIR_INIT_CONTAINER_EXIT_CODE": "this agent judges by rules, not by the state of containers",
    "REPAIR_INIT_CONTAINER_TERMINATION_MESSAGE": "this agent judges by rules, not by the state of containers",
    "REPAIR_BROKEN_POD_LABEL_KEY": "of REPAIR_LABEL_PODS",
    "REPAIR_BROKEN_POD_LABEL_VALUE": "of REPAIR_LABEL_PODS",
    "KUBE_CA_FILE": "the plugin has no kubeconfig",
    "KUBECONFIG_MODE": "the plugin has no kubeconfig",
    "SKIP_TLS_VERIFY": "the plugin has no kubeconfig",
    "AMBIENT_ENABLEMENT_SELECTOR": "of ambient mode",
    "AMBIENT_DNS_CAPTURE": "of ambient mode",
    "AMBIENT_IPV6": "of ambient mode",
    "AMBIENT_RECONCILE_POD_RULES_ON_STARTUP": "of ambient mode",
    "AMBIENT_DISABLE_SAFE_UPGRADE": "of ambient mode",
    "ENABLE_AMBIENT_DETECTION_RETRY": "of ambient mode",
    "ZTUNNEL_UDS_ADDRESS": "of ambient mode",
}
LEVELS = "--log_output_level"
FLAGS = {
    LEVELS: "the most verbose of its levels is that of agent and plugin",
    "--log_as_json": "logs are always JSON",
}
# What its role, its mounts and its capabilities do not allow, whatever its values are.
ALWAYS_LEFT_OUT = (
    "IstioControlPlane, IstioCNINode and RuntimeClasses: its role does not allow them",
    "the check whether the container runtime loads the plugin's entry: /var/lib/cni is not mounted",
    "the owner of a configuration that is not root's: it has no capability CHOWN",
)

_BOOLEANS = {"chained", "istio_owned_cni_config"}
_STANDALONE = "YYY-istio-cni.conf"  # the name of Istio's agent for a configuration of its own
_TRUE, _FALSE = {"1", "t", "true"}, {"", "0", "f", "false"}
_ISTIOS_LEVELS = {"none": LogLevel.FATAL} | {
    each.value: each for each in (LogLevel.FATAL, LogLevel.ERROR, LogLevel.WARN, LogLevel.INFO, LogLevel.DEBUG)
}  # the least verbose first
_BINARIES = {"legacy": Backend.IPTABLES_LEGACY, "nft": Backend.IPTABLES_NFT}


class IstioChart(NamedTuple):
    """How the agent runs in Istio's chart.

    Attributes:
        ready: the address that the readiness probe asks, besides the health address of the settings.
        inspects: whether the network namespaces of running pods can be found.
        writes_events: whether it may write Events.
        left_out: what the agent does not do there, each with the reason.
        pod_name: the agent's pod's; empty: unknown.
    """

    settings: Settings
    ready: HostPort
    inspects: bool
    writes_events: bool
    left_out: tuple[str, ...]
    pod_name: str = ""


def is_istios(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a command line is that of Istio's chart: without a subcommand, and with its flags or environment."""
    return arguments[0].startswith("--log_") if arguments else SIGN in environ


def translate(arguments: Sequence[str], environ: Mapping[str, str], mounted: Collection[str]) -> IstioChart:
    """Translate what Istio's chart gives its container.

    Variables of our own name, which the chart's value `env` may set, win over the translation. `arguments` come without the
    program; `mounted` are those of `MOUNTS` that are there.

    Raises:
        SettingError: for ambient mode, an unknown flag, or an invalid value.
    """
    if _flag(environ, "AMBIENT_ENABLED"):
        raise SettingError(
            "AMBIENT_ENABLED: saw true, expected false: this agent supports sidecar mode only. Set ambient.enabled=false, "
            "or keep Istio's own image for ambient mode"
        )
    left_out = [*ALWAYS_LEFT_OUT, *_unsupported(environ)]
    mode = _repair_mode(environ)
    if mode is None or (PROC not in mounted and mode is not RepairMode.NONE):
        needs = "it would label pods" if mode is None else f"{PROC} is mounted only with repair.repairPods=true"
        left_out.append(f"repair: {needs}; set repair.repairPods=true")
    if PROC not in mounted:
        mode = RepairMode.NONE
    port = environ.get("MONITORING_PORT") or "15014"
    texts = {
        **{setting: path for path, setting in MOUNTS.items() if setting != "agent_socket"},
        "agent_socket": f"{environ.get('CNI_AGENT_RUN_DIR') or '/var/run/istio-cni'}/agent.sock",
        "cni_cache_dir": "/host/var/lib/cni",
        "daemonset": _daemonset(environ),
        "health_address": f"0.0.0.0:{port}",
        "inbound_ports_default": "*",
        "exclude_namespaces": "",
        "log_level": _level(arguments).value,
        "redirect_backend": _backend(environ),
        "repair_mode": (mode or RepairMode.REPORT).value,
    }
    for name, setting in VARIABLES.items():
        if name in environ:
            texts[setting] = str(_flag(environ, name)).lower() if setting in _BOOLEANS else environ[name]
    if texts.get("chained") == "false":
        texts["cni_conf_file_name"] = texts.get("cni_conf_file_name") or _STANDALONE
    own = {each.name: environ[each.variable] for each in declarations() if each.variable in environ}
    settings = parse_settings(texts | {name: text for name, text in own.items() if name not in _BOOLEANS})
    if "health_address" not in own:
        settings = replace(settings, health_address=HostPort("", int(port)))
    writes_events, pod_name = _flag(environ, "REPAIR_ENABLED"), environ.get("POD_NAME", "")
    return IstioChart(settings, HostPort("", READY_PORT), PROC in mounted, writes_events, tuple(left_out), pod_name)


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").lower()
    if text not in _TRUE | _FALSE:
        raise SettingError(f"{name}: {saw(environ[name])}, expected true or false")
    return text in _TRUE


def _unsupported(environ: Mapping[str, str]) -> Iterator[str]:
    for name, (expected, reason) in EXPECTED.items():
        if environ.get(name, expected) != expected:
            yield f"{name}={environ[name]:.80}: {reason}"


def _repair_mode(environ: Mapping[str, str]) -> RepairMode | None:
    """Return what to do with a running pod without redirect rules; None: label it, which this agent does not do."""
    if not _flag(environ, "REPAIR_ENABLED"):
        return RepairMode.NONE
    if _flag(environ, "REPAIR_REPAIR_PODS"):
        return RepairMode.REDIRECT
    if _flag(environ, "REPAIR_DELETE_PODS"):
        return RepairMode.DELETE
    return None if _flag(environ, "REPAIR_LABEL_PODS") else RepairMode.NONE


def _backend(environ: Mapping[str, str]) -> str:
    if _flag(environ, "NATIVE_NFTABLES"):
        return Backend.NFT.value
    if not (binary := environ.get("FORCE_IPTABLES_BINARY")):
        return "auto"
    if binary not in _BINARIES:
        raise SettingError(f"FORCE_IPTABLES_BINARY: {saw(binary)}, expected one of {', '.join(_BINARIES)}")
    return _BINARIES[binary].value


def _daemonset(environ: Mapping[str, str]) -> str:
    """Return namespace and name of the DaemonSet, by the name of its pod; empty if it is not one of a DaemonSet."""
    found = re.fullmatch("(.+)-[a-z0-9]{5}", environ.get("POD_NAME", ""))
    return f"{environ['POD_NAMESPACE']}/{found[1]}" if found and environ.get("POD_NAMESPACE") else ""


def _level(arguments: Sequence[str]) -> LogLevel:
    """Return the most verbose of the log levels `[scope:]level,…`; Istio's default is info."""
    found = LogLevel.INFO
    for each in arguments:
        flag, _, value = each.partition("=")
        if flag not in FLAGS:
            raise SettingError(
                f"saw {each!r:.80}, expected one of {', '.join(FLAGS)}, or a subcommand (install-cni --help)"
            )
        if flag == LEVELS:
            levels = {part.strip().rpartition(":")[2] for part in value.split(",")}
            if not levels <= _ISTIOS_LEVELS.keys():
                raise SettingError(f"{flag}: {saw(value)}, expected [scope:]level,… of {', '.join(_ISTIOS_LEVELS)}")
            found = [level for name, level in _ISTIOS_LEVELS.items() if name in levels][-1]
    return found
