"""A process of a pod with NET_ADMIN sends to the agent's netlink sockets in its netns: nothing of it counts (F45)."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from installer.repair.inspection import Found, Inspection, inspect
from installer.repair.netns_proof import Known, NetnsFiles
from plugin import netlink
from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend, Capability
from plugin.detect import addresses, global_addresses, redirected
from plugin.nfnetlink import NETLINK_NETFILTER, NEWCHAIN, NEWTABLE
from plugin.redirect import Family, Mode, Redirect
from plugin.rtnetlink import NEWADDR, NEWRULE
from plugin.values import Port
from tests.redirect.test_kernel import inside, on_a_worker
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plugin.netns import NetnsFd

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 150
ADDRESS = ipaddress.ip_address("10.0.0.7")
REDIRECT = Redirect(families=(Family.V4, Family.V6), mode=Mode.TPROXY)
OTHER = Redirect(exclude_inbound_ports=(Port(4710),))  # so seldom that libnftables writes it
FLOOD = """
import os, socket, sys
protocol, port, message = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
sending = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
print("sending", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    try:
        sending.sendto(message, socket.MSG_DONTWAIT, (port, 0))
    except OSError:
        pass
"""
SENT_BEFORE = """
import socket, sys
protocol, port, message, count = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3]), int(sys.argv[4])
sending = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
for _ in range(count):
    try:
        sending.sendto(message, socket.MSG_DONTWAIT, (port, 0))
    except BlockingIOError:
        break
"""


def message(kind: int, body: bytes, *, length: int | None = None, flags: int = 2) -> bytes:
    size = 16 + len(body) if length is None else length
    return struct.pack("IHHII", size, kind, flags, 1, 0) + body


CHAIN = b"\x02\0\0\0" + struct.pack("HH", 16, 3) + b"ISTIO_OUTPUT"
TABLE = b"\x02\0\0\0" + struct.pack("HH", 10, 1) + b"istio-\0\0"
FOREIGN = struct.pack("BBBBI", socket.AF_INET, 24, 0, 0, 2) + struct.pack("HH4s", 8, 1, bytes((10, 9, 9, 9)))
MESSAGES = {
    "four bytes": b"xxxx",
    "no length": message(2, bytes(16), length=0),
    "a length of 15": message(2, bytes(16), length=15),
    "a length beyond the end": message(2, bytes(16), length=1 << 31),
    "an error without a code": message(2, b""),
    "an acknowledgement": message(2, bytes(20)),
    "a refusal": message(2, struct.pack("i", -errno.EPERM) + bytes(16)),
    "the end of a list": message(3, bytes(4)),
    "a kind that nobody knows": message(999, b"\xff" * 64),
    "many at once": message(999, b"") * 2000,
    "a chain": message(NEWCHAIN, CHAIN),
    "a table": message(NEWTABLE, TABLE),
    "a table's half": message(NEWTABLE, TABLE[:5]),
    "an address": message(NEWADDR, FOREIGN),
    "an address's half": message(NEWADDR, FOREIGN[:2]),
    "a rule's half": message(NEWRULE, b"\x02"),
}


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        for step in (
            "link add eth0 type veth peer name peer",
            f"address add {ADDRESS}/24 dev eth0",
            "link set eth0 up",
        ):
            subprocess.run([*made.entered, "/sbin/ip", *step.split()], check=True)
        yield made


@contextmanager
def spoofing(netns: Netns, protocol: int, data: bytes) -> Iterator[None]:
    """Have a process in the netns send a message to this process' sockets there, without end."""
    sent = [str(protocol), str(os.getpid()), data.hex()]
    command = [*netns.entered, sys.executable, "-I", "-c", FLOOD, *sent]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sending\n"
        try:
            yield
        finally:
            process.kill()


def all_of(netns: Netns, ask: Callable[[NetnsFd], Any]) -> set[Any]:
    return {repr(each) for each in on_a_worker(lambda fd: [ask(fd) for _ in range(ROUNDS)], netns)}


def differences(netns: Netns) -> set[str | None]:
    return {on_a_worker(lambda fd: check(fd, REDIRECT, Backend.NFT), netns) for _ in range(5)}


@pytest.mark.parametrize("sent", MESSAGES)
def test_they_do_not_make_a_pod_count_as_redirected(netns: Netns, sent: str) -> None:
    inside(netns, "nft", "; ".join(f"add table ip t{number}" for number in range(400)))  # a list in several pieces
    with spoofing(netns, NETLINK_NETFILTER, MESSAGES[sent]):
        assert all_of(netns, lambda fd: redirected(fd, tuple(Family))) == {repr(frozenset())}


@pytest.mark.parametrize("sent", MESSAGES)
def test_they_change_no_address(netns: Netns, sent: str) -> None:
    with spoofing(netns, socket.NETLINK_ROUTE, MESSAGES[sent]):
        assert all_of(netns, addresses) == {repr(frozenset({ADDRESS}))}
        assert all_of(netns, lambda fd: ADDRESS in global_addresses(fd)) == {"True"}


