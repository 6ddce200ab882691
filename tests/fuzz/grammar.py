"""What rule text may hold, line by line, written from what nft and iptables-restore accept and not from what renders it.

Numbers, ranges and names are checked one by one: a port is 1 to 65535, a range is canonical, a name is an interface's.
They are what a pod may have chosen in a rule, so whoever asks gets them, to hold them against what the pod said.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias

Value: TypeAlias = tuple[str, str]  # kind (port, id, range or name) and text

CHAIN = r"(?:PREROUTING|OUTPUT|ISTIO_(?:INBOUND|REDIRECT|IN_REDIRECT|OUTPUT|OUTPUT_DNS|DIVERT|TPROXY|DROP))"
PORT, ID, RANGE, NAME = (
    r"(?P<port{n}>[0-9]+)",
    r"(?P<id{n}>[0-9]{1,10})",
    r"(?P<range{n}>[0-9a-f:./]+)",
    r"(?P<name{n}>[A-Za-z0-9_.-]+)",
)
MARK = r"0x[0-9a-f]{1,8}"

NFT_MATCHES = [
    f'iifname "{NAME}"',
    f'oifname "{NAME}"',
    f"ip6? saddr {RANGE}",
    f"ip6? daddr (?:!= )?{RANGE}",
    r"meta l4proto (?:tcp|udp)",
    f"(?:tcp|udp) [sd]port (?:!= )?{PORT}",
    f"meta sk[ug]id (?:!= )?{ID}",
    f"meta mark (?:!= )?{MARK}",
    f"ct mark {MARK}",
    r"ct (?:state (?:invalid|established,related)|direction reply)",
]
NFT_TARGETS = [
    "return|accept|drop",
    f"jump {CHAIN}",
    f"redirect to :{PORT}",
    f"tproxy to :{PORT} meta mark set {MARK} accept",
    f"meta mark set (?:{MARK}|ct mark)",
    "ct mark set meta mark",
    "ct zone set [12]",
]
NFT_LINES = [
    r"(?:add|delete) table ip6? istio-cni-(?:raw|mangle|nat)",
    r"table ip6? istio-cni-(?:raw|mangle|nat) \{",
    rf"\tchain {CHAIN} \{{",
    r"\t\ttype (?:nat|filter|route) hook (?:prerouting|output) priority -(?:300|150|100); policy accept;",
    r"\t?\}|",
]
IPTABLES_MATCHES = [
    f"-s {RANGE}",
    f"(?:! )?-d {RANGE}",
    f"-[io] {NAME}",
    "-p (?:tcp|udp)",
    f"-m (?:tcp|udp)(?: (?:! )?--[sd]port {PORT})",
    f"-m owner (?:! )?--[ug]id-owner {ID}",
    f"-m (?:conn)?mark (?:! )?--mark {MARK}",
    "-m conntrack --(?:ctstate (?:RELATED,ESTABLISHED|INVALID)|ctdir REPLY)",
    "-m comment --comment istio-cni",
]
IPTABLES_TARGETS = [
    f"RETURN|ACCEPT|DROP|{CHAIN}",
    f"REDIRECT --to-ports {PORT}",
    f"TPROXY --on-port {PORT} --on-ip (?:0[.]0[.]0[.]0|::) --tproxy-mark {MARK}/0xffffffff",
    f"MARK --set-xmark {MARK}/0xffffffff",
    "CONNMARK --(?:save|restore)-mark --nfmask 0xffffffff --ctmask 0xffffffff",
    "CT --zone [12]",
]
IPTABLES_LINES = [r"\*(?:raw|mangle|nat)", rf":{CHAIN} - \[0:0\]", "COMMIT", ""]


class StrangeLine(AssertionError):  # noqa: N818 - it is the line that is strange
    """A line that holds what no rule may hold; it is the message."""


def values(text: str, *, is_nft: bool) -> set[Value]:
    """Find the ports, ids, ranges and names in the text of rules.

    Args:
        text: of nft or of iptables-restore.
        is_nft: which.

    Raises:
        StrangeLine: for the first line that is none of a rule's, or holds a value that is not canonical.
    """
    form = _NFT if is_nft else _IPTABLES
    return {value for line in text.split("\n") for value in _of(line, form)}


def _of(line: str, form: _Form) -> frozenset[Value]:
    key = (line, id(form))
    found = _KNOWN.get(key)
    if found is None:
        found = _read(line, form)
        if len(_KNOWN) < 100_000:
            _KNOWN[key] = found
    return found


def _read(line: str, form: _Form) -> frozenset[Value]:
    if form.other.fullmatch(line):
        return frozenset()
    found = frozenset(
        (name.rstrip("0123456789"), text)
        for matched in form.piece.finditer(line)
        for name, text in matched.groupdict().items()
        if text is not None
    )
    if not form.rule.fullmatch(line) or not all(_is_canonical(*each) for each in found):
        raise StrangeLine(line)
    return found


def _is_canonical(kind: str, text: str) -> bool:
    if kind == "name":
        return len(text) <= 15 and text[0].isalpha() and text.isascii()
    if kind == "range":
        try:
            ipaddress.ip_network(text)
        except ValueError:  # also where host bits are set
            return False
        return True
    return str(int(text)) == text and (kind == "id" or 0 < int(text) < 65536)


def _numbered(patterns: list[str]) -> str:
    """Join alternatives; a group's name may stand in a pattern once only."""
    return "|".join(f"(?:{pattern.replace('{n}', str(number))})" for number, pattern in enumerate(patterns))


def _unnamed(patterns: list[str]) -> str:
    return "(?:" + "|".join(f"(?:{re.sub('[?]P<[a-z]+[{]n[}]>', '?:', pattern)})" for pattern in patterns) + ")"


class _Form:
    def __init__(self, matches: list[str], targets: list[str], lines: list[str], begin: str, between: str) -> None:
        self.rule = re.compile(f"{begin}(?:{_unnamed(matches)} )*{between}{_unnamed(targets)}")
        self.piece = re.compile(_numbered([*matches, *(f"{between}(?:{target})" for target in targets)]))
        self.other = re.compile(_unnamed(lines))


_KNOWN: dict[tuple[str, int], frozenset[Value]] = {}
_NFT = _Form(NFT_MATCHES, NFT_TARGETS, NFT_LINES, r"\t\t", "")
_IPTABLES = _Form(IPTABLES_MATCHES, IPTABLES_TARGETS, IPTABLES_LINES, f"-[AD] {CHAIN} ", "-j ")
