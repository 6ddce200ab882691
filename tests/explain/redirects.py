"""Redirects to draw: any that annotations can ask for, and some to look at."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from installer.explain.explain import Explanation
from plugin.redirect import Family, Mode, Redirect
from plugin.values import EVERYTHING, Gid, Interface, Port, Uid

V4, V6 = (Family.V4,), (Family.V4, Family.V6)
LARGEST = Redirect(
    mode=Mode.TPROXY,
    families=V6,
    uid=Uid(2147483647),
    gid=Gid(2147483647),
    exclude_inbound_ports=tuple(map(Port, range(65472, 65536))),
    include_outbound=tuple(ipaddress.ip_network(f"2001:db8:ffff:ffff:ffff:ffff:ffff:ff{n:02x}/128") for n in range(64)),
    exclude_outbound=tuple(ipaddress.ip_network(f"255.255.255.{n}/32") for n in range(64)),
    include_outbound_ports=tuple(map(Port, range(65408, 65472))),
    exclude_outbound_ports=tuple(map(Port, range(65344, 65408))),
    exclude_interfaces=tuple(Interface(f"mmmmmmmmmmmmm{n}") for n in range(16, 80)),
    reroute_interfaces=tuple(Interface(f"wwwwwwwwwwwww{n}") for n in range(16, 80)),
    dns_capture=True,
    drop_invalid=True,
)
TABLE = {
    "default": Redirect(),
    "largest": LARGEST,
    "everything at once": Redirect(
        families=V6,
        exclude_inbound_ports=(Port(22),),
        exclude_outbound=(ipaddress.ip_network("10.0.0.0/8"),),
        exclude_interfaces=(Interface("net1"),),
        reroute_interfaces=(Interface("vnet0"),),
        dns_capture=True,
        drop_invalid=True,
    ),
    "lists": Redirect(
        mode=Mode.TPROXY,
        include_inbound_ports=(Port(8080), Port(8443)),
        include_outbound=(ipaddress.ip_network("10.96.0.0/12"),),
        include_outbound_ports=(Port(443),),
    ),
    "nothing": Redirect(include_inbound_ports=(), include_outbound=(), exclude_outbound_ports=()),
    "nothing under TPROXY": Redirect(mode=Mode.TPROXY, include_inbound_ports=(), include_outbound=()),
    "DNS alone": Redirect(include_inbound_ports=(), include_outbound=(), dns_capture=True),
}

CIDRS = [
    "10.0.0.0/8", "10.96.0.10", "127.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "192.0.2.0/24",
    "fd00::/8", "::1", "::/0", "2001:db8:1234:5678:9abc:def0:1234:5678",
]  # fmt: skip

KNOWN_PORTS = [53, 80, 443, 8080, 15006, 15008, 15020, 15090]


def lists_of(strategy: st.SearchStrategy[Any], longest: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, unique=True, max_size=longest).map(tuple)


def named(prefix: str) -> st.SearchStrategy[Interface]:
    return st.integers(0, 10**6).map(lambda number: Interface(f"{prefix}{number}"))


def redirects(ports: st.SearchStrategy[int], longest: int) -> st.SearchStrategy[Redirect]:
    """Any redirect, with lists of these ports, and lists no longer than that."""
    port_lists = lists_of(ports.map(Port), longest)
    cidrs = lists_of(st.sampled_from(CIDRS).map(ipaddress.ip_network), longest)
    return st.builds(
        Redirect,
        mode=st.sampled_from(Mode),
        families=st.sampled_from([V4, V6]),
        uid=st.integers(1001, 2**31 - 1).map(Uid),  # the application has 1000
        gid=st.integers(1001, 2**31 - 1).map(Gid),
        include_inbound_ports=st.just(EVERYTHING) | port_lists,
        exclude_inbound_ports=port_lists,
        include_outbound=st.just(EVERYTHING) | cidrs,
        exclude_outbound=cidrs,
        include_outbound_ports=port_lists,
        exclude_outbound_ports=port_lists,
        exclude_interfaces=lists_of(named("net"), longest),
        reroute_interfaces=lists_of(named("vnet"), longest),
        dns_capture=st.booleans(),
        drop_invalid=st.booleans(),
    )


small = redirects(st.sampled_from(KNOWN_PORTS), 3)
large = redirects(st.sampled_from(KNOWN_PORTS) | st.integers(1, 65535), 70)


def explained(
    redirect: Redirect | None,
    *,
    namespace: str = "shop",
    name: str = "reviews-0",
    decision: str = "",
    reason: str = "it is a meshed pod",
    warnings: tuple[str, ...] = (),
) -> Explanation:
    decision = decision or ("redirect" if redirect else "pass")
    return Explanation(namespace, name, "Pod", decision, decision, reason, redirect, (), warnings)
