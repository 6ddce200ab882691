"""What a row of packets cannot show: two queries at once from one port, connections that last, packets that no socket sends."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from plugin.redirect import Family, Mode
from tests.redirect.machines import Machines, Sidecar
from tests.redirect.probes import APPLICATION, PROXY, Fate, Probe, Sender
from tests.redirect.rows import OWN, PEER, POD, ROWS
from tests.redirect.topology import ADDRESSES

if TYPE_CHECKING:
    from plugin.backend import Backend

pytestmark = pytest.mark.kernel

BRIEF = 0.5  # seconds to wait for an answer that must not come


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
@pytest.mark.parametrize("first", [True, False], ids=["the proxy first", "the application first"])
@pytest.mark.parametrize("proxy", OWN, ids=["by both ids", "by uid", "by gid", "as root"])
def test_two_queries_at_once_from_one_port_are_both_answered(
    machines: Machines, backend: Backend, family: Family, proxy: Sender, *, first: bool
) -> None:
    """Application and proxy ask the same server from the same port: no socket can tell the answers apart, a zone can."""
    senders = (proxy, APPLICATION) if first else (APPLICATION, proxy)
    with (
        machines.redirected(ROWS["DNS"].redirect(), backend),
        closing(machines.open_socket(senders[0], family, socket.SOCK_DGRAM)) as one,
        closing(machines.open_socket(senders[1], family, socket.SOCK_DGRAM)) as other,
    ):
        for each in (one, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((ADDRESSES[family][POD], one.getsockname()[1]))
        for each in (one, other):
            each.sendto(b"?", (ADDRESSES[family][PEER], 53))
        answers = [json.loads(other.recv(1000)) for _ in range(2)]  # the kernel takes both to the one bound last
        assert sorted(answer["port"] for answer in answers) == [53, 15053]


def test_a_reused_source_port_delivers_no_stale_answer(machines: Machines, backend: Backend) -> None:
    with machines.redirected(ROWS["DNS"].redirect(), backend):
        for family, port in ((Family.V4, 40001), (Family.V6, 40002)):
            for sender, arrives in ((APPLICATION, 15053), (PROXY, 53), (APPLICATION, 15053)):
                probe = Probe(family, 53, sender, PEER, udp=True, source_port=port)
                assert machines.send([probe])[0].port == arrives, (family, sender)


@pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
def test_a_connection_survives_a_rewrite_of_the_rules(
    machines: Machines, backend: Backend, mode: Mode, family: Family
) -> None:
    redirect = ROWS["inbound"].redirect(mode)
    with (
        machines.redirected(redirect, backend),
        closing(machines.open_socket(PROXY, family, socket.SOCK_STREAM)) as flow,
    ):
        flow.connect((ADDRESSES[family][POD], 80))
        with flow.makefile("rb") as answers:
            assert json.loads(answers.readline())["port"] == 15006
            machines.apply(redirect, backend)
            for message in (b"one\n", b"two\n", b"three\n"):
                flow.sendall(message)
                assert answers.readline() == message


def test_icmp_is_left_alone(machines: Machines, backend: Backend, mode: Mode) -> None:
    with machines.redirected(ROWS["inbound"].redirect(mode), backend):
        for family in Family:
            assert raw(machines, "outside", ADDRESSES[family][POD]) == "reply"
            assert raw(machines, "pod", ADDRESSES[family][PEER]) == "reply"


def test_an_invalid_packet_is_answered_unless_dropped_by_the_setting(machines: Machines, backend: Backend) -> None:
    for row, answer in (("inbound", "reset"), ("invalid packets are dropped, valid ones are not", "silence")):
        with machines.redirected(ROWS[row].redirect(), backend):
            for place in ADDRESSES.values():
                assert raw(machines, "outside", place[POD], "9000", place[PEER]) == answer


def test_under_tproxy_the_application_sees_the_clients_address(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> None:
    """The sidecar calls the application with the address of the client, and gets its answers."""
    with (
        Machines(tmp_path_factory.mktemp("machines"), Sidecar.PASSES_ON) as machines,
        machines.redirected(ROWS["inbound"].redirect(Mode.TPROXY), backend),
    ):
        for family in Family:
            seen = machines.report(Probe(family, 80))
            assert (seen["port"], seen["asked"]) == (80, [ADDRESSES[family][POD], 80])
            assert seen["peer"][0] == seen["own"][0] == ADDRESSES[family][PEER]
            assert seen["echoed"] == "established\n"


def test_under_tproxy_without_a_listener_nothing_bypasses(
    tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> None:
    with (
        Machines(tmp_path_factory.mktemp("machines"), Sidecar.AWAY) as machines,
        machines.redirected(ROWS["inbound"].redirect(Mode.TPROXY), backend),
    ):
        assert machines.send([Probe(family, 80) for family in Family], BRIEF) == [Fate(None), Fate(None)]


def raw(machines: Machines, name: str, *arguments: str) -> str:
    return machines.python(name, "tests.redirect.raw", *arguments).strip()
