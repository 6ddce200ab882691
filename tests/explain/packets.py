"""The probes of tests/redirect as packets for the trace engine."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from installer.explain.trace import EPHEMERAL, Packet, build_packet
from plugin.ruleset import Protocol
from plugin.values import Gid, Port, Uid
from tests.redirect.probes import Place, Probe
from tests.redirect.topology import ADDRESSES, ON_SECOND


def packet(probe: Probe) -> Packet:
    """Make the packet that a probe is, in the pod of the machines."""
    places = {place: ipaddress.ip_address(address) for place, address in ADDRESSES[probe.family].items()}
    protocol = Protocol.UDP if probe.udp else Protocol.TCP
    if probe.sender is None:
        on_second = probe.interface == "net1"
        to = places[probe.to]
        if on_second and probe.to is Place.POD:
            to = ipaddress.ip_address(ON_SECOND[probe.family])
        source = places[Place.SECOND_PEER if on_second else Place.PEER]
        return Packet(
            source=source, destination=to, port=Port(probe.port), protocol=protocol, in_interface=probe.interface
        )
    own = (places[Place.POD], places[Place.OTHER_LOOPBACK], places[Place.PASS_THROUGH])
    made = build_packet(own, places[probe.to], Port(probe.port), Uid(probe.sender.uid), Gid(probe.sender.gid))
    source = places[Place.PASS_THROUGH] if probe.bound else made.source
    if probe.to is Place.PASS_THROUGH:
        source = places[Place.LOOPBACK]
    return replace(
        made,
        protocol=protocol,
        source=source,
        source_port=Port(probe.source_port or EPHEMERAL),
        out_interface="net1" if probe.to is Place.SECOND_PEER else made.out_interface,
    )
