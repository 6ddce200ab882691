"""The types of settings' values and their kinds. Pure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from installer.config.kinds import Kind, text

_CONTROL = r"\x00-\x1f"
_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes, on Linux
PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_GROUP = "[0-9a-fA-F]{1,4}"


def _up_to(groups: int) -> str:
    return f"({_GROUP}(:{_GROUP}){{0,{groups - 1}}})?" if groups else ""


# RFC 4291, 2.2: eight groups, or at most seven around `::`; without the form that ends like an IPv4 address.
_IPV6 = "|".join((f"({_GROUP}:){{7}}{_GROUP}", *(f"{_up_to(left)}::{_up_to(7 - left)}" for left in range(8))))
_HOST = rf"\[({_IPV6})\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
LONGEST_SOCKET_PATH = 100  # bytes: the kernel allows 107, and the agent first listens on a longer name beside it
OWN_LIST = "02-istio-cni.conflist"
CONF_SUFFIXES = (".conflist", ".conf", ".json")  # the names that libcni reads

# A DNS label, and `_`: no namespace has one, but the 2019 guide's own example excludes foo_ns.
NAMESPACE = r"[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?"
NODE_NAME = r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"
HUB = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9._-]+)*/?"
DIRECTORY = rf"(/[^/:{_CONTROL}]+)+/?"
_FILE_NAME = rf"[^./{_CONTROL}][^/{_CONTROL}]*"

# Directories with other programs' sockets.
_TAKEN = (
    "calico|cilium|containerd|cri-dockerd|crio|dbus|docker|k3s|k8s|libvirt|lock|log|multus|netns|openvswitch|rke2|runc|secrets|"
    "systemd|udev|user|ztunnel"
)
AGENT_SOCKET_IN_CHART = {
    "pattern": "^/(var/)?run(/[A-Za-z0-9_-][A-Za-z0-9._-]*){2,}$",
    "not": {"pattern": f"^/(var/)?run/({_TAKEN})/[^/]+$"},
}


class LogLevel(StrEnum):
    """How much the agent and the plugin log; the names are those of the chart."""

    PANIC = "panic"
    FATAL = "fatal"
    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"


class RepairMode(StrEnum):
    """What to do with a running mesh pod without redirect rules."""

    NONE = "none"
    REPORT = "report"
    DELETE = "delete"
    REDIRECT = "redirect"


class DaemonSet(NamedTuple):
    """The name of a DaemonSet."""

    namespace: str
    name: str


def directory(*, optional: bool = False) -> Kind:
    """Make the kind for a directory's path; an empty one is None to the code."""
    expected = "the absolute path of a directory, and not /"
    if optional:
        return text(expected, f"({DIRECTORY})?", lambda value: Path(value) if value else None, _LONGEST_PATH)
    return text(expected, DIRECTORY, Path, _LONGEST_PATH)


def file(*, optional: bool = False) -> Kind:
    """Make the kind for a file's path; an empty one is None to the code."""
    pattern = rf"[^\x00]{'*' if optional else '+'}"
    return text("the path of a file", pattern, lambda value: Path(value).absolute() if value else None)


def conf_file_name(suffixes: tuple[str, ...], example: str, empty: str | None) -> Kind:
    """Make the kind for the name of a network configuration file; the code gets `empty` for an empty one."""
    expected = f"a file name without a directory that ends in {', '.join(suffixes)}, such as {example}"
    ends = "|".join(each.removeprefix(".") for each in suffixes)
    end = rf"\.({ends})" if len(suffixes) > 1 else rf"\.{ends}"
    return text(expected, f"({_FILE_NAME}{end})?", lambda value: value or empty, _LONGEST_NAME)


def socket() -> Kind:
    """Make the kind for a socket path that the plugin's client finds without a JSON parser and that the kernel allows."""
    expected = f'an absolute path of at most {LONGEST_SOCKET_PATH} bytes, of printable ASCII without any of " \\ < > &'
    return text(expected, r"/[ !#-%'-;=?-\[\]-~]*[ !#-%'-.0-;=?-\[\]-~]", Path, LONGEST_SOCKET_PATH)


def daemonset_name() -> Kind:
    """Make the kind for a DaemonSet's name with its namespace; an empty one is None to the code."""

    def convert(value: str) -> DaemonSet | None:
        return DaemonSet(*value.split("/")) if value else None

    return text("NAMESPACE/NAME, such as kube-system/istio-cni-node", f"({NAMESPACE}/{NODE_NAME})?", convert)


class HostPort(NamedTuple):
    """The address to listen on: a host name or address without brackets, and a TCP port; 0 lets the kernel choose one.

    Without a host: all addresses of both families, which no setting asks for.
    """

    host: str
    port: int


def host_port(ports: str = PORT, *, optional: bool = True) -> Kind:
    """Make the kind for an address to listen on.

    `ports` matches the port. An optional one may be empty, and is then None to the code.
    """
    pattern = f"({_HOST}):({ports})"
    expected = "HOST:PORT with a port of at most 65535, such as 127.0.0.1:15014 or [::]:15014"

    def convert(value: str) -> HostPort | None:
        if not value:
            return None
        host, _, port = value.rpartition(":")
        return HostPort(host.removeprefix("[").removesuffix("]"), int(port))

    return text(expected, f"({pattern})?" if optional else pattern, convert)
