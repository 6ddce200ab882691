"""The flows of a redirected pod: which traffic enters the sidecar at which port, and which bypasses it. Pure.

A summary of the rules that `plugin.rules` makes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from plugin.redirect import Family, Mode
from plugin.rules import DNS, DNS_LISTENER, INBOUND, LO, LOOPBACK, NEVER_INBOUND, OUTBOUND, PASS_THROUGH, TUNNEL
from plugin.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from plugin.redirect import Redirect
    from plugin.values import Cidr, Port

REDIRECTED = {Family.V4: "IPv4", Family.V6: "IPv6"}


class Way(Enum):
    """The fate of traffic, as the legend names it."""

    THROUGH = "through the sidecar"
    BYPASSED = "bypasses the sidecar: not redirected"
    DROPPED = "dropped"


class End(Enum):
    """The end of traffic that does not go through the sidecar."""

    ACROSS = "on the other side"
    SIDECAR = "answered by the sidecar"
    BACK = "in the pod"


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic that is treated alike.

    Attributes:
        what: a short description of the traffic.
        values: all ports, IP ranges, interfaces or protocols to which it is limited.
        way: its fate.
        port: the sidecar's port at which it arrives, if it goes through the sidecar.
        end: where it ends, if it does not go through the sidecar.
        order: its position among the flows of its direction, from 1: the first match decides. 0 if it is alone.
    """

    what: str
    values: tuple[str, ...]
    way: Way
    port: Port | None = None
    end: End = End.ACROSS
    order: int = 0

    def __str__(self) -> str:
        """Return the flow in one line, for tooltips and for screen readers."""
        where = f", port {self.port}" if self.port else "" if self.end is End.ACROSS else f", {self.end.value}"
        return f"{self.what} ({', '.join(self.values)}): {self.way.value}{where}"


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows of a redirected pod.

    Attributes:
        inbound: from the network to the application, in the order of the rules.
        outbound: from the application to the network, likewise.
        own_call: the sidecar's traffic to the pod's own address, if that is inbound again.
        arriving: the sidecar's traffic to the application, by the source address that this sees; None if there is none.
        leaving: the sidecar's traffic to the network, by its uid and gid.
        has_machines: whether there are virtual machines beside the application.
    """

    inbound: tuple[Flow, ...]
    outbound: tuple[Flow, ...]
    own_call: Flow | None
    arriving: Flow | None
    leaving: Flow
    has_machines: bool


def find_flows(redirect: Redirect) -> Flows:
    """Return the flows that a redirect's rules make."""
    inbound, own_call = tuple(_numbered(_inbound(redirect))), _own_call(redirect)
    captures = own_call or any(flow.way is Way.THROUGH for flow in inbound)
    return Flows(
        inbound=inbound,
        outbound=(*_numbered(_outbound(redirect)), *_from_machines(redirect)),
        own_call=own_call,
        arriving=Flow("From source address", _source(redirect), Way.THROUGH) if captures else None,
        leaving=Flow("Sent by the sidecar", (f"uid {redirect.uid}", f"gid {redirect.gid}"), Way.THROUGH),
        has_machines=bool(redirect.reroute_interfaces),
    )


def _source(redirect: Redirect) -> tuple[str, ...]:
    return ("the client's, kept",) if redirect.mode is Mode.TPROXY else _addresses(redirect, PASS_THROUGH)


def _inbound(redirect: Redirect) -> Iterator[Flow]:
    if redirect.exclude_interfaces:
        yield _bypass("Excluded interfaces", redirect.exclude_interfaces)
    if redirect.drop_invalid:
        yield Flow("Packets of no connection", ("ctstate INVALID",), Way.DROPPED)
    included = redirect.include_inbound_ports
    if included == ():
        yield _bypass("All inbound traffic", ("TCP", "UDP", "ICMP"))
        return
    yield _bypass("The sidecar's own ports", NEVER_INBOUND, End.SIDECAR)
    if included is EVERYTHING:
        if redirect.exclude_inbound_ports:
            yield _bypass("Excluded ports", redirect.exclude_inbound_ports)
        yield _through("TCP to all other ports", "*", INBOUND)
        yield _bypass("All the rest", ("UDP", "ICMP"))
    else:
        if ports := [port for port in included if port not in NEVER_INBOUND]:
            yield _through("TCP to included ports", ports, INBOUND)
        yield _bypass("All the rest", ("other TCP", "UDP", "ICMP"))


