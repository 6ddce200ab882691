"""Random pods that validate, as people write them (blanks, duplicates, host bits), near to what the probes meet.

Plain choices would leave most lists empty or absent, and few packets would meet a rule; so how often is said here.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from plugin.keys import REROUTE, TRAFFIC
from plugin.pod import Pod

if TYPE_CHECKING:
    from collections.abc import Callable

Text: TypeAlias = st.SearchStrategy[str | None]

# What the machines' addresses are in, spelled in several ways; a range of each row is as likely as one of another.
PEERS = ["10.9.0.0/16", "10.9.0.2", "10.9.0.77/30", "fd09::/16", "fd09::2", "FD09:0:0::7/64"]
OTHERS = ["192.0.2.77/24", "192.0.2.9/32", "2001:db8::7/32", "2001:0db8:0000::9"]
SECONDS = ["10.8.0.0/24", "10.8.0.2", "fd08::2/64"]
PEERS_AND_SECONDS = ["10.9.1.1/8", "fd00::/8"]
ITSELF = ["127.0.0.0/8, 10.9.0.1", "::1,fd09::/64"]  # with loopback, what the pod sends to itself is asked for as well
LOOPBACKS = ["127.0.0.0/8", "127.0.0.1", "127.0.0.2/31", "::1", "::1/128", "::2"]
ELSEWHERE = ["172.16.0.0/12", "::ffff:10.0.0.0/104", "0.0.0.0/32"]
ALL = ["0.0.0.0/0", "::/0", "1.2.3.4/0"]


def likely(*ways: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Choose one of these ways, each as likely as it is often named (`st.one_of` drops what is named twice)."""
    return st.sampled_from(ways).flatmap(lambda way: way)


@st.composite
def lists(draw: Callable[[Any], Any], tokens: st.SearchStrategy[str], most: int) -> str:
    """A list of one token up to `most`, with commas between them, blanks as they come and perhaps its first one again."""
    chosen = draw(st.lists(tokens, min_size=1, max_size=most))
    again = chosen[:1] if draw(st.booleans()) else []
    blanks = st.sampled_from(["", "", " ", "\t", "  "])
    return ",".join(draw(blanks) + each + draw(blanks) for each in [*chosen, *again])


def ports(*near: int) -> st.SearchStrategy[str]:
    """A port, mostly one of these."""
    return likely(*[st.sampled_from([str(port) for port in near])] * 7, st.integers(1, 65535).map(str))


def ranges(*groups: list[str]) -> st.SearchStrategy[str]:
    """A range, of any group alike."""
    return likely(*(st.sampled_from(group) for group in groups))


ABSENT, EMPTY, EVERYTHING = st.none(), st.sampled_from(["", " "]), st.sampled_from(["*", " * "])
INBOUND = ports(53, 80, 443, 8080, 9000, 15001, 15008, 15020, 15021, 15090)
OUTBOUND = ports(53, 80, 443, 8080, 15008, 15020)
INCLUDED = lists(ranges(PEERS, OTHERS, SECONDS, PEERS_AND_SECONDS, LOOPBACKS, ITSELF, ELSEWHERE, ALL), 6)
EXCLUDED = lists(ranges(PEERS, OTHERS, SECONDS, LOOPBACKS, ELSEWHERE, [*ALL, *PEERS_AND_SECONDS, *ELSEWHERE]), 2)
OF_GUESTS = st.sampled_from(["net1", "net1", "net1", "eth0", "k6t-0"])
NAMES = st.sampled_from(["net1", "net1", "lo", "net7", "eth0"])
TRUE, FALSE = st.sampled_from(["1", "t", "true", "True", "TRUE"]), st.sampled_from(["", "0", "false", "F"])

ANNOTATIONS: dict[str, Text] = {
    "includeInboundPorts": likely(ABSENT, EMPTY, EVERYTHING, EVERYTHING, EVERYTHING, lists(INBOUND, 4)),
    "excludeInboundPorts": likely(ABSENT, EMPTY, lists(INBOUND, 3), lists(INBOUND, 3)),
    "includeOutboundIPRanges": likely(ABSENT, EMPTY, EVERYTHING, INCLUDED, INCLUDED, INCLUDED),
    "excludeOutboundIPRanges": likely(ABSENT, EMPTY, EXCLUDED, EXCLUDED),
    "includeOutboundPorts": likely(ABSENT, EMPTY, lists(OUTBOUND, 3), lists(OUTBOUND, 3)),
    "excludeOutboundPorts": likely(ABSENT, ABSENT, EMPTY, lists(OUTBOUND, 2)),
    "excludeInterfaces": likely(ABSENT, EMPTY, lists(NAMES, 2)),
    "kubevirtInterfaces": likely(ABSENT, EMPTY, lists(OF_GUESTS, 2)),
    REROUTE: likely(ABSENT, ABSENT, EMPTY, lists(OF_GUESTS, 2)),
}
ENV: dict[str, Text] = {
    "ISTIO_META_DNS_CAPTURE": likely(ABSENT, FALSE, TRUE, TRUE),
    "INVALID_DROP": likely(ABSENT, FALSE, TRUE),
    "ISTIO_DUAL_STACK": likely(ABSENT, FALSE, TRUE, TRUE, TRUE),
}
IDS = [
    {},
    {"runAsUser": 0, "runAsGroup": 1337},
    {"runAsUser": 0, "runAsGroup": 0},
    {"runAsUser": 1337},
    {"runAsUser": 2000},
]
SECURITY: st.SearchStrategy[dict[str, int]] = st.sampled_from([*IDS, {"runAsUser": 2000, "runAsGroup": 2000}])
V4, V6 = ipaddress.ip_address("10.9.0.1"), ipaddress.ip_address("fd09::1")
ADDRESSES = st.sampled_from([(V4, V6), (V6, V4), (V6,)])  # a pod's, in the order of prevResult


@st.composite
def pods(draw: Callable[[Any], Any]) -> Pod:
    """A meshed pod, in the mode that it has if it says none."""
    said = {name: draw(text) for name, text in ANNOTATIONS.items()}
    annotations = {(name if "/" in name else TRAFFIC + name): text for name, text in said.items() if text is not None}
    annotations["sidecar.istio.io/status"] = "{}"
    env = [{"name": name, "value": text} for name, each in ENV.items() if (text := draw(each)) is not None]
    ports = [{"containerPort": int(port)} for port in draw(st.lists(INBOUND, max_size=3))]
    proxy = {"name": "istio-proxy", "env": env, "securityContext": draw(SECURITY)}
    spec = {"containers": [{"name": "app", "ports": ports}, proxy], "securityContext": draw(SECURITY)}
    return Pod.from_manifest({"metadata": {"name": "web", "annotations": annotations}, "spec": spec})
