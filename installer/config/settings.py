"""The agent's settings: each is declared once, here.

The flag (`--cni-bin-dir`), the environment variable (`CNI_BIN_DIR`) and the README's table come from here. A flag wins
over the environment, the environment over the default. All are text until their parsers have made values of them.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from installer.cniconfig.netconf import PLUGIN_TYPE
from plugin.backend import Backend
from plugin.parameters import InboundPorts, Ipv6

PLUGIN = PLUGIN_TYPE  # the runtime looks in cniBinDir for a file that is named as the entry's type
LONGEST_SOCKET_PATH = (
    100  # bytes: the kernel takes 107, and the agent first listens on a somewhat longer name beside it
)
OWN_LIST = "02-istio-cni.conflist"
CONF_SUFFIXES = (".conflist", ".conf", ".json")  # the names that libcni reads

_Choice = TypeVar("_Choice", bound=Enum)

# A DNS label, and `_`: no namespace has one, but the 2019 guide's own example excludes foo_ns.
_NAMESPACE = re.compile(r"[a-z0-9](?:[-_a-z0-9]{0,61}[a-z0-9])?")
_NODE_NAME = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")
_SOCKET_PATH = re.compile(r'/[^\x00-\x1f\x7f-\U0010ffff"\\<>&]+')


class SettingError(ValueError):
    """A value that a setting cannot have: the message says what was seen and what was expected."""


class LogLevel(StrEnum):
    """How much the agent and the plugin log; the names are those of the chart."""

    PANIC = "panic"
    FATAL = "fatal"
    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"


class RepairMode(StrEnum):
    """What is done with a running pod that is to be redirected and is not."""

    NONE = "none"
    REPORT = "report"
    DELETE = "delete"
    REDIRECT = "redirect"


class HostPort(NamedTuple):
    """Where to listen: a host name or address without brackets, and a TCP port; 0 lets the kernel choose one."""

    host: str
    port: int


class DaemonSet(NamedTuple):
    """Which DaemonSet."""

    namespace: str
    name: str


class Declaration(NamedTuple):
    """What is said of one setting, once."""

    name: str
    parse: Callable[[str], object]
    default: str
    value: str
    doc: str
    schema: Mapping[str, Any]  # JSON schema of the value in chart and custom resource
    live: bool  # whether a running agent can change it

    @property
    def key(self) -> str:
        """The chart's value, and the custom resource's."""
        first, *others = self.name.split("_")
        return first + "".join(part.upper() if part == "cni" else part.capitalize() for part in others)

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return self.name.upper()


def _seen(text: str) -> str:
    return f"saw {text!r}" if text else "saw an empty value"


def _node_name(text: str) -> str:
    if not _NODE_NAME.fullmatch(text):
        raise SettingError(f"{_seen(text)}, expected the name of a Kubernetes node, such as worker-1.example.org")
    return text


def _directory(text: str) -> Path:
    if not text.startswith("/") or "\0" in text or not text.strip("/"):
        raise SettingError(f"{_seen(text)}, expected the absolute path of a directory, and not /")
    return Path(text)


def _file(text: str) -> Path:
    if not text or "\0" in text:
        raise SettingError(f"{_seen(text)}, expected the path of a file")
    return Path(text).absolute()


def _file_or_none(text: str) -> Path | None:
    return _file(text) if text else None


def _conf_file_name(text: str) -> str | None:
    if text and ("/" in text or "\0" in text or text.startswith(".") or not text.endswith(CONF_SUFFIXES)):
        raise SettingError(
            f"{_seen(text)}, expected a file name without a folder that ends in {', '.join(CONF_SUFFIXES)}, "
            "such as 10-calico.conflist"
        )
    return text or None


def _own_list_name(text: str) -> str:
    name = _conf_file_name(text or OWN_LIST)
    if name is None or not name.endswith(".conflist"):
        raise SettingError(f"{_seen(text)}, expected a file name that ends in .conflist, such as {OWN_LIST}")
    return name


def _agent_socket(text: str) -> Path:
    """Hold the path to what the plugin's client finds without a JSON parser, and to what the kernel takes."""
    if not _SOCKET_PATH.fullmatch(text) or text.endswith("/"):
        raise SettingError(f'{_seen(text)}, expected an absolute path of printable ASCII without any of " \\ < > &')
    if len(text) > LONGEST_SOCKET_PATH:
        raise SettingError(f"saw a path of {len(text)} bytes, expected at most {LONGEST_SOCKET_PATH}: {text!r}")
    return Path(text)


