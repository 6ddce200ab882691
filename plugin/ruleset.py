"""What a pod's netns holds for its redirect, as values: tables of chains of rules, from which a backend renders its text.

Tables and chains have the names that the field knows from istio-init, so that people and tools recognise them.
`plugin.rules` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NewType, TypeAlias

if TYPE_CHECKING:
    from plugin.redirect import Family
    from plugin.values import Cidr, Gid, Port, Uid

Mark = NewType("Mark", int)  # of a packet, or of a connection; 32 bits
Zone = NewType("Zone", int)  # of connection tracking: entries of two zones never meet


class Kind(Enum):
    """A table by its name in iptables; the kernel takes a packet through them in this order."""

    RAW = "raw"
    MANGLE = "mangle"
    NAT = "nat"


class Hook(Enum):
    """Where the kernel enters a chain."""

    PREROUTING = "prerouting"
    OUTPUT = "output"


class Protocol(Enum):
    """A transport protocol, by its name everywhere."""

    TCP = "tcp"
    UDP = "udp"


class State(Enum):
    """What connection tracking makes of a packet: of a known connection, of none that can be, from who did not begin it."""

    KNOWN = "known"
    INVALID = "invalid"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Return:
    """Leave the packet as it is, as far as this chain goes."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Leave the packet as it is, as far as this table goes."""


@dataclass(frozen=True, slots=True)
class Drop:
    """End the packet."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain, and come back from its end."""

    chain: str


@dataclass(frozen=True, slots=True)
class RedirectTo:
    """Deliver to this port of the pod itself; SO_ORIGINAL_DST tells the destination asked for. Ends the table."""

    port: Port


@dataclass(frozen=True, slots=True)
class TproxyTo:
    """Deliver to the transparent listener on this port, addresses as they are, and mark the packet; ends the table.

    Without a listener the packet is dropped: it must not go round.
    """

    port: Port
    mark: Mark


@dataclass(frozen=True, slots=True)
class SetMark:
    """Mark the packet, and go on."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class SaveMark:
    """Give the connection the packet's mark, and go on."""


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Give the packet the connection's mark, and go on."""


@dataclass(frozen=True, slots=True)
class SetZone:
    """Track the packet's connection in a zone, and go on; the first rule that says so counts."""

    zone: Zone


Target: TypeAlias = Return | Accept | Drop | Jump | RedirectTo | TproxyTo | SetMark | SaveMark | RestoreMark | SetZone


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to a packet that all the given matches fit.

    Ports are those of `protocol`, which must be given with them; ids are of the process that sent the packet.
    """

    target: Target
    in_interface: str | None = None
    out_interface: str | None = None
    source: Cidr | None = None
    destination: Cidr | None = None
    not_destination: Cidr | None = None
    protocol: Protocol | None = None
    source_port: Port | None = None
    port: Port | None = None
    not_port: Port | None = None
    uid: Uid | None = None
    not_uid: Uid | None = None
    gid: Gid | None = None
    not_gid: Gid | None = None
    mark: Mark | None = None
    not_mark: Mark | None = None
    connection_mark: Mark | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; with a hook, the kernel enters it there (then its name is the hook's, in capitals)."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The chains of one family and kind; each stands before those that jump to it."""

    family: Family
    kind: Kind
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Packets of a family with this mark are delivered to the pod itself, wherever they are addressed.

    `ip rule fwmark MARK lookup TABLE` and `ip route local default dev lo table TABLE`.
    """

    family: Family
    mark: Mark
    table: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Ruleset:
    """All that a pod's netns holds: applied as a whole or not at all. Compared by identity, so that its text is kept."""

    tables: tuple[Table, ...]
    routes: tuple[Route, ...] = ()
