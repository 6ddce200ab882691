"""The rules of a redirect, for both modes, in the order that docs/redirect.md describes."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from plugin.redirect import Family, Mode
from plugin.rulecount import LARGE, rule_count
from plugin.ruleset import (
    Accept,
    Chain,
    Drop,
    Hook,
    Jump,
    Kind,
    Mark,
    Protocol,
    RedirectTo,
    RestoreMark,
    Return,
    Route,
    Rule,
    Ruleset,
    SaveMark,
    SetMark,
    SetZone,
    State,
    Table,
    TproxyTo,
    Zone,
)
from plugin.values import EVERYTHING, Port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plugin.redirect import Redirect
    from plugin.ruleset import Target
    from plugin.values import Cidr

OUTBOUND, INBOUND, TUNNEL = Port(15001), Port(15006), Port(15008)
NEVER_INBOUND = (TUNNEL, Port(15020), Port(15021), Port(15090))
DNS, DNS_LISTENER = Port(53), Port(15053)
PROXY_ZONE, APPLICATION_ZONE = Zone(1), Zone(2)
INBOUND_MARK, OUTBOUND_MARK = Mark(1337), Mark(1338)
ROUTING_TABLE = 133
MOST_KEPT = 32  # rulesets
LO = "lo"
LOOPBACK: Mapping[Family, Cidr] = {
    Family.V4: ipaddress.IPv4Network("127.0.0.1"),
    Family.V6: ipaddress.IPv6Network("::1"),
}
PASS_THROUGH: Mapping[
    Family, Cidr
] = {  # the address that the proxy binds to when it forwards inbound traffic to the application
    Family.V4: ipaddress.IPv4Network("127.0.0.6"),
    Family.V6: ipaddress.IPv6Network("::6"),
}

TCP, UDP = Protocol.TCP, Protocol.UDP
RETURN = Return()
TO_INBOUND, TO_OUTBOUND = Jump("ISTIO_IN_REDIRECT"), Jump("ISTIO_REDIRECT")
TO_DNS, TO_TPROXY, DIVERT = Jump("ISTIO_OUTPUT_DNS"), Jump("ISTIO_TPROXY"), Jump("ISTIO_DIVERT")
TO_DROP = Jump("ISTIO_DROP")
INBOUND_CHAIN, OUTPUT_CHAIN = Jump("ISTIO_INBOUND"), Jump("ISTIO_OUTPUT")


def ruleset(redirect: Redirect) -> Ruleset:
    """Build the ruleset of a redirect, or return the one that other pods with the same redirect share."""
    if rule_count(redirect) > LARGE:
        return _built(redirect)
    if kept := _shared.get(redirect):
        kept.uses += 1
        return kept.rules
    return _share(redirect, _built(redirect))


@dataclass(slots=True)
class _Shared:
    rules: Ruleset
    uses: int = 1


# Most pods of a node share a few rulesets, and all that is made of these. The most frequent ones are kept, by the algorithm of
# Misra and Gries: as many pods as there are, each with annotations of its own, take no place from them (F37).
_shared: dict[Redirect, _Shared] = {}
_sharing = threading.Lock()


def _share(redirect: Redirect, rules: Ruleset) -> Ruleset:
    with _sharing:
        if len(_shared) < MOST_KEPT:
            return _shared.setdefault(redirect, _Shared(rules)).rules
        for each, kept in [*_shared.items()]:
            kept.uses -= 1
            if kept.uses <= 0:
                del _shared[each]
    return rules


def _built(redirect: Redirect) -> Ruleset:
    kinds = ((Kind.RAW, _raw), (Kind.MANGLE, _mangle), (Kind.NAT, _nat))
    found = ((f, kind, tuple(chains(redirect, f))) for f in redirect.families for kind, chains in kinds)
    routed = redirect.families if redirect.mode is Mode.TPROXY else ()
    return Ruleset(
        tuple(Table(family, kind, chains) for family, kind, chains in found if chains),
        tuple(Route(family, INBOUND_MARK, ROUTING_TABLE) for family in routed),
    )


def _nat(redirect: Redirect, family: Family) -> Iterator[Chain]:
    yield Chain(TO_OUTBOUND.chain, (Rule(protocol=TCP, target=RedirectTo(OUTBOUND)),))
    yield Chain(TO_INBOUND.chain, (Rule(protocol=TCP, target=RedirectTo(INBOUND)),))
    if redirect.dns_capture:
        captured = (Rule(protocol=each, port=DNS, target=RedirectTo(DNS_LISTENER)) for each in (UDP, TCP))
        yield Chain(TO_DNS.chain, tuple(captured))
    yield Chain(OUTPUT_CHAIN.chain, tuple(_output(redirect, family)))
    entered = list(_rerouted(redirect, family))
    if redirect.mode is Mode.REDIRECT and (inbound := tuple(_inbound(redirect, (Rule(target=TO_INBOUND),)))):
        yield Chain(INBOUND_CHAIN.chain, inbound)
        entered.append(Rule(protocol=TCP, target=INBOUND_CHAIN))
    if entered:
        yield Chain("PREROUTING", (*_excluded_in(redirect), *entered), Hook.PREROUTING)
    leaving = list(_excluded_out(redirect))
    if (
        redirect.mode is Mode.TPROXY
    ):  # traffic from the sidecar to the application is no outbound call, and must not return to the sidecar
        leaving.append(Rule(out_interface=LO, mark=INBOUND_MARK, target=RETURN))
    yield Chain("OUTPUT", (*leaving, Rule(target=OUTPUT_CHAIN)), Hook.OUTPUT)


def _mangle(redirect: Redirect, family: Family) -> Iterator[Chain]:
    entered: list[Rule] = []
    if redirect.drop_invalid:
        yield Chain(TO_DROP.chain, (Rule(target=Drop()),))
        entered.append(Rule(state=State.INVALID, target=TO_DROP))
    if redirect.mode is Mode.TPROXY:
        yield Chain(DIVERT.chain, (Rule(target=SetMark(INBOUND_MARK)), Rule(target=Accept())))
        to_sidecar = TproxyTo(INBOUND, INBOUND_MARK)
        yield Chain(TO_TPROXY.chain, (Rule(not_destination=LOOPBACK[family], protocol=TCP, target=to_sidecar),))
        yield Chain(INBOUND_CHAIN.chain, tuple(_tproxied(redirect)))
        from_outside = redirect.include_inbound_ports != ()
        entered.append(Rule(in_interface=None if from_outside else LO, protocol=TCP, target=INBOUND_CHAIN))
        entered.append(Rule(protocol=TCP, mark=INBOUND_MARK, target=SaveMark()))
        yield Chain(OUTPUT_CHAIN.chain, tuple(_marked_output(redirect, family)))
    if entered:
        yield Chain("PREROUTING", (*_excluded_in(redirect), *entered), Hook.PREROUTING)
    if redirect.mode is Mode.TPROXY:
        yield Chain("OUTPUT", (*_excluded_out(redirect), Rule(protocol=TCP, target=OUTPUT_CHAIN)), Hook.OUTPUT)


def _raw(redirect: Redirect, family: Family) -> Iterator[Chain]:  # noqa: ARG001 - v4 and v6 alike
    """Separate the proxy's DNS queries from the application's, which may use the same port at the same time."""
    if not redirect.dns_capture:
        return
    own = (
        Rule(protocol=UDP, port=DNS, target=SetZone(PROXY_ZONE)),
        Rule(protocol=UDP, source_port=DNS_LISTENER, target=SetZone(APPLICATION_ZONE)),
    )
    by_uid = (replace(rule, uid=redirect.uid) for rule in own)
    by_gid = (replace(rule, gid=redirect.gid) for rule in own)
    others = Rule(protocol=UDP, port=DNS, target=SetZone(APPLICATION_ZONE))
    yield Chain(TO_DNS.chain, (*by_uid, *by_gid, others))
    yield Chain(INBOUND_CHAIN.chain, (Rule(protocol=UDP, source_port=DNS, target=SetZone(PROXY_ZONE)),))
    yield Chain("PREROUTING", (Rule(protocol=UDP, target=INBOUND_CHAIN),), Hook.PREROUTING)
    yield Chain("OUTPUT", (Rule(protocol=UDP, target=TO_DNS),), Hook.OUTPUT)


def _inbound(redirect: Redirect, taken: tuple[Rule, ...]) -> Iterator[Rule]:
    """Redirect TCP from outside, except to the sidecar's own ports and excluded ones."""
    if redirect.include_inbound_ports == ():
        return
    for port in NEVER_INBOUND:
        yield Rule(protocol=TCP, port=port, target=RETURN)
    if redirect.include_inbound_ports is EVERYTHING:
        for port in redirect.exclude_inbound_ports:
            yield Rule(protocol=TCP, port=port, target=RETURN)
        for rule in taken:
            yield replace(rule, protocol=TCP)
    else:
        for port in redirect.include_inbound_ports:
            for rule in taken:
                yield replace(rule, protocol=TCP, port=port)


