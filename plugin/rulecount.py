"""Counting a redirect's rules without rendering them: a pod's lists multiply, and their product is bounded (F37).

It follows `plugin.rules` chain by chain; a test compares the two over pods of every kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin.redirect import Mode
from plugin.values import EVERYTHING

if TYPE_CHECKING:
    from plugin.redirect import Cidrs, Family, Redirect

NEVER_INBOUND = 4  # ports that the sidecar itself serves
LARGE = 100  # rules; a pod with more queues only with similar ones, and nothing is kept of it; 20 to 40 are usual


def rule_count(redirect: Redirect) -> int:
    """Count the rules of all tables and families."""
    return sum(_raw(redirect) + _mangle(redirect) + _nat(redirect, family) for family in redirect.families)


def _raw(redirect: Redirect) -> int:
    return 8 if redirect.dns_capture else 0


def _mangle(redirect: Redirect) -> int:
    interfaces = len(redirect.exclude_interfaces)
    dropped = 2 if redirect.drop_invalid else 0
    if redirect.mode is Mode.REDIRECT:
        return dropped + interfaces if dropped else 0
    inbound = _inbound(redirect, 2)
    entered = 9 + (inbound and inbound + len(redirect.reroute_interfaces))
    left = 6 + len(redirect.exclude_outbound_ports) + 2 * redirect.dns_capture
    return dropped + entered + left + 2 * interfaces


def _nat(redirect: Redirect, family: Family) -> int:
    interfaces = len(redirect.exclude_interfaces)
    included = _ranges(redirect.include_outbound, family)
    inbound = _inbound(redirect, 1) if redirect.mode is Mode.REDIRECT else 0
    entered = len(redirect.reroute_interfaces) * (included + 1) + (inbound and inbound + 1)
    fixed = 10 - 2 * _captures_loopback(redirect, family) + 5 * redirect.dns_capture + (redirect.mode is Mode.TPROXY)
    ports = 2 * len(redirect.exclude_outbound_ports) + len(redirect.include_outbound_ports)
    left = fixed + ports + _ranges(redirect.exclude_outbound, family) + included + interfaces
    return left + (entered and entered + interfaces) + 1


def _inbound(redirect: Redirect, taken: int) -> int:
    """Count the rules that take TCP from outside, given the rules for each port."""
    included = redirect.include_inbound_ports
    if included is EVERYTHING:
        return NEVER_INBOUND + len(redirect.exclude_inbound_ports) + taken
    return NEVER_INBOUND + taken * len(included) if included else 0


def _ranges(cidrs: Cidrs, family: Family) -> int:
    return 1 if cidrs is EVERYTHING else sum(each.version == family.version for each in cidrs)


def _captures_loopback(redirect: Redirect, family: Family) -> bool:
    cidrs = redirect.include_outbound
    return cidrs is not EVERYTHING and any(each.version == family.version and each.is_loopback for each in cidrs)
