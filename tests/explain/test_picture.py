"""What the picture says is what the rules do; the packet is walked through them by the model of `trace`."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from installer.explain.flows import Way
from installer.explain.picture import build_picture
from installer.explain.trace import APPLICATION, Outcome, Packet, walk
from plugin.redirect import Family, Mode, Redirect
from plugin.rules import LO, ruleset
from plugin.ruleset import Protocol
from plugin.values import Gid, Port
from tests.explain.redirects import KNOWN_PORTS, TABLE, explained, small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.explain.flows import Flow, Flows

pytestmark = pytest.mark.pure

POD = {4: "10.0.0.7", 6: "fd00::7"}
ADDRESSES = ["192.0.2.9", "10.96.0.10", "127.0.0.1", "127.0.0.5", "2001:db8::1", "fd00::9", "::1", *POD.values()]
TAKEN = (Outcome.REDIRECTED, Outcome.TPROXIED)


def find_flows(redirect: Redirect) -> Flows:
    found = build_picture(explained(redirect)).flows
    assert found
    return found


def packets(redirect: Redirect) -> Iterator[Packet]:
    """Packets that come in, from outside or from a virtual machine, and packets that the application sends."""
    versions = {family.version for family in redirect.families}
    addresses = [each for each in map(ipaddress.ip_address, ADDRESSES) if each.version in versions]
    interfaces = ["eth0", *redirect.exclude_interfaces, *redirect.reroute_interfaces]
    for destination, protocol, port in product(addresses, Protocol, map(Port, [*KNOWN_PORTS, 9999])):
        own = ipaddress.ip_address(POD[destination.version])
        local = destination.is_loopback or destination == own
        packet = Packet(source=own, destination=destination, port=port, protocol=protocol)
        for interface in [LO] if local else interfaces:
            yield replace(packet, out_interface=interface, uid=APPLICATION, gid=Gid(APPLICATION))
        for interface in [] if local else interfaces:
            yield replace(packet, in_interface=interface)


def fits(flow: Flow, packet: Packet) -> bool:
    """Read a flow as a person does."""
    tcp, port, interface = (
        packet.protocol is Protocol.TCP,
        str(packet.port),
        packet.in_interface or packet.out_interface,
    )
    match flow.what:
        case "Excluded interfaces":
            return interface in flow.values
        case "The sidecar's own ports" | "Excluded ports" | "TCP to included ports":
            return tcp and port in flow.values
        case "Excluded ports, TCP and UDP":
            return port in flow.values
        case "DNS, UDP and TCP":
            return f"port {port}" in flow.values
        case "Loopback":
            lo = {LO, f"{LO} (IPv{packet.destination.version})"}
            return bool(interface == LO and lo & set(flow.values)) or str(packet.destination) in flow.values
        case "Excluded IP ranges" | "TCP to included IP ranges":
            within = any(packet.destination in ipaddress.ip_network(each) for each in flow.values)
            return within and (tcp or flow.way is Way.BYPASSED)
        case "TCP to all other ports" | "TCP to all other addresses":
            return tcp
        case "All the rest" | "All inbound traffic":
            return True
        case "Packets of no connection":
            return False  # it is the first of its connection
    raise AssertionError(flow.what)


def flow_of(redirect: Redirect, flows: Flows, packet: Packet) -> Flow:
    """Find the flow that a person who looks at the picture would say that a packet takes."""
    machines = [flow for flow in flows.outbound if not flow.order]
    if packet.in_interface in redirect.reroute_interfaces:
        first, *rest = machines
        included = [flow for flow in flows.outbound if flow.what == "TCP to included IP ranges"]
        taken = packet.protocol is Protocol.TCP and (not first.what.endswith("ranges") or fits(included[0], packet))
        return first if taken or not rest else rest[0]
    ordered = flows.inbound if packet.in_interface else flows.outbound
    return min((flow for flow in ordered if flow.order and fits(flow, packet)), key=lambda flow: flow.order)


@given(small)
def test_picture_matches_the_packets_paths(redirect: Redirect) -> None:
    rules, flows = ruleset(redirect), find_flows(redirect)
    for packet in packets(redirect):
        flow, walked = flow_of(redirect, flows, packet), walk(rules, packet)
        if flow.way is Way.THROUGH:
            assert (walked.outcome in TAKEN, walked.port) == (True, flow.port), (packet, flow)
        else:
            assert (walked.outcome, flow.way) == (Outcome.UNTOUCHED, Way.BYPASSED), (packet, flow)


@given(small)
def test_each_direction_ends_with_a_catch_all_and_is_numbered_without_gaps(redirect: Redirect) -> None:
    flows = find_flows(redirect)
    for ordered in (flows.inbound, [flow for flow in flows.outbound if flow.order]):
        assert [flow.order for flow in ordered] == list(range(1, len(ordered) + 1))
        assert ordered[-1].what in ("All the rest", "All inbound traffic")


def test_ranges_of_a_family_that_is_not_redirected_are_not_drawn() -> None:
    redirect = Redirect(include_outbound=(ipaddress.ip_network("fd00::/8"),))
    assert [flow.what for flow in find_flows(redirect).outbound] == [
        "Excluded ports, TCP and UDP",
        "Loopback",
        "All the rest",
    ]
    assert [fact.way for fact in build_picture(explained(redirect)).facts] == [Way.THROUGH, Way.THROUGH, Way.BYPASSED]


def test_the_sidecars_own_ports_are_never_shown_as_included() -> None:
    taken = find_flows(Redirect(include_inbound_ports=(Port(8080), Port(15020)))).inbound[1]
    assert (taken.what, taken.values) == ("TCP to included ports", ("8080",))


def test_the_clients_address_is_shown_as_the_mode_leaves_it() -> None:
    arriving = {mode: find_flows(Redirect(mode=mode)).arriving for mode in Mode}
    assert {mode: flow and flow.values for mode, flow in arriving.items()} == {
        Mode.REDIRECT: ("127.0.0.6",),
        Mode.TPROXY: ("the client's, kept",),
    }
    assert (
        build_picture(explained(Redirect(mode=Mode.TPROXY))).facts[0].text
        == "mode TPROXY: the client's address is kept"
    )


@pytest.mark.parametrize(("decision", "way"), [("pass", Way.BYPASSED), ("error", Way.DROPPED)])
def test_a_pod_that_is_not_redirected_has_one_path(decision: str, way: Way) -> None:
    found = build_picture(explained(None, decision=decision, reason="why"))
    assert (found.flows, found.all_traffic.way, found.verdict) == (None, way, f"{decision}: why")


@pytest.mark.parametrize("redirect", TABLE.values(), ids=TABLE)
def test_text_of_the_picture_has_every_flow(redirect: Redirect) -> None:
    words = " ".join(build_picture(explained(redirect, warnings=("beware",))).sentences)
    flows = find_flows(redirect)
    for flow in (*flows.inbound, *flows.outbound):
        assert all(value in words for value in flow.values)
    for said in (
        "shop/reviews-0",
        "it is a meshed pod",
        "beware",
        f"uid {redirect.uid}",
        f"mode {redirect.mode.value}",
    ):
        assert said in words
    assert (Family.V6 in redirect.families) == ("IPv6 redirected" in words)
