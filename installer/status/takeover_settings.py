"""The settings of Istio's own CNI agent in a cluster, as values of our chart: for `install-cni takeover --check`. Pure."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installer.config.istio_chart import ALWAYS_LEFT_OUT, FLAGS, MOUNTS, translate
from installer.config.kinds import SettingError
from installer.config.settings import declarations, parse_settings
from installer.fleet.objects import pod_spec
from installer.status import istio_agent
from installer.status.model import Finding, Severity, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.config.settings import Settings
    from installer.status.model import Object

_CARRIED = (  # settings of Istio's agent that are values of our chart as well
    "cni_bin_dir", "cni_conf_dir", "cni_conf_file_name", "chained", "istio_owned_cni_config",
    "istio_owned_cni_config_file_name", "exclude_namespaces", "redirect_backend", "inbound_ports_default", "ipv6",
    "repair_mode", "log_level",
)  # fmt: skip
_HOST_PATHS = {path: setting for path, setting in MOUNTS.items() if setting in ("cni_bin_dir", "cni_conf_dir")}


def container(daemonset: Object) -> Mapping[str, Any]:
    """Return the container of a DaemonSet; empty if it has none."""
    return next(iter(pod_spec(daemonset).get("containers") or ()), {})


def config_maps(daemonset: Object) -> list[str]:
    """Name the ConfigMaps that the container of a DaemonSet has its environment from."""
    agent = container(daemonset)
    references = [each.get("configMapRef") for each in agent.get("envFrom") or ()]
    references += [(each.get("valueFrom") or {}).get("configMapKeyRef") for each in agent.get("env") or ()]
    return list(dict.fromkeys(str(each["name"]) for each in references if each))


def carry_over(
    daemonset: Object, data: Mapping[tuple[str, str], Mapping[str, str] | Unavailable]
) -> tuple[dict[str, Any], list[Finding]]:
    """Return the values that carry an agent's settings over, and what to know about these."""
    title, agent = istio_agent.title(daemonset), container(daemonset)
    environ = dict[str, str]()
    maps = {name: data.get((daemonset["metadata"]["namespace"], name), {}) for name in config_maps(daemonset)}
    for name, each in maps.items():
        if isinstance(each, Unavailable):
            message = f"The settings of {title} are unknown: cannot get ConfigMap {name} ({each.message})"
            return {}, [
                Finding(Severity.UNKNOWN, message, "Ask an admin for the right to get configmaps in its namespace")
            ]
    for source in agent.get("envFrom") or ():
        environ |= maps.get((source.get("configMapRef") or {}).get("name", ""), {})  # type: ignore[arg-type]
    for variable in agent.get("env") or ():
        key = (variable.get("valueFrom") or {}).get("configMapKeyRef") or {}
        text = variable.get("value", maps.get(key.get("name", ""), {}).get(key.get("key", "")))  # type: ignore[union-attr]
        if text is not None:
            environ[variable["name"]] = str(text)
    flags = [each for each in agent.get("args") or () if each.partition("=")[0] in FLAGS]
    try:
        chart = translate(flags, environ, MOUNTS)
    except (SettingError, ValueError) as error:
        return {}, [Finding(Severity.ERROR, f"{title}: {error}")]
    notes = [each for each in chart.left_out if each not in ALWAYS_LEFT_OUT]
    return _values(chart.settings, _host_paths(daemonset)), [
        Finding(Severity.INFO, f"A setting of {title} is not carried over: {each}") for each in notes
    ]


def _values(settings: Settings, paths: Mapping[str, str]) -> dict[str, Any]:
    defaults, found = vars(parse_settings()), vars(settings) | {name: Path(path) for name, path in paths.items()}
    keys = {each.name: each.key for each in declarations()}
    return {keys[name]: _plain(found[name]) for name in _CARRIED if found[name] != defaults[name]}


def _plain(value: object) -> object:
    """Convert a setting to what the chart takes."""
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _host_paths(daemonset: Object) -> dict[str, str]:
    """Return the node's directories that the container mounts, by setting."""
    volumes = {
        each.get("name"): (each.get("hostPath") or {}).get("path") for each in pod_spec(daemonset).get("volumes") or ()
    }
    mounts = {
        each.get("mountPath"): volumes.get(each.get("name")) for each in container(daemonset).get("volumeMounts") or ()
    }
    found = {setting: mounts.get(path) for path, setting in _HOST_PATHS.items()}
    defaults = {each.name: each.default for each in declarations()}
    return {setting: path or defaults[setting] for setting, path in found.items()}
