"""The redirect, proven by packets: each row is what a pod says, and where packets then arrive.

A row runs over all backends, both families and both modes. To add one: name it, say what the pod says (annotations of the mesh
by their last part, env of istio-proxy in capitals), and list packets with the port at which each arrives, or DIRECT.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from plugin.backend import Backend
from plugin.decision import decide
from plugin.parameters import TRAFFIC, Defaults, Ipv6
from plugin.pod import Pod
from plugin.redirect import Family, Mode, Redirect
from tests.redirect.machines import ADDRESSES, Machines, Sidecar
from tests.redirect.probes import (
    APPLICATION,
    PROXY,
    PROXY_GID_ALONE,
    PROXY_UID_ALONE,
    ROOT,
    Fate,
    Place,
    Probe,
    Sender,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POD, LOOPBACK, PEER, OTHER, SECOND = Place.POD, Place.LOOPBACK, Place.PEER, Place.OTHER_PEER, Place.SECOND_PEER
CUSTOM = Sender(2000, 2000)
DIRECT = -1


class ByMode(NamedTuple):
    """Where a packet arrives, if the modes differ."""

    redirect: int
    tproxy: int


Arrives = int | ByMode


class Row(NamedTuple):
    """What a pod says, and where packets arrive."""

    says: Mapping[str, str]
    packets: tuple[tuple[Probe, Arrives], ...]
    ports: tuple[int, ...] = ()
    runs_as: int | None = None


def inbound(
    port: int, at: Arrives, interface: str = "eth0", to: Place = POD, *, udp: bool = False
) -> tuple[Probe, Arrives]:
    return Probe(Family.V4, port, interface=interface, to=to, udp=udp), at


def by(
    sender: Sender, to: Place, port: int, at: Arrives, *, udp: bool = False, bound: bool = False
) -> tuple[Probe, Arrives]:
    return Probe(Family.V4, port, sender, to, udp=udp, bound=bound), at


ALL_INBOUND = {"includeInboundPorts": "*"}
PEERS = "10.9.0.0/16,fd09::/16"
OTHERS = "192.0.2.77/24, 2001:db8::77/32"  # as people write them: with host bits
ROWS = {
    "inbound": Row(
        ALL_INBOUND,
        (
            *(inbound(port, 15006) for port in (80, 8080, 443, 15001, 15053)),
            *(inbound(port, DIRECT) for port in (15008, 15020, 15021, 15090)),
            inbound(80, 15006, "net1"),
            inbound(53, DIRECT, udp=True),
        ),
    ),
    "outbound": Row(
        ALL_INBOUND,
        (
            by(APPLICATION, PEER, 80, 15001),
            by(ROOT, OTHER, 443, 15001),
            by(APPLICATION, SECOND, 80, 15001),
            by(APPLICATION, PEER, 15008, 15001),
            by(APPLICATION, PEER, 15020, DIRECT),
            by(APPLICATION, PEER, 9000, DIRECT, udp=True),
            by(APPLICATION, PEER, 53, DIRECT, udp=True),
            *(by(each, PEER, 80, DIRECT) for each in (PROXY, PROXY_UID_ALONE, PROXY_GID_ALONE)),
        ),
    ),
    "over lo": Row(
        ALL_INBOUND,
        (
            by(PROXY, POD, 8080, 15006),
            by(PROXY_UID_ALONE, POD, 8080, 15006),
            by(PROXY, POD, 15008, DIRECT),
            by(PROXY, LOOPBACK, 80, DIRECT),
            by(PROXY, POD, 80, DIRECT, bound=True),
            by(APPLICATION, POD, 80, DIRECT),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(PROXY_GID_ALONE, POD, 80, DIRECT),
            by(APPLICATION, LOOPBACK, 9000, DIRECT, udp=True),
        ),
    ),
    "inbound: the ports that the pod declares": Row(
        {}, (inbound(80, 15006), inbound(443, 15006), inbound(8080, DIRECT)), ports=(80, 443)
    ),
    "inbound: nothing, as it declares none": Row({}, (inbound(80, DIRECT), by(APPLICATION, PEER, 80, 15001))),
    "inbound: nothing": Row(
        {"includeInboundPorts": ""},
        (inbound(80, DIRECT), by(APPLICATION, PEER, 80, 15001), by(PROXY, POD, 80, ByMode(15006, DIRECT))),
        ports=(80,),
    ),
    "inbound: these ports": Row(
        {"includeInboundPorts": " 80 ,8080,80"},
        (
            inbound(80, 15006),
            inbound(8080, 15006),
            inbound(443, DIRECT),
            by(PROXY, POD, 8080, 15006),
            by(PROXY, POD, 443, ByMode(15006, DIRECT)),
        ),
    ),
    "inbound: the sidecar's own ports never": Row(
        {"includeInboundPorts": "80,15008,15020,15021,15090"},
        (inbound(80, 15006), *(inbound(port, DIRECT) for port in (15008, 15020, 15021, 15090))),
    ),
    "inbound: all but": Row(
        {"includeInboundPorts": "*", "excludeInboundPorts": "8080, 443"},
        (inbound(80, 15006), inbound(8080, DIRECT), inbound(443, DIRECT)),
    ),
    "inbound: an exclude counts beside * alone": Row(
        {"includeInboundPorts": "80,8080", "excludeInboundPorts": "8080"}, (inbound(80, 15006), inbound(8080, 15006))
    ),
    "outbound: these ranges": Row(
        {"includeOutboundIPRanges": OTHERS},
        (by(APPLICATION, OTHER, 80, 15001), by(APPLICATION, PEER, 80, DIRECT), by(PROXY, OTHER, 80, DIRECT)),
    ),
    "outbound: nothing": Row(
        {"includeOutboundIPRanges": ""}, (by(APPLICATION, PEER, 80, DIRECT), by(APPLICATION, OTHER, 80, DIRECT))
    ),
    "outbound: all but": Row(
        {"includeOutboundIPRanges": "*", "excludeOutboundIPRanges": OTHERS},
        (by(APPLICATION, PEER, 80, 15001), by(APPLICATION, OTHER, 80, DIRECT)),
    ),
    "outbound: an excluded range wins over an included one": Row(
        {"includeOutboundIPRanges": f"{PEERS},{OTHERS}", "excludeOutboundIPRanges": "192.0.2.9,2001:db8::9"},
        (by(APPLICATION, PEER, 80, 15001), by(APPLICATION, OTHER, 80, DIRECT)),
    ),
    "outbound: an excluded range wins over an included port": Row(
        {"excludeOutboundIPRanges": OTHERS, "includeOutboundPorts": "443"},
        (by(APPLICATION, OTHER, 443, DIRECT), by(APPLICATION, PEER, 443, 15001)),
    ),
    "outbound: an included port wins over an include list": Row(
        {"includeOutboundIPRanges": OTHERS, "includeOutboundPorts": "443"},
        (by(APPLICATION, PEER, 443, 15001), by(APPLICATION, PEER, 80, DIRECT), by(APPLICATION, OTHER, 80, 15001)),
    ),
    "outbound: ports alone": Row(
        {"includeOutboundIPRanges": "", "includeOutboundPorts": "443,8080"},
        (by(APPLICATION, PEER, 443, 15001), by(APPLICATION, OTHER, 8080, 15001), by(APPLICATION, PEER, 80, DIRECT)),
    ),
    "outbound: excluded ports replace 15020, and win over included ones": Row(
        {"excludeOutboundPorts": "443,80", "includeOutboundPorts": "80"},
        (
            by(APPLICATION, PEER, 443, DIRECT),
            by(APPLICATION, PEER, 80, DIRECT),
            by(APPLICATION, PEER, 8080, 15001),
            by(APPLICATION, PEER, 15020, 15001),
        ),
    ),
    "outbound: excluded ports come before the sidecar's calls of the pod": Row(
        ALL_INBOUND | {"excludeOutboundPorts": "8080"}, (by(PROXY, POD, 8080, DIRECT), by(PROXY, POD, 80, 15006))
    ),
    "outbound: an included loopback range asks for the application's traffic with itself": Row(
        ALL_INBOUND | {"includeOutboundIPRanges": f"127.0.0.0/8,::1/128,{PEERS}"},
        (
            by(APPLICATION, POD, 80, 15001),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(PROXY, POD, 80, 15006),
            by(PROXY_GID_ALONE, POD, 80, 15006),
            by(PROXY, LOOPBACK, 80, DIRECT),
        ),
    ),
    "excluded interfaces": Row(
        ALL_INBOUND | {"excludeInterfaces": "net1,net7"},
        (
            inbound(80, DIRECT, "net1"),
            inbound(80, 15006),
            by(APPLICATION, SECOND, 80, DIRECT),
            by(APPLICATION, PEER, 80, 15001),
        ),
    ),
    "virtual machines: all that they send": Row(
        ALL_INBOUND | {"kubevirtInterfaces": "net1", "excludeOutboundIPRanges": OTHERS, "excludeOutboundPorts": "443"},
        (
            inbound(80, 15001, "net1"),
            inbound(15008, 15001, "net1"),
            inbound(443, 15001, "net1", OTHER),
            inbound(80, 15006),
            inbound(9000, DIRECT, "net1", PEER, udp=True),
        ),
    ),
    "virtual machines: to these ranges": Row(
        ALL_INBOUND | {"istio.io/reroute-virtual-interfaces": "net1", "includeOutboundIPRanges": OTHERS},
        (
            inbound(80, 15001, "net1", OTHER),
            inbound(80, DIRECT, "net1", PEER),
            inbound(80, DIRECT, "net1"),
            inbound(80, 15006),
        ),
    ),
    "DNS": Row(
        ALL_INBOUND | {"ISTIO_META_DNS_CAPTURE": "true"},
        (
            *(by(APPLICATION, to, 53, 15053, udp=udp) for to in (PEER, LOOPBACK, POD) for udp in (True, False)),
            *(by(each, PEER, 53, DIRECT, udp=udp) for each in (PROXY, PROXY_GID_ALONE) for udp in (True, False)),
            by(PROXY, POD, 53, DIRECT),
            by(PROXY, POD, 80, 15006),
            by(APPLICATION, POD, 80, DIRECT),
            by(APPLICATION, LOOPBACK, 80, DIRECT),
            by(APPLICATION, PEER, 9000, DIRECT, udp=True),
            by(APPLICATION, PEER, 80, 15001),
            inbound(53, DIRECT, udp=True),
        ),
    ),
    "DNS: not where its port is excluded": Row(
        {"ISTIO_META_DNS_CAPTURE": "1", "excludeOutboundPorts": "53"},
        (by(APPLICATION, PEER, 53, DIRECT, udp=True), by(APPLICATION, PEER, 53, DIRECT)),
    ),
    "a sidecar with another uid": Row(
        ALL_INBOUND,
        (
            by(CUSTOM, PEER, 80, DIRECT),
            by(Sender(2000, 7), PEER, 80, DIRECT),
            by(Sender(7, 2000), PEER, 80, DIRECT),
            by(CUSTOM, POD, 80, 15006),
            by(PROXY, PEER, 80, 15001),
        ),
        runs_as=2000,
    ),
    "a sidecar with uid 0 counts as 1337": Row(
        ALL_INBOUND, (by(ROOT, PEER, 80, 15001), by(PROXY, PEER, 80, DIRECT)), runs_as=0
    ),
    "invalid packets are dropped, valid ones are not": Row(
        ALL_INBOUND | {"INVALID_DROP": "true"},
        (
            inbound(80, 15006),
            by(APPLICATION, PEER, 80, 15001),
            by(PROXY, POD, 80, 15006),
            inbound(53, DIRECT, udp=True),
        ),
    ),
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as made:
        yield made


@pytest.fixture(params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    return Backend(request.param)


@pytest.fixture(params=Mode, ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> Mode:
    return Mode(request.param)


def redirect(row: Row, mode: Mode = Mode.REDIRECT) -> Redirect:
    """Decide as the agent does, about the pod that a row describes."""
    env = [{"name": name, "value": value} for name, value in row.says.items() if name.isupper()]
    annotations = {
        (name if "/" in name else TRAFFIC + name): text for name, text in row.says.items() if not name.isupper()
    }
    annotations |= {"sidecar.istio.io/status": "{}", "sidecar.istio.io/interceptionMode": mode.value}
    security = {} if row.runs_as is None else {"runAsUser": row.runs_as, "runAsGroup": row.runs_as}
    app: dict[str, Any] = {"name": "app", "ports": [{"containerPort": port} for port in row.ports]}
    proxy = {"name": "istio-proxy", "env": env, "securityContext": security}
    pod = {"metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": [app, proxy]}}
    decided = decide(Pod.from_manifest(pod), (), Defaults(ipv6=Ipv6.ALWAYS))
    assert isinstance(decided, Redirect)
    return decided


def fate(probe: Probe, arrives: Arrives, mode: Mode) -> Fate:
    """Say what a receiver at that port must see: the destination asked for, and the sender's own address."""
    port = arrives if isinstance(arrives, int) else arrives.redirect if mode is Mode.REDIRECT else arrives.tproxy
    asked = None if probe.udp else (probe.to, probe.port)
    return Fate(probe.port if port == DIRECT else port, asked)


