"""Detecting the content of a pod's netns within bounds: any mesh's redirect, and addresses (F18, F37)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from plugin import netns, nfnetlink, xtables
from plugin.apply import ApplyError
from plugin.nfnetlink import NFPROTO, NFPROTO_INET, Nfnetlink, TooManyError
from plugin.redirect import Family
from plugin.rtnetlink import Rtnetlink

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from plugin.netns import NetnsFd
    from plugin.values import Address

TABLE = "istio-"  # prefix of the mesh's nftables tables: ours, and those of Istio's own agent
CHAIN = "ISTIO_"  # prefix of chains in any backend: ours, istio-init's, and those of Istio's own agent
IPTABLES = "nat"  # the table in which iptables redirects, also by its nft variant
OUTPUT = "OUTPUT"  # its chain that what a pod sends enters
MOST = 4096  # examined chains; kube-proxy in a pod's netns would have fewer
MOST_RULES = 16384  # examined rules of a table
MOST_ADDRESSES = 256


def redirected(fd: NetnsFd, families: Collection[Family]) -> frozenset[Family]:
    """Return which of these families a pod's netns redirects, with any backend and written by anybody (F18).

    The proof is a way from what the pod sends to a redirect in a chain of the mesh: tables are written one by one, and
    chains before the rules that lead to them, so that half a redirect also has chains (F47). The rules are not compared
    any further: a pod keeps those that it started with, whatever the settings are now.

    Raises:
        ApplyError: if the netns cannot be read, or holds more than is examined.
    """
    try:
        with netns.entered(fd):
            by_nft = _by_nft(families) if nfnetlink.is_there() else frozenset()
            return by_nft | {each for each in families if each not in by_nft and _by_legacy(each)}
    except TooManyError as error:
        raise ApplyError(f"its network namespace is not inspected: {error}") from error
    except OSError as error:
        raise ApplyError(f"its network namespace cannot be read: {error}") from error


def addresses(fd: NetnsFd) -> frozenset[Address]:
    """Read the addresses of a netns, except those on `lo`.

    Raises:
        ApplyError: if they cannot be read, or are more than `MOST_ADDRESSES`.
    """
    try:
        with netns.entered(fd), Rtnetlink() as kernel:
            found = frozenset(kernel.addresses(MOST_ADDRESSES + 1))
    except OSError as error:
        raise ApplyError(f"its addresses cannot be read: {error}") from error
    if len(found) > MOST_ADDRESSES:
        raise ApplyError(f"it has more than {MOST_ADDRESSES} addresses")
    return found


def global_addresses(fd: NetnsFd) -> tuple[Address, ...]:
    """Read the first addresses of each family by which others reach a netns, including those on `lo`.

    Raises:
        ApplyError: if they cannot be read.
    """
    found: list[Address] = []
    try:
        with netns.entered(fd):
            for family in (Family.V6, Family.V4):
                with Rtnetlink() as kernel:  # closing the socket discards an unfinished dump
                    found += kernel.global_addresses(family, MOST_ADDRESSES)
        return tuple(found)
    except OSError as error:
        raise ApplyError(f"its addresses cannot be read: {error}") from error


def _by_nft(families: Collection[Family]) -> frozenset[Family]:
    """Look first where iptables redirects, however much else there is; then in tables that are named as the mesh's."""
    with Nfnetlink() as kernel:
        found = {
            each
            for each in families
            if kernel.is_at_output(NFPROTO[each], IPTABLES, OUTPUT) and _leads(kernel, NFPROTO[each], IPTABLES, OUTPUT)
        }
    if not found.issuperset(families):
        with Nfnetlink() as kernel:  # closing the socket discards an unfinished dump
            chains = [each for each in kernel.chains(MOST) if each.is_at_output and each.table.startswith(TABLE)]
        with Nfnetlink() as kernel:
            for number, table, chain, _ in chains:
                if _leads(kernel, number, table, chain):
                    found.update(each for each in Family if number in (NFPROTO[each], NFPROTO_INET))
    return frozenset(found.intersection(families))


def _leads(kernel: Nfnetlink, family: int, table: str, chain: str) -> bool:
    """Whether a chain of nftables leads to the mesh's redirect."""
    owned = table.startswith(TABLE)
    rules = partial(kernel.rules, family, table, most=MOST_RULES)
    return _reaches(chain, rules, lambda name: owned or name.startswith(CHAIN))


def _by_legacy(family: Family) -> bool:
    rules = xtables.rules(family, IPTABLES)
    return _reaches(OUTPUT, lambda name: rules.get(name, ()), lambda name: name.startswith(CHAIN))


def _reaches(start: str, rules: Callable[[str], Iterable[nfnetlink.Step]], owned: Callable[[str], bool]) -> bool:
    """Whether jumps lead from a chain to a redirect in a chain of the mesh; each chain is read once."""
    seen, left, count = {start}, [start], 0
    while left:
        chain = left.pop()
        for step in rules(chain):
            count += 1
            if count > MOST_RULES:
                raise TooManyError(f"more than {MOST_RULES} rules lead on from {start}")
            if step.redirects and owned(chain):
                return True
            if step.jump and step.jump not in seen:
                seen.add(step.jump)
                left.append(step.jump)
    return False
