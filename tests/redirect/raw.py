"""Packets that no ordinary socket sends, from a machine's netns: an echo request, a TCP packet out of the blue.

Prints what came back within half a second: `reply`, `reset` or `silence`.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

TIMEOUT = 0.5  # seconds
SOURCE_PORT = 45678
SYN_ACK, RST = 0x12, 0x04


def echo(host: str) -> str:
    """Send an echo request."""
    v6 = ":" in host
    kind = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    request, reply = (128, 129) if v6 else (8, 0)
    sender = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, kind)
    packet = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1)
    checked = packet if v6 else packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    sender.sendto(checked, (host, 0))
    return _awaited(sender, host, lambda data: data[0] == reply, "reply")


def syn_ack(host: str, port: int, source: str) -> str:
    """Send the second packet of a handshake that nobody began: connection tracking calls it invalid."""
    v6 = ":" in host
    family = socket.AF_INET6 if v6 else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    header = struct.pack("!HHIIBBHHH", SOURCE_PORT, port, 1, 1, 5 << 4, SYN_ACK, 1024, 0, 0)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, host)
    pseudo = ends + (struct.pack("!II", len(header), 6) if v6 else struct.pack("!BBH", 0, 6, len(header)))
    sender.bind((source, 0))
    sender.sendto(header[:16] + struct.pack("!H", _checksum(pseudo + header)) + header[18:], (host, 0))
    return _awaited(sender, host, lambda data: data[13] & RST != 0 and data[2:4] == header[:2], "reset")


def _awaited(receiver: socket.socket, host: str, wanted: object, name: str) -> str:
    assert callable(wanted)
    receiver.settimeout(TIMEOUT)
    try:
        while True:
            data, sender = receiver.recvfrom(2048)
            start = 20 if receiver.family == socket.AF_INET else 0  # the IPv4 header comes along
            if sender[0] == host and wanted(data[start:]):
                return name
    except TimeoutError:
        return "silence"


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


if __name__ == "__main__":
    print(echo(sys.argv[1]) if len(sys.argv) == 2 else syn_ack(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
