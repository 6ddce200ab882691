"""What rule text may hold, line by line, written from what nft and iptables-restore accept and not from what renders it.

Numbers, ranges and names are checked one by one: a port is 1 to 65535, a range is canonical, a name is an interface's.
"""

from __future__ import annotations

import ipaddress
import re

CHAIN = r"(?:PREROUTING|OUTPUT|ISTIO_(?:INBOUND|REDIRECT|IN_REDIRECT|OUTPUT|OUTPUT_DNS|DIVERT|TPROXY|DROP))"
PORT, ID, RANGE, NAME = (
    r"(?P<port{n}>[0-9]+)",
    r"[0-9]{1,10}",
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


def strange(text: str, *, is_nft: bool) -> str | None:
    """Find the first line that holds what no rule may hold.

    Args:
        text: of nft or of iptables-restore.
        is_nft: which.

    Returns:
        The line, None if all are well.
    """
    form = _NFT if is_nft else _IPTABLES
    return next((line for line in text.split("\n") if not _is_well(line, form)), None)


def _is_well(line: str, form: _Form) -> bool:
    if (line, id(form)) in _SEEN:
        return True
    fits = form.other.fullmatch(line) is not None or (
        form.rule.fullmatch(line) is not None and _tokens_are_well(line, form)
    )
    if fits and len(_SEEN) < 100_000:
        _SEEN.add((line, id(form)))
    return fits


def _tokens_are_well(line: str, form: _Form) -> bool:
    return all(
        _value_is_well(kind, value)
        for matched in form.piece.finditer(line)
        for kind, value in ((name.rstrip("0123456789"), text) for name, text in matched.groupdict().items())
        if value is not None
    )


def _value_is_well(kind: str, value: str) -> bool:
    if kind == "port":
        return 0 < int(value) < 65536 and str(int(value)) == value
    if kind == "name":
        return len(value) <= 15 and value[0].isalpha() and value.isascii()
    network = ipaddress.ip_network(value)  # raises where host bits are set
    return network.prefixlen <= network.max_prefixlen


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


_SEEN: set[tuple[str, int]] = set()
_NFT = _Form(NFT_MATCHES, NFT_TARGETS, NFT_LINES, r"\t\t", "")
_IPTABLES = _Form(IPTABLES_MATCHES, IPTABLES_TARGETS, IPTABLES_LINES, f"-[AD] {CHAIN} ", "-j ")