@pytest.mark.parametrize("name", ROWS)
def test_packets_arrive_where_they_should(machines: Machines, backend: Backend, mode: Mode, name: str) -> None:
    row = ROWS[name]
    expected = {
        replace(probe, family=family): fate(probe, arrives, mode) for family in Family for probe, arrives in row.packets
    }
    with machines.redirected(redirect(row, mode), backend):
        seen = dict(zip(expected, machines.send(list(expected)), strict=True))
    assert seen == expected


def test_without_rules_all_packets_arrive_where_they_are_sent(machines: Machines) -> None:
    """What the rows say would be worth nothing if the machines themselves lost packets."""
    sent = [replace(probe, family=family) for family in Family for row in ROWS.values() for probe, _ in row.packets]
    sent = list(dict.fromkeys(probe for probe in sent if not probe.bound))
    assert machines.send(sent) == [fate(probe, DIRECT, Mode.REDIRECT) for probe in sent]


def test_v6_is_left_alone_where_the_sidecar_does_not_listen_on_it(machines: Machines, backend: Backend) -> None:
    probes = [Probe(family, 80, APPLICATION, PEER) for family in Family]
    with machines.redirected(replace(redirect(ROWS["inbound"]), families=(Family.V4,)), backend):
        assert [each.port for each in machines.send(probes)] == [15001, 80]


