"""How the machines are joined, and their addresses, as `ip -batch` reads it.

```
 outside ── eth0 of the pod ── net1 of the pod ── second
 (any address of 192.0.2.0/24 and 2001:db8::/64 as well)
```
"""

from __future__ import annotations

from plugin.redirect import Family
from tests.redirect.probes import Place

ADDRESSES = {
    Family.V4: {
        Place.POD: "10.9.0.1",
        Place.LOOPBACK: "127.0.0.1",
        Place.OTHER_LOOPBACK: "127.0.0.2",
        Place.PASS_THROUGH: "127.0.0.6",
        Place.PEER: "10.9.0.2",
        Place.OTHER_PEER: "192.0.2.9",
        Place.SECOND_PEER: "10.8.0.2",
    },
    Family.V6: {
        Place.POD: "fd09::1",
        Place.LOOPBACK: "::1",
        Place.OTHER_LOOPBACK: "::2",
        Place.PASS_THROUGH: "::6",  # of what is applied
        Place.PEER: "fd09::2",
        Place.OTHER_PEER: "2001:db8::9",
        Place.SECOND_PEER: "fd08::2",
    },
}
ON_SECOND = {Family.V4: "10.8.0.1", Family.V6: "fd08::1"}  # the pod's addresses on net1
LINKS = """
link add eth0 type veth peer name eth0 netns {outside}
link add net1 type veth peer name eth0 netns {second}
link set lo up
link set eth0 up
link set net1 up
address add ::2/128 dev lo nodad
address add 10.9.0.1/24 dev eth0
address add fd09::1/64 dev eth0 nodad
address add 10.8.0.1/24 dev net1
address add fd08::1/64 dev net1 nodad
"""
OUTSIDE = """
link set lo up
link set eth0 up
address add 10.9.0.2/24 dev eth0
address add fd09::2/64 dev eth0 nodad
route add 10.8.0.0/24 via 10.9.0.1
route add fd08::/64 via fd09::1
route add local 192.0.2.0/24 dev lo
route add local 2001:db8::/64 dev lo
"""
SECOND = """
link set lo up
link set eth0 up
address add 10.8.0.2/24 dev eth0
address add fd08::2/64 dev eth0 nodad
route add default via 10.8.0.1
route add default via fd08::1
"""
FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")  # what a virtual machine sends passes through
DEFAULT_ROUTES = """
route add default via 10.9.0.2
route add default via fd09::2
"""
