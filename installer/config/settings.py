"""The node agent's settings, each declared once. Pure.

A flag (`--cni-bin-dir`) overrides the environment (`CNI_BIN_DIR`), which overrides the default.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from installer.cniconfig.netconf import PLUGIN_TYPE
from installer.config.declaration import Setting, declare, key_of
from installer.config.kinds import SettingError, boolean, choice, names, text
from installer.config.value_types import (
    AGENT_SOCKET_IN_CHART,
    CONF_SUFFIXES,
    NAMESPACE,
    NODE_NAME,
    OWN_LIST,
    PORT,
    DaemonSet,
    HostPort,
    LogLevel,
    RepairMode,
    conf_file_name,
    daemonset_name,
    directory,
    file,
    host_port,
    socket,
)  # fmt: skip
from plugin.backend import Backend
from plugin.decision import Policy
from plugin.parameters import Defaults, InboundPorts, Ipv6

PLUGIN = PLUGIN_TYPE  # the runtime looks in cniBinDir for a file named like the entry's type


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings as values."""

    node_name: str = declare(
        text("the name of a Kubernetes node, such as worker-1.example.org", NODE_NAME),
        os.uname().nodename.lower(),
        "NAME",
        doc="Node whose pods the agent manages. Default: the host name in lower case.",
        shown_default="the host name",
    )
    cni_bin_dir: Path = declare(
        directory(),
        "/opt/cni/bin",
        "DIR",
        doc="Directory where the container runtime looks for CNI plugins; the agent puts the plugin file there.",
        in_resource=True,
        by_platform=True,
    )
    cni_conf_dir: Path = declare(
        directory(),
        "/etc/cni/net.d",
        "DIR",
        doc="Directory where the container runtime looks for network configurations.",
        in_resource=True,
        by_platform=True,
    )
    cni_conf_file_name: str | None = declare(
        conf_file_name(CONF_SUFFIXES, "10-calico.conflist", None),
        "",
        "NAME",
        doc="Network configuration file to add the plugin to. Empty: the file that the runtime uses, the first valid "
        "one. Where only `x.conf` is there, `x.conflist` means that, and the other way round.",
        live=True,
    )
    mounts: Path | None = declare(
        directory(optional=True),
        "",
        "DIR",
        doc="Directory of the agent's container below which the node's directories are mounted, under the names cni-bin-dir, "
        "cni-conf-dir, netns-dir and cni-cache-dir. Empty: they have the same paths as on the node.",
    )
    chained: bool = declare(
        boolean(),
        True,
        "BOOL",
        doc="`true`: add the plugin to the runtime's network configuration. `false`: write a configuration of its own, "
        "`istio-cni.conf` unless `cniConfFileName` is set, with which Multus runs it.",
        live=True,
        by_platform=True,
    )
    istio_owned_cni_config: bool = declare(
        boolean(),
        False,
        "BOOL",
        doc="`true`: always add the plugin to a conflist of the agent's own, which is made from the runtime's "
        "configuration and comes before it, for primary CNIs that rewrite or restore their file. `false`: only "
        "where that file is a `.conf`, a `.json` or a symbolic link.",
        live=True,
    )
    istio_owned_cni_config_file_name: str = declare(
        conf_file_name((".conflist",), OWN_LIST, OWN_LIST),
        "",
        "NAME",
        doc=f"File name of the agent's own conflist. Empty: `{OWN_LIST}`. Where this name does not come first, the agent uses "
        "the name of the configuration that the conflist is made from, with `-istio-cni.conflist` at its end.",
        live=True,
    )
    plugin_file: Path = declare(
        file(), "/opt/istio-cni/istio-cni", "FILE", doc="Plugin file that the agent copies to the node."
    )
    agent_socket: Path = declare(
        socket(),
        "/var/run/istio-cni/agent.sock",
        "PATH",
        doc="Unix socket on the node where the agent serves the plugin: an absolute path of at most 100 bytes, in a "
        "directory that only the agent uses. The chart takes paths below `/run` and `/var/run`.",
        in_chart=True,
        chart=AGENT_SOCKET_IN_CHART,
    )
    exclude_namespaces: tuple[str, ...] = declare(
        names("names of namespaces, such as kube-system", NAMESPACE, longest=63, most=10_000),
        ["istio-system", "kube-system"],
        "NAME,…",
        doc="Namespaces whose pods the agent does not redirect. Empty: none.",
        live=True,
        decides=True,
    )
    redirect_backend: Backend | None = declare(
        choice(Backend, none="auto"),
        "auto",
        "BACKEND",
        doc="Backend that writes a pod's rules: `nft`, `iptables-nft` or `iptables-legacy`. `auto`: the backend that "
        "lacks the fewest features on the node; if several are equal, the first of these.",
        live=True,
        decides=True,
    )
    inbound_ports_default: InboundPorts = declare(
        choice(InboundPorts),
        "containerPorts",
        "PORTS",
        doc="Inbound ports to redirect where the pod has no annotation for them: `containerPorts`, the ports that its "
        "containers declare, or `*`, all ports.",
        live=True,
        decides=True,
    )
    ipv6: Ipv6 = declare(
        choice(Ipv6),
        "auto",
        "WHEN",
        doc="When to redirect IPv6: `always`, `never`, or `auto`, for the pods whose sidecar listens on IPv6.",
        live=True,
        decides=True,
    )
    repair_mode: RepairMode = declare(
        choice(RepairMode),
        "redirect",
        "MODE",
        doc="What to do with a running mesh pod without redirect rules: `redirect` it as it runs, `delete` it, so that "
        "its controller replaces it, `report` it, or `none` of these. Agents have the right to delete pods only if "
        "the chart says `delete`.",
        live=True,
    )
    log_level: LogLevel = declare(
        choice(LogLevel, ignores_case=True),
        "warn",
        "LEVEL",
        doc="Log level of agent and plugin: `panic`, `fatal`, `error`, `warn`, `info` or `debug`.",
        live=True,
    )
    netns_dir: Path = declare(
        directory(),
        "/var/run/netns",
        "DIR",
        doc="Directory where the container runtime keeps the network namespaces of pods.",
        in_chart=True,
    )
    cni_cache_dir: Path = declare(
        directory(),
        "/var/lib/cni",
        "DIR",
        doc="Directory where the container runtime keeps the results of CNI plugins.",
    )
    pods_from: Path | None = declare(
        file(optional=True),
        "",
        "DIR",
        doc="Directory of Pod manifests to read the pods from, for a node without a cluster.",
    )
    health_address: HostPort | None = declare(
        host_port(f"0|{PORT}"),
        "127.0.0.1:15014",
        "HOST:PORT",
        doc="Address that serves `/healthz`, `/readyz` and `/metrics`. Empty: none, and the pods have no readiness "
        "probe. On the command line, port 0 takes any free port, which the log names.",
        in_chart=True,
        chart={"pattern": host_port().schema["pattern"]},
    )
    kubeconfig: Path | None = declare(
        file(optional=True), "", "FILE", doc="Kubeconfig file. Empty: the service account of the pod."
    )
    pod_uid: str = declare(
        text("a uid"),
        "",
        "UID",
        doc="UID of the agent's own pod, by which the agent knows that it was deleted by force. Empty: unknown.",
    )
    daemonset: DaemonSet | None = declare(
        daemonset_name(),
        "",
        "NAMESPACE/NAME",
        doc="DaemonSet that runs the agent: on SIGTERM the agent uninstalls if this DaemonSet is deleted, terminating, "
        "or no longer selects the node. Empty: the agent leaves everything installed.",
    )

    @cached_property
    def policy(self) -> Policy:
        """The policy on pods that these settings make; each request reads it."""
        return Policy(self.exclude_namespaces, Defaults(self.inbound_ports_default, self.ipv6))

    @property
    def bin_dir_mount(self) -> Path:
        """The path of cniBinDir for this process."""
        return self.mounts / "cni-bin-dir" if self.mounts else self.cni_bin_dir

    @property
    def conf_dir_mount(self) -> Path:
        """The path of cniConfDir for this process."""
        return self.mounts / "cni-conf-dir" if self.mounts else self.cni_conf_dir

    @property
    def netns_dir_mount(self) -> Path:
        """The path of netnsDir for this process."""
        return self.mounts / "netns-dir" if self.mounts else self.netns_dir

    @property
    def cni_cache_dir_mount(self) -> Path:
        """The path of cniCacheDir for this process."""
        return self.mounts / "cni-cache-dir" if self.mounts else self.cni_cache_dir


