"""Where a packet arrives, as sections 2 and 4 of the redirect's description say it: a second account, not made from the rules.

It knows neither chains nor tables, only who sends what to whom, so that it can disagree with `plugin.rules`: to correct it,
read section 4, not the rules. No probe is an invalid packet, so INVALID_DROP changes nothing here.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from plugin.redirect import Mode, Redirect
from plugin.values import EVERYTHING
from tests.redirect.probes import Fate, Place, Probe
from tests.redirect.topology import ADDRESSES, ON_SECOND

if TYPE_CHECKING:
    from plugin.values import Address, Cidr

OUTBOUND, INBOUND, DNS_LISTENER = 15001, 15006, 15053
OF_THE_SIDECAR = {15008, 15020, 15021, 15090}
ON_LO = {Place.POD, Place.LOOPBACK, Place.OTHER_LOOPBACK, Place.PASS_THROUGH}


def fate(redirect: Redirect, probe: Probe) -> Fate:
    """Say what must become of a probe.

    It always arrives: in the sidecar if that takes it, else where it was sent. Whoever gets it finds the destination asked for
    and the sender's own address.
    """
    taken = probe.family in redirect.families and (
        _from_outside(redirect, probe) if probe.sender is None else _from_inside(redirect, probe)
    )
    return Fate(taken or probe.port, None if probe.udp else (probe.to, probe.port))


def _from_outside(redirect: Redirect, probe: Probe) -> int | None:
    """Say which port of the sidecar takes it, None if it is left alone."""
    if probe.interface in redirect.exclude_interfaces:  # before all else
        return None
    if probe.interface in redirect.reroute_interfaces:  # never inbound; whatever its port; excludes do not count
        included = redirect.include_outbound
        return OUTBOUND if not probe.udp and (included is EVERYTHING or _in(included, _host(probe))) else None
    return INBOUND if _is_inbound(redirect, probe) else None


def _is_inbound(redirect: Redirect, probe: Probe) -> bool:
    if probe.udp or probe.port in OF_THE_SIDECAR:
        return False
    if redirect.include_inbound_ports is EVERYTHING:  # excludes count only here
        return probe.port not in redirect.exclude_inbound_ports
    return probe.port in redirect.include_inbound_ports


def _from_inside(redirect: Redirect, probe: Probe) -> int | None:
    """In this order: interfaces, port excludes, 127.0.0.6, per uid and then per gid, DNS, where it goes to."""
    if _interface(probe) in redirect.exclude_interfaces or probe.port in redirect.exclude_outbound_ports:
        return None
    over_lo, dns = probe.to in ON_LO, redirect.dns_capture and probe.port == 53
    if over_lo and probe.bound:
        return None
    own = (
        probe.sender and probe.sender.uid == redirect.uid,
        probe.sender and probe.sender.gid == redirect.gid,
    )
    if (
        redirect.mode is Mode.TPROXY and over_lo and any(own)
    ):  # by uid and by gid each on its own: their order is nothing
        return None if dns else _self_call(probe)
    for is_own in own:
        if is_own:  # leaves as it is, but for the application calling its own service through the proxy
            return _self_call(probe) if over_lo and not dns else None
        # Over `lo` by others is left alone: that of the sidecar's gid alone, too, as the uid comes first.
        if over_lo and not dns and not _asks_for_loopback(redirect, probe):
            return None
    if dns:
        return DNS_LISTENER
    return OUTBOUND if not probe.udp and _is_outbound(redirect, probe) else None


def _is_outbound(redirect: Redirect, probe: Probe) -> bool:
    """Excluded ranges win over included ports, and those over an include list that is not everything."""
    host = _host(probe)
    if probe.to is Place.LOOPBACK or _in(redirect.exclude_outbound, host):
        return False
    if redirect.include_outbound is EVERYTHING or probe.port in redirect.include_outbound_ports:
        return True
    return _in(redirect.include_outbound, host)


def _self_call(probe: Probe) -> int | None:
    """The sidecar sends to the pod itself: the application has called its own service. No list of ports counts."""
    return None if probe.udp or probe.port == 15008 or probe.to is Place.LOOPBACK else INBOUND


def _asks_for_loopback(redirect: Redirect, probe: Probe) -> bool:
    """Whether a loopback range is included: then the application's traffic with itself is like any other."""
    if redirect.include_outbound is EVERYTHING:
        return False
    loopback = ipaddress.ip_network("127.0.0.0/8" if probe.family.version == 4 else "::1/128")
    ranges = (each for each in redirect.include_outbound if each.version == loopback.version)
    return any(each.subnet_of(loopback) for each in ranges)  # type: ignore[arg-type]


def _interface(probe: Probe) -> str:
    if probe.to in ON_LO:
        return "lo"
    return "net1" if probe.to is Place.SECOND_PEER else "eth0"


def _host(probe: Probe) -> Address:
    to_second = probe.sender is None and probe.interface == "net1" and probe.to is Place.POD
    return ipaddress.ip_address(ON_SECOND[probe.family] if to_second else ADDRESSES[probe.family][probe.to])


def _in(ranges: tuple[Cidr, ...], host: Address) -> bool:
    return any(host in each for each in ranges)
