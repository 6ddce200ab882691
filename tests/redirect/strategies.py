"""Random pods that validate, as people write them (blanks, duplicates, host bits), near to what the probes meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from plugin.parameters import REROUTE, TRAFFIC
from plugin.pod import Pod
from plugin.redirect import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

PORTS = st.sampled_from(["53", "80", "443", "8080", "9000", "15001", "15008", "15020", "15021", "15090"])
ANY_PORT = st.one_of(PORTS, st.integers(1, 65535).map(str))
V4_RANGES = ["10.9.0.0/16", "10.9.0.2", "10.9.1.1/8", "192.0.2.77/24", "192.0.2.9/32", "10.8.0.0/24", "127.0.0.0/8"]
V6_RANGES = ["fd09::/16", "fd09::2", "2001:db8::7/32", "fd08::2/64", "::1", "::2", "::ffff:10.0.0.0/104"]
RANGES = st.sampled_from([*V4_RANGES, *V6_RANGES, "127.0.0.1", "127.0.0.2/31", "0.0.0.0/0", "::/0", "172.16.0.0/12"])
INTERFACES = st.sampled_from(["eth0", "net1", "k6t-0"])
TRUE, FALSE = ["1", "t", "true", "True"], ["0", "false", "F", ""]


@st.composite
def lists(draw: Callable[[Any], Any], tokens: st.SearchStrategy[str]) -> str:
    """A list of tokens with commas between them, of none up to five, and blanks as they come."""
    chosen = draw(st.lists(tokens, max_size=5))
    blanks = st.sampled_from(["", "", " ", "\t"])
    return ",".join(draw(blanks) + each + draw(blanks) for each in chosen)


def or_all(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A list, or everything."""
    return st.one_of(st.sampled_from(["*", " * "]), values)


ANNOTATIONS = {
    "includeInboundPorts": or_all(lists(PORTS)),
    "excludeInboundPorts": lists(ANY_PORT),
    "includeOutboundIPRanges": or_all(lists(RANGES)),
    "excludeOutboundIPRanges": lists(RANGES),
    "includeOutboundPorts": lists(ANY_PORT),
    "excludeOutboundPorts": lists(ANY_PORT),
    "excludeInterfaces": lists(st.one_of(INTERFACES, st.just("lo"))),
    "kubevirtInterfaces": lists(INTERFACES),
    REROUTE: lists(INTERFACES),
}
ENV = {name: st.sampled_from([*TRUE, *FALSE]) for name in ("ISTIO_META_DNS_CAPTURE", "INVALID_DROP")}


@st.composite
def pods(draw: Callable[[Any], Any]) -> Pod:
    """A meshed pod."""
    said = draw(st.fixed_dictionaries({}, optional=ANNOTATIONS))
    annotations = {(name if "/" in name else TRAFFIC + name): text for name, text in said.items()}
    annotations["sidecar.istio.io/status"] = "{}"
    annotations["sidecar.istio.io/interceptionMode"] = draw(st.sampled_from([mode.value for mode in Mode]))
    env = [{"name": name, "value": text} for name, text in draw(st.fixed_dictionaries({}, optional=ENV)).items()]
    ports = [{"containerPort": int(port)} for port in draw(st.lists(PORTS, max_size=3))]
    security = draw(st.sampled_from([{}, {"runAsUser": 0, "runAsGroup": 0}, {"runAsUser": 1337}]))
    containers = [{"name": "app", "ports": ports}, {"name": "istio-proxy", "env": env, "securityContext": security}]
    return Pod.from_manifest(
        {"metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": containers}}
    )
