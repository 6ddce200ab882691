"""How a pod is redirected: every parameter as a typed value, from its annotations, its proxy's env and securityContext."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from plugin import values
from plugin.pod import PROXY
from plugin.values import EVERYTHING, Everything, Gid, InvalidValue, Port, Uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugin.pod import Container, Pod
    from plugin.values import Address, Cidr, Interface

    Ports = tuple[Port, ...] | Everything
    Cidrs = tuple[Cidr, ...] | Everything

_T = TypeVar("_T")
_D = TypeVar("_D")

SIDECAR, SIDECAR_GROUP = Uid(1337), Gid(1337)
METRICS = Port(15020)
INTERCEPTION_MODE = "sidecar.istio.io/interceptionMode"
TRAFFIC = "traffic.sidecar.istio.io/"
NOT_BUILT = "its absence: this release does not build it yet"


class Family(Enum):
    """An address family, by its name in nftables."""

    V4 = "ip"
    V6 = "ip6"


@dataclass(frozen=True, slots=True)
class Redirect:
    """What to redirect, in mode REDIRECT."""

    families: tuple[Family, ...] = (Family.V4,)
    uid: Uid = SIDECAR
    gid: Gid = SIDECAR_GROUP
    include_inbound_ports: Ports = EVERYTHING
    exclude_inbound_ports: tuple[Port, ...] = ()
    include_outbound: Cidrs = EVERYTHING
    exclude_outbound: tuple[Cidr, ...] = ()
    include_outbound_ports: tuple[Port, ...] = ()
    exclude_outbound_ports: tuple[Port, ...] = (METRICS,)
    exclude_interfaces: tuple[Interface, ...] = ()

    @classmethod
    def of(cls, pod: Pod, proxy: Container, addresses: tuple[Address, ...]) -> Redirect:
        """Read the parameters of a pod that is to be redirected.

        Args:
            pod: the pod.
            proxy: its sidecar.
            addresses: the pod's, in prevResult's order.

        Raises:
            InvalidValue: for a value that is not allowed, or is not built yet: never a redirect other than asked for.
        """
        _refuse_what_is_not_built(pod, proxy)
        read = _Annotations(pod)
        return cls(
            families=_families(proxy, addresses),
            uid=Uid(_first(proxy.run_as_user, pod.run_as_user)),
            gid=Gid(_first(proxy.run_as_group, pod.run_as_group)),
            include_inbound_ports=read("includeInboundPorts", values.ports_or_all, _container_ports(pod)),
            exclude_inbound_ports=read("excludeInboundPorts", values.ports, ()),
            include_outbound=read("includeOutboundIPRanges", values.cidrs_or_all, EVERYTHING),
            exclude_outbound=read("excludeOutboundIPRanges", values.cidrs, ()),
            include_outbound_ports=read("includeOutboundPorts", values.ports, ()),
            exclude_outbound_ports=read("excludeOutboundPorts", values.ports, (METRICS,)),
            exclude_interfaces=read("excludeInterfaces", values.interfaces, ()),
        )


class _Annotations:
    """Reads the annotations that begin with `traffic.sidecar.istio.io/`."""

    def __init__(self, pod: Pod) -> None:
        self._annotations = pod.annotations

    def __call__(self, name: str, parse: Callable[[str, str], _T], default: _D) -> _T | _D:
        text = self._annotations.get(TRAFFIC + name)
        return default if text is None else parse(TRAFFIC + name, text)


def _first(*ids: int | None) -> int:
    """The id that counts; 0 counts as the sidecar's own, as root's traffic cannot all be the proxy's."""
    return next((each for each in ids if each is not None), 0) or SIDECAR


def _container_ports(pod: Pod) -> tuple[Port, ...]:
    declared = [port for each in (*pod.containers, *pod.init_containers) if each.name != PROXY for port in each.ports]
    return tuple(Port(port) for port in dict.fromkeys(declared))


def _families(proxy: Container, addresses: tuple[Address, ...]) -> tuple[Family, ...]:
    """V4 always; v6 where the proxy listens on it: it is the pod's first family, or the proxy is dual-stack."""
    first_is_v6 = bool(addresses) and addresses[0].version == 6
    has_v6 = any(each.version == 6 and not each.is_link_local for each in addresses)
    dual_stack = values.boolean("ISTIO_DUAL_STACK", proxy.env.get("ISTIO_DUAL_STACK", ""))
    return (Family.V4, Family.V6) if first_is_v6 or (has_v6 and dual_stack) else (Family.V4,)


def _refuse_what_is_not_built(pod: Pod, proxy: Container) -> None:
    mode = pod.annotations.get(INTERCEPTION_MODE, "REDIRECT")
    if mode != "REDIRECT":
        raise InvalidValue(INTERCEPTION_MODE, mode, "REDIRECT or NONE; TPROXY is not built yet")
    for key in (TRAFFIC + "kubevirtInterfaces", "istio.io/reroute-virtual-interfaces"):
        if values.interfaces(key, pod.annotations.get(key, "")):
            raise InvalidValue(key, pod.annotations[key], NOT_BUILT)
    for key in ("ISTIO_META_DNS_CAPTURE", "INVALID_DROP"):
        if values.boolean(key, proxy.env.get(key, "")):
            raise InvalidValue(f"env {key} of {PROXY}", proxy.env[key], "false, or " + NOT_BUILT)
