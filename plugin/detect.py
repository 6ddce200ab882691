"""What a pod's netns has: a mesh's redirect, whoever wrote it, and addresses; bounded, whatever it holds (F18, F37)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin import netns, nfnetlink, xtables
from plugin.apply import ApplyError
from plugin.nfnetlink import Nfnetlink, TooManyError
from plugin.rtnetlink import Rtnetlink

if TYPE_CHECKING:
    from collections.abc import Collection

    from plugin.netns import NetnsFd
    from plugin.redirect import Family
    from plugin.values import Address

TABLE = "istio-"  # how the names of nftables tables for the mesh begin: ours, and those of Istio's own agent
CHAIN = "ISTIO_"  # and of chains, by whatever backend: ours, istio-init's, and those of Istio's own agent
WELL_KNOWN = ("ISTIO_OUTPUT", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_INBOUND")
MOST = 4096  # tables, or chains, that are looked through; kube-proxy in a pod's netns would have fewer
MOST_ADDRESSES = 256


def holds_redirect(fd: NetnsFd, families: Collection[Family]) -> bool:
    """Look whether a pod's netns has a redirect, by whichever backend and whoever wrote it (F18).

    How it redirects is not compared: what a pod was started with stays, whatever has been set since.

    Raises:
        ApplyError: if the netns cannot be read, or holds more than is looked through.
    """
    try:
        with netns.entered(fd):
            in_nftables = nfnetlink.is_there() and (_by_name(families) or _by_looking_through())
            return in_nftables or any(xtables.has_chain(family, "nat", CHAIN) for family in families)
    except TooManyError as error:
        raise ApplyError(f"its network namespace is not looked through: {error}") from error
    except OSError as error:
        raise ApplyError(f"its network namespace cannot be read: {error}") from error


def addresses(fd: NetnsFd) -> frozenset[Address]:
    """Read which addresses a netns has, its `lo` aside.

    Raises:
        ApplyError: if it cannot be read, or has more than are looked through.
    """
    try:
        with netns.entered(fd), Rtnetlink() as kernel:
            found = frozenset(kernel.addresses(MOST_ADDRESSES + 1))
    except OSError as error:
        raise ApplyError(f"its addresses cannot be read: {error}") from error
    if len(found) > MOST_ADDRESSES:
        raise ApplyError(f"it has more than {MOST_ADDRESSES} addresses")
    return found


def _by_name(families: Collection[Family]) -> bool:
    with Nfnetlink() as kernel:
        return any(kernel.has_chain(family, "nat", chain) for family in families for chain in WELL_KNOWN)


def _by_looking_through() -> bool:
    with Nfnetlink() as kernel:
        if any(name.startswith(TABLE) for name in kernel.tables(MOST)):
            return True
    with Nfnetlink() as kernel:  # a dump that was not read to its end goes with its socket
        return any(name.startswith(CHAIN) for name in kernel.chains(MOST))
