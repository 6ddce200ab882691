"""For random pods: the kernel by each backend, the walk of `install-cni trace` and a model of their own treat packets alike."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings

from installer.explain.trace import walk
from plugin.backend import Backend
from plugin.decision import decide
from plugin.parameters import Defaults, Ipv6
from plugin.redirect import Family, Redirect
from plugin.rules import ruleset
from tests.explain.packets import packet
from tests.redirect.model import fate
from tests.redirect.probes import APPLICATION, PROXY, PROXY_GID_ALONE, PROXY_UID_ALONE, Place, Probe
from tests.redirect.strategies import pods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.pod import Pod
    from tests.redirect.machines import Machines

EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "20"))  # pods, each by three backends; more for a night
V4 = Family.V4
POD, LOOPBACK, OTHER_LOOPBACK = Place.POD, Place.LOOPBACK, Place.OTHER_LOOPBACK
PEER, OTHER, SECOND = Place.PEER, Place.OTHER_PEER, Place.SECOND_PEER
IN_V4 = (
    *(Probe(V4, port) for port in (53, 80, 443, 8080, 9000, 15001, 15008, 15020, 15021, 15090)),
    *(Probe(V4, port, interface="net1") for port in (80, 443, 15008)),
    *(Probe(V4, port, interface="net1", to=to) for port in (80, 8080) for to in (PEER, OTHER)),
    Probe(V4, 53, udp=True),
    Probe(V4, 9000, interface="net1", to=PEER, udp=True),
    *(Probe(V4, port, APPLICATION, to) for port in (80, 443, 8080) for to in Place),
    *(Probe(V4, 15020, APPLICATION, to) for to in (POD, PEER, SECOND)),
    *(Probe(V4, 53, APPLICATION, to, udp=udp) for udp in (True, False) for to in (POD, LOOPBACK, PEER)),
    Probe(V4, 9000, APPLICATION, PEER, udp=True),
    *(Probe(V4, port, PROXY, to) for port in (53, 80, 15008) for to in (POD, LOOPBACK, OTHER_LOOPBACK, PEER)),
    *(
        Probe(V4, port, each, to)
        for port in (80, 53)
        for each in (PROXY_GID_ALONE, PROXY_UID_ALONE)
        for to in (POD, PEER)
    ),
    *(Probe(V4, 53, each, PEER, udp=True) for each in (PROXY, PROXY_GID_ALONE)),
    Probe(V4, 80, PROXY, POD, bound=True),
)
PROBES = [replace(probe, family=family) for family in Family for probe in IN_V4]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(pods())
def test_the_walk_ends_where_the_model_says(pod: Pod) -> None:
    redirect = redirected(pod)
    rules = ruleset(redirect)
    ends = {probe: walk(rules, packet(probe)).port for probe in PROBES}
    assert different(ends, {probe: fate(redirect, probe).port for probe in PROBES}) == []


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pod=pods())
def test_the_kernel_does_what_the_model_says_by_each_backend(machines: Machines, pod: Pod) -> None:
    redirect = redirected(pod)
    expected = {probe: fate(redirect, probe) for probe in PROBES}
    for backend in Backend:
        with machines.redirected(redirect, backend):
            seen = dict(zip(PROBES, machines.send(PROBES), strict=True))
        assert different(seen, expected) == [], f"{backend.value}: {pod.annotations}, {pod.proxy and pod.proxy.env}"


def redirected(pod: Pod) -> Redirect:
    """Decide about it; both families, as the machines have both."""
    decided = decide(pod, (), Defaults(ipv6=Ipv6.ALWAYS))
    assert isinstance(decided, Redirect)
    return decided


def different(seen: Mapping[Probe, object], expected: Mapping[Probe, object]) -> list[str]:
    """Name the probes that fared otherwise than expected."""
    return [
        f"{probe}: saw {seen[probe]}, expected {wanted}" for probe, wanted in expected.items() if seen[probe] != wanted
    ]
