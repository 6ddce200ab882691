"""Walks one packet through a ruleset: each rule that it traverses, and where it arrives. Pure; reads nothing from the kernel.

The packet is the first of its connection, so connection tracking has no entry for it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from plugin.redirect import Family
from plugin.rules import LO, LOOPBACK
from plugin.ruleset import (
    Accept,
    Drop,
    Hook,
    Jump,
    Kind,
    Mark,
    Protocol,
    RedirectTo,
    RestoreMark,
    Return,
    SaveMark,
    SetMark,
    SetZone,
    TproxyTo,
)
from plugin.values import Gid, Port, Uid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.ruleset import Chain, Rule, Ruleset
    from plugin.values import Address

EPHEMERAL, NO_MARK = Port(40000), Mark(0)
APPLICATION = Uid(1000)  # any uid and gid other than the sidecar's


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet on entry to the first chain.

    It arrives on `in_interface`, or a process in the pod sends it on `out_interface`: exactly one is set.
    """

    source: Address
    destination: Address
    port: Port
    protocol: Protocol = Protocol.TCP
    source_port: Port = EPHEMERAL
    in_interface: str | None = None
    out_interface: str | None = None
    uid: Uid | None = None
    gid: Gid | None = None
    mark: Mark = NO_MARK

    @property
    def family(self) -> Family:
        """Its address family."""
        return Family.V4 if self.destination.version == Family.V4.version else Family.V6


class Outcome(Enum):
    """The fate of a packet."""

    REDIRECTED = "redirected"
    TPROXIED = "delivered as it is, by TPROXY"
    UNTOUCHED = "left as it is"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Step:
    """A rule that the packet traverses: its chain, and whether all of its matches apply."""

    kind: Kind
    chain: str
    rule: Rule
    fits: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """The whole walk: the rules in the packet's order, its fate, and the port that it reaches."""

    steps: tuple[Step, ...]
    outcome: Outcome
    port: Port


class _End(Exception):  # noqa: N818 - not an error
    """The packet leaves a table, or the ruleset."""

    def __init__(self, outcome: Outcome | None = None, port: Port | None = None) -> None:
        super().__init__()
        self.outcome, self.port = outcome, port


def walk(ruleset: Ruleset, packet: Packet) -> Walk:
    """Walk a packet through a ruleset.

    A packet that leaves on `lo`, as do all that nat redirects on output, arrives on it again, but does not traverse nat twice:
    the kernel consults nat once per connection.
    """
    state = _Way(ruleset, packet)
    if packet.in_interface:
        ended = state.hook(Hook.PREROUTING, tuple(Kind))
    else:
        ended = state.hook(Hook.OUTPUT, tuple(Kind))
        if ended and ended.outcome is Outcome.REDIRECTED:
            own = LOOPBACK[packet.family].network_address
            state.packet = replace(state.packet, destination=own, port=ended.port or packet.port, out_interface=LO)
        if state.packet.out_interface == LO:
            state.packet = replace(state.packet, in_interface=LO, out_interface=None, uid=None, gid=None)
            ended = state.hook(Hook.PREROUTING, (Kind.RAW, Kind.MANGLE)) or ended
    outcome = ended.outcome if ended and ended.outcome else Outcome.UNTOUCHED
    return Walk(tuple(state.steps), outcome, (ended and ended.port) or packet.port)


@dataclass
class _Way:
    """The packet's current state, and the rules that it traversed."""

    ruleset: Ruleset
    packet: Packet
    steps: list[Step] = field(default_factory=list)
    connection_mark: Mark = NO_MARK

    def hook(self, hook: Hook, kinds: tuple[Kind, ...]) -> _End | None:
        """Traverse the tables of a hook, in the kernel's order; return the packet's fate, None if it continues."""
        tables = {each.kind: each for each in self.ruleset.tables if each.family is self.packet.family}
        for kind in kinds:
            chains = tables[kind].chains if kind in tables else ()
            by_name = {chain.name: chain for chain in chains}
            for chain in chains:
                if chain.hook is hook:
                    try:
                        self._chain(kind, chain, by_name)
                    except _End as end:
                        if end.outcome:
                            return end
        return None

    def _chain(self, kind: Kind, chain: Chain, chains: Mapping[str, Chain]) -> None:
        for rule in chain.rules:
            fits = self._fits(rule)
            self.steps.append(Step(kind, chain.name, rule, fits))
            if not fits:
                continue
            if isinstance(rule.target, Return):
                return
            if isinstance(rule.target, Jump):
                self._chain(kind, chains[rule.target.chain], chains)
            else:
                self._apply(rule)

    def _apply(self, rule: Rule) -> None:
        match rule.target:
            case Accept():
                raise _End
            case Drop():
                raise _End(Outcome.DROPPED)
            case RedirectTo(port):
                raise _End(Outcome.REDIRECTED, port)
            case TproxyTo(port, _):
                raise _End(Outcome.TPROXIED, port)
            case SetMark(mark):
                self.packet = replace(self.packet, mark=mark)
            case SaveMark():
                self.connection_mark = self.packet.mark
            case RestoreMark():
                self.packet = replace(self.packet, mark=self.connection_mark)
            case SetZone() | Return() | Jump():
                pass  # a zone has no effect on the packet itself

    def _fits(self, rule: Rule) -> bool:
        packet = self.packet
        required = (
            (rule.in_interface, packet.in_interface),
            (rule.out_interface, packet.out_interface),
            (rule.protocol, packet.protocol),
            (rule.source_port, packet.source_port),
            (rule.port, packet.port),
            (rule.uid, packet.uid),
            (rule.gid, packet.gid),
            (rule.mark, packet.mark),
            (rule.connection_mark, self.connection_mark),
        )
        excluded = (
            (rule.not_port, packet.port),
            (rule.not_uid, packet.uid),
            (rule.not_gid, packet.gid),
            (rule.not_mark, packet.mark),
        )
        return (
            rule.state is None  # the first packet of a connection is neither established nor invalid nor a reply
            and all(value is None or value == actual for value, actual in required)
            and all(value is None or value != actual for value, actual in excluded)
            and (rule.source is None or packet.source in rule.source)
            and (rule.destination is None or packet.destination in rule.destination)
            and (rule.not_destination is None or packet.destination not in rule.not_destination)
        )


def build_packet(
    own: tuple[Address, ...], to: Address, port: Port, uid: Uid = APPLICATION, gid: Gid | None = None
) -> Packet:
    """Make the TCP packet that a process in a pod sends.

    To the pod's `own` addresses and to loopback it goes over `lo`. The gid is the uid unless it is given.
    """
    itself = to in own or to.is_loopback
    unspecified = ipaddress.ip_address("0.0.0.0" if to.version == Family.V4.version else "::")  # noqa: S104
    source = to if itself else next((each for each in own if each.version == to.version), unspecified)
    interface = LO if itself else "eth0"
    gid = Gid(uid) if gid is None else gid
    return Packet(source=source, destination=to, port=port, out_interface=interface, uid=uid, gid=gid)
