"""A process inside a machine's network namespace that listens, or sends what it is told to; `machines` starts it.

Listeners answer each connection and datagram with what they see of it, so that the sender learns from the answer where it
arrived. Sender and `machines` speak lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import Any

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
DNS_LISTENER = 15053
V4, V6 = socket.AF_INET, socket.AF_INET6


async def listen(tcp: list[int], udp: list[int], transparent_ports: list[int]) -> None:
    """Listen on all addresses of both families until stdin ends."""
    loop = asyncio.get_running_loop()
    for family in (V4, V6):
        for port in tcp:
            taken = bound(family, socket.SOCK_STREAM, port, is_transparent=port in transparent_ports)
            await asyncio.start_server(partial(_answer, port), sock=taken)
        for port in udp:
            on_loopback = port == DNS_LISTENER  # as the sidecar's agent listens: datagrams are answered from there
            taken = bound(family, socket.SOCK_DGRAM, port, is_transparent=False, on_loopback=on_loopback)
            await loop.create_datagram_endpoint(partial(_Echo, port), sock=taken)
    print("listening", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def _answer(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Report at once, and answer each line that comes."""
    accepted = writer.get_extra_info("socket")
    report = {"port": port, "asked": asked_for(accepted), "peer": accepted.getpeername()[:2]}
    with suppress(ConnectionError):
        writer.write(json.dumps(report).encode() + b"\n")
        while line := await reader.readline():
            writer.write(line)
    writer.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, port: int) -> None:
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, _: bytes, address: Any) -> None:
        self._transport.sendto(json.dumps({"port": self._port, "peer": address[:2]}).encode(), address)


async def send() -> None:
    """Send the probes of each line at the same time, and say on a line what became of them."""
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(await asyncio.gather(*map(_sent, json.loads(line)))), flush=True)


async def _sent(probe: dict[str, Any]) -> dict[str, Any] | None:
    """Send one probe: to a host and port, from a host if told so.

    Returns:
        The receiver's report with `own`, the sender's address; None if nobody answered.
    """
    try:
        async with asyncio.timeout(probe["patience"]):
            return await (_datagram(probe) if probe["udp"] else _connection(probe))
    except (OSError, TimeoutError):
        return None


async def _connection(probe: dict[str, Any]) -> dict[str, Any]:
    source = (probe["source"], 0) if probe["source"] else None
    reader, writer = await asyncio.open_connection(probe["host"], probe["port"], local_addr=source)
    own = writer.get_extra_info("sockname")[:2]
    report: dict[str, Any] = json.loads(await reader.readline())
    writer.write(b"established\n")
    echoed = await reader.readline()
    writer.close()
    return report | {"own": own, "echoed": echoed.decode()}


async def _datagram(probe: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()
    source = (probe["source"], probe["source_port"]) if probe["source"] else None
    transport, _ = await loop.create_datagram_endpoint(
        partial(_Asker, answered), remote_addr=(probe["host"], probe["port"]), local_addr=source
    )
    transport.sendto(b"?")
    try:
        report: dict[str, Any] = json.loads(await answered)
        return report | {"own": transport.get_extra_info("sockname")[:2]}
    finally:
        transport.close()


class _Asker(asyncio.DatagramProtocol):
    def __init__(self, answered: asyncio.Future[bytes]) -> None:
        self._answered = answered

    def datagram_received(self, data: bytes, _: Any) -> None:
        if not self._answered.done():
            self._answered.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)


def transparent(made: socket.socket) -> None:
    """Let a socket have an address that is not this machine's; needs CAP_NET_ADMIN."""
    v4 = made.family == V4
    made.setsockopt(*((socket.IPPROTO_IP, IP_TRANSPARENT) if v4 else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)), 1)


def bound(
    family: socket.AddressFamily, kind: socket.SocketKind, port: int, *, is_transparent: bool, on_loopback: bool = False
) -> socket.socket:
    """Make a socket on a port of all addresses of one family, or of its loopback address."""
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == V6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if is_transparent:
        transparent(made)
    everywhere, loopback = ("0.0.0.0", "127.0.0.1") if family == V4 else ("::", "::1")  # noqa: S104 - in a test's netns
    made.bind((loopback if on_loopback else everywhere, port))
    return made


def asked_for(accepted: socket.socket) -> tuple[str, int]:
    """Find the destination that the client asked for, as a sidecar does."""
    level, size = (socket.IPPROTO_IP, 16) if accepted.family == V4 else (socket.IPPROTO_IPV6, 28)
    try:
        found = accepted.getsockopt(level, SO_ORIGINAL_DST, size)
    except OSError:
        host, port = accepted.getsockname()[:2]
        return host, port
    (port,) = struct.unpack_from("!H", found, 2)
    packed = found[4:8] if accepted.family == V4 else found[8:24]
    return socket.inet_ntop(accepted.family, packed), port


if __name__ == "__main__":
    asyncio.run(send() if len(sys.argv) == 1 else listen(*map(json.loads, sys.argv[1:])))
