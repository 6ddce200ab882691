"""For random pods: the kernel by each backend, the walk of `install-cni trace` and a model of their own treat packets alike.

A few pods each time, always the same. For a night, DIFFERENTIAL_EXAMPLES=5000 takes so many others each time, without a limit
of time, and makes the pod that it finds as small as it can.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings

from installer.explain.trace import walk
from plugin.decision import decide
from plugin.keys import INTERCEPTION_MODE
from plugin.parameters import Defaults
from plugin.redirect import Family, Mode, Redirect
from plugin.rules import ruleset
from tests.explain.packets import packet
from tests.redirect.model import fate
from tests.redirect.probes import (
    APPLICATION,
    PROXY,
    PROXY_AS_ROOT,
    PROXY_GID_ALONE,
    PROXY_UID_ALONE,
    ROOT,
    Place,
    Probe,
    Sender,
)
from tests.redirect.strategies import ADDRESSES, pods
from tests.redirect.ways import WAYS, written_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.pod import Pod
    from plugin.values import Address
    from tests.redirect.conftest import MachinesOf

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

NIGHT = os.environ.get("DIFFERENTIAL_EXAMPLES")
COMMON = settings(derandomize=not NIGHT)
PHASES = [Phase.generate, Phase.shrink] if NIGHT else [Phase.generate]  # to shrink takes minutes where packets get lost
if NIGHT:
    pytestmark.append(pytest.mark.timeout(0))

V4 = Family.V4
POD, LOOPBACK, OTHER_LOOPBACK = Place.POD, Place.LOOPBACK, Place.OTHER_LOOPBACK
PEER, OTHER, SECOND = Place.PEER, Place.OTHER_PEER, Place.SECOND_PEER
CUSTOM, CUSTOM_UID_ALONE = Sender(2000, 2000), Sender(2000, 4242)  # the sidecar's ids in some pods
BY_ONE_ID = (PROXY_GID_ALONE, PROXY_AS_ROOT, PROXY_UID_ALONE, CUSTOM, CUSTOM_UID_ALONE, Sender(7, 2000))
IN_V4 = (
    *(Probe(V4, port) for port in (53, 80, 443, 8080, 9000, 15001, 15008, 15020, 15021, 15090)),
    *(Probe(V4, port, interface="net1") for port in (80, 443, 15008)),
    *(Probe(V4, port, interface="net1", to=to) for port in (80, 8080) for to in (PEER, OTHER)),
    Probe(V4, 53, udp=True),
    Probe(V4, 9000, interface="net1", to=PEER, udp=True),
    *(Probe(V4, port, APPLICATION, to) for port in (80, 443, 8080) for to in Place if to is not Place.PASS_THROUGH),
    *(Probe(V4, 15020, APPLICATION, to) for to in (POD, PEER, SECOND)),
    *(Probe(V4, 53, each, to, udp=udp) for each in (APPLICATION, ROOT) for udp in (True, False) for to in (POD, PEER)),
    *(Probe(V4, 53, APPLICATION, LOOPBACK, udp=udp) for udp in (True, False)),
    *(Probe(V4, 9000, APPLICATION, to, udp=True) for to in (POD, PEER)),
    Probe(V4, 15020, PROXY_AS_ROOT),
    *(Probe(V4, port, PROXY, to) for port in (53, 80, 15008) for to in (POD, LOOPBACK, OTHER_LOOPBACK, PEER)),
    *(Probe(V4, port, each, to) for port in (80, 53) for each in BY_ONE_ID for to in (POD, PEER)),
    *(Probe(V4, 53, each, PEER, udp=True) for each in (PROXY, PROXY_GID_ALONE, CUSTOM, CUSTOM_UID_ALONE)),
    Probe(V4, 80, PROXY, POD, bound=True),
    Probe(V4, 80, APPLICATION, POD, bound=True),
)
in_each_mode = pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
PROBES = [replace(probe, family=family) for family in Family for probe in IN_V4]


@in_each_mode
@settings(COMMON, max_examples=int(NIGHT or 150))
@given(pod=pods(), addresses=ADDRESSES)
def test_walking_the_rules_agrees_with_the_model(mode: Mode, pod: Pod, addresses: tuple[Address, ...]) -> None:
    pod = in_mode(mode, pod)
    redirect = redirected(pod, addresses)
    rules = ruleset(redirect)
    ends = {probe: walk(rules, packet(probe)).port for probe in PROBES}
    wrong = different({"the walk": ends}, {probe: fate(redirect, probe).port for probe in PROBES})
    assert not wrong, shown(pod, wrong)


@in_each_mode
@settings(COMMON, max_examples=int(NIGHT or 24), phases=PHASES, report_multiple_bugs=False)
@given(pod=pods(), addresses=ADDRESSES)
def test_the_kernel_agrees_with_the_model_for_each_backend(
    machines_of: MachinesOf, mode: Mode, pod: Pod, addresses: tuple[Address, ...]
) -> None:
    pod = in_mode(mode, pod)
    redirect = redirected(pod, addresses)
    machines = machines_of(Sender(redirect.uid, redirect.gid))
    seen, expected = {}, {probe: fate(redirect, probe) for probe in PROBES}
    for way in WAYS:
        with written_by(way) as backend, machines.redirected(redirect, backend):
            seen[way] = machines.fates(expected)
    wrong = different(seen, expected)
    assert not wrong, shown(pod, wrong)


def in_mode(mode: Mode, pod: Pod) -> Pod:
    """Have a pod ask for this mode."""
    return replace(pod, annotations={**pod.annotations, INTERCEPTION_MODE: mode.value})


def redirected(pod: Pod, addresses: tuple[Address, ...]) -> Redirect:
    """Decide about it."""
    decided = decide(pod, addresses, Defaults())
    assert isinstance(decided, Redirect)
    return decided


def different(seen: Mapping[str, Mapping[Probe, object]], expected: Mapping[Probe, object]) -> list[str]:
    """Name the probes that fared otherwise than the model says, with what each way of looking saw."""
    return [
        f"{probe}:\n    the model: {wanted}" + "".join(f"\n    {name}: {fates[probe]}" for name, fates in seen.items())
        for probe, wanted in expected.items()
        if any(fates[probe] != wanted for fates in seen.values())
    ]


def shown(pod: Pod, wrong: list[str]) -> str:
    """Say what the pod said, as it said it, and what went wrong."""
    assert pod.proxy is not None
    ids = {"sidecar": (pod.proxy.run_as_user, pod.proxy.run_as_group), "pod": (pod.run_as_user, pod.run_as_group)}
    said = {"annotations": pod.annotations, "env": pod.proxy.env, "runAsUser, runAsGroup": ids}
    return "\n".join([json.dumps(said, indent=2, default=dict), *wrong])
