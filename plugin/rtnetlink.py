"""Addresses and routes of the current thread's netns, through rtnetlink(7): what a redirect needs besides its rules."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from itertools import islice
from typing import TYPE_CHECKING

from plugin.netlink import ACK, CREATE, DUMP_INTERRUPTED, EXCL, REQUEST, Message, Netlink, aligned
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plugin.ruleset import Route
    from plugin.values import Address

LO = 1  # the index of `lo` in every network namespace
PASS_THROUGH = socket.inet_pton(socket.AF_INET6, "::6")

NEWLINK, NEWADDR, DELADDR, GETADDR = 16, 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE, NEWRULE, DELRULE, GETRULE = 24, 25, 26, 32, 33, 34
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
ADDRESS_HEADER = 8  # bytes of struct ifaddrmsg
RTA_OIF, RTA_TABLE, RTPROT_BOOT, RTN_LOCAL, RTN_BLACKHOLE = 4, 15, 3, 2, 6
FRA_FWMARK, FRA_TABLE, FR_ACT_TO_TBL = 10, 15, 1
RT_SCOPE_LINK, RT_SCOPE_HOST = 253, 254
IFF_UP, SIOCGIFFLAGS = 1, 0x8913
IFREQ = struct.Struct("16sH22x")  # struct ifreq: the name of an interface, its flags
ROUTE_HEADER = RULE_HEADER = 12
IPV6_OFF = (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)  # for an interface; entirely
AF: Mapping[Family, int] = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


class Ipv6OffError(OSError):
    """The kernel refused a request because IPv6 is off for `lo`, or entirely."""


class Rtnetlink(Netlink):
    """A netlink socket for addresses and routes of one netns."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    @property
    def is_lo_up(self) -> bool:
        """Whether `lo` is up; asked by ioctl, which waits for no other request as netlink's do."""
        _, flags = IFREQ.unpack(fcntl.ioctl(self._socket, SIOCGIFFLAGS, IFREQ.pack(b"lo", 0)))
        return bool(flags & IFF_UP)

    def add_pass_through_address(self) -> bool:
        """Add ::6/128 to `lo`, the source of the proxy's inbound pass-through in IPv6 (127.0.0.6 needs none).

        Returns:
            Whether it was added; False if it existed.

        Raises:
            Ipv6OffError: if IPv6 is off.
            OSError: if the kernel refuses it for another reason.
        """
        try:
            return self._add(NEWADDR, _pass_through_address(), "adding ::6/128 to lo")
        except OSError as error:
            if error.errno in IPV6_OFF:
                raise Ipv6OffError(*error.args) from error
            raise

    def delete_pass_through_address(self) -> None:
        """Remove ::6/128 from `lo`."""
        self._change(DELADDR, 0, _pass_through_address(), "deleting ::6/128 from lo")

    def add(self, route: Route) -> None:
        """Deliver marked packets to the pod itself; idempotent.

        If IPv6 is off for `lo`, those not addressed to the pod are dropped, so that they do not bypass the sidecar.

        Raises:
            OSError: if the kernel refuses it.
        """
        up = struct.pack("BxHiII", socket.AF_UNSPEC, 0, LO, IFF_UP, IFF_UP)
        self._change(NEWLINK, 0, up, "setting lo up")  # no route leads to an interface that is down
        adding = f"adding the route in table {route.table}"
        try:
            self._add(NEWROUTE, _route(route), adding)
        except PermissionError:
            if route.family is Family.V4:
                raise
            self._add(NEWROUTE, _route(route, RTN_BLACKHOLE), adding)
        if not self._has_rule(route):  # with CREATE | EXCL the kernel adds it again, before the other
            self._add(NEWRULE, _rule(route), f"adding the rule for mark {route.mark}")

    def delete(self, route: Route) -> None:
        """Undo `add`, even a partial one."""
        for kind, body in ((DELRULE, _rule(route)), (DELROUTE, _route(route))):
            try:
                self._change(kind, 0, body, f"deleting what leads to table {route.table}")
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    raise

    def missing(self, route: Route) -> str | None:
        """Describe the missing part of a route as an ip(8) command; None if it is complete."""
        command = "ip rule" if route.family is Family.V4 else "ip -6 rule"
        if not self._has_rule(route):
            return f"{command}: fwmark {route.mark:#x} lookup {route.table} is not there"
        if not any(_is_route(each, route) for each in list(self._listed(GETROUTE, route.family))):
            return f"{command.replace('rule', 'route')}: local default dev lo table {route.table} is not there"
        return None

    def addresses(self, most: int) -> Iterator[Address]:
        """Iterate over the addresses of all interfaces but `lo`, up to a limit.

        Raises:
            OSError: if the kernel returns an error.
        """
        found = (each for each in self._listed(GETADDR) if _interface(each) != LO)
        return filter(None, map(_address, islice(found, most)))

    def global_addresses(self, family: Family, most: int) -> Iterator[Address]:
        """Iterate over a family's addresses of neither link nor host scope, including `lo`; arguments as for `addresses`."""
        found = islice(self._listed(GETADDR, family), most)
        return filter(None, map(_address, (each for each in found if each.body[3] < RT_SCOPE_LINK)))

    def _has_rule(self, route: Route) -> bool:
        return any(_is_rule(each, route) for each in list(self._listed(GETRULE, route.family)))

    def _add(self, kind: int, body: bytes, doing: str) -> bool:
        """Add something; False if it existed."""
        try:
            self._change(kind, CREATE | EXCL, body, doing)
        except FileExistsError:
            return False
        return True

    def _change(self, kind: int, flags: int, body: bytes, doing: str) -> None:
        self.send(Message(kind, body, REQUEST | ACK | flags).encode())
        if code := self.answer().code:
            raise OSError(code, f"{doing}: {os.strerror(code)}")

    def _listed(self, kind: int, family: Family | None = None) -> Iterator[Message]:
        body = struct.pack("B11x", AF[family] if family else socket.AF_UNSPEC)
        return self.dump(kind, body, "listing addresses or routes", ignored=DUMP_INTERRUPTED)