@pytest.mark.parametrize("sent", MESSAGES)
@pytest.mark.parametrize("protocol", [NETLINK_NETFILTER, socket.NETLINK_ROUTE], ids=["nfnetlink", "rtnetlink"])
def test_they_neither_keep_rules_from_a_pod_nor_hide_that_it_lacks_them(netns: Netns, sent: str, protocol: int) -> None:
    with spoofing(netns, protocol, MESSAGES[sent]):
        on_a_worker(lambda fd: apply(fd, REDIRECT, Backend.NFT).free(), netns)  # by libnftables
        for _ in range(ROUNDS // 10):
            on_a_worker(lambda fd: apply(fd, REDIRECT, Backend.NFT).free(), netns)  # the first compiles the rules
            assert differences(netns) == {None}
    if protocol == socket.NETLINK_ROUTE:
        inside(netns, "ip", "rule", "delete", "fwmark", "1337")
    else:
        inside(netns, "nft", "delete table ip istio-cni-nat")
    with spoofing(netns, protocol, MESSAGES[sent]):
        assert None not in differences(netns)


FLOOD_OF_ALL = """
import os, socket, sys
protocol, messages = int(sys.argv[1]), [bytes.fromhex(each) for each in sys.argv[2:]]
sending = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
sending.bind((0, 0))
print("sending", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    with open("/proc/thread-self/net/netlink") as sockets:
        ports = [int(line.split()[2]) for line in list(sockets)[1:] if int(line.split()[1]) == protocol]
    for port in set(ports) - {0, sending.getsockname()[0]}:
        for message in messages:
            try:
                sending.sendto(message, socket.MSG_DONTWAIT, (port, 0))
            except OSError:
                pass
"""
AT_ANY_TIME = [  # of sequence number 0, which libmnl takes for any
    struct.pack("IHHIIi", 20, 3, 0, 0, 0, 0),
    message(NEWCHAIN, CHAIN).replace(struct.pack("I", 1), struct.pack("I", 0)),
    struct.pack("IHHIIi", 36, 2, 0, 0, 0, 0) + bytes(16),
]


def test_they_end_no_more_than_the_process_in_which_libnftables_reads(netns: Netns) -> None:
    on_a_worker(lambda fd: apply(fd, REDIRECT, Backend.NFT).free(), netns)
    inside(netns, "nft", "flush chain ip istio-cni-nat ISTIO_REDIRECT")  # so that libnftables says what differs
    sent = [str(NETLINK_NETFILTER), *(each.hex() for each in AT_ANY_TIME)]
    command = [*netns.entered, sys.executable, "-I", "-c", FLOOD_OF_ALL, *sent]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sending\n"
        said: str | None = ""
        for _ in range(300):
            said = on_a_worker(lambda fd: check(fd, REDIRECT, Backend.NFT), netns)
            assert said
            with suppress(ApplyError):  # where it is the write that is disturbed
                on_a_worker(lambda fd: apply(fd, OTHER, Backend.NFT, inhabited=True).free(), netns)
            if "nf_tables kernel ABI is broken" in said:
                break
        process.kill()
    assert said
    assert "nf_tables kernel ABI is broken" in said
    assert "ABI" not in str(on_a_worker(lambda fd: check(fd, REDIRECT, Backend.NFT), netns))


def test_an_inspection_that_fails_in_any_way_is_about_one_pod(netns: Netns) -> None:
    files = NetnsFiles(netns.path.parent, netns.path.parent)
    wrong = Inspection(Known(("netns",), "netns", (ADDRESS,), frozenset()), 7, writes=True)  # type: ignore[arg-type]
    found = on_a_worker(lambda _: inspect(wrong, files, Capability(Backend.NFT)), netns)
    assert found == Found(unknown="it cannot be inspected: AttributeError: 'int' object has no attribute 'redirect'")


class Exposed(socket.socket):
    """A socket to which a process of the netns has sent before it is connected."""

    messages = ""
    count = 50

    def connect(self, address: Any) -> None:
        if self.family == socket.AF_NETLINK:
            self.bind((0, 0))
            sent = [str(self.proto), str(self.getsockname()[0]), self.messages, str(self.count)]
            subprocess.run([sys.executable, "-I", "-c", SENT_BEFORE, *sent], check=True)  # in this thread's netns
        super().connect(address)


@pytest.mark.parametrize("sent", MESSAGES)
def test_those_that_came_before_the_kernel_was_the_peer_are_dropped(
    netns: Netns, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    monkeypatch.setattr(Exposed, "messages", MESSAGES[sent].hex())
    monkeypatch.setattr(socket, "socket", Exposed)
    assert on_a_worker(lambda fd: redirected(fd, tuple(Family)), netns) == frozenset()
    assert on_a_worker(addresses, netns) == {ADDRESS}


@pytest.mark.parametrize(("limit", "count"), [(40, 50), (4096, 20_000)], ids=["more than are dropped", "all that fit"])
def test_too_many_of_them_are_an_error(netns: Netns, monkeypatch: pytest.MonkeyPatch, limit: int, count: int) -> None:
    monkeypatch.setattr(Exposed, "messages", MESSAGES["a chain"].hex())
    monkeypatch.setattr(Exposed, "count", count)
    monkeypatch.setattr(socket, "socket", Exposed)
    monkeypatch.setattr(netlink, "MOST_FOREIGN", limit)
    with pytest.raises(ApplyError, match=r"of others|No buffer space"):
        on_a_worker(lambda fd: redirected(fd, tuple(Family)), netns)
