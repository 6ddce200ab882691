"""A ruleset as iptables-restore text, in the form in which iptables-save lists it; the same for legacy and nft variant.

The rules in built-in chains bear a comment that distinguishes them from others'.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from plugin.redirect import Family
from plugin.ruleset import (
    Accept,
    Drop,
    Jump,
    Kind,
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

    from plugin.ruleset import Chain, Mark, Rule, Ruleset, Target
    from plugin.values import Cidr

CHAINS = frozenset(
    "ISTIO_" + name
    for name in ("INBOUND", "REDIRECT", "IN_REDIRECT", "OUTPUT", "OUTPUT_DNS", "DIVERT", "TPROXY", "DROP")
)
COMMENT = "-m comment --comment istio-cni"
STATES: Mapping[State, str] = {
    State.KNOWN: "--ctstate RELATED,ESTABLISHED",
    State.INVALID: "--ctstate INVALID",
    State.REPLY: "--ctdir REPLY",
}
WHOLE = "0xffffffff"
WORDS: Mapping[Target, str] = {
    Return(): "RETURN",
    Accept(): "ACCEPT",
    Drop(): "DROP",
    SaveMark(): f"CONNMARK --save-mark --nfmask {WHOLE} --ctmask {WHOLE}",
    RestoreMark(): f"CONNMARK --restore-mark --nfmask {WHOLE} --ctmask {WHOLE}",
}
# The options of our rules in built-in chains. A pod with NET_ADMIN may break a line within a comment of its own; whatever
# looks like a rule of ours there and has other options is not repeated to iptables-restore.
OPTIONS = {
    "-s", "-d", "-i", "-o", "-p", "-m", "-j", "--sport", "--dport", "--uid-owner", "--gid-owner", "--mark", "--ctstate",
    "--ctdir", "--comment", "--save-mark", "--restore-mark", "--nfmask", "--ctmask", "--to-ports", "--on-port", "--on-ip",
    "--tproxy-mark", "--set-xmark", "--zone",
}  # fmt: skip
_KINDS = {kind.value: kind for kind in Kind}

Own = dict[Kind, dict[str, list[str]]]  # by table and chain: the arguments of each rule


def transaction(ruleset: Ruleset, family: Family, saved: str) -> str:
    """Render the input of `iptables-restore --noflush` for this ruleset; no foreign rules are touched.

    It omits lines for built-in chains: they cost the nft variant 30 ms.

    Args:
        ruleset: the rules to install.
        family: v4 and v6 are rendered separately.
        saved: the current rules, as iptables-save lists them.
    """
    wanted, there = _wanted(ruleset, family), own(saved)
    tables = ((kind, wanted.get(kind, {}), there.get(kind, {})) for kind in Kind)
    return "".join("\n".join(_changes(*table)) + "\n" for table in tables if table[1] or table[2])


def removal(saved: str) -> str:
    """Render the removal of all our rules: nat first, as it is the last to be written, and proves that the others are there."""
    there = own(saved)
    return "".join("\n".join(_changes(kind, {}, there[kind])) + "\n" for kind in reversed(Kind) if kind in there)


def listing(ruleset: Ruleset, family: Family) -> str:
    """Render the ruleset in the form of `own_listing`."""
    return _listed(_wanted(ruleset, family))


def own_listing(saved: str) -> str:
    """Reduce an iptables-save listing to our rules, sorted by chain (the two variants list them differently)."""
    return _listed(own(saved))


def own(saved: str) -> Own:
    """Find our rules in an iptables-save listing."""
    found: Own = {}
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        name, _, given = line.partition(" ")
        if line.startswith("*"):
            kind = _KINDS.get(line[1:])
            chains = found.setdefault(kind, {}) if kind else {}
        elif name == "-A":
            chain, _, rest = given.partition(" ")
            if chain in CHAINS or _is_ours(rest):
                chains.setdefault(chain, []).append(rest)
        elif name[1:] in CHAINS and name.startswith(":"):
            chains.setdefault(name[1:], [])
    return {kind: chains for kind, chains in found.items() if chains}


def _is_ours(rule: str) -> bool:
    """Whether a rule of a built-in chain bears our comment, and no option that ours never have."""
    options = {word for word in rule.split() if word.startswith("-")}
    return f" {COMMENT} " in f" {rule}" and options <= OPTIONS and '"' not in rule


def arguments(rule: Rule, family: Family, *, built_in: bool = False) -> str:
    """Render one rule's arguments after the chain's name."""
    comment = [COMMENT] if built_in else []
    return " ".join([*_matches(rule), *comment, "-j", _target(rule.target, family)])


def _wanted(ruleset: Ruleset, family: Family) -> Own:
    tables = (table for table in ruleset.tables if table.family is family)
    return {table.kind: {chain.name: _rules(chain, family) for chain in table.chains} for table in tables}


def _rules(chain: Chain, family: Family) -> list[str]:
    return [arguments(each, family, built_in=chain.hook is not None) for each in chain.rules]


def _changes(kind: Kind, wanted: Mapping[str, list[str]], there: Mapping[str, list[str]]) -> Iterator[str]:
    """Declaring a chain flushes an existing one; rules in built-in chains are deleted one by one."""
    yield f"*{kind.value}"
    for name in dict.fromkeys((*wanted, *there)):
        if name in CHAINS:
            yield f":{name} - [0:0]"
        else:
            yield from (f"-D {name} {each}" for each in there.get(name, ()))
    for name, rules in wanted.items():
        yield from (f"-A {name} {each}" for each in rules)
    yield from (f"-X {name}" for name in there if name in CHAINS and name not in wanted)
    yield "COMMIT"


def _listed(own: Own) -> str:
    lines: list[str] = []
    for kind in Kind:
        chains = own.get(kind, {})
        lines += [f"*{kind.value}"] if chains else []
        lines += [f":{name}" for name in sorted(chains) if name in CHAINS]
        lines += [f"-A {name} {each}" for name in sorted(chains) for each in chains[name]]
    return "".join(line + "\n" for line in lines)


def _matches(rule: Rule) -> Iterator[str]:
    yield from _given(
        ("-s {}", _range(rule.source)),
        ("-d {}", _range(rule.destination)),
        ("! -d {}", _range(rule.not_destination)),
        ("-i {}", rule.in_interface),
        ("-o {}", rule.out_interface),
    )
    if rule.protocol:
        yield f"-p {rule.protocol.value}"
        ports = ("--sport {}", rule.source_port), ("--dport {}", rule.port), ("! --dport {}", rule.not_port)
        if given := list(_given(*ports)):
            yield " ".join(["-m", rule.protocol.value, *given])
    yield from _given(
        ("-m owner --uid-owner {}", rule.uid),
        ("-m owner ! --uid-owner {}", rule.not_uid),
        ("-m owner --gid-owner {}", rule.gid),
        ("-m owner ! --gid-owner {}", rule.not_gid),
        ("-m mark --mark {:#x}", rule.mark),
        ("-m mark ! --mark {:#x}", rule.not_mark),
        ("-m connmark --mark {:#x}", rule.connection_mark),
        ("-m conntrack {}", rule.state and STATES[rule.state]),
    )


def _given(*matches: tuple[str, str | int | None]) -> Iterator[str]:
    return (text.format(value) for text, value in matches if value is not None)


def _target(target: Target, family: Family) -> str:
    match target:
        case Jump(chain):
            return chain
        case RedirectTo(port):
            return f"REDIRECT --to-ports {port}"
        case TproxyTo(port, mark):
            any_address = "0.0.0.0" if family is Family.V4 else "::"  # noqa: S104 - nothing is bound to it
            return f"TPROXY --on-port {port} --on-ip {any_address} --tproxy-mark {_mark(mark)}"
        case SetMark(mark):
            return f"MARK --set-xmark {_mark(mark)}"
        case SetZone(zone):
            return f"CT --zone {zone}"
        case _:
            return WORDS[target]


def _mark(mark: Mark) -> str:
    return f"{mark:#x}/{WHOLE}"


def _range(cidr: Cidr | None) -> str | None:
    """Render a range as iptables-save does through the C library: always with a length, but omit the range of all."""
    if cidr is None or not cidr.prefixlen:
        return None
    family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, cidr.network_address.packed)}/{cidr.prefixlen}"
