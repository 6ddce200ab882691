"""Packets that no ordinary socket sends, from a machine's netns: an echo request, a TCP packet out of the blue.

Prints what came back: `reply`, `reset` or `silence`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

PATIENCE = 5.0  # seconds for the answer to an echo request
SOURCE_PORT = 45678
SYN_ACK, RST = 0x12, 0x04


def echo(host: str) -> str:
    """Send an echo request, and await its answer."""
    v6 = ":" in host
    family, kind = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, reply = (128, 129) if v6 else (8, 0)
    packet = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1)
    checked = packet if v6 else packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    with socket.socket(family, socket.SOCK_RAW, kind) as sender:
        sender.settimeout(PATIENCE)
        sender.sendto(checked, (host, 0))
        try:
            while _received(sender, host)[:1] != bytes([reply]):
                pass
        except TimeoutError:
            return "silence"
    return "reply"


def syn_ack(host: str, port: int, source: str) -> str:
    """Send the second packet of a handshake that nobody began: connection tracking calls it invalid.

    An echo request goes the same way right after it: once that is answered, an answer to the first would be there.
    """
    v6 = ":" in host
    family = socket.AF_INET6 if v6 else socket.AF_INET
    header = struct.pack("!HHIIBBHHH", SOURCE_PORT, port, 1, 1, 5 << 4, SYN_ACK, 1024, 0, 0)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, host)
    pseudo = ends + (struct.pack("!II", len(header), 6) if v6 else struct.pack("!BBH", 0, 6, len(header)))
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender:
        sender.bind((source, 0))
        sender.sendto(header[:16] + struct.pack("!H", _checksum(pseudo + header)) + header[18:], (host, 0))
        if echo(host) != "reply":
            raise SystemExit(f"{host} does not even answer an echo request")
        sender.setblocking(False)
        try:
            while True:
                data = _received(sender, host)
                if data[2:4] == header[:2] and data[13] & RST:
                    return "reset"
        except BlockingIOError:
            return "silence"


def _received(receiver: socket.socket, host: str) -> bytes:
    """Receive what comes next from a host: what follows the IP header; empty if it came from another."""
    data, sender = receiver.recvfrom(2048)
    start = 20 if receiver.family == socket.AF_INET else 0  # the IPv4 header comes along
    return data[start:] if sender[0] == host else b""


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


if __name__ == "__main__":
    print(echo(sys.argv[1]) if len(sys.argv) == 2 else syn_ack(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
