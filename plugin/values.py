"""The values of annotations and env, parsed into types; no text of a pod passes beyond this module.

Every parser takes the key, for its errors, and the text. Blanks around commas are fine, duplicates collapse, and the digits
and letters are ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum
from typing import TYPE_CHECKING, Final, NewType, TypeAlias, TypeVar

from plugin.keys import LONGEST_LIST

if TYPE_CHECKING:
    from collections.abc import Callable

Port = NewType("Port", int)
Uid = NewType("Uid", int)
Gid = NewType("Gid", int)
Interface = NewType("Interface", str)
Cidr: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Everything(Enum):
    """The value `*` of a list."""

    EVERYTHING = "*"


EVERYTHING: Final = Everything.EVERYTHING

PORTS = "ports from 1 to 65535 with commas between them"
CIDRS = "IP ranges such as 10.0.0.0/8 or fd00::/8 with commas between them"
INTERFACES = (
    "interface names of at most 15 of the characters A-Z a-z 0-9 _ . -, a letter first, with commas between them"
)
BOOLEAN = "true or false"
MOST, MOST_INTERFACES = 1024, 16  # in a list: each interface of a virtual machine gets a rule for each range (F32)

_PORT = re.compile(r"[0-9]{1,5}")
_CIDR = re.compile(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?")
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_BOOLEANS = {
    word: value
    for value, words in ((True, "1 t T TRUE true True"), (False, "0 f F FALSE false False"))
    for word in words.split()
}

_T = TypeVar("_T")


class InvalidValue(ValueError):  # noqa: N818 - it is the value that is invalid
    """An invalid value: its key, what was seen, what is allowed."""

    def __init__(self, key: str, seen: str, allowed: str) -> None:
        super().__init__(f"{key}: saw {seen!r:.120}, expected {allowed}")
        self.key, self.seen, self.allowed = key, seen, allowed


def ports(key: str, text: str) -> tuple[Port, ...]:
    """Parse a list of ports; empty is none.

    Raises:
        InvalidValue: for anything but ports from 1 to 65535.
    """
    return _list(key, text, _port, PORTS)


def ports_or_all(key: str, text: str) -> tuple[Port, ...] | Everything:
    """Parse a list of ports, or `*`."""
    return EVERYTHING if text.strip() == "*" else _list(key, text, _port, f"* or {PORTS}")


def cidrs(key: str, text: str) -> tuple[Cidr, ...]:
    """Parse a list of IP ranges, v4 and v6; host bits are cleared, a bare address is a range of one; empty is none."""
    return _list(key, text, _cidr, CIDRS)


def cidrs_or_all(key: str, text: str) -> tuple[Cidr, ...] | Everything:
    """Parse a list of IP ranges, or `*`."""
    return EVERYTHING if text.strip() == "*" else _list(key, text, _cidr, f"* or {CIDRS}")


def interfaces(key: str, text: str) -> tuple[Interface, ...]:
    """Parse a list of interface names; empty is none."""
    return _list(key, text, _interface, INTERFACES, MOST_INTERFACES)


def boolean(key: str, text: str) -> bool:
    """Parse a boolean like Go's strconv.ParseBool, with which the sidecar reads the same env; empty is false."""
    if not text:
        return False
    value = maybe_boolean(text)
    if value is None:
        raise InvalidValue(key, text, BOOLEAN)
    return value


def maybe_boolean(text: str | None) -> bool | None:
    """Parse a boolean; return None for anything else, which is no error."""
    return _BOOLEANS.get(text or "")


def _list(key: str, text: str, parse: Callable[[str], _T], allowed: str, most: int = MOST) -> tuple[_T, ...]:
    if not text.strip(" \t"):
        return ()
    if len(text) > LONGEST_LIST:
        raise InvalidValue(key, text, f"at most {LONGEST_LIST} characters, of {allowed}")
    if text.count(",") >= most:
        raise InvalidValue(key, text, f"at most {most} {allowed}")
    found: dict[_T, None] = {}
    for token in text.split(","):
        try:
            found[parse(token.strip(" \t"))] = None
        except ValueError:
            raise InvalidValue(key, text, f"{allowed} ({token.strip(' ')!r:.40} is none)") from None
    return tuple(found)


def _port(token: str) -> Port:
    if not _PORT.fullmatch(token) or not 0 < int(token) < 65536:
        raise ValueError(token)
    return Port(int(token))


def _cidr(token: str) -> Cidr:
    if not _CIDR.fullmatch(token):
        raise ValueError(token)
    return ipaddress.ip_network(token, strict=False)


def _interface(token: str) -> Interface:
    if not _INTERFACE.fullmatch(token):
        raise ValueError(token)
    return Interface(token)
