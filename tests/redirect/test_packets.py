"""The redirect, proven by packets: the table of `rows`, over all backends, both families and both modes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from plugin.redirect import Family, Mode
from tests.redirect.probes import APPLICATION, PROXY, PROXY_AS_ROOT, Place, Probe, Sender
from tests.redirect.rows import DIRECT, PEER, ROWS, fate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.backend import Backend
    from tests.redirect.conftest import MachinesOf
    from tests.redirect.machines import Machines
    from tests.redirect.probes import Fate

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("name", ROWS)
def test_packets_arrive_where_they_should(machines_of: MachinesOf, backend: Backend, mode: Mode, name: str) -> None:
    row = ROWS[name]
    redirect = row.redirect(mode)
    machines = machines_of(Sender(redirect.uid, redirect.gid))
    with machines.redirected(redirect, backend):
        assert different(machines, expected(name, mode)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.security])
def test_under_tproxy_a_root_sidecar_in_the_meshs_group_is_treated_alike(
    machines_of: MachinesOf, backend: Backend, name: str
) -> None:
    """As injectors run it in that mode; what istio-validation sends stays that of its own uid."""
    packets = {
        replace(probe, sender=PROXY_AS_ROOT)
        if probe.sender == PROXY and probe.to is not Place.PASS_THROUGH
        else probe: fate
        for probe, fate in expected(name, Mode.TPROXY).items()
    }
    machines = machines_of(PROXY_AS_ROOT)
    with machines.redirected(ROWS[name].redirect(Mode.TPROXY), backend):
        assert different(machines, packets) == []


def test_without_rules_all_packets_arrive_where_they_are_sent(machines: Machines) -> None:
    """The rows would prove nothing if the machines themselves lost packets."""
    probes = (probe for name in ROWS for probe in expected(name, Mode.REDIRECT))
    # The pass-through's v6 address comes with the rules, and nothing listens on the validation's port.
    sent = dict.fromkeys(each for each in probes if not (each.bound or each.to is Place.PASS_THROUGH))
    assert different(machines, {probe: fate(probe, DIRECT, Mode.REDIRECT) for probe in sent}) == []


def test_ipv6_is_left_alone_if_the_sidecar_does_not_listen_on_it(machines: Machines, backend: Backend) -> None:
    probes = [Probe(family, 80, APPLICATION, PEER) for family in Family]
    with machines.redirected(replace(ROWS["inbound"].redirect(), families=(Family.V4,)), backend):
        assert [each.port for each in machines.send(probes)] == [15001, 80]


def test_applying_twice_equals_applying_once(machines: Machines, backend: Backend, mode: Mode) -> None:
    redirect = ROWS["over lo"].redirect(mode)
    with machines.redirected(redirect, backend), machines.redirected(redirect, backend):
        assert different(machines, expected("over lo", mode)) == []


def expected(name: str, mode: Mode) -> dict[Probe, Fate]:
    """Return the expected fates of a row's packets, in both families."""
    return {
        replace(probe, family=family): fate(probe, arrives, mode)
        for family in Family
        for probe, arrives in ROWS[name].packets
    }


def different(machines: Machines, wanted: Mapping[Probe, Fate]) -> list[str]:
    """Send packets, and list those with another fate."""
    seen = machines.fates(wanted)
    return [f"{probe}: saw {seen[probe]}, expected {right}" for probe, right in wanted.items() if seen[probe] != right]