def _outbound(redirect: Redirect) -> Iterator[Flow]:
    everything = redirect.include_outbound is EVERYTHING
    if redirect.exclude_interfaces:
        yield _bypass("Excluded interfaces", redirect.exclude_interfaces)
    if redirect.exclude_outbound_ports:
        yield _bypass("Excluded ports, TCP and UDP", redirect.exclude_outbound_ports)
    if redirect.dns_capture:
        yield _through("DNS, UDP and TCP", (f"port {DNS}",), DNS_LISTENER)
    yield _bypass("Loopback", _loopback(redirect), End.BACK)
    if excluded := _of_families(redirect, redirect.exclude_outbound):
        yield _bypass("Excluded IP ranges", excluded)
    if redirect.include_outbound_ports and not everything:
        yield _through("TCP to included ports", redirect.include_outbound_ports, OUTBOUND)
    if everything:
        yield _through("TCP to all other addresses", "*", OUTBOUND)
    elif ranges := _included(redirect):
        yield _through("TCP to included IP ranges", ranges, OUTBOUND)
    yield _bypass("All the rest", _rest_outbound(redirect))


def _rest_outbound(redirect: Redirect) -> tuple[str, ...]:
    udp = "other UDP" if redirect.dns_capture else "UDP"
    if redirect.include_outbound is EVERYTHING:
        return udp, "ICMP"
    return "other TCP" if _included(redirect) or redirect.include_outbound_ports else "TCP", udp, "ICMP"


def _from_machines(redirect: Redirect) -> Iterator[Flow]:
    """Traffic from a virtual machine behind the pod is outbound; no exclusion applies to it."""
    if not redirect.reroute_interfaces:
        return
    everything = redirect.include_outbound is EVERYTHING
    if everything or _included(redirect):
        what = "TCP" if everything else "TCP to included IP ranges"
        yield _through(f"kubevirt: {what}", redirect.reroute_interfaces, OUTBOUND)
    yield _bypass("kubevirt: all the rest", redirect.reroute_interfaces)


def _own_call(redirect: Redirect) -> Flow | None:
    """A call of the application to its own service goes out and comes in through the sidecar."""
    if LO in redirect.exclude_interfaces:
        return None
    return _through("To the pod's own address", (LO, f"any port but {TUNNEL}"), INBOUND)


def _loopback(redirect: Redirect) -> tuple[str, ...]:
    """Include `lo`, unless an included range covers the application's traffic to itself, which depends on the family."""
    captured = {cidr.version for cidr in _included(redirect) if cidr.is_loopback}
    remaining = [family for family in redirect.families if family.version not in captured]
    if len(remaining) == len(redirect.families):
        lo: tuple[str, ...] = (LO,)
    else:
        lo = tuple(f"{LO} ({REDIRECTED[family]})" for family in remaining)
    return (*lo, *_addresses(redirect, LOOPBACK))


def _included(redirect: Redirect) -> tuple[Cidr, ...]:
    return () if redirect.include_outbound is EVERYTHING else _of_families(redirect, redirect.include_outbound)


def _of_families(redirect: Redirect, cidrs: tuple[Cidr, ...]) -> tuple[Cidr, ...]:
    versions = {family.version for family in redirect.families}
    return tuple(cidr for cidr in cidrs if cidr.version in versions)


def _addresses(redirect: Redirect, of_family: Mapping[Family, Cidr]) -> tuple[str, ...]:
    return tuple(str(of_family[family].network_address) for family in redirect.families)


def _through(what: str, values: Iterable[object], port: Port) -> Flow:
    return Flow(what, tuple(map(str, values)), Way.THROUGH, port)


def _bypass(what: str, values: Iterable[object], end: End = End.ACROSS) -> Flow:
    return Flow(what, tuple(map(str, values)), Way.BYPASSED, end=end)


def _numbered(flows: Iterable[Flow]) -> Iterator[Flow]:
    return (replace(flow, order=order) for order, flow in enumerate(flows, 1))
