"""How a pod is redirected, as typed values; `plugin.parameters` reads them from the pod."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from plugin.values import EVERYTHING, Address, Cidr, Everything, Gid, Interface, Port, Uid

if TYPE_CHECKING:
    from collections.abc import Iterable

Ports: TypeAlias = tuple[Port, ...] | Everything
Cidrs: TypeAlias = tuple[Cidr, ...] | Everything

SIDECAR, SIDECAR_GROUP = Uid(1337), Gid(1337)
METRICS = Port(15020)


class Family(Enum):
    """An address family, with its name in nftables."""

    V4 = "ip"
    V6 = "ip6"

    @property
    def version(self) -> int:
        """4 or 6, as in the standard library's address types."""
        return 4 if self is Family.V4 else 6


class Mode(Enum):
    """How inbound traffic reaches the sidecar: with address translation, or unchanged, with the client's own address."""

    REDIRECT = "REDIRECT"
    TPROXY = "TPROXY"


class Feature(Enum):
    """What a redirect may require of kernel and backend, named as in errors, /readyz and metrics."""

    NAT = "nat"
    IPV6 = "ipv6"
    TPROXY = "tproxy"
    CONNTRACK_ZONES = "conntrack-zones"
    CONNTRACK_STATE = "conntrack-state"


@dataclass(frozen=True, slots=True)
class Redirect:
    """What to redirect, and how."""

    mode: Mode = Mode.REDIRECT
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
    reroute_interfaces: tuple[Interface, ...] = ()
    dns_capture: bool = False
    drop_invalid: bool = False

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features it requires of kernel and backend."""
        asked = {
            Feature.NAT: True,
            Feature.IPV6: Family.V6 in self.families,
            Feature.TPROXY: self.mode is Mode.TPROXY,
            Feature.CONNTRACK_ZONES: self.dns_capture,
            Feature.CONNTRACK_STATE: self.drop_invalid,
        }
        return tuple(feature for feature, is_asked in asked.items() if is_asked)

    def bypassing(self, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """Return which of a pod's addresses bypass the sidecar because their family has no rules."""
        versions = {family.version for family in self.families}
        return tuple(each for each in addresses if each.version not in versions and not each.is_link_local)