def _namespaces(text: str) -> tuple[str, ...]:
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise SettingError(f"{_seen(name)}, expected names of namespaces with commas between them")
    return tuple(dict.fromkeys(names))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise SettingError(f"{_seen(text)}, expected true or false")
    return text.lower() == "true"


def _redirect_backend(text: str) -> Backend | None:
    if text == "auto":
        return None
    try:
        return Backend(text)
    except ValueError:
        allowed = ", ".join(["auto", *(each.value for each in Backend)])
        raise SettingError(f"{_seen(text)}, expected one of {allowed}") from None


def _one_of(values: type[_Choice]) -> Callable[[str], _Choice]:
    """Make a parser of an enumeration's values."""

    def parse(text: str) -> _Choice:
        try:
            return values(text)
        except ValueError:
            allowed = ", ".join(str(each.value) for each in values)
            raise SettingError(f"{_seen(text)}, expected one of {allowed}") from None

    return parse


def _log_level(text: str) -> LogLevel:
    try:
        return LogLevel(text.lower())
    except ValueError:
        raise SettingError(f"{_seen(text)}, expected one of {', '.join(LogLevel)}") from None


def _daemonset(text: str) -> DaemonSet | None:
    namespace, slash, name = text.partition("/")
    if text and not (slash and _NAMESPACE.fullmatch(namespace) and _NODE_NAME.fullmatch(name)):
        raise SettingError(f"{_seen(text)}, expected NAMESPACE/NAME, such as kube-system/istio-cni-node")
    return DaemonSet(namespace, name) if text else None


def _host_port(text: str) -> HostPort | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and bare and port.isascii() and port.isdigit() and int(port) <= 65535) or not _is_host(bare, host):
        raise SettingError(
            f"{_seen(text)}, expected HOST:PORT with a port of 0 to 65535, such as 127.0.0.1:15014 or [::]:15014"
        )
    return HostPort(bare, int(port))


def _is_host(bare: str, as_given: str) -> bool:
    if bare == as_given:
        return _NODE_NAME.fullmatch(bare.lower()) is not None
    try:
        return ipaddress.ip_address(bare).version == 6
    except ValueError:
        return False


def _declared(
    parse: Callable[[str], object],
    default: str,
    value: str,
    doc: str,
    *,
    schema: Mapping[str, Any] | None = None,
    live: bool = False,
) -> dict[str, Any]:
    of_text = {"type": "string"}
    return {"parse": parse, "default": default, "value": value, "doc": doc, "schema": schema or of_text, "live": live}


