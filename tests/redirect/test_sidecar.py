"""What runs in a meshed pod, as it really runs: istio-validation, and sidecars with the ids that injectors give them."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import pytest

from plugin.redirect import Family, Mode
from tests.redirect.machines import Machines, Sidecar
from tests.redirect.probes import APPLICATION, PROXY, PROXY_AS_ROOT, Place, Probe, Sender
from tests.redirect.rows import ALL_INBOUND, Row
from tests.redirect.topology import ADDRESSES, FORWARDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugin.backend import Backend

    MachinesWith: TypeAlias = Callable[[Sidecar, Sender], Machines]

pytestmark = pytest.mark.kernel

SAYS = {
    "all inbound": ALL_INBOUND,
    "nothing inbound": {"includeInboundPorts": ""},
    "DNS": ALL_INBOUND | {"ISTIO_META_DNS_CAPTURE": "true"},
    "loopback": ALL_INBOUND | {"includeOutboundIPRanges": "127.0.0.0/8,::1/128"},
}
IDS = {
    "1337:1337": {},
    "0:1337": {"runAsUser": 0, "runAsGroup": 1337},
    "1337:0": {"runAsUser": 1337, "runAsGroup": 0},
    "2000:2000": {"runAsUser": 2000, "runAsGroup": 2000},
}
SERVICE = {Family.V4: "10.96.0.10", Family.V6: "fd96::10"}
NODE = """
table ip service
delete table ip service
table ip6 service
delete table ip6 service
table ip service {
  chain to { type nat hook prerouting priority -100; ip daddr 10.96.0.10 tcp dport 80 dnat to 10.9.0.1:8080; }
  chain from { type nat hook postrouting priority 100; ct status dnat masquerade; }
}
table ip6 service {
  chain to { type nat hook prerouting priority -100; ip6 daddr fd96::10 tcp dport 80 dnat to [fd09::1]:8080; }
  chain from { type nat hook postrouting priority 100; ct status dnat masquerade; }
}
"""


@pytest.fixture(scope="module")
def machines_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachinesWith]:
    """Machines with this sidecar, which has these ids."""
    with ExitStack() as stack:

        @cache
        def made(sidecar: Sidecar, ids: Sender) -> Machines:
            return stack.enter_context(Machines(tmp_path_factory.mktemp("machines"), sidecar, ids))

        yield made


@pytest.mark.slow
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("says", SAYS)
def test_validation_finds_that_traffic_is_redirected(
    machines_with: MachinesWith, backend: Backend, mode: Mode, says: str, ids: str
) -> None:
    redirect = Row(SAYS[says], (), security=IDS[ids]).redirect(mode)
    words = ["/usr/bin/setpriv", f"--reuid={redirect.uid}", f"--regid={redirect.gid}", "--clear-groups"]
    words += ["--inh-caps=-all", "--bounding-set=-all", sys.executable, "-m", "tests.redirect.validation"]
    machines = machines_with(Sidecar.AWAY, PROXY)
    with machines.redirected(redirect, backend):
        found = json.loads(machines.inside("pod", words))
    assert found == [
        {"asked": ["127.0.0.6", 15002], "at": ["127.0.0.1", 15006], "from": "127.0.0.1"},
        {"asked": ["::6", 15002], "at": ["::1", 15006], "from": "::1"},
    ]


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("ids", [PROXY, PROXY_AS_ROOT], ids=["1337:1337", "0:1337"])
def test_under_tproxy_traffic_reaches_the_application_and_answers_return(
    machines_with: MachinesWith, backend: Backend, ids: Sender, says: str
) -> None:
    """The sidecar calls the application with the address of the client, from outside and from the pod itself.

    Its own call of the pod, the application's answers and what the node's probes ask: nothing of it comes to the sidecar twice.
    """
    security = {"runAsUser": ids.uid, "runAsGroup": ids.gid}
    redirect = Row(SAYS[says], (), security=security).redirect(Mode.TPROXY)
    probes = [Probe(family, 80, sender) for family in Family for sender in (None, ids)]
    machines = machines_with(Sidecar.PASSES_ON, ids)
    with machines.redirected(redirect, backend):
        for probe in probes:
            addresses = ADDRESSES[probe.family]
            seen = machines.report(probe)
            assert (seen["port"], seen["asked"]) == (80, [addresses[Place.POD], 80])
            assert seen["peer"][0] == seen["own"][0] == addresses[Place.PEER if probe.sender is None else Place.POD]
            assert seen["echoed"] == "established\n"
            handed_on = probe.sender is not None or says != "nothing inbound"
            assert (seen["peer"] != seen["own"]) == handed_on  # the sidecar's connection has a port of its own


@pytest.mark.parametrize("ids", [PROXY, PROXY_AS_ROOT], ids=["1337:1337", "0:1337"])
def test_a_call_to_its_own_service_through_node_nat_counts_as_inbound(
    machines_with: MachinesWith, backend: Backend, mode: Mode, ids: Sender
) -> None:
    """As kube-proxy does it for a pod that a Service leads back to itself: with the node's address for the pod's own."""
    redirect = Row(ALL_INBOUND, (), security={"runAsUser": ids.uid, "runAsGroup": ids.gid}).redirect(mode)
    machines = machines_with(Sidecar.REPORTS, ids)
    machines.inside("outside", ["/usr/sbin/sysctl", "-w", *FORWARDING])
    machines.inside("outside", ["/usr/sbin/nft", "-f", "-"], NODE)
    with machines.redirected(redirect, backend):
        for family, service in SERVICE.items():
            seen = machines.report(Probe(family, 80, ids, Place.PEER), to=service)
            assert (seen["port"], seen["asked"]) == (15006, [ADDRESSES[family][Place.POD], 8080])
            assert seen["peer"][0] == ADDRESSES[family][Place.PEER]
            assert seen["echoed"] == "established\n"
            assert machines.report(Probe(family, 80, APPLICATION, Place.PEER), to=service)["port"] == 15001