def test_applied_twice_is_applied_once(machines: Machines, backend: Backend, mode: Mode) -> None:
    row = ROWS["over lo"]
    probes = [probe for probe, _ in row.packets]
    with machines.redirected(redirect(row, mode), backend):
        once = machines.send(probes)
        with machines.redirected(redirect(row, mode), backend):
            assert machines.send(probes) == once


def test_a_query_of_the_proxy_never_meets_one_of_the_application(machines: Machines, backend: Backend) -> None:
    """Both from the same port to the same server, one after the other: zones keep the two entries apart."""
    with machines.redirected(redirect(ROWS["DNS"]), backend):
        for family, port in ((Family.V4, 40001), (Family.V6, 40002)):
            for sender, arrives in ((APPLICATION, 15053), (PROXY, 53), (APPLICATION, 15053)):
                probe = Probe(family, 53, sender, PEER, udp=True, source_port=port)
                assert machines.send([probe])[0].port == arrives, (family, sender)


def test_icmp_is_left_alone(machines: Machines, backend: Backend, mode: Mode) -> None:
    with machines.redirected(redirect(ROWS["inbound"], mode), backend):
        for family in Family:
            assert raw(machines, "outside", ADDRESSES[family][POD]) == "reply"
            assert raw(machines, "pod", ADDRESSES[family][PEER]) == "reply"