def _enum(values: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the agent is told, as values."""

    node_name: str = field(
        metadata=_declared(
            _node_name,
            os.uname().nodename.lower(),
            "NAME",
            "The node whose pods the agent looks after. Default: the host's name, in lower case.",
        )
    )
    cni_bin_dir: Path = field(
        metadata=_declared(
            _directory,
            "/opt/cni/bin",
            "DIR",
            "Where the container runtime finds CNI plugins; the plugin file is put there.",
        )
    )
    cni_conf_dir: Path = field(
        metadata=_declared(
            _directory, "/etc/cni/net.d", "DIR", "Where the container runtime finds its network configuration."
        )
    )
    cni_conf_file_name: str | None = field(
        metadata=_declared(
            _conf_file_name,
            "",
            "NAME",
            "The configuration to add the plugin to. Default: the one that the runtime takes, the first that is valid.",
            live=True,
        )
    )
    mounts: Path | None = field(
        metadata=_declared(
            lambda text: _directory(text) if text else None,
            "",
            "DIR",
            "Where a container has the node's directories mounted: in it as cni-bin-dir, cni-conf-dir, netns-dir and "
            "cni-cache-dir. "
            "Default: they are where they are on the node.",
        )
    )
    chained: bool = field(
        metadata=_declared(
            _boolean,
            "true",
            "BOOL",
            "true: the plugin is added to the runtime's configuration. false: it has one of its own, istio-cni.conf or "
            "the name that is set, for a Multus that runs it by that.",
            schema={"type": "boolean"},
            live=True,
        )
    )
    istio_owned_cni_config: bool = field(
        metadata=_declared(
            _boolean,
            "false",
            "BOOL",
            "true: the plugin is always added to a list of its own, which comes before the runtime's configuration and is made "
            "from it, for networks that rewrite or restore theirs. false: only where that is a .conf, a .json or a link.",
            schema={"type": "boolean"},
            live=True,
        )
    )
    istio_owned_cni_config_file_name: str = field(
        metadata=_declared(
            _own_list_name,
            "",
            "NAME",
            f"The name of that list; {OWN_LIST} if empty. Where it does not come first in the order, the list is named like "
            "the configuration from which it is made, with -istio-cni.conflist at the end.",
            live=True,
        )
    )
    plugin_file: Path = field(
        metadata=_declared(_file, "/opt/istio-cni/istio-cni", "FILE", "The plugin file that is copied to the node.")
    )
    agent_socket: Path = field(
        metadata=_declared(
            _agent_socket,
            "/var/run/istio-cni/agent.sock",
            "PATH",
            "Where the agent serves the plugin: an absolute path on the node, of at most 100 bytes, in a directory of its own.",
        )
    )
    exclude_namespaces: tuple[str, ...] = field(
        metadata=_declared(
            _namespaces,
            "istio-system,kube-system",
            "NAME,…",
            "Namespaces whose pods are left alone, with commas between them. Empty: none.",
            schema={"type": "array", "items": {"type": "string"}},
            live=True,
        )
    )
    redirect_backend: Backend | None = field(
        metadata=_declared(
            _redirect_backend,
            "auto",
            "BACKEND",
            "What writes a pod's rules: nft, iptables-nft, iptables-legacy. auto: the first of them that lacks least.",
            schema=_enum(["auto", *(each.value for each in Backend)]),
            live=True,
        )
    )
    inbound_ports_default: InboundPorts = field(
        metadata=_declared(
            _one_of(InboundPorts),
            "containerPorts",
            "PORTS",
            "The inbound ports that are redirected where no annotation says so: containerPorts, those that the pod "
            "declares, or *, all, as today's injectors write it.",
            schema=_enum(each.value for each in InboundPorts),
            live=True,
        )
    )
    ipv6: Ipv6 = field(
        metadata=_declared(
            _one_of(Ipv6),
            "auto",
            "WHEN",
            "When IPv6 is redirected: always, never, or auto, for the pods whose sidecar listens on it.",
            schema=_enum(each.value for each in Ipv6),
            live=True,
        )
    )
    repair_mode: RepairMode = field(
        metadata=_declared(
            _one_of(RepairMode),
            "redirect",
            "MODE",
            "What is done with a running pod that is to be redirected and is not, as it started before the plugin was there: "
            "redirect it, delete it, so that it starts anew, report it, or none of these.",
            schema=_enum(RepairMode),
            live=True,
        )
    )
    log_level: LogLevel = field(
        metadata=_declared(
            _log_level,
            "warn",
            "LEVEL",
            f"How much is logged: {', '.join(LogLevel)}.",
            schema=_enum(LogLevel),
            live=True,
        )
    )
    netns_dir: Path = field(
        metadata=_declared(
            _directory,
            "/var/run/netns",
            "DIR",
            "Where the container runtime has the network namespaces of running pods.",
        )
    )
    cni_cache_dir: Path = field(
        metadata=_declared(
            _directory, "/var/lib/cni", "DIR", "Where the container runtime keeps the results of the CNI plugins."
        )
    )
    pods_from: Path | None = field(
        metadata=_declared(
            _file_or_none, "", "DIR", "A folder of Pod manifests to take the pods from, for a node without a cluster."
        )
    )
    health_address: HostPort | None = field(
        metadata=_declared(
            _host_port,
            "127.0.0.1:15014",
            "HOST:PORT",
            "Where /healthz, /readyz and /metrics are served. Port 0: any free one, named in the log. Empty: nowhere.",
        )
    )
    kubeconfig: Path | None = field(
        metadata=_declared(
            _file_or_none, "", "FILE", "How to reach the API server. Default: the pod's service account."
        )
    )
    pod_uid: str = field(
        metadata=_declared(
            lambda text: text,
            "",
            "UID",
            "The uid of the pod that the agent runs in, so that it knows when that was deleted by force. Default: unknown.",
        )
    )
    daemonset: DaemonSet | None = field(
        metadata=_declared(
            _daemonset,
            "",
            "NAMESPACE/NAME",
            "The DaemonSet that runs the agent: told to stop when that is gone, going or not for this node any more, the "
            "agent takes all out. Default: none, what is installed stays.",
        )
    )

    @property
    def bin_dir_mount(self) -> Path:
        """Where this process finds cniBinDir."""
        return self.mounts / "cni-bin-dir" if self.mounts else self.cni_bin_dir

    @property
    def conf_dir_mount(self) -> Path:
        """Where this process finds cniConfDir."""
        return self.mounts / "cni-conf-dir" if self.mounts else self.cni_conf_dir

    @property
    def netns_dir_mount(self) -> Path:
        """Where this process finds netnsDir."""
        return self.mounts / "netns-dir" if self.mounts else self.netns_dir

    @property
    def cni_cache_dir_mount(self) -> Path:
        """Where this process finds cniCacheDir."""
        return self.mounts / "cni-cache-dir" if self.mounts else self.cni_cache_dir


DECIDING = ("exclude_namespaces", "redirect_backend", "inbound_ports_default", "ipv6")  # about pods, and how


def declarations() -> tuple[Declaration, ...]:
    """Return what is declared of each setting, in order."""
    return tuple(Declaration(each.name, **each.metadata) for each in fields(Settings))


def parse_settings(given: Mapping[str, str] | None = None) -> Settings:
    """Make the settings from text.

    Args:
        given: texts by the settings' names; what is missing takes its default.

    Raises:
        SettingError: for a value that a setting cannot have, or a name that no setting has.
    """
    texts = dict(given or {})
    values: dict[str, Any] = {}
    for each in declarations():
        text = texts.pop(each.name, each.default)
        try:
            values[each.name] = each.parse(text)
        except SettingError as error:
            raise SettingError(f"{each.flag} ({each.variable}): {error}") from None
    if texts:
        raise SettingError(
            f"saw a setting {', '.join(sorted(texts))}, expected {', '.join(d.name for d in declarations())}"
        )
    return Settings(**values)


def build_entry(these: Settings) -> dict[str, object]:
    """Make the plugin's entry in the conflist.

    `agentSocket` is the first key in sorted order, in which libcni hands the entry on: the plugin's client relies on
    it. The capability has the runtime hand over the pod's annotations.
    """
    return {
        "agentSocket": str(these.agent_socket),
        "type": PLUGIN,
        "excludeNamespaces": list(these.exclude_namespaces),
        "logLevel": str(these.log_level),
        "capabilities": {"io.kubernetes.cri.pod-annotations": True},
    }


def table() -> str:
    """Write the settings as the README's table (Markdown)."""
    rows = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for each in declarations():
        default = "the host's name" if each.name == "node_name" else f"`{each.default}`" if each.default else "none"
        rows.append(f"| `{each.flag} {each.value}` | `{each.variable}` | {default} | {each.doc} |")
    return "\n".join(rows) + "\n"