@cache
def declarations() -> tuple[Setting, ...]:
    """Return the declarations of all settings, in order."""
    return tuple(Setting(name=each.name, key=key_of(each.name), **each.metadata) for each in fields(Settings))


DECIDING = tuple(each.name for each in declarations() if each.decides)  # about pods, and how


def parse_settings(given: Mapping[str, str] | None = None) -> Settings:
    """Parse the settings from text.

    A setting that `given` lacks has its default.

    Raises:
        SettingError: for an invalid value or an unknown name.
    """
    texts = dict(given or {})
    values: dict[str, Any] = {}
    for each in declarations():
        try:
            values[each.name] = each.kind.parse_text(texts.pop(each.name, each.default_text))
        except SettingError as error:
            raise SettingError(f"{each.flag} ({each.variable}): {error}") from None
    if texts:
        raise SettingError(
            f"saw a setting {', '.join(sorted(texts))}, expected {', '.join(d.name for d in declarations())}"
        )
    return Settings(**values)


def build_entry(settings: Settings) -> dict[str, object]:
    """Build the plugin's entry in the conflist.

    `agentSocket` is the first key in sorted order, in which libcni passes the entry on: the plugin's client relies on
    it. The capability makes the runtime pass the pod's annotations. The keys with underscores are those of Istio's own plugin,
    which a rollback puts in this one's place before the entry changes (D9).
    """
    return {
        "agentSocket": str(settings.agent_socket),
        "type": PLUGIN,
        "cni_agent_run_dir": str(settings.agent_socket.parent),
        "exclude_namespaces": list(settings.exclude_namespaces),
        "native_nftables": settings.redirect_backend is Backend.NFT,
        "plugin_log_level": str(settings.log_level),
        "pod_namespace": settings.daemonset.namespace if settings.daemonset else "",
        "capabilities": {"io.kubernetes.cri.pod-annotations": True},
    }
