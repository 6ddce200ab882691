"""The cases of Istio's own tests of its rules, as data: what a pod says, and where packets then arrive with ours.

They are those of its `istio-iptables` (27 cases, which its nftables share) and of its CNI plugin's dry run (9), of 1.32.
The settings are theirs; a pod says them with annotations and its sidecar's environment, as ours knows no flags. Judged are
the walk of `install-cni trace` through our rules and the model; `test_differential` holds both to the kernel's treatment.

Differences of ours are in docs/redirect.md. Those that a case meets:

- `LEFT_OUT` has the cases of settings that no pod can say, as they are flags of `istio-iptables`.
- A list of ports that ends with a comma is invalid in an annotation, here as for Istio's injector; its command line takes it.
- Where a case says which servers answer DNS, theirs captures the queries to these alone. No pod can say that: with DNS capture
  ours takes all queries, as Istio's CNI plugin does.
- A pod that says nothing about inbound ports declares one, as ours then captures those that it declares.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.explain.trace import walk
from plugin.redirect import Family, Mode
from plugin.rules import ruleset
from tests.explain.packets import packet
from tests.redirect import model
from tests.redirect.probes import APPLICATION, PROXY, PROXY_GID_ALONE, Sender
from tests.redirect.rows import (
    ALL_INBOUND,
    DIRECT,
    LOOPBACK,
    OTHER,
    OTHER_LOOPBACK,
    PEER,
    POD,
    SECOND,
    Row,
    by,
    fate,
    inbound,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


pytestmark = pytest.mark.pure

NOTHING_OUT = {"includeOutboundIPRanges": ""}  # their tests' default: an injected pod says "*"
DNS = {"ISTIO_META_DNS_CAPTURE": "true"}
OWN_IDS = {"runAsUser": 3, "runAsGroup": 1}
OWN = (Sender(3, 1), Sender(3, 42), Sender(42, 1))
EXCLUDED, INCLUDED = "10.9.0.0/16,fd09::/16", "192.0.2.0/24,2001:db8::/32"  # PEER, OTHER
APART = (
    by(APPLICATION, PEER, 80, DIRECT),
    by(APPLICATION, OTHER, 80, 15001),
    by(APPLICATION, POD, 80, DIRECT),
    by(APPLICATION, LOOPBACK, 80, DIRECT),
)
TO_ITSELF = (by(PROXY, POD, 80, 15006), by(PROXY, POD, 15008, DIRECT), by(PROXY, LOOPBACK, 80, DIRECT))
OF_OWN_IDS = (*(by(each, PEER, 80, DIRECT) for each in OWN), by(OWN[0], POD, 80, 15006))
TWO_PORTS = (inbound(80, 15006), inbound(8080, 15006), inbound(443, DIRECT), inbound(15008, DIRECT))
WILDCARD = (
    *(inbound(port, 15006) for port in (80, 443)),
    *(inbound(port, DIRECT) for port in (15008, 15020, 15021, 15090)),
)
ASKED = (
    *(by(APPLICATION, PEER, 53, 15053, udp=udp) for udp in (True, False)),
    *(by(PROXY, PEER, 53, DIRECT, udp=udp) for udp in (True, False)),
)
ASKED_OF_OWN_IDS = (
    *(by(APPLICATION, PEER, 53, 15053, udp=udp) for udp in (True, False)),
    *(by(each, PEER, 53, DIRECT, udp=udp) for each in OWN for udp in (True, False)),
)
VIRTUAL = {"istio.io/reroute-virtual-interfaces": "net1,net7"}
RANGE = {"includeOutboundIPRanges": INCLUDED}


CASES: Mapping[str, Row] = {
    "empty": Row(
        NOTHING_OUT, (inbound(80, DIRECT), by(APPLICATION, PEER, 80, DIRECT), by(PROXY, PEER, 80, DIRECT), *TO_ITSELF)
    ),
    "ipv6-empty-inbound-ports": Row(NOTHING_OUT | {"includeInboundPorts": ""}, (inbound(80, DIRECT), *TO_ITSELF)),
    "ip-range": Row(
        DNS | RANGE | {"excludeOutboundIPRanges": EXCLUDED},
        (*APART, *ASKED_OF_OWN_IDS, *OF_OWN_IDS),
        security=OWN_IDS,
    ),
    "tproxy": Row(
        ALL_INBOUND | DNS | RANGE | {"excludeOutboundIPRanges": EXCLUDED, "excludeInterfaces": "net1"},
        (*APART, *ASKED, *WILDCARD, inbound(80, DIRECT, "net1"), by(APPLICATION, SECOND, 53, DIRECT, udp=True)),
    ),
    "ipv6-inbound-ports": Row(NOTHING_OUT | {"includeInboundPorts": "80,8080"}, TWO_PORTS),
    "ipv6-virt-interfaces": Row(
        NOTHING_OUT | VIRTUAL | {"includeInboundPorts": "80,8080"}, (*TWO_PORTS, inbound(80, DIRECT, "net1", OTHER))
    ),
    "ipv6-ipnets": Row(
        VIRTUAL
        | {"includeInboundPorts": "80,8080", "excludeInboundPorts": "8080,9000"}
        | {"includeOutboundIPRanges": EXCLUDED, "excludeOutboundIPRanges": EXCLUDED},
        (
            *TWO_PORTS,  # excluded ports count beside * alone
            by(APPLICATION, PEER, 80, DIRECT),  # a range that is both is excluded
            inbound(80, 15001, "net1", PEER),  # but a virtual machine's traffic knows no excludes
            inbound(80, DIRECT, "net1", OTHER),
        ),
    ),
    "ipv6-uid-gid": Row(
        VIRTUAL
        | {"includeInboundPorts": "80,8080", "excludeInboundPorts": "8080,9000"}
        | {"includeOutboundIPRanges": EXCLUDED, "excludeOutboundIPRanges": EXCLUDED},
        (*TWO_PORTS, *OF_OWN_IDS, by(PROXY, PEER, 80, DIRECT), inbound(80, 15001, "net1", PEER)),
        security=OWN_IDS,
    ),
    "ipv6-outbound-ports": Row(
        NOTHING_OUT | {"includeInboundPorts": "", "includeOutboundPorts": "443,8080"},
        (inbound(80, DIRECT), by(APPLICATION, PEER, 443, 15001), by(APPLICATION, PEER, 80, DIRECT)),
    ),
    "kube-virt-interfaces": Row(
        VIRTUAL | {"includeOutboundIPRanges": "*"},
        (
            inbound(80, 15001, "net1", OTHER),
            inbound(9000, DIRECT, "net1", PEER, udp=True),
            by(APPLICATION, PEER, 80, 15001),
        ),
    ),
    "ipnets": Row(RANGE, APART),
    "ipnets-with-kube-virt-interfaces": Row(
        RANGE | VIRTUAL, (*APART, inbound(80, 15001, "net1", OTHER), inbound(80, DIRECT, "net1", PEER))
    ),
    "inbound-ports-include": Row(NOTHING_OUT | {"includeInboundPorts": "80,8080"}, (*TWO_PORTS, *TO_ITSELF)),
    "inbound-ports-wildcard": Row(NOTHING_OUT | ALL_INBOUND, (*WILDCARD, *TO_ITSELF)),
    "inbound-ports-tproxy": Row(NOTHING_OUT | {"includeInboundPorts": "80,8080"}, TWO_PORTS),
    "inbound-ports-wildcard-tproxy": Row(NOTHING_OUT | ALL_INBOUND, WILDCARD),
    "dns-uid-gid": Row(NOTHING_OUT | DNS, (*ASKED_OF_OWN_IDS, *OF_OWN_IDS), security=OWN_IDS),
    "ipv6-dns-uid-gid": Row(NOTHING_OUT | DNS, (*ASKED_OF_OWN_IDS, *OF_OWN_IDS), security=OWN_IDS),
    "outbound-ports-include": Row(
        NOTHING_OUT | {"includeOutboundPorts": "443,8080"},
        (by(APPLICATION, PEER, 443, 15001), by(APPLICATION, OTHER, 8080, 15001), by(APPLICATION, PEER, 80, DIRECT)),
    ),
    "loopback-outbound-iprange": Row(
        DNS | {"includeOutboundIPRanges": "127.0.0.0/8,::1/128,::2/128"},
        (
            *ASKED_OF_OWN_IDS,
            *OF_OWN_IDS,
            by(APPLICATION, OTHER_LOOPBACK, 80, 15001),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, PEER, 80, DIRECT),
        ),
        security=OWN_IDS,
    ),
    "basic-exclude-nic": Row(
        NOTHING_OUT | ALL_INBOUND | {"excludeInterfaces": "net1"},
        (inbound(80, DIRECT, "net1"), inbound(80, 15006), by(PROXY, SECOND, 80, DIRECT)),
    ),
    "drop-invalid": Row(NOTHING_OUT | ALL_INBOUND | {"INVALID_DROP": "true"}, (*WILDCARD, *TO_ITSELF)),
    # Of the CNI plugin; its pod declares port 80, and says "*" of nothing.
    "plugin: basic": Row({}, (inbound(80, 15006), inbound(443, DIRECT), by(APPLICATION, PEER, 80, 15001)), ports=(80,)),
    "plugin: include-exclude-ip": Row(
        {"includeOutboundIPRanges": "127.0.0.0/8,::1/128,::2/128", "excludeOutboundIPRanges": EXCLUDED},
        (
            by(APPLICATION, OTHER_LOOPBACK, 80, 15001),
            by(APPLICATION, PEER, 80, DIRECT),
            by(APPLICATION, OTHER, 80, DIRECT),
        ),
    ),
    "plugin: include-exclude-ports": Row(
        {"includeInboundPorts": "80,8080", "excludeInboundPorts": "443,9000", "excludeOutboundPorts": "443,9000"},
        (
            *TWO_PORTS,
            by(APPLICATION, PEER, 443, DIRECT),
            by(APPLICATION, PEER, 80, 15001),
            by(APPLICATION, PEER, 15020, 15001),
        ),
    ),
    "plugin: tproxy": Row({}, (inbound(80, 15006), by(APPLICATION, PEER, 80, 15001)), ports=(80,)),
    "plugin: DNS": Row(DNS, (*ASKED, by(APPLICATION, PEER, 80, 15001))),
    "plugin: invalid-drop": Row(
        {"INVALID_DROP": "true"}, (inbound(80, 15006), by(APPLICATION, PEER, 80, 15001)), ports=(80,)
    ),
    "plugin: custom-uid": Row({}, (*OF_OWN_IDS, by(PROXY, PEER, 80, 15001)), security=OWN_IDS),
    "plugin: custom-uid-zero": Row(
        {}, (by(PROXY_GID_ALONE, PEER, 80, DIRECT), by(Sender(0, 1337), PEER, 80, DIRECT)), security={"runAsUser": 0}
    ),
    "plugin: custom-uid-tproxy": Row({}, OF_OWN_IDS, security=OWN_IDS),
}
TPROXY = (
    "tproxy",
    "inbound-ports-tproxy",
    "inbound-ports-wildcard-tproxy",
    "plugin: tproxy",
    "plugin: custom-uid-tproxy",
)
LEFT_OUT = {
    "outbound-owner-groups": "no pod can say it: a flag of istio-iptables",
    "outbound-owner-groups-exclude": "the same",
    "ipv6-dns-outbound-owner-groups": "the same",
    "ipv6-dns-outbound-owner-groups-exclude": "the same",
    "host-ipv4-loopback-cidr": "the same: 127.0.0.1 alone is left alone, as by its default",
}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("name", CASES)
def test_packets_arrive_where_the_case_says(name: str, family: Family) -> None:
    mode = Mode.TPROXY if name in TPROXY else Mode.REDIRECT
    row = CASES[name]
    redirect = row.redirect(mode)
    rules = ruleset(redirect)
    for each, arrives in row.packets:
        probe = replace(each, family=family)
        wanted = fate(probe, arrives, mode)
        assert walk(rules, packet(probe)).port == wanted.port, probe
        assert model.fate(redirect, probe) == wanted, probe


def test_no_case_is_forgotten() -> None:
    assert len([name for name in (*CASES, *LEFT_OUT) if not name.startswith("plugin: ")]) == 27
    assert len([name for name in CASES if name.startswith("plugin: ")]) == 9
