"""Which families of a pod are redirected, and why: depends on its addresses and where its sidecar listens (F38). Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from plugin.keys import DUAL_STACK
from plugin.parameters import Ipv6
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plugin.redirect import Redirect
    from plugin.values import Address

COMPATIBLE = ipaddress.IPv6Network("::/96")  # never routed (RFC 4291, 2.5.5.1); ::6 of it is put on `lo` by a redirect
NAMES = {(Family.V4,): "IPv4", (Family.V4, Family.V6): "IPv4 and IPv6"}


def in_order(reported: Iterable[Address], current: Iterable[Address]) -> tuple[Address, ...] | None:
    """Combine a pod's addresses, the first family first; link-local ones do not count.

    If the order is unknown, the pod may be an IPv6 pod: any IPv6 address then comes first, so that it is redirected.

    Args:
        reported: prevResult's addresses, in its order.
        current: the current addresses of its netns, in any order.

    Returns:
        All of them, or None if none is known.
    """
    reported, current = _usable(reported), _usable(current)
    known = set(reported)
    if known and (not current or not known.isdisjoint(current)):
        return (*reported, *(each for each in current if each not in known))
    return tuple(sorted((*current, *reported), key=lambda each: -each.version)) or None


def is_due(addresses: tuple[Address, ...] | None, ipv6: Ipv6) -> bool:
    """Whether IPv6 must be redirected, for an address or the setting; otherwise its redirect is a precaution."""
    return ipv6 is Ipv6.ALWAYS or any(each.version == Family.V6.version for each in _usable(addresses or ()))


def why(redirect: Redirect, addresses: tuple[Address, ...] | None, ipv6: Ipv6) -> str:
    """Describe which families are redirected, and why.

    Args:
        redirect: how the pod is redirected.
        addresses: the addresses that decided it; None: none was known.
        ipv6: the agent's setting.
    """
    return f"{NAMES[redirect.families]}, as {_reason(redirect, addresses, ipv6)}"


def _reason(redirect: Redirect, addresses: tuple[Address, ...] | None, ipv6: Ipv6) -> str:
    if ipv6 is not Ipv6.AUTO:
        return f"the agent's setting ipv6 is {ipv6.value}"
    first = next(iter(_usable(addresses or ())), None)
    if Family.V6 not in redirect.families:
        return f"its first address is {first} and {DUAL_STACK} is not true" if first else f"{DUAL_STACK} is not true"
    if first and first.version == Family.V6.version:
        return f"it has the address {first}"
    return f"{DUAL_STACK} is true" if first else "its addresses are not known yet"


def _usable(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(each for each in addresses if not (each.is_link_local or each.is_loopback or each in COMPATIBLE))
