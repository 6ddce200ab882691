"""What a pod's netns holds for its redirect, as values: tables of chains of rules, from which a backend renders its text.

The chains have the names that the field knows from istio-init, so that people and tools recognise them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from plugin.redirect import Family
from plugin.values import EVERYTHING, Port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plugin.redirect import Redirect
    from plugin.values import Cidr, Gid, Uid

OUTBOUND, INBOUND, TUNNEL = Port(15001), Port(15006), Port(15008)
NEVER_INBOUND = (TUNNEL, Port(15020), Port(15021), Port(15090))
LOOPBACK_INTERFACE = "lo"
LOOPBACK: Mapping[Family, Cidr] = {
    Family.V4: ipaddress.IPv4Network("127.0.0.1"),
    Family.V6: ipaddress.IPv6Network("::1"),
}
PASS_THROUGH: Mapping[Family, Cidr] = {  # what the proxy binds to when it hands inbound traffic to the application
    Family.V4: ipaddress.IPv4Network("127.0.0.6"),
    Family.V6: ipaddress.IPv6Network("::6"),
}


class Protocol(Enum):
    """A transport protocol, by its name everywhere."""

    TCP = "tcp"
    UDP = "udp"


class Hook(Enum):
    """Where the kernel enters a chain."""

    PREROUTING = "prerouting"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Return:
    """Leave the packet as it is, as far as this chain goes."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain."""

    chain: str


@dataclass(frozen=True, slots=True)
class RedirectTo:
    """Deliver to this port of the pod itself; SO_ORIGINAL_DST tells the destination asked for."""

    port: Port


Verdict: TypeAlias = Return | Jump | RedirectTo


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to a packet that all the given matches fit."""

    verdict: Verdict
    in_interface: str | None = None
    out_interface: str | None = None
    source: Cidr | None = None
    destination: Cidr | None = None
    not_destination: Cidr | None = None
    protocol: Protocol | None = None
    port: Port | None = None
    not_port: Port | None = None
    uid: Uid | None = None
    not_uid: Uid | None = None
    gid: Gid | None = None
    not_gid: Gid | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; with a hook, the kernel enters it there for network address translation."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The chains of one family; each stands before those that jump to it."""

    family: Family
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All that a pod's netns holds: applied as a whole or not at all."""

    tables: tuple[Table, ...]


def ruleset(redirect: Redirect) -> Ruleset:
    """Write the rules of mode REDIRECT."""
    return Ruleset(tuple(Table(family, tuple(_chains(redirect, family))) for family in redirect.families))


TCP, UDP = Protocol.TCP, Protocol.UDP
RETURN = Return()
TO_INBOUND, TO_OUTBOUND = Jump("ISTIO_IN_REDIRECT"), Jump("ISTIO_REDIRECT")


def _chains(redirect: Redirect, family: Family) -> Iterator[Chain]:
    inbound = tuple(_inbound(redirect))
    yield Chain(TO_OUTBOUND.chain, (Rule(protocol=TCP, verdict=RedirectTo(OUTBOUND)),))
    yield Chain(TO_INBOUND.chain, (Rule(protocol=TCP, verdict=RedirectTo(INBOUND)),))
    yield Chain("ISTIO_OUTPUT", tuple(_output(redirect, family)))
    if inbound:
        yield Chain("ISTIO_INBOUND", inbound)
        excluded = [Rule(in_interface=each, verdict=RETURN) for each in redirect.exclude_interfaces]
        yield Chain("PREROUTING", (*excluded, Rule(protocol=TCP, verdict=Jump("ISTIO_INBOUND"))), hook=Hook.PREROUTING)
    excluded = [Rule(out_interface=each, verdict=RETURN) for each in redirect.exclude_interfaces]
    yield Chain("OUTPUT", (*excluded, Rule(verdict=Jump("ISTIO_OUTPUT"))), hook=Hook.OUTPUT)


def _inbound(redirect: Redirect) -> Iterator[Rule]:
    """TCP from outside: to the sidecar, but for the ports that it serves itself and those that are excluded."""
    if redirect.include_inbound_ports == ():
        return
    for port in NEVER_INBOUND:
        yield Rule(protocol=TCP, port=port, verdict=RETURN)
    if redirect.include_inbound_ports is EVERYTHING:
        for port in redirect.exclude_inbound_ports:
            yield Rule(protocol=TCP, port=port, verdict=RETURN)
        yield Rule(protocol=TCP, verdict=TO_INBOUND)
    else:
        for port in redirect.include_inbound_ports:
            yield Rule(protocol=TCP, port=port, verdict=TO_INBOUND)


def _output(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """What the pod sends, in the order of section 4: the first rule that fits decides."""
    for port in redirect.exclude_outbound_ports:
        yield Rule(protocol=TCP, port=port, verdict=RETURN)
        yield Rule(protocol=UDP, port=port, verdict=RETURN)
    yield Rule(out_interface=LOOPBACK_INTERFACE, source=PASS_THROUGH[family], verdict=RETURN)
    yield from _by_owner(redirect, family)
    yield Rule(destination=LOOPBACK[family], verdict=RETURN)
    for cidr in _of(family, redirect.exclude_outbound):
        yield Rule(destination=cidr, verdict=RETURN)
    for port in redirect.include_outbound_ports:
        yield Rule(protocol=TCP, port=port, verdict=TO_OUTBOUND)
    if redirect.include_outbound is EVERYTHING:
        yield Rule(protocol=TCP, verdict=TO_OUTBOUND)
    else:
        for cidr in _of(family, redirect.include_outbound):
            yield Rule(destination=cidr, verdict=TO_OUTBOUND)


def _by_owner(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """The sidecar's own traffic, by uid and then by gid, and the application's with itself.

    An application that calls its own service goes out through the sidecar, which then sends to the pod's own
    address over `lo`: only that comes in again.
    """
    lo, loopback = LOOPBACK_INTERFACE, LOOPBACK[family]
    own_call = Rule(out_interface=lo, not_destination=loopback, protocol=TCP, not_port=TUNNEL, verdict=TO_INBOUND)
    # A loopback range in the include list asks for the application's traffic with itself.
    captures_loopback = redirect.include_outbound is not EVERYTHING and any(
        cidr.is_loopback for cidr in _of(family, redirect.include_outbound)
    )
    yield replace(own_call, uid=redirect.uid)
    if not captures_loopback:
        yield Rule(out_interface=lo, not_uid=redirect.uid, verdict=RETURN)
    yield Rule(uid=redirect.uid, verdict=RETURN)
    yield replace(own_call, gid=redirect.gid)
    if not captures_loopback:
        yield Rule(out_interface=lo, not_gid=redirect.gid, verdict=RETURN)
    yield Rule(gid=redirect.gid, verdict=RETURN)


def _of(family: Family, cidrs: tuple[Cidr, ...]) -> Iterator[Cidr]:
    version = 4 if family is Family.V4 else 6
    return (cidr for cidr in cidrs if cidr.version == version)