def test_an_invalid_packet_is_answered_unless_it_is_to_be_dropped(machines: Machines, backend: Backend) -> None:
    for row, answer in (("inbound", "reset"), ("invalid packets are dropped, valid ones are not", "silence")):
        with machines.redirected(redirect(ROWS[row]), backend):
            for place in ADDRESSES.values():
                assert raw(machines, "outside", place[POD], "9000", place[PEER]) == answer


def test_under_tproxy_the_application_sees_the_clients_address(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> None:
    """The sidecar calls the application with the address of the client, and gets its answers."""
    row = ROWS["inbound"]
    with (
        Machines(tmp_path_factory.mktemp("machines"), Sidecar.PASSES_ON) as machines,
        machines.redirected(redirect(row, Mode.TPROXY), backend),
    ):
        for family in Family:
            seen = machines.report(Probe(family, 80))
            assert (seen["port"], seen["asked"]) == (80, [ADDRESSES[family][POD], 80])
            assert seen["peer"][0] == seen["own"][0] == ADDRESSES[family][PEER]
            assert seen["echoed"] == "established\n"


def test_under_tproxy_without_a_listener_nothing_goes_round(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> None:
    with (
        Machines(tmp_path_factory.mktemp("machines"), Sidecar.AWAY) as machines,
        machines.redirected(redirect(ROWS["inbound"], Mode.TPROXY), backend),
    ):
        assert machines.send([Probe(family, 80) for family in Family]) == [Fate(None), Fate(None)]


def raw(machines: Machines, name: str, *arguments: str) -> str:
    return machines.python(name, "tests.redirect.raw", *arguments).strip()
