"""The content of a pod's netns for its redirect, as values: tables of chains of rules, which a backend renders as text.

Tables and chains have the names known from istio-init, so that people and tools recognise them.
`plugin.rules` builds them.
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
    """A table, with its name in iptables; a packet traverses them in this order."""

    RAW = "raw"
    MANGLE = "mangle"
    NAT = "nat"


class Hook(Enum):
    """The hook at which the kernel enters a chain."""

    PREROUTING = "prerouting"
    OUTPUT = "output"


class Protocol(Enum):
    """A transport protocol, with its usual name."""

    TCP = "tcp"
    UDP = "udp"


class State(Enum):
    """The connection tracking state of a packet: known connection, invalid, or from the replying side."""

    KNOWN = "known"
    INVALID = "invalid"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Return:
    """Leave the packet unchanged in this chain."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Leave the packet unchanged in this table."""


@dataclass(frozen=True, slots=True)
class Drop:
    """End the packet."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Continue in another chain, and return from its end."""

    chain: str


@dataclass(frozen=True, slots=True)
class RedirectTo:
    """Deliver to this port of the pod itself; SO_ORIGINAL_DST returns the original destination. Ends the table."""

    port: Port


@dataclass(frozen=True, slots=True)
class TproxyTo:
    """Deliver to the transparent listener on this port with unchanged addresses, and mark the packet; ends the table.

    Without a listener the packet is dropped: it must not bypass the sidecar.
    """

    port: Port
    mark: Mark


@dataclass(frozen=True, slots=True)
class SetMark:
    """Mark the packet, and continue."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class SaveMark:
    """Copy the packet's mark to the connection, and continue."""


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Copy the connection's mark to the packet, and continue."""


@dataclass(frozen=True, slots=True)
class SetZone:
    """Track the packet's connection in a zone, and continue; the first such rule counts."""

    zone: Zone


Target: TypeAlias = Return | Accept | Drop | Jump | RedirectTo | TproxyTo | SetMark | SaveMark | RestoreMark | SetZone


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The target for a packet that meets all given matches.

    Ports belong to `protocol`, which must be given with them; ids are those of the sending process.
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
    """Rules in order; with a hook, the kernel enters the chain there (its name is then the hook's, in capitals)."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The chains of one family and kind; each precedes those that jump to it."""

    family: Family
    kind: Kind
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Delivers packets of a family with this mark to the pod itself, whatever their destination.

    `ip rule fwmark MARK lookup TABLE` and `ip route local default dev lo table TABLE`.
    """

    family: Family
    mark: Mark
    table: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Ruleset:
    """Everything a pod's netns holds: applied as a whole or not at all. Compared by identity, so that its text is cached."""

    tables: tuple[Table, ...]
    routes: tuple[Route, ...] = ()