def _pass_through_address() -> bytes:
    header = struct.pack("BBBBi", socket.AF_INET6, 128, IFA_F_NODAD, RT_SCOPE_HOST, LO)
    return header + struct.pack("HH16s", 20, IFA_LOCAL, PASS_THROUGH)


def _route(route: Route, kind: int = RTN_LOCAL) -> bytes:
    header = struct.pack("8BI", AF[route.family], 0, 0, 0, 0, RTPROT_BOOT, RT_SCOPE_HOST, kind, 0)
    return header + _attribute(RTA_TABLE, route.table) + _attribute(RTA_OIF, LO)


def _rule(route: Route) -> bytes:
    header = struct.pack("8BI", AF[route.family], 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    return header + _attribute(FRA_TABLE, route.table) + _attribute(FRA_FWMARK, route.mark)


def _is_rule(message: Message, route: Route) -> bool:
    attributes = _attributes(message.body[RULE_HEADER:])
    seen = (message.body[7], attributes.get(FRA_FWMARK), attributes.get(FRA_TABLE))
    return seen == (FR_ACT_TO_TBL, route.mark, route.table)


def _is_route(message: Message, route: Route) -> bool:
    attributes = _attributes(message.body[ROUTE_HEADER:])
    length, kind = message.body[1], message.body[7]
    kinds = (RTN_LOCAL,) if route.family is Family.V4 else (RTN_LOCAL, RTN_BLACKHOLE)
    return kind in kinds and (length, attributes.get(RTA_OIF), attributes.get(RTA_TABLE)) == (0, LO, route.table)


def _interface(message: Message) -> int:
    index: int = struct.unpack_from("I", message.body, 4)[0]
    return index


def _address(message: Message) -> Address | None:
    """Decode an address: the interface's own, not the peer's of a point-to-point link."""
    lengths: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    data, found = message.body[ADDRESS_HEADER:], {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        found[kind] = data[4:length]
        data = data[max(4, aligned(length)) :]
    own = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS) or b""
    return ipaddress.ip_address(own) if len(own) == lengths.get(message.body[0]) else None


def _attribute(kind: int, value: int) -> bytes:
    return struct.pack("HHI", 8, kind, value)


def _attributes(data: bytes) -> dict[int, int]:
    """Decode the attributes of four bytes, the only relevant ones."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        if length == 8:
            found[kind] = struct.unpack_from("I", data, 4)[0]
        data = data[max(4, aligned(length)) :]
    return found
