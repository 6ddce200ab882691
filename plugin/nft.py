"""A ruleset as nft text, in the form in which nft lists it: what is read back can be compared line by line (F17)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from plugin.ruleset import Jump, RedirectTo, Return

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.redirect import Family
    from plugin.ruleset import Chain, Rule, Ruleset, Table, Verdict
    from plugin.values import Cidr

TABLE = "istio-cni"
NAT_PRIORITY = -100


def transaction(ruleset: Ruleset) -> str:
    """Write the commands that make the netns hold this ruleset: one transaction, the same however often it is applied.

    Own tables are declared, so that deleting them cannot fail, deleted and written; nobody else's are touched.
    """
    lines: list[str] = []
    for table in ruleset.tables:
        name = f"{table.family.value} {TABLE}"
        lines += [f"add table {name}", f"delete table {name}"]
    return "\n".join(lines) + "\n" + listing(ruleset)


def listing(ruleset: Ruleset) -> str:
    """Write the ruleset as nft lists it: priorities and ids as numbers, no names of services."""
    return "".join(line + "\n" for table in ruleset.tables for line in _table(table))


def list_command(family: Family) -> str:
    """Write the command that lists one family's table; libnftables 1.0.6 finds only one table's content a run."""
    return f"list table {family.value} {TABLE}\n"


def difference(expected: str, seen: str) -> str | None:
    """Name the first difference between two listings, in words; None if they are the same but for blanks."""
    wanted, there = _significant(expected), _significant(seen)
    for number, (line, other) in enumerate(zip(wanted, there, strict=False), 1):
        if line != other:
            return f"line {number}: saw {other!r}, expected {line!r}"
    if len(wanted) > len(there):
        return f"line {len(there) + 1}: saw the end, expected {wanted[len(there)]!r}"
    if len(there) > len(wanted):
        return f"line {len(wanted) + 1}: saw {there[len(wanted)]!r}, expected the end"
    return None


def _significant(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line]


def _table(table: Table) -> Iterator[str]:
    yield f"table {table.family.value} {TABLE} {{"
    for index, chain in enumerate(table.chains):
        if index:
            yield ""
        yield from _chain(chain, table.family)
    yield "}"


def _chain(chain: Chain, family: Family) -> Iterator[str]:
    yield f"\tchain {chain.name} {{"
    if chain.hook:
        yield f"\t\ttype nat hook {chain.hook.value} priority {NAT_PRIORITY}; policy accept;"
    for rule in chain.rules:
        yield "\t\t" + " ".join(_rule(rule, family.value))
    yield "\t}"


def _rule(rule: Rule, ip: str) -> Iterator[str]:
    if rule.in_interface is not None:
        yield f'iifname "{rule.in_interface}"'
    if rule.out_interface is not None:
        yield f'oifname "{rule.out_interface}"'
    if rule.source is not None:
        yield f"{ip} saddr {_cidr(rule.source)}"
    if rule.destination is not None:
        yield f"{ip} daddr {_cidr(rule.destination)}"
    if rule.not_destination is not None:
        yield f"{ip} daddr != {_cidr(rule.not_destination)}"
    if rule.protocol is not None:
        yield from _protocol(rule, rule.protocol.value)
    for name, wanted, unwanted in (("skuid", rule.uid, rule.not_uid), ("skgid", rule.gid, rule.not_gid)):
        if wanted is not None:
            yield f"meta {name} {wanted}"
        if unwanted is not None:
            yield f"meta {name} != {unwanted}"
    yield _verdict(rule.verdict)


def _protocol(rule: Rule, name: str) -> Iterator[str]:
    if rule.port is not None:
        yield f"{name} dport {rule.port}"
    elif rule.not_port is not None:
        yield f"{name} dport != {rule.not_port}"
    else:
        yield f"meta l4proto {name}"


def _verdict(verdict: Verdict) -> str:
    match verdict:
        case Return():
            return "return"
        case Jump(chain):
            return f"jump {chain}"
        case RedirectTo(port):
            return f"redirect to :{port}"


def _cidr(cidr: Cidr) -> str:
    """Write a range as the C library does, which nft lists with: ::ffff:10.0.0.0/104, a single address without length."""
    family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
    address = socket.inet_ntop(family, cidr.network_address.packed)
    return address if cidr.prefixlen == cidr.max_prefixlen else f"{address}/{cidr.prefixlen}"
