"""Detecting the content of a pod's netns within bounds: any mesh's redirect, and addresses (F18, F37)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin import netns, nfnetlink, xtables
from plugin.apply import ApplyError
from plugin.nfnetlink import Nfnetlink, TooManyError
from plugin.redirect import Family
from plugin.rtnetlink import Rtnetlink

if TYPE_CHECKING:
    from collections.abc import Collection

    from plugin.netns import NetnsFd
    from plugin.values import Address

TABLE = "istio-"  # prefix of the mesh's nftables tables: ours, and those of Istio's own agent
CHAIN = "ISTIO_"  # prefix of chains in any backend: ours, istio-init's, and those of Istio's own agent
WELL_KNOWN = ("ISTIO_OUTPUT", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_INBOUND")
MOST = 4096  # examined tables or chains; kube-proxy in a pod's netns would have fewer
MOST_ADDRESSES = 256


def holds_redirect(fd: NetnsFd, families: Collection[Family]) -> bool:
    """Return whether a pod's netns has a redirect of any of these families; errors as for `redirected`."""
    return bool(redirected(fd, families))


def redirected(fd: NetnsFd, families: Collection[Family]) -> frozenset[Family]:
    """Return which of these families a pod's netns redirects, with any backend and written by anybody (F18).

    The rules are not compared: a pod keeps those that it started with, whatever the settings are now.

    Raises:
        ApplyError: if the netns cannot be read, or holds more than is examined.
    """
    try:
        with netns.entered(fd):
            found: set[Family] = set()
            if nfnetlink.is_there():
                found = set(_by_name(families))
                if not found.issuperset(families):
                    found |= _by_looking_through()
            found |= {each for each in families if each not in found and xtables.has_chain(each, "nat", CHAIN)}
            return frozenset(found.intersection(families))
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


def _by_name(families: Collection[Family]) -> list[Family]:
    with Nfnetlink() as kernel:
        return [each for each in families if any(kernel.has_chain(each, "nat", chain) for chain in WELL_KNOWN)]


def _by_looking_through() -> set[Family]:
    found: set[Family] = set()
    with Nfnetlink() as kernel:
        for families, name in kernel.tables(MOST):
            if name.startswith(TABLE):
                found.update(families)
    with Nfnetlink() as kernel:  # closing the socket discards an unfinished dump
        for families, name in kernel.chains(MOST):
            if name.startswith(CHAIN):
                found.update(families)
    return found
