"""A ruleset as nft text, in nft's own listing format, so that the rules read back compare line by line (F17)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from plugin.ruleset import (
    Accept,
    Drop,
    Hook,
    Jump,
    Kind,
    Protocol,
    RedirectTo,
    RestoreMark,
    Return,
    SaveMark,
    SetMark,
    SetZone,
    State,
    TproxyTo,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plugin.redirect import Family
    from plugin.ruleset import Chain, Mark, Rule, Ruleset, Table, Target
    from plugin.values import Cidr

TABLE = "istio-cni"
PRIORITIES: Mapping[Kind, int] = {Kind.RAW: -300, Kind.MANGLE: -150, Kind.NAT: -100}  # as in iptables' tables

_NUMBERS = ((Protocol.TCP.value, socket.IPPROTO_TCP), (Protocol.UDP.value, socket.IPPROTO_UDP))
STATES: Mapping[State, str] = {
    State.KNOWN: "state established,related",
    State.INVALID: "state invalid",
    State.REPLY: "direction reply",
}
WORDS: Mapping[Target, str] = {
    Return(): "return",
    Accept(): "accept",
    Drop(): "drop",
    SaveMark(): "ct mark set meta mark",
    RestoreMark(): "meta mark set ct mark",
}

_listings: WeakKeyDictionary[Ruleset, str] = WeakKeyDictionary()  # each as long as its ruleset exists


def transaction(ruleset: Ruleset) -> str:
    """Render the commands that install this ruleset: one idempotent transaction."""
    return removal(ruleset) + listing(ruleset)


def removal(ruleset: Ruleset) -> str:
    """Render the removal of all our tables in the families of a ruleset; no foreign tables are touched.

    It declares our tables, so that deleting them cannot fail, and deletes them.
    """
    families = dict.fromkeys(table.family for table in ruleset.tables)
    names = [f"{family.value} {table_name(kind)}" for family in families for kind in Kind]
    return "".join(f"add table {name}\ndelete table {name}\n" for name in names)


def listing(ruleset: Ruleset) -> str:
    """Render the ruleset as nft lists it: priorities, marks and ids as numbers, no service names."""
    text = _listings.get(ruleset)
    if text is None:
        text = _listings[ruleset] = "".join(line + "\n" for table in ruleset.tables for line in _table(table))
    return text


def own_listing(listed: str) -> str:
    """Replace protocol numbers in an nft listing with the names that `listing` uses.

    By default the library names those in /etc/protocols, which not every host and image has, so it is configured to
    list numbers.
    """
    for name, number in _NUMBERS:
        listed = listed.replace(f"meta l4proto {number:d} ", f"meta l4proto {name} ")
    return listed


def list_command(table: Table) -> str:
    """Render the command that lists one table; libnftables 1.0.6 returns only one table's content per run."""
    return f"list table {table.family.value} {table_name(table.kind)}\n"


def table_name(kind: Kind) -> str:
    """Name our table of a kind, the same in each family."""
    return f"{TABLE}-{kind.value}"


def _table(table: Table) -> Iterator[str]:
    yield f"table {table.family.value} {table_name(table.kind)} {{"
    for index, chain in enumerate(table.chains):
        if index:
            yield ""
        yield from _chain(chain, table)
    yield "}"


def _chain(chain: Chain, table: Table) -> Iterator[str]:
    yield f"\tchain {chain.name} {{"
    if chain.hook:
        priority = PRIORITIES[table.kind]
        yield f"\t\ttype {_type(chain.hook, table.kind)} hook {chain.hook.value} priority {priority}; policy accept;"
    for each in chain.rules:
        for line in lines(each, table.family):
            yield "\t\t" + line
    yield "\t}"


def _type(hook: Hook, kind: Kind) -> str:
    """A chain of type route makes the kernel reroute a packet whose mark has changed, as after mangle OUTPUT."""
    if kind is Kind.NAT:
        return "nat"
    return "route" if (kind, hook) == (Kind.MANGLE, Hook.OUTPUT) else "filter"


def lines(rule: Rule, family: Family) -> Iterator[str]:
    """Render one rule, in one line or two."""
    matches = list(_matches(rule, family.value))
    yield " ".join([*matches, _statement(rule.target)])
    if isinstance(rule.target, TproxyTo):  # without a listener nft continues, whereas iptables drops
        yield " ".join([*matches, "drop"])


def _matches(rule: Rule, ip: str) -> Iterator[str]:
    yield from _given(
        ('iifname "{}"', rule.in_interface),
        ('oifname "{}"', rule.out_interface),
        (f"{ip} saddr {{}}", _range(rule.source)),
        (f"{ip} daddr {{}}", _range(rule.destination)),
        (f"{ip} daddr != {{}}", _range(rule.not_destination)),
    )
    if rule.protocol:
        name = rule.protocol.value
        ports = (f"{name} sport {{}}", rule.source_port), (f"{name} dport {{}}", rule.port)
        yield from list(_given(*ports, (f"{name} dport != {{}}", rule.not_port))) or [f"meta l4proto {name}"]
    yield from _given(
        ("meta skuid {}", rule.uid),
        ("meta skuid != {}", rule.not_uid),
        ("meta skgid {}", rule.gid),
        ("meta skgid != {}", rule.not_gid),
        ("meta mark 0x{:08x}", rule.mark),
        ("meta mark != 0x{:08x}", rule.not_mark),
        ("ct mark 0x{:08x}", rule.connection_mark),
        ("ct {}", rule.state and STATES[rule.state]),
    )


def _given(*matches: tuple[str, str | int | None]) -> Iterator[str]:
    return (text.format(value) for text, value in matches if value is not None)


def _statement(target: Target) -> str:
    match target:
        case Jump(chain):
            return f"jump {chain}"
        case RedirectTo(port):
            return f"redirect to :{port}"
        case TproxyTo(port, mark):
            return f"tproxy to :{port} meta mark set {_mark(mark)} accept"
        case SetMark(mark):
            return f"meta mark set {_mark(mark)}"
        case SetZone(zone):
            return f"ct zone set {zone}"
        case _:
            return WORDS[target]


def _mark(mark: Mark) -> str:
    return f"0x{mark:08x}"


def _range(cidr: Cidr | None) -> str | None:
    """Render a range as nft does through the C library: ::ffff:10.0.0.0/104, a single address without a length."""
    if cidr is None:
        return None
    family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
    address = socket.inet_ntop(family, cidr.network_address.packed)
    return address if cidr.prefixlen == cidr.max_prefixlen else f"{address}/{cidr.prefixlen}"