def _tproxied(redirect: Redirect) -> Iterator[Rule]:
    """Redirect inbound TCP under TPROXY.

    An answer goes to its requester, possibly a virtual machine behind the pod. Over `lo`, what the sidecar sends to the pod
    itself is inbound again, whatever the inbound ports, and nothing else is.
    """
    taken = (Rule(protocol=TCP, state=State.KNOWN, target=DIVERT), Rule(protocol=TCP, target=TO_TPROXY))
    yield Rule(state=State.REPLY, target=RETURN)
    for rule in taken:
        yield replace(rule, in_interface=LO, mark=OUTBOUND_MARK)
    yield Rule(in_interface=LO, target=RETURN)
    if redirect.include_inbound_ports != ():
        yield from (Rule(in_interface=name, target=RETURN) for name in redirect.reroute_interfaces)
        yield from _inbound(redirect, taken)


def _rerouted(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """Treat traffic from a virtual machine as outbound, whatever its port."""
    for name in redirect.reroute_interfaces:
        if redirect.include_outbound is EVERYTHING:
            yield Rule(in_interface=name, protocol=TCP, target=TO_OUTBOUND)
        else:
            for cidr in _of(family, redirect.include_outbound):
                yield Rule(in_interface=name, destination=cidr, protocol=TCP, target=TO_OUTBOUND)
        yield Rule(in_interface=name, target=RETURN)


def _output(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """Handle what the pod sends, in the order of section 4: the first matching rule decides."""
    for port in redirect.exclude_outbound_ports:
        yield Rule(protocol=TCP, port=port, target=RETURN)
        yield Rule(protocol=UDP, port=port, target=RETURN)
    yield Rule(out_interface=LO, source=PASS_THROUGH[family], target=RETURN)
    yield from _by_owner(redirect, family)
    if redirect.dns_capture:
        yield Rule(target=TO_DNS)
    yield Rule(destination=LOOPBACK[family], target=RETURN)
    for cidr in _of(family, redirect.exclude_outbound):
        yield Rule(destination=cidr, target=RETURN)
    for port in redirect.include_outbound_ports:
        yield Rule(protocol=TCP, port=port, target=TO_OUTBOUND)
    if redirect.include_outbound is EVERYTHING:
        yield Rule(protocol=TCP, target=TO_OUTBOUND)
    else:
        for cidr in _of(family, redirect.include_outbound):
            yield Rule(destination=cidr, target=TO_OUTBOUND)


def _marked_output(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """Mark TCP that the pod sends, under TPROXY: the sidecar's calls of the pod itself get the inbound mark.

    By uid and by gid each on its own: injectors run the sidecar as root in the mesh's group, and nat, where the uid comes
    first, leaves its calls alone. Those of the uid, such as istio-validation's, nat redirects to a listener that need not be
    transparent.
    A connection from the sidecar to the application with the client's address bears the inbound mark; so do
    the application's answers, which reach the sidecar through it.
    """
    yield Rule(protocol=TCP, connection_mark=INBOUND_MARK, target=RestoreMark())
    yield Rule(mark=INBOUND_MARK, target=RETURN)
    for port in redirect.exclude_outbound_ports:
        yield Rule(protocol=TCP, port=port, target=RETURN)
    yield Rule(out_interface=LO, source=PASS_THROUGH[family], target=RETURN)
    by_uid, by_gid = partial(replace, uid=redirect.uid), partial(replace, gid=redirect.gid)
    if redirect.dns_capture:
        for own in (by_uid, by_gid):
            yield own(_own_query())
    for own in (by_uid, by_gid):
        yield own(_self_call(family, SetMark(OUTBOUND_MARK)))


def _own_query() -> Rule:
    return Rule(out_interface=LO, protocol=TCP, port=DNS, target=RETURN)


def _self_call(family: Family, target: Target) -> Rule:
    """Match what the sidecar sends to the pod itself because the application called its own service."""
    return Rule(out_interface=LO, not_destination=LOOPBACK[family], protocol=TCP, not_port=TUNNEL, target=target)


def _by_owner(redirect: Redirect, family: Family) -> Iterator[Rule]:
    """Handle the sidecar's own traffic, by uid and then by gid, and the application's with itself.

    An application that calls its own service goes out through the sidecar, which then sends to the pod's own
    address over `lo`: only that is inbound again.
    """
    # A loopback range in the include list selects the application's traffic with itself.
    captures_loopback = redirect.include_outbound is not EVERYTHING and any(
        cidr.is_loopback for cidr in _of(family, redirect.include_outbound)
    )
    dns = redirect.dns_capture
    by_others = Rule(out_interface=LO, protocol=TCP if dns else None, not_port=DNS if dns else None, target=RETURN)
    by_uid, not_by_uid = partial(replace, uid=redirect.uid), partial(replace, not_uid=redirect.uid)
    by_gid, not_by_gid = partial(replace, gid=redirect.gid), partial(replace, not_gid=redirect.gid)
    for own, others in ((by_uid, not_by_uid), (by_gid, not_by_gid)):
        if dns:
            yield own(_own_query())
        yield own(_self_call(family, TO_INBOUND))
        if not captures_loopback:
            yield others(by_others)
        yield own(Rule(target=RETURN))


def _excluded_in(redirect: Redirect) -> Iterator[Rule]:
    return (Rule(in_interface=each, target=RETURN) for each in redirect.exclude_interfaces)


def _excluded_out(redirect: Redirect) -> Iterator[Rule]:
    return (Rule(out_interface=each, target=RETURN) for each in redirect.exclude_interfaces)


def _of(family: Family, cidrs: tuple[Cidr, ...]) -> Iterator[Cidr]:
    return (cidr for cidr in cidrs if cidr.version == family.version)
